"""`up` waits for what is served, whatever the provider thinks of it, and says early what cannot come."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

from tests.engine.conftest import STUB_SERVER, Project

#: What vLLM 0.23 ends with on a driver that is too old.
TOO_OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version 12080)."


def kubectl(project: Project, *arguments: str, check: bool = True) -> str:
    return project.platform.kubectl("-n", project.namespace, *arguments, check=check)


def live(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl(project, "get", "isvc", "tiny", "-o", "json"))
    return found


def outcome(project: Project, *arguments: str) -> tuple[int, str, float]:
    """Run the CLI; return its exit status, all that it said, and how long it took."""
    began = time.monotonic()
    result = project.pulumi(*arguments, "--color=never", check=False)
    return result.returncode, result.stdout + result.stderr, time.monotonic() - began


UP = ("up", "--yes", "--skip-preview")


def test_a_change_from_outside_leaves_up_and_refresh_as_they_were(project: Project) -> None:
    """KServe writes the Deployment's generation where the provider looks for the InferenceService's."""
    project.up()
    code, said, _ = outcome(project, "refresh", "--yes", "--expect-no-changes")
    assert code == 0, said

    kubectl(project, "patch", "isvc", "tiny", "--type=merge", "-p", '{"spec":{"predictor":{"timeout":77}}}')
    found = live(project)
    assert found["metadata"]["generation"] > found["status"]["observedGeneration"]
    code, said, seconds = outcome(project, *UP)
    assert code == 0, said
    assert seconds < 60

    project.configure(memory="72Mi")
    code, said, seconds = outcome(project, *UP)
    assert code == 0, said
    assert seconds < 110, "its own start, and no timeout"


def test_a_start_that_cannot_succeed_is_told_early(project: Project) -> None:
    """… and the next `up` waits again, and ends."""
    crashes = ["sh", "-c", f"echo '{TOO_OLD}'; exit 1", "stub"]
    project.configure(serverCommand=crashes, startTimeoutSeconds=900)
    code, said, seconds = outcome(project, *UP)
    assert code
    assert "to wait longer would not help: tiny-predictor-" in said
    assert "reason: the node's driver is too old for the server's image: it serves CUDA 12.8" in said
    assert "1 of 1 models failed" in said
    assert "Traceback" not in said
    assert seconds < 400
    assert "kubernetes:serving.kserve.io/v1beta1:InferenceService" in project.resources()

    project.configure(serverCommand=STUB_SERVER, startTimeoutSeconds=120)
    assert project.up()["serviceName"] == "tiny"


def test_a_service_that_somebody_deleted_comes_back_by_a_refresh(project: Project) -> None:
    project.up()
    kubectl(project, "delete", "isvc", "tiny")
    code, said, seconds = outcome(project, *UP)
    assert code
    assert "`pulumi up --refresh` makes it anew" in said
    assert seconds < 60
    project.configure(memory="72Mi")  # a change, so that the provider looks for it
    code, said, _ = outcome(project, *UP)
    assert code
    assert "`pulumi up --refresh` makes it anew" in said
    code, said, _ = outcome(project, *UP, "--refresh")
    assert code == 0, said
    assert live(project)["metadata"]["name"] == "tiny"


def test_a_namespace_of_others_is_not_taken_over(project: Project) -> None:
    project.configure(createNamespace=True)
    project.platform.kubectl("create", "namespace", project.namespace)
    code, said, _ = outcome(project, *UP)
    shown = ("-o", "json", "--show-managed-fields")
    found = json.loads(project.platform.kubectl("get", "namespace", project.namespace, *shown))
    project.platform.kubectl("delete", "namespace", project.namespace, "--wait=false")
    assert code
    assert f"Namespace {project.namespace} is there already, made by kubectl-create" in said
    assert "modelcar:importExisting: [Namespace]" in said
    assert "Traceback" not in said
    managers = [entry["manager"] for entry in found["metadata"]["managedFields"]]
    assert not [name for name in managers if name.startswith("pulumi")]


def test_what_a_former_version_read_of_kserve_leaves_the_state_and_stays_in_the_cluster(
    project: Project,
) -> None:
    project.up()
    state = json.loads(project.pulumi("stack", "export", "--show-secrets").stdout)
    rows = state["deployment"]["resources"]
    [provider] = [row for row in rows if row["type"] == "pulumi:providers:kubernetes"]
    name = "kserve/inferenceservice-config"
    stack, program = rows[0]["urn"].split("::")[:2]
    urn = f"{stack}::{program}::kubernetes:core/v1:ConfigMap::kserve-config"
    outputs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inferenceservice-config"}}
    rows.insert(
        rows.index(provider) + 1,
        {
            "urn": urn,
            "custom": True,
            "external": True,
            "id": name,
            "type": "kubernetes:core/v1:ConfigMap",
            "parent": rows[0]["urn"],
            "provider": f"{provider['urn']}::{provider['id']}",
            "outputs": outputs,
        },
    )
    file = project.folder / "state.json"
    file.write_text(json.dumps(state))
    project.pulumi("stack", "import", "--file", str(file))
    assert "kubernetes:core/v1:ConfigMap" in project.resources()
    project.up()
    assert "kubernetes:core/v1:ConfigMap" not in project.resources()
    project.platform.kubectl("-n", "kserve", "get", "configmap", "inferenceservice-config")


def test_up_that_is_cancelled_while_it_waits_ends_soon(project: Project) -> None:
    project.configure(serverCommand=["sh", "-c", "sleep 3600", "stub"], startTimeoutSeconds=1800)
    command = ["pulumi", *UP, "--stack", "test", "--non-interactive", "--color=never"]
    environment = project.platform.pulumi_env(project.folder)
    with subprocess.Popen(
        command,
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout
        for line in running.stdout:
            if "0 of 1 new pods are ready" in line:
                break
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert running.returncode
    project.configure(serverCommand=STUB_SERVER, startTimeoutSeconds=120)
    assert project.up()["serviceName"] == "tiny"


def test_a_preview_needs_no_host_of_charts_and_up_names_it(project: Project) -> None:
    """The provider downloads charts in a preview; `.invalid` is a name that never is there (RFC 6761)."""
    project.configure(kserve={"install": True, "chartRepository": "oci://charts.invalid/kserve"})
    code, said, _ = outcome(project, "preview")
    assert code == 0, said
    assert "modelcar:kserve.chartRepository: oci://charts.invalid/kserve" in said
    code, said, _ = outcome(project, *UP)
    assert code
    assert "charts.invalid cannot be reached" in said
    assert "name a copy of the charts" in said
    assert set(project.resources()) <= {"pulumi:pulumi:Stack"}


def test_a_model_with_an_autoscaler_goes_idle_and_wakes(project: Project) -> None:
    """Waking it, KServe leaves the Deployment without pods, and no autoscaler starts from none."""
    project.configure(maxReplicas=2)
    project.up()
    project.configure(idle=True, maxReplicas=2)
    project.up()
    assert (
        json.loads(kubectl(project, "get", "deployment", "tiny-predictor", "-o", "json"))["spec"]["replicas"]
        == 0
    )
    project.configure(idle=None, maxReplicas=2)
    code, said, _ = outcome(project, *UP)
    assert code == 0, said
    assert "its first pods are started, which its autoscaler never does" in said
    status = json.loads(kubectl(project, "get", "deployment", "tiny-predictor", "-o", "json"))["status"]
    assert status["readyReplicas"] == 1
