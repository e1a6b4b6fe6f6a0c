"""What a real API server with image volumes lets in, before and after the stack's built-in policy."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from operations.admission_builtin import ELSEWHERE, UNPINNED
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import Project
from tests.hostile_pods import ADMITTED, PATCHED, asked, debugged, holders, pod, volume, ways_in

DIGEST = "@sha256:" + "5" * 64


@pytest.fixture
def stack(project: Project) -> Iterator[Project]:
    project.platform.kubectl("create", "namespace", project.namespace)
    yield project
    kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
    for kind in kinds:
        project.platform.kubectl("delete", kind, "modelcars-test", "--ignore-not-found")
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


def settled(platform: Platform, namespace: str, hostile: dict[str, object]) -> str:
    """Wait until the API server has taken the policy in; return what it says of a pod then."""
    deadline = time.monotonic() + 60
    while ADMITTED in (said := asked(platform, namespace, hostile)):
        assert time.monotonic() < deadline, "the API server does not take the policy"
        time.sleep(0.5)
    return said


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
    for name, image in {"ours": ours, "with a tag": f"{registry}/a/b:v1{DIGEST}", "server": server}.items():
        for way, document in ways_in(server, image).items():
            assert ADMITTED in asked(platform, here, document), (name, way)

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
    deadline = time.monotonic() + 60
    while ADMITTED not in asked(platform, here, hostile["image volume"]):
        assert time.monotonic() < deadline, "what is named is not let in"
        time.sleep(0.5)
    assert ELSEWHERE in asked(platform, here, pod(server, volumes=[volume(f"evil.example/tiny2{DIGEST}")]))
