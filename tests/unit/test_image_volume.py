"""Placement imageVolume: what is declared, what a pod says where nothing was mounted, and the test of it."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.cluster import placement
from components.cluster.failures import cause
from components.cluster.probe_image import TOKEN
from components.cluster.smoke import Outcome, Smoke, objects, table
from components.cluster.smoke_volumes import NATIVE, SUB_PATH, look_at_volume, offered
from components.config.model_path import MODEL_PATH
from components.manifests import image_volume
from components.manifests.knative import features_needed
from components.manifests.service import MODEL_IS_THERE, predictor, revision, start_script
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load, problems

DIGEST = "sha256:" + "0" * 64
IMAGE = f"registry.example/models/m@{DIGEST}"
SETTINGS = load(placement="imageVolume")
OWN = {"name": image_volume.VOLUME, "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}}


def test_the_pod_has_one_container_and_the_image_by_digest() -> None:
    spec = predictor(SETTINGS, f"oci://{IMAGE}")
    [server] = spec["containers"]
    assert OWN in spec["volumes"]
    assert {"name": "model", "mountPath": "/mnt", "readOnly": True} in server["volumeMounts"]
    assert "subPath" not in str(spec), "containerd 2.1 ignores it"
    assert "oci://" not in str(spec), "or KServe would put the image in a second time"


def test_other_placements_have_no_image_volume() -> None:
    for other in ("servingRuntime", "storageUriEnv", "storageUris"):
        spec = predictor(load(placement=other), f"oci://{IMAGE}")
        assert "IfNotPresent" not in str(spec)


@pytest.mark.parametrize("runtime", ["vllm", "custom"])
def test_the_server_starts_with_a_model_and_says_why_not_without(tmp_path: Path, runtime: str) -> None:
    own: dict[str, Any] = {"runtime": "custom", "serverCommand": ["serve"]} if runtime == "custom" else {}
    script = start_script(load(placement="imageVolume", **own)).replace(MODEL_PATH, str(tmp_path))

    def run() -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", script, "server", "echo", "serves"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    empty = run()
    assert empty.returncode == 1, "at once, and not when the probe gives up"
    said = empty.stdout.replace(str(tmp_path), MODEL_PATH)
    found = cause(said)
    assert found is not None
    assert "left the image volume empty" in found.reason
    assert "modelcar:placement" in found.fix
    (tmp_path / "weights").write_text("w")
    served = run()
    assert (served.returncode, served.stdout.splitlines()[-1]) == (0, "serves")
    assert MODEL_IS_THERE.replace(MODEL_PATH, str(tmp_path)) in served.stdout


NO_HANDLER = ["sh", "-c", "echo up; exec sleep 30"]
TOLD = 128 + signal.SIGTERM


@contextmanager
def first_process(server: list[str], tmp_path: Path, shell: str = "sh") -> Iterator[subprocess.Popen[str]]:
    """Run the start script as the first process of a namespace, which ignores what it has no handler for."""
    (tmp_path / "weights").write_text("w")
    script = start_script(load(placement="imageVolume", runtime="custom", serverCommand=["serve"]))
    here = [shell, "-c", script.replace(MODEL_PATH, str(tmp_path)), "server"]
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    with subprocess.Popen([*alone, *here, *server], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert any(line == "up\n" for line in running.stdout)
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("server", "code", "said"),
    [
        (["sh", "-c", "trap 'echo told; exit 7' TERM; echo up; while :; do sleep 0.1; done"], 7, "told"),
        (NO_HANDLER, TOLD, ""),
    ],
    ids=["handles it", "has no handler"],
)
def test_a_server_is_told_to_stop_and_its_exit_code_comes_back(
    tmp_path: Path, how: signal.Signals, server: list[str], code: int, said: str
) -> None:
    with first_process(server, tmp_path) as running:
        [first] = psutil.Process(running.pid).children()
        first.send_signal(how)
        assert running.wait(10) == code
        assert running.stdout is not None
        assert said in running.stdout.read()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_servers_exit_code_comes_back_where_it_ends_as_the_signal_comes(
    tmp_path: Path, shell: str
) -> None:
    """Not the number of the signal that ended `wait`; 30 times, as a shell may notice either first."""
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    codes = set()
    for _ in range(30):
        with first_process(NO_HANDLER, tmp_path, shell) as running:
            [first] = psutil.Process(running.pid).children()
            [server] = first.children()
            first.suspend()
            server.terminate()
            first.send_signal(signal.SIGINT)
            first.resume()
            codes.add(running.wait(10))
    assert codes == {TOLD}


def test_a_pods_image_is_found_whichever_way_it_came() -> None:
    by_kserve = {
        "spec": {"containers": [{"name": "server", "image": "s"}, {"name": "modelcar", "image": IMAGE}]}
    }
    by_volume = {"spec": {"containers": [{"name": "server", "image": "s"}], "volumes": [OWN]}}
    neither = {"spec": {"containers": [{"name": "server", "image": "s"}]}}
    assert image_volume.model_image(by_kserve) == image_volume.model_image(by_volume) == IMAGE
    assert image_volume.model_image(neither) is None


def test_knative_needs_a_feature_for_it() -> None:
    spec = predictor(load(placement="imageVolume", deploymentMode="Knative"), f"oci://{IMAGE}")
    assert features_needed(spec, spec["volumes"])["kubernetes.podspec-volumes-image"] is False


def test_a_folder_of_this_machine_cannot_be_below_the_image() -> None:
    [found] = problems(placement="imageVolume", serverHostPaths=["/mnt/server"], registryInsecure=True)
    assert found.key == "modelcar:serverHostPaths"
    assert "where the model's image is mounted" in found.allowed


# --- adapters


ADAPTER = f"registry.example/models/french@sha256:{'1' * 64}"


def test_an_adapter_comes_and_goes_beside_the_model() -> None:
    modules = [{"name": "own", "path": "adapters/own"}, {"name": "french", "image": ADAPTER}]
    settings = load(placement="imageVolume", vllm={"loraModules": modules})
    spec = predictor(settings, f"oci://{IMAGE}")
    [server] = spec["containers"]
    images = [volume["image"]["reference"] for volume in spec["volumes"] if "image" in volume]
    assert images == [IMAGE, ADAPTER]
    assert {"name": "adapter-1", "mountPath": "/adapters/1", "readOnly": True} in server["volumeMounts"]
    at = server["args"].index("--lora-modules")
    assert server["args"][at + 1 : at + 3] == [
        "own=/mnt/models/adapters/own",
        "french=/adapters/1/models",
    ]
    without = load(placement="imageVolume", vllm={"loraModules": modules[:1]})
    assert revision(settings, f"oci://{IMAGE}") != revision(without, f"oci://{IMAGE}"), "new pods come"


@pytest.mark.parametrize("path", ["/adapters", "/adapters/0", "/adapters/0/models"])
@pytest.mark.parametrize("key", ["serverWritablePaths", "serverHostPaths"])
def test_nothing_else_is_mounted_where_adapters_are(key: str, path: str) -> None:
    modules = {"loraModules": [{"name": "french", "image": ADAPTER}]}
    own: dict[str, Any] = {"placement": "imageVolume", "gpuCount": 0, key: [path]}
    [found] = problems(vllm=modules, **own)
    assert found.key == f"modelcar:{key}"
    assert found.value == f"{path}, with adapters that are images of their own"
    assert "outside of /adapters" in found.allowed
    assert load(**own), "they are free without adapters"


# --- the smoke test


def pod(volumes: list[Any], waiting: str | None = None, boxes: int = 1) -> dict[str, Any]:
    state = {"waiting": {"reason": waiting, "message": "no such mount type"}} if waiting else {"running": {}}
    return {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": f"box-{number}"} for number in range(boxes)], "volumes": volumes},
        "status": {"containerStatuses": [{"name": "kserve-container", "state": state}]},
    }


@pytest.mark.parametrize(
    ("name", "found", "said", "verdict", "reason"),
    [
        ("imageVolume", pod([OWN]), f"uid 1010\nfound {TOKEN}\n", "works", ""),
        ("imageVolume", pod([OWN]), f"{image_volume.EMPTY}\n", "ignored", "the folder is empty"),
        ("imageVolume", pod([OWN]), f"writable\nfound {TOKEN}\n", "failed", "writable"),
        ("imageVolume", pod([OWN]), "found other bytes\n", "failed", "other bytes"),
        ("imageVolume", pod([{"name": "model"}]), "", "ignored", "drops the field"),
        ("imageVolume", pod([OWN], "CreateContainerError"), "", "refused", "no such mount type"),
        ("imageVolume", pod([OWN], "ContainerCreating"), "", None, ""),
        (SUB_PATH, pod([OWN]), "the whole image\nfound \n", "ignored", "ignores subPath"),
        (SUB_PATH, pod([OWN]), f"found {TOKEN}\n", "works", ""),
        (NATIVE, pod([OWN], boxes=2), "", "ignored", "drops the field"),
    ],
)
def test_what_a_runtime_does_is_told_apart(
    name: str, found: dict[str, Any], said: str, verdict: str | None, reason: str
) -> None:
    cluster = FakeCluster()
    cluster.texts["kserve-container"] = said
    cluster.lists["/api/v1/namespaces/n/events"] = []
    looked = look_at_volume(cluster, found, IMAGE, name, last=False)
    if verdict is None:
        assert looked is None, "it may still start"
        return
    assert looked is not None
    assert looked[0] == verdict
    assert reason in looked[1]


def test_a_kserve_without_its_own_way_downloads() -> None:
    found = pod([])
    found["spec"]["initContainers"] = [{"name": "storage-initializer"}]
    looked = look_at_volume(FakeCluster(), found, IMAGE, NATIVE, last=False)
    assert looked is not None
    assert looked[0] == "ignored"
    assert "knows no oci+native" in looked[1]


def test_the_probe_is_mounted_as_a_model_is_and_with_a_sub_path() -> None:
    def mounts(name: str) -> list[dict[str, Any]]:
        *_, (_, service) = objects(load(), f"oci://{IMAGE}", "n", name)
        [server] = service["spec"]["predictor"]["containers"]
        return [mount for mount in server["volumeMounts"] if mount["name"] == image_volume.VOLUME]

    assert mounts("imageVolume") == [{"name": "model", "mountPath": "/mnt", "readOnly": True}]
    assert mounts(SUB_PATH)[0]["subPath"] == "models"
    (_, runtime), (_, service) = objects(load(), f"oci+native://{IMAGE}", "n", NATIVE)
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"oci+native://{IMAGE}"
    assert runtime["spec"]["containers"][0]["image"] == IMAGE


ONE, OTHER = "kubelet v1.36.3, containerd://v2.4.2", "kubelet v1.34.4, containerd://1.7.1"


def test_image_volumes_come_first_where_all_nodes_are_alike() -> None:
    assert offered((ONE,))[0] == "imageVolume"
    assert "imageVolume" not in offered((ONE, OTHER)), "a probe on one of them says nothing of the other"
    first, *_, last = offered(())
    assert (first, last) == ("servingRuntime", "imageVolume"), "nodes that may not be listed may differ"


def test_the_test_says_that_nodes_may_not_be_listed() -> None:
    found = Smoke("", (Outcome("servingRuntime", "works"),), "servingRuntime")
    assert any("may not list them" in line for line in table(found))
    assert not any("may not list them" in line for line in table(replace(found, nodes=(ONE,))))


def test_the_probe_has_a_pod_whatever_the_stacks_model_has() -> None:
    """An idle model, or one that an autoscaler keeps: `make smoke` waited for pods that never came."""
    awake = list(objects(load(), f"oci://{IMAGE}", "n", "servingRuntime"))
    keda = {"triggers": [{"type": "prometheus", "query": "up", "threshold": 1}], "serverAddress": "http://p"}
    for changes in ({"idle": True}, {"minReplicas": 0, "maxReplicas": 2, "autoscaling": keda}):
        assert list(objects(load(**changes), f"oci://{IMAGE}", "n", "servingRuntime")) == awake
    knative = load(deploymentMode="Knative", canaryTrafficPercent=10)
    *_, (_, service) = objects(knative, f"oci://{IMAGE}", "n", "servingRuntime")
    assert "canaryTrafficPercent" not in service["spec"]["predictor"]
    assert awake[-1][1]["spec"]["predictor"]["minReplicas"] == 1


def test_nodes_of_several_kinds_change_nothing_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, preferred = FakeCluster(), list[Any]()
    cluster.found["/apis/serving.kserve.io/v1beta1"] = {}

    def node(kubelet: str, runtime: str) -> dict[str, Any]:
        return {"status": {"nodeInfo": {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}}}

    def run(*_: Any, prefer: str | None, **__: Any) -> Smoke:
        preferred.append(prefer)
        return Smoke("", (Outcome("imageVolume", "works"),), "imageVolume")

    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: cluster)
    monkeypatch.setattr(placement, "smoke", run)
    monkeypatch.setattr(placement, "push_probe", lambda *_: DIGEST)
    settings = load(placement="auto", namespace="models", serviceName="m")
    kept = {"data": {"placement": "storageUris", "fingerprint": "of a former cluster"}}
    cluster.found["/api/v1/namespaces/models/configmaps/m-smoke-test"] = kept
    for nodes in ([node("v1", "c1")], [node("v1", "c1"), node("v2", "c2")], []):
        cluster.lists["/api/v1/nodes"] = nodes
        placement.find(
            settings, Path("/nowhere"), preview=False, reachable=True, say=lambda _: None, stack="dev"
        )
    assert preferred == [None, "storageUris", "storageUris"]
