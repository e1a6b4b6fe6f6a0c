"""Is everything as if nothing had happened? What there is, without what differs from one run to the next."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil

from components.manifests.image_volume import model_image
from local import stack
from tests.campaign.world import SUBJECT, World

#: Kinds that an InferenceService and this program make, or that a controller makes for them.
KINDS = (
    "inferenceservices.serving.kserve.io",
    "servingruntimes.serving.kserve.io",
    "deployments",
    "pods",
    "services",
    "endpoints",
    "configmaps",
    "secrets",
    "serviceaccounts",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "networkpolicies.networking.k8s.io",
    "horizontalpodautoscalers",
    "ingresses",
    "jobs",
)

#: Not compared, as former ones stay: they tell which Deployment a pod belongs to.
REPLICA_SETS = "replicasets"

#: What follows from a run's own weights. The same one in two places is the same one in each run, so these are
#: numbered as they appear: a cluster that still has the former image has another number than the outputs.
_OWN = re.compile(r"(?P<DIGEST>[0-9a-f]{64})|(?P<REVISION>\b[0-9a-f]{16}\b)|(?P<MODEL>\bm\d{5}\b)")
#: What else differs between two runs that did the same: generated names, times, addresses.
_VARYING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"kube-api-access-[a-z0-9]{5}"), "TOKEN"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?"), "TIME"),
    (re.compile(r"10\.(244|96)\.\d+\.\d+"), "ADDRESS"),
)
_DIGEST = re.compile(r"([^\s\"/]+:\d+)/([a-z0-9/._-]+)@(sha256:[0-9a-f]{64})")


def fingerprint(world: World) -> dict[str, Any]:
    """Return what there is of the subject: in Pulumi's state, its outputs, the cluster, among processes."""
    state = json.loads(world.pulumi("stack", "export", "--stack", SUBJECT))["deployment"]
    rows = state.get("resources", [])
    outputs = world.pulumi("stack", "output", "--json", "--stack", SUBJECT)
    found = {
        "pending": [operation["type"] for operation in state.get("pending_operations") or []],
        "resources": sorted(
            (row["urn"], json.dumps(row.get("inputs", {}), sort_keys=True), bool(row.get("delete")))
            for row in rows
        ),
        "outputs": outputs,
        "objects": objects(world.objects(SUBJECT, *KINDS, REPLICA_SETS)),
        "namespaces": world.kubectl("get", "namespaces", "-o", "name").split(),
        "clusterWide": world.kubectl(
            "get", "clusterroles,clusterrolebindings,priorityclasses", "-o", "name"
        ).split(),
        "processes": left_running(world),
        "locks": [path.name for path in world.backend.glob(f".pulumi/locks/organization/*/{SUBJECT}/*")],
    }
    return comparable(found)


def comparable(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return it with placeholders in place of what differs between two runs that did the same."""
    text = json.dumps(found, sort_keys=True)
    for pattern, placeholder in _VARYING:
        text = pattern.sub(placeholder, text)
    document: dict[str, Any] = json.loads(text)
    for key, value in document.items():
        if isinstance(value, list):  # in an order that does not follow from the digests either
            document[key] = sorted(value, key=lambda one: _OWN.sub("", json.dumps(one)))
    seen: dict[str, str] = {}
    counts: Counter[str] = Counter()

    def numbered(match: re.Match[str]) -> str:
        if match[0] not in seen:
            kind = str(match.lastgroup)
            counts[kind] += 1
            seen[match[0]] = f"{kind}-{counts[kind]}"
        return seen[match[0]]

    same: dict[str, Any] = json.loads(_OWN.sub(numbered, json.dumps(document, sort_keys=True)))
    return same


def other_than_locked(world: World) -> list[str]:
    """Return where the subject is not the image that follows from its lock: in the outputs, in its pod."""
    wanted = world.digests[SUBJECT]
    outputs = json.loads(world.pulumi("stack", "output", "--json", "--stack", SUBJECT))
    try:
        image = str(model_image(world.pod(SUBJECT)))
    except LookupError as error:
        image = str(error)
    told = {"output modelDigest": str(outputs.get("modelDigest")), "the pod's image": image}
    return [
        f"{what} is {value}, and its lock makes {wanted}"
        for what, value in told.items()
        if not value.endswith(wanted)
    ]


def objects(documents: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each object but the ReplicaSets: kind, name, and what it is.

    A pod with a controller goes by the name of that one, or of the ReplicaSet's Deployment: its own name is
    generated, and differs from one run to the next.
    """
    above = {
        document["metadata"]["uid"]: owner
        for document in documents
        if document["kind"] == "ReplicaSet" and (owner := _owner(document))
    }
    return sorted(_object(document, above) for document in documents if document["kind"] != "ReplicaSet")


def _owner(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the reference to the object's controller; None where it has none."""
    references = document["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def _name(document: dict[str, Any], above: Mapping[str, dict[str, Any]]) -> str:
    owner = _owner(document) if document["kind"] == "Pod" else None
    if owner is None:
        return str(document["metadata"]["name"])
    owner = above.get(owner["uid"], owner)
    return f"of {owner['kind']} {owner['name']}"


def _object(document: dict[str, Any], above: Mapping[str, dict[str, Any]]) -> list[str]:
    metadata, name = document["metadata"], _name(document, above)
    spec = {key: value for key, value in document.items() if key not in {"metadata", "status", "kind"}}
    if document["kind"] == "Endpoints":
        spec = {"addresses": sum(len(subset.get("addresses", [])) for subset in spec.get("subsets") or [])}
    if document["kind"] == "ConfigMap" and name == "kube-root-ca.crt":
        spec = {}
    shown: dict[str, Any] = {"spec": spec, "labels": _labels(metadata)}
    if document["kind"] == "Pod":
        conditions = document["status"].get("conditions", [])
        shown["ready"] = [c["status"] for c in conditions if c["type"] == "Ready"]
        shown["going"] = "deletionTimestamp" in metadata
    return [document["kind"], name, json.dumps(shown, sort_keys=True)]


def _labels(metadata: dict[str, Any]) -> dict[str, str]:
    return {k: v for k, v in (metadata.get("labels") or {}).items() if k != "pod-template-hash"}


def left_running(world: World) -> list[str]:
    """Return the command lines of what a Pulumi run of the campaign has left behind."""
    found = []
    for process in stack.processes(world.instance):
        with suppress(psutil.Error):
            found.append(" ".join(process.cmdline()[:4]))
    return found


def differences(now: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return what is not the same, one line each; nothing where all is."""
    lines = []
    for key, before in wanted.items():
        after = now[key]
        if after == before:
            continue
        if isinstance(before, list):
            lost, new = _without(before, after), _without(after, before)
            for entry in lost:
                other = next((one for one in new if one[:-1] == entry[:-1] and len(entry) > 1), None)
                if other and isinstance(entry, list):
                    new.remove(other)
                    lines.append(f"{key}: {' '.join(map(str, entry[:-1]))}: {_change(entry[-1], other[-1])}")
                else:
                    lines.append(f"{key}: lost {_short(entry)}")
            lines += [f"{key}: new {_short(entry)}" for entry in new]
        else:
            lines.append(f"{key}: {_short(before)} became {_short(after)}")
    return lines


def _without(entries: list[Any], others: list[Any]) -> list[Any]:
    """Return what is in one list and not in the other, as often as it is there more often."""
    left = list(others)
    found = []
    for entry in entries:
        if entry in left:
            left.remove(entry)
        else:
            found.append(entry)
    return found


def _change(before: Any, after: Any) -> str:
    """Return two long texts from where they begin to differ."""
    one, other = str(before), str(after)
    start = max(0, next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0) - 60)
    return f"…{one[start : start + 200]}… became …{other[start : start + 200]}…"


def _short(entry: Any) -> str:
    text = entry if isinstance(entry, str) else json.dumps(entry)
    return text if len(text) < 600 else f"{text[:600]} …"


# --- images -----------------------------------------------------------------------------------------


def incomplete_images(world: World) -> list[str]:
    """Return what is referred to, in state or cluster, and not whole in the registry.

    Every blob is read and its digest computed, each time anew: a registry that has cut one is found out, also
    where it was whole before.
    """
    text = world.pulumi("stack", "export", "--stack", SUBJECT)
    text += json.dumps(world.objects(SUBJECT, *KINDS[:4]))
    wanted = {
        (name, digest) for host, name, digest in _DIGEST.findall(text) if host == world.instance.registry
    }
    whole: set[str] = set()
    return [
        f"{name}@{digest}: {fault}"
        for name, digest in sorted(wanted)
        if (fault := _fault(world, name, digest, whole))
    ]


def _fault(world: World, name: str, digest: str, whole: set[str]) -> str:
    """Return what is wrong with an image; whole: paths of blobs that this check has read already."""
    content = _get(world, f"/v2/{name}/manifests/{digest}", digest)
    if isinstance(content, str):
        return f"manifest {content}"
    document = json.loads(content)
    for child in document.get("manifests", []):
        if fault := _fault(world, name, child["digest"], whole):
            return fault
    for blob in [document.get("config"), *document.get("layers", [])]:
        path = f"/v2/{name}/blobs/{blob['digest']}" if blob else ""
        if path and path not in whole:
            found = _get(world, path, blob["digest"])
            if isinstance(found, str):
                return f"blob {blob['digest']} {found}"
            whole.add(path)
    return ""


def _get(world: World, path: str, digest: str) -> bytes | str:
    """Return the content, or a fault in words."""
    host, _, port = world.instance.registry.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        accepted = ", ".join(
            f"application/vnd.{kind}"
            for kind in (
                "oci.image.index.v1+json",
                "oci.image.manifest.v1+json",
                "docker.distribution.manifest.v2+json",
            )
        )
        connection.request("GET", path, headers={"Accept": accepted})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"cannot be read: {error!r}"
    finally:
        connection.close()
    if answer.status != 200:
        return f"HTTP {answer.status}"
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        return "has another content"
    return content
