"""`validate`: whether pods can reach a hub, and who can reach them; tried, from inside and from beside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.pods import is_ready, why
from components.config.network import IngressSettings
from components.config.settings import Settings
from components.manifests.image_volume import model_image
from components.manifests.service import CLOSED_POD, CONTAINER, RESTRICTED, RESTRICTED_POD
from operations.next_step import brought
from operations.validation_report import Line

HUB = ("huggingface.co", 443)
#: Seconds for one attempt to connect.
CONNECT = 4
#: Seconds for the whole of it: where no server of names answers, a libc asks on for most of a minute.
ATTEMPT = 90.0
#: Seconds until each node knows a new pod by its address, and lets it in where a policy says so.
LET_IN = 20.0

#: The pod beside the model's, which no policy holds back; each run has one of its own, with another end.
CONTROL = "modelcar-validate-control"
CONTROL_PATIENCE = 90.0


Target = tuple[str, int]
OPEN, CLOSED, UNTRIED = "connects", "does not connect", "cannot be tried"
_EGRESS, _INGRESS = "egress impossible", "ingress as it is set"
_ENFORCES_NONE = (
    "this network enforces no NetworkPolicies, or one allows it: on GKE use Dataplane V2 "
    "(gcloud container clusters describe … --format='value(networkConfig.datapathProvider)')"
)
_PROVES_NOTHING = "nothing can be reached from beside the pod either, so this proves nothing"


def network(cluster: Cluster, settings: Settings, pod: JSON) -> Iterator[Line]:
    """Try to connect to the hub, and to what is there for sure, from the pod and from one beside it.

    And from the one beside it to the pod, where the stack says who may. What cannot be tried is told as such.
    """
    image = model_image(pod)
    if image is None:
        yield Line(_EGRESS, None, "the pod has no modelcar to try it from", "")
        return
    sidecar = any(box["name"] == "modelcar" for box in pod["spec"]["containers"])
    box = "modelcar" if sidecar else CONTAINER
    inside: Mapping[Target, str] = {}
    try:
        targets = _targets(cluster)
        inside = _attempts(cluster, settings.namespace, pod["metadata"]["name"], box, targets)
        if UNTRIED in inside.values():
            yield Line(_EGRESS, None, "the server's image has no busybox, python3 or bash to try it with", "")
            return
        model = (str(pod["status"].get("podIP")), settings.server_port)
        with _control(cluster, settings, image, str(pod["spec"].get("nodeName"))) as control:
            beside = _attempts(cluster, settings.namespace, control, "control", targets)
            to_model = _attempt_ingress(cluster, settings, control, model) if settings.ingress else CLOSED
    except ClusterError as error:
        yield from _not_tried(settings, inside, error)
        return
    outside = any(beside[target] == OPEN for target in targets)
    yield _egress(inside, beside, outside=outside)
    if settings.ingress:
        yield _ingress(settings, settings.ingress, model, to_model, outside=outside)


def _not_tried(settings: Settings, inside: Mapping[Target, str], error: ClusterError) -> Iterator[Line]:
    """Yield what is known all the same; inside: from the pod, nothing where that was not tried either."""
    seen = [f"{host}:{port} from the pod {inside[host, port]}" for host, port in inside]
    why_not = "; ".join([*seen, f"not tried from beside it: {error}"] if seen else [f"not tried: {error}"])
    fix = f"mend that; you need the rights to make a pod in {settings.namespace}, and to use pods/exec there"
    if OPEN in inside.values():
        yield Line(_EGRESS, False, why_not, _ENFORCES_NONE)
    else:
        yield Line(_EGRESS, None, why_not, fix)
    if settings.ingress:
        yield Line(_INGRESS, None, f"not tried: {error}", fix)


def _attempt_ingress(cluster: Cluster, settings: Settings, control: str, model: Target) -> str:
    """Try to connect to the model from the pod beside it; more than once where that pod is let in.

    A network plugin allows a pod that has just been made only after it has seen its address.
    """
    let_in = settings.ingress is not None and settings.namespace in settings.ingress.namespaces
    deadline = time.monotonic() + (LET_IN if let_in else 0)
    while True:
        found = _attempts(cluster, settings.namespace, control, "control", [model])[model]
        if found == OPEN or time.monotonic() >= deadline:
            return found
        time.sleep(1)


def _egress(inside: Mapping[Target, str], beside: Mapping[Target, str], *, outside: bool) -> Line:
    seen = "; ".join(
        f"{host}:{port} from the pod {inside[host, port]}, from beside it {beside[host, port]}"
        for host, port in inside
    )
    if OPEN in inside.values():
        return Line(_EGRESS, False, seen, _ENFORCES_NONE)
    if not outside:
        return Line(_EGRESS, None, seen, _PROVES_NOTHING)
    return Line(_EGRESS, True, seen)


def _ingress(settings: Settings, own: IngressSettings, model: Target, found: str, *, outside: bool) -> Line:
    """Judge what came of a connection to the model. outside: who tried it could connect elsewhere."""
    may = settings.namespace in own.namespaces
    seen = (
        f"{model[0]}:{model[1]} from beside the pod {found}, its namespace is {'' if may else 'not '}let in"
    )
    if may == (found == OPEN):
        certain = may or outside
        return Line(_INGRESS, certain or None, seen, "" if certain else _PROVES_NOTHING)
    fix = f"{brought(settings)}; or another NetworkPolicy keeps it out" if may else _ENFORCES_NONE
    return Line(_INGRESS, False, seen, fix)


def _targets(cluster: Cluster) -> list[Target]:
    """Return the hub, and an address that is there for sure: the API server's, as pods see it."""
    found = cluster.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices") or {}
    for entry in found.get("items") or []:
        if (entry["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == "kubernetes":
            return [HUB, (str(entry["endpoints"][0]["addresses"][0]), int(entry["ports"][0]["port"]))]
    return [HUB]


def _attempts(
    cluster: Cluster, namespace: str, pod: str, container: str, targets: Sequence[Target]
) -> Mapping[Target, str]:
    """Return what came of a connection to each target: OPEN, CLOSED or UNTRIED.

    Raises:
        ClusterError: that is not known.
    """
    found = {}
    for host, port in targets:
        script = _CONNECT.format(host=host, port=port)
        said = cluster.execute(namespace, pod, container, ["sh", "-c", script], timeout=ATTEMPT).strip()
        # The last line: a shell may begin with a warning.
        found[host, port] = said.rpartition("\n")[2].strip()
        if found[host, port] not in {OPEN, CLOSED, UNTRIED}:
            heard = repr(said[-200:]) if said else "nothing"
            raise ClusterError(0, f"the shell in {pod} said {heard}, and not whether {host}:{port} connects")
    return found


# BusyBox's nc ends with 0 once it is connected; the shell says which it was. A modelcar has it, a server's
# own image may have something else.
_CONNECT = f"""
has() {{{{ command -v "$1" >/dev/null 2>&1; }}}}
if has busybox; then busybox nc -w {CONNECT} {{host}} {{port}} -e busybox true 2>/dev/null
elif has python3; then
  python3 -c 'import socket; socket.create_connection(("{{host}}", {{port}}), {CONNECT})' 2>/dev/null
elif has bash; then timeout {CONNECT} bash -c '</dev/tcp/{{host}}/{{port}}' 2>/dev/null
else echo '{UNTRIED}'; exit 0; fi && echo '{OPEN}' || echo '{CLOSED}'
"""


def _only(node: str) -> JSON:
    """Return the selector of one node, as a DaemonSet's pods have it."""
    named = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {"nodeSelectorTerms": [{"matchFields": [named]}]}


@contextmanager
def _control(cluster: Cluster, settings: Settings, image: str, node: str) -> Iterator[str]:
    """Run a pod beside the model's, of its image and without its labels; remove it afterwards.

    On the model's own node, which has the image: another one would pull all of the weights.

    Raises:
        ClusterError: it may not be made, or does not start.
    """
    path, name = f"/api/v1/namespaces/{settings.namespace}/pods", f"{CONTROL}-{token_hex(4)}"
    box = {
        "name": "control",
        "image": image,
        "command": ["sh", "-c", "sleep 600"],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"cpu": "100m", "memory": "32Mi"},
        },
        "securityContext": RESTRICTED,
    }
    secrets = [{"name": settings.pull_secret}] if settings.pull_secret else []
    account = {"serviceAccountName": settings.service_name} if settings.registry_username else {}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "modelcar"}},
        "spec": {
            "containers": [box],
            "restartPolicy": "Never",
            **CLOSED_POD,
            "securityContext": RESTRICTED_POD,
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": 600,  # where nobody is left to remove it
            "tolerations": [{"operator": "Exists"}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only(node)},
            },
            "imagePullSecrets": secrets,
            **account,
        },
    }
    _remove_ended(cluster, path)
    cluster.create(path, body)
    try:
        deadline = time.monotonic() + CONTROL_PATIENCE
        while True:
            pod = cluster.get(f"{path}/{name}")
            if pod and is_ready(pod):
                break
            if time.monotonic() > deadline:
                reason = why(cluster, pod) if pod else "somebody deleted it"
                raise ClusterError(0, f"pod {name} does not start: {reason}")
            time.sleep(0.5)
        yield name
    finally:
        cluster.delete(f"{path}/{name}")


def _remove_ended(cluster: Cluster, path: str) -> None:
    """Remove what runs that were killed have left. One that is running may be another person's."""
    for pod in (cluster.get(path) or {}).get("items") or []:
        name = str(pod["metadata"]["name"])
        if name.startswith(CONTROL) and pod["status"].get("phase") in {"Failed", "Succeeded"}:
            cluster.delete(f"{path}/{name}")
