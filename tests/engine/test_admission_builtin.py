"""What a real API server with image volumes lets in, before and after the stack's built-in policy."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from operations.admission import object_name
from operations.admission_builtin import ELSEWHERE, FILLED, OTHER_VOLUMES, UNPINNED
from operations.stack import program_of
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import Project
from tests.hostile_pods import ADMITTED, PATCHED, asked, debugged, holders, pod, volume, ways_in

DIGEST = "@sha256:" + "5" * 64


@pytest.fixture
def stack(project: Project) -> Iterator[Project]:
    project.platform.kubectl("create", "namespace", project.namespace)
    yield project
    kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
    name = object_name("modelcars", program_of("test", project.folder), project.namespace, "test")
    for kind in kinds:
        project.platform.kubectl("delete", kind, name, "--ignore-not-found")
    project.platform.kubectl("delete", "namespace", project.namespace, "--wait=false")


def rendered(project: Project, *options: str) -> str:
    result = subprocess.run(
        [
            *(str(PROJECT / ".venv/bin/python"), "-m", "operations", "--project", str(project.folder)),
            *("admission", "--stack", "test", "--builtin", *options),
        ],
        cwd=project.folder,
        env=project.platform.pulumi_env(project.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, result.stderr
    return result.stdout


def settled(
    platform: Platform,
    namespace: str,
    hostile: dict[str, object],
    part: str = ADMITTED,
    *,
    said: bool = False,
) -> str:
    """Wait until the API server has taken a policy in; return what it says of a pod then.

    part, said: of its answer: whether it is in it then.
    """
    deadline = time.monotonic() + 60
    while (part in (answer := asked(platform, namespace, hostile))) != said:
        assert time.monotonic() < deadline, f"the API server does not take the policy: {answer}"
        time.sleep(0.5)
    return answer


def refused(platform: Platform, namespace: str, name: str) -> bool:
    """Tell whether a controller was refused pods of an object, or of what stands between them."""
    events = json.loads(platform.kubectl("-n", namespace, "get", "events", "-o", "json"))["items"]
    return any(
        event["involvedObject"]["name"].startswith(name)
        and event["reason"] == "FailedCreate"
        and ELSEWHERE in event["message"]
        for event in events
    )


def test_only_pinned_images_of_the_stacks_own_places_run_beside_its_models(stack: Project) -> None:
    platform, here = stack.platform, stack.namespace
    server, registry = platform.server_image, str(platform.settings["registry"])
    ours = f"{registry}/tiny{DIGEST}"
    host, _, path = registry.partition("/")
    elsewhere = {
        "another registry": f"evil.example/tiny{DIGEST}",
        "a registry with ours as its head": f"{host}.evil.example/{path}/tiny{DIGEST}",
        "a path with ours as its head": f"{registry}-evil/tiny{DIGEST}",
        "a repository with the server's as its head": f"{server.partition('@')[0]}-evil{DIGEST}",
        "Docker Hub's short name": f"tiny{DIGEST}",
        "a tag beside the digest": f"evil.example/tiny:v1{DIGEST}",
    }
    unpinned = {
        "a tag": f"{registry}/tiny:v1",
        "no tag": f"{registry}/tiny",
        "an image's identifier": "sha256:" + "5" * 64,
        "an empty digest": f"{registry}/tiny@",
        "a digest of another kind": f"{registry}/tiny@sha512:{'5' * 128}",
    }
    hostile = ways_in(server, elsewhere["another registry"])
    platform.kubectl("-n", here, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    before = {way: asked(platform, here, document) for way, document in hostile.items()}
    assert all(ADMITTED in said for said in before.values()), before
    # One that is there already, and stays where no node takes it.
    waits = pod(server, nodeSelector={"nowhere": "x"}, volumes=[volume(elsewhere["another registry"])])
    waits["metadata"]["name"] = "former"
    platform.kubectl("-n", here, "create", "-f", "-", text=json.dumps(waits))
    assert PATCHED in debugged(platform, here, "former", f"evil.example/debug{DIGEST}")

    platform.kubectl("apply", "-f", "-", text=rendered(stack))
    said = settled(platform, here, hostile["image volume"])
    assert f"{ELSEWHERE}: {elsewhere['another registry']}" in said
    for way, document in hostile.items():
        assert ELSEWHERE in asked(platform, here, document), way
    for name, image in elsewhere.items():
        assert ELSEWHERE in asked(platform, here, ways_in(server, image)["image volume"]), name
    for name, image in unpinned.items():
        assert UNPINNED in asked(platform, here, ways_in(server, image)["image volume"]), name
    for name, image in {"ours": ours, "with a tag": f"{registry}/a/b:v1{DIGEST}"}.items():
        for way, document in ways_in(server, image).items():
            assert ADMITTED in asked(platform, here, document), (name, way)
    # A server runs, and is no model that somebody could mount.
    for way, document in ways_in(server, server).items():
        assert (ELSEWHERE if "volume" in way else ADMITTED) in asked(platform, here, document), way

    # KServe adds the modelcar to pods, by an annotation that anybody may write; that is looked at afterwards.
    annotated = pod(server, containers=[{"name": "kserve-container", "image": server}])
    annotated["metadata"]["labels"] = {"serving.kserve.io/inferenceservice": "x"}
    uri = {"internal.serving.kserve.io/storage-initializer-sourceuri": f"oci://evil.example/tiny{DIGEST}"}
    annotated["metadata"]["annotations"] = uri
    assert f"{ELSEWHERE}: evil.example/tiny" in asked(platform, here, annotated)
    uri["internal.serving.kserve.io/storage-initializer-sourceuri"] = "s3://bucket/tiny"
    assert f"{UNPINNED}: kserve/storage-initializer" in asked(platform, here, annotated)
    uri["internal.serving.kserve.io/storage-initializer-sourceuri"] = f"oci://{ours}"
    assert ADMITTED in asked(platform, here, annotated)

    # What was there can be changed and let go, but gets nothing new.
    platform.kubectl("-n", here, "label", "pod", "former", "changed=yes")
    assert ELSEWHERE in debugged(platform, here, "former", f"evil.example/debug{DIGEST}")
    assert PATCHED in debugged(platform, here, "former", server)

    # Whatever makes pods gets none, and says why.
    held = holders(
        {
            "containers": [{"name": "kserve-container", "image": server}],
            "volumes": [volume(elsewhere["another registry"])],
        }
    )
    for document in held.values():
        platform.kubectl("-n", here, "create", "-f", "-", text=json.dumps(document))
    deadline = time.monotonic() + 90
    while missing := {kind for kind in held if not refused(platform, here, f"h-{kind.lower()}")}:
        assert time.monotonic() < deadline, f"nothing is said of {missing}"
        time.sleep(1)
    pods = json.loads(platform.kubectl("-n", here, "get", "pods", "-o", "json"))["items"]
    assert [found["metadata"]["name"] for found in pods] == ["former"]

    # No other namespace is touched, and whoever needs another image names its repository.
    assert ADMITTED in asked(platform, "default", hostile["image volume"])
    platform.kubectl("apply", "-f", "-", text=rendered(stack, "--allow", "evil.example/tiny"))
    settled(platform, here, hostile["container"], said=True)
    other = ways_in(server, f"evil.example/tiny2{DIGEST}")["container"]
    assert ELSEWHERE in asked(platform, here, other)
    assert ELSEWHERE in asked(platform, here, hostile["image volume"]), "it runs, and is no model"


#: One volume of each kind that may hold a model without an image.
BRINGERS: dict[str, dict[str, Any]] = {
    "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": {"bucketName": "models"}},
    "ephemeral": {
        "volumeClaimTemplate": {
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        }
    },
    "hostPath": {"path": "/models"},
    "nfs": {"server": "nfs.example", "path": "/models"},
    "persistentVolumeClaim": {"claimName": "models"},
    "gitRepo": {"repository": "https://git.example/models.git"},
    "rbd": {"monitors": ["10.0.0.1:6789"], "image": "models"},
    "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.com.example:models", "lun": 0},
}
#: What a pod may have that is no way in.
HARMLESS: dict[str, dict[str, Any]] = {
    "emptyDir": {"medium": "Memory"},
    "configMap": {"name": "x"},
    "secret": {"secretName": "x"},
    "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]},
    "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
}


def test_models_come_as_images_only(stack: Project) -> None:
    """No volume brings one past its image, by whatever kind, nor what KServe makes of `pvc://`."""
    platform, here = stack.platform, stack.namespace
    server = platform.server_image
    with_volumes = {
        kind: pod(server, volumes=[{"name": "brought", kind: told}])
        for kind, told in {**BRINGERS, **HARMLESS}.items()
    }
    by_kserve = pod(server, containers=[{"name": "kserve-container", "image": server}])
    by_kserve["metadata"]["labels"] = {"serving.kserve.io/inferenceservice": "x"}
    by_kserve["metadata"]["annotations"] = {
        "internal.serving.kserve.io/storage-initializer-sourceuri": "pvc://models/tiny"
    }
    platform.kubectl("-n", here, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    before = {kind: asked(platform, here, one) for kind, one in {**with_volumes, "pvc://": by_kserve}.items()}
    assert all(ADMITTED in said for said in before.values()), before

    platform.kubectl("apply", "-f", "-", text=rendered(stack))
    assert f"{FILLED}: brought" in settled(platform, here, with_volumes["hostPath"])
    for kind in BRINGERS:
        assert f"{FILLED}: brought" in asked(platform, here, with_volumes[kind]), kind
    for kind in HARMLESS:
        assert ADMITTED in asked(platform, here, with_volumes[kind]), kind
    assert f"{FILLED}: " in asked(platform, here, by_kserve)

    # Those that somebody allows, and no others.
    options = [part for kind in OTHER_VOLUMES for part in ("--allow-volume", kind)]
    platform.kubectl("apply", "-f", "-", text=rendered(stack, *options))
    assert ADMITTED in settled(platform, here, with_volumes["nfs"], FILLED)
    assert {kind for kind in BRINGERS if FILLED in asked(platform, here, with_volumes[kind])} == {
        *("gitRepo", "iscsi", "rbd")
    }
    assert ADMITTED in asked(platform, here, by_kserve)


def test_an_image_that_somebody_swaps_later_is_looked_at(stack: Project) -> None:
    """By a mutation that comes after KServe's and the program's own, as a webhook of others does."""
    platform, here = stack.platform, stack.namespace
    server, evil = platform.server_image, f"evil.example/tiny{DIGEST}"
    name = f"swap-{here}"
    platform.kubectl("-n", here, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    platform.kubectl("apply", "-f", "-", text=rendered(stack))
    settled(platform, here, ways_in(server, evil)["image volume"])
    ours = ways_in(server, f"{platform.settings['registry']}/tiny{DIGEST}")["image volume"]
    assert ADMITTED in asked(platform, here, ours)
    platform.kubectl("apply", "-f", "-", text=json.dumps(swap(name, here, evil)))
    try:
        assert f"{ELSEWHERE}: {evil}" in settled(platform, here, ours)
    finally:
        for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
            platform.kubectl("delete", kind, name)


def swap(name: str, namespace: str, image: str) -> dict[str, Any]:
    """Return objects that give the image volumes of a namespace's pods another image."""
    group = "admissionregistration.k8s.io/v1"
    pods = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    patch = f"[JSONPatch{{op: 'replace', path: '/spec/volumes/0/image/reference', value: '{image}'}}]"
    policy = {
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [pods]},
            "matchConditions": [
                {"name": "mounted", "expression": "object.spec.volumes.exists(v, has(v.image))"}
            ],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        },
    }
    binding = {
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            },
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [policy, binding]}
