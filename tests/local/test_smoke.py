"""The smoke test against KServe's real webhooks: what it finds, and that nothing of it is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from components.cluster.access import Cluster, ClusterError
from components.cluster.kserve_config import configuration_problems
from components.cluster.probe_image import NAME, push_probe
from components.cluster.smoke import Smoke, document, objects, service, smoke, table
from components.cluster.smoke_namespace import LASTS
from components.cluster.smoke_volumes import OFFERED
from components.config import loading as stack
from components.config.settings import Settings
from local.instance import KUBERNETES_VERSION
from local.tool_list import CONTAINERD_VERSION
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.registry import Target
from tests.conftest import PROJECT, Platform, write_stack
from tests.engine.conftest import PARTS
from tests.modelcar_switch import kserve_with, modelcar_off


@pytest.fixture(scope="module")
def settings(platform: Platform) -> Settings:
    file = platform.checkout.folder / ".local/local/platform.json"
    values = {"platformFile": str(file), "gpuCount": "0", "model": "tiny-qwen2", "namespace": "models"}
    return stack.load({f"modelcar:{key}": value for key, value in values.items()}, platform.checkout.folder)


@pytest.fixture(scope="module")
def image(platform: Platform, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = Target(settings.registry, NAME, settings.registry_insecure)
    digest = push_probe(read_base(settings.architecture), tmp_path_factory.mktemp("probe"), target)
    return f"{settings.registry}/{NAME}@{digest}"


@pytest.fixture(scope="module")
def cluster(settings: Settings) -> Cluster:
    return Cluster.of(settings)


@pytest.fixture
def namespace() -> str:
    return f"smoke-{uuid.uuid4().hex[:8]}"


def verdicts(found: Smoke) -> dict[str, str]:
    return {outcome.placement: outcome.verdict for outcome in found.outcomes}


def test_it_tells_which_placements_work_and_leaves_nothing(
    cluster: Cluster, settings: Settings, image: str, namespace: str
) -> None:
    found = smoke(cluster, settings, image, namespace=namespace)
    assert verdicts(found) == {
        **dict.fromkeys(OFFERED, "works"),
        "podAnnotation": "ignored",
        "imageVolumeSubPath": "works",
        "ociNative": "ignored",
    }
    assert found.chosen == settings.placement
    assert found.nodes == (f"kubelet v{KUBERNETES_VERSION}, containerd://{CONTAINERD_VERSION}",)
    volume, *others = found.outcomes[:4]
    assert set(volume.checks) == {"image volume", "one container", "files", "read-only"}
    for outcome in others:
        assert set(outcome.checks) == {
            *("init container", "sidecar", "shared processes", "uid of the modelcar", "files")
        }
    assert cluster.get(f"/api/v1/namespaces/{namespace}") is None
    lines = list(table(found))
    assert lines[-1] == "placement to use: servingRuntime"
    assert document(found)["placement"] == "servingRuntime"


def test_a_namespace_of_somebody_else_is_not_touched(
    platform: Platform, cluster: Cluster, settings: Settings, image: str, namespace: str
) -> None:
    platform.kubectl("create", "namespace", namespace)
    try:
        with pytest.raises(InputError, match=f"{namespace} is there, and was not made by this test"):
            smoke(cluster, settings, image, namespace=namespace)
        assert cluster.get(f"/api/v1/namespaces/{namespace}") is not None
    finally:
        platform.kubectl("delete", "namespace", namespace, "--wait=false")


def test_modelcar_that_is_switched_off_is_told(
    platform: Platform, cluster: Cluster, settings: Settings, image: str, namespace: str
) -> None:
    with modelcar_off(platform):
        found = smoke(cluster, settings, image, namespace=namespace, patience=60)
    assert found.chosen == "imageVolume", "KServe has no part in it"
    assert {name for name, verdict in verdicts(found).items() if verdict == "works"} == {
        *("imageVolume", "imageVolumeSubPath")
    }
    assert any("modelcar is switched off" in outcome.reason for outcome in found.outcomes)
    assert cluster.get(f"/api/v1/namespaces/{namespace}") is None


@pytest.mark.parametrize("uid", [2000, None, 0], ids=["another user", "none said", "root"])
def test_the_check_of_kserves_user_is_what_its_pods_show(
    platform: Platform, cluster: Cluster, settings: Settings, image: str, namespace: str, uid: int | None
) -> None:
    with kserve_with(platform, {"uidModelcar": uid}) as data:
        found = smoke(cluster, settings, image, namespace=namespace, patience=60)
        refused = configuration_problems(data, settings.deployment_mode)
    works = {placement for placement, verdict in verdicts(found).items() if verdict == "works"}
    assert works & set(OFFERED) == ({"imageVolume"} if refused else set(OFFERED))
    assert bool(refused) is (uid == 0)


def test_a_service_of_the_namespace_sets_no_variable_of_the_pods(
    platform: Platform, cluster: Cluster, settings: Settings, image: str, namespace: str
) -> None:
    """Of one named `vllm` Kubernetes would make VLLM_PORT=tcp://…, with which vLLM ends at its start."""
    platform.kubectl("create", "namespace", namespace)
    here = ("-n", namespace)
    try:
        platform.kubectl(*here, "create", "service", "clusterip", "vllm", "--tcp=80:80")
        control = ("run", "control", f"--image={image}", "--restart=Never", "--command", "--")
        platform.kubectl(*here, *control, "busybox", "env")
        platform.kubectl(
            *here, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", "pod/control"
        )
        assert "VLLM_PORT=tcp://" in platform.kubectl(*here, "logs", "control"), "or this test proves nothing"
        for placement in OFFERED:
            for path, body in objects(settings, f"oci://{image}", namespace, placement):
                cluster.create(path, body)
        for placement in OFFERED:
            name = service(placement)
            platform.kubectl(*here, "wait", "--for=condition=Ready", "--timeout=120s", f"isvc/{name}")
            label = f"serving.kserve.io/inferenceservice={name}"
            [pod] = platform.kubectl(*here, "get", "pods", "-l", label, "-o", "name").split()
            said = platform.kubectl(*here, "exec", pod, "-c", "kserve-container", "--", "busybox", "env")
            assert "USER=" in said
            assert "VLLM_PORT=" not in said, placement
            assert "_SERVICE_HOST=" not in said.replace("KUBERNETES_SERVICE_HOST=", ""), placement
    finally:
        platform.kubectl("delete", "namespace", namespace, "--wait=false")


def test_an_image_that_cannot_be_pulled_is_told(cluster: Cluster, settings: Settings, namespace: str) -> None:
    nowhere = f"{settings.registry}/{NAME}@sha256:{'0' * 64}"
    found = smoke(cluster, settings, nowhere, namespace=namespace, patience=20)
    assert found.chosen is None
    assert [outcome.verdict for outcome in found.outcomes[:4]] == ["failed"] * 4
    assert all("not found" in outcome.reason for outcome in found.outcomes[:4]), found


def test_an_api_server_that_goes_away_is_no_traceback(settings: Settings, image: str, tmp_path: Path) -> None:
    text = Path(str(settings.kubeconfig)).read_text().replace(":6443", ":1")
    (tmp_path / "kubeconfig").write_text(text)
    gone = settings.model_copy(update={"kubeconfig": str(tmp_path / "kubeconfig")})
    with pytest.raises(ClusterError, match="does not answer"):
        smoke(Cluster.of(gone), gone, image)


@pytest.fixture
def command(platform: Platform, tmp_path: Path) -> Any:
    """Run the operation on a stack of a project of the test's own."""
    for part in PARTS:
        (tmp_path / part).symlink_to(platform.checkout.folder / part)
    file = platform.checkout.folder / ".local/local/platform.json"
    own = {"model": "tiny-qwen2", "namespace": "models"}
    write_stack(tmp_path, "test", {"platformFile": str(file), "gpuCount": 0, **own})
    environment = platform.pulumi_env(tmp_path)
    make = ["pulumi", "stack", "init", "test", "--non-interactive"]
    subprocess.run(make, cwd=tmp_path, env=environment, check=True, capture_output=True)

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "operations", "--project", str(tmp_path), *arguments, "--stack", "test"],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_the_command_prints_what_programs_read(command: Any, namespace: str) -> None:
    process = command("smoke", "--namespace", namespace, "--json")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    found = json.loads(out)
    assert found["placement"] == "servingRuntime"
    assert {outcome["placement"]: outcome["verdict"] for outcome in found["outcomes"]} == {
        **dict.fromkeys((*OFFERED, "imageVolumeSubPath"), "works"),
        **dict.fromkeys(("podAnnotation", "ociNative"), "ignored"),
    }


def await_probes(cluster: Cluster, namespace: str) -> None:
    """Wait until the test is in the midst of its work."""
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
    deadline = time.monotonic() + 60
    while not (cluster.get(path) or {}).get("items") and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_test_that_is_stopped_leaves_nothing(
    command: Any, cluster: Cluster, namespace: str, how: signal.Signals
) -> None:
    process = command("smoke", "--namespace", namespace)
    await_probes(cluster, namespace)
    process.send_signal(how)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "stopped" in error
    assert cluster.get(f"/api/v1/namespaces/{namespace}") is None


def test_a_namespace_that_a_killed_test_left_is_used_again(
    command: Any, cluster: Cluster, settings: Settings, image: str, namespace: str
) -> None:
    process = command("smoke", "--namespace", namespace)
    await_probes(cluster, namespace)
    process.kill()
    process.communicate()
    path = f"/api/v1/namespaces/{namespace}"
    # Its time is over, as it is minutes later.
    cluster.patch(path, {"metadata": {"annotations": {LASTS: "0"}}})
    said: list[str] = []
    found = smoke(cluster, settings, image, namespace=namespace, say=said.append)
    assert f"{namespace} is left of a test that was killed" in said[0]
    assert found.chosen
    assert cluster.get(f"/api/v1/namespaces/{namespace}") is None


def test_a_second_test_waits_for_the_first_one(
    command: Any, cluster: Cluster, settings: Settings, image: str, namespace: str
) -> None:
    process = command("smoke", "--namespace", namespace)
    await_probes(cluster, namespace)
    said: list[str] = []
    found = smoke(cluster, settings, image, namespace=namespace, say=said.append)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "placement to use: servingRuntime" in out
    assert namespace in said[0]
    assert "waiting until it" in said[0]
    assert found.chosen == settings.placement
    assert cluster.get(f"/api/v1/namespaces/{namespace}") is None
