"""A model that does not start: `up` fails with the pod's own reason, and the next one goes on from there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from components.cluster.pods import is_ready
from tests.engine.conftest import STUB_SERVER, Project

CRASHES = ["sh", "-c", "echo 'RuntimeError: no GPU was found'; exit 3", "stub"]


@pytest.mark.extended
def test_a_server_that_crashes_is_told_by_its_own_words(project: Project) -> None:
    project.configure(startTimeoutSeconds=10, serverCommand=CRASHES)
    failed = project.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode
    assert "exit code 3" in said
    assert "RuntimeError: no GPU was found" in said
    assert "Traceback" not in said

    project.configure(startTimeoutSeconds=120, serverCommand=STUB_SERVER)
    assert project.up()["serviceName"] == "tiny"


@pytest.mark.extended
def test_an_update_that_crashes_fails_up_while_the_former_pod_serves_on(project: Project) -> None:
    project.up()
    here = ("-n", project.namespace)
    former = json.loads(project.platform.kubectl(*here, "get", "pods", "-o", "json"))["items"]
    [served] = [pod["metadata"]["name"] for pod in former]

    project.configure(startTimeoutSeconds=10, serverCommand=CRASHES)
    failed = project.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode
    assert "RuntimeError: no GPU was found" in said
    assert f"is still served by {served}, as before" in said
    assert "Traceback" not in said
    assert is_ready(json.loads(project.platform.kubectl(*here, "get", "pod", served, "-o", "json")))

    project.configure(startTimeoutSeconds=120, serverCommand=STUB_SERVER)
    assert project.up()["serviceName"] == "tiny"


def operate(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an operation on the stack."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "operations", "--project", str(project.folder)),
            *arguments,
            "--stack",
            "test",
        ],
        env=project.platform.pulumi_env(project.folder),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_way_back_builds_nothing_and_takes_the_nodes_image(project: Project) -> None:
    first = project.up()
    project.change_weights(seed=9)
    second = project.up()
    assert second["modelDigest"] != first["modelDigest"]

    former = operate(project, "former")
    assert former.stdout.strip() == first["modelDigest"], former.stderr
    project.configure(rollbackTo=first["modelDigest"])
    assert {step["urn"].rpartition("::")[2] for step in project.preview()} == {"tiny"}, "the service alone"
    back = project.up()
    assert {key: back[key] for key in ("modelDigest", "storageUri", "imageReference", "lockDigest")} == {
        key: first[key] for key in ("modelDigest", "storageUri", "imageReference", "lockDigest")
    }
    assert project.preview() == []

    here = ("-n", project.namespace)
    pods = json.loads(project.platform.kubectl(*here, "get", "pods", "-o", "json"))["items"]
    newest = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))["metadata"]["name"]
    events = json.loads(project.platform.kubectl(*here, "get", "events", "-o", "json"))["items"]
    pulls = [
        event["message"]
        for event in events
        if event["involvedObject"]["name"] == newest and event["reason"] == "Pulled"
    ]
    assert len(pulls) == 3, "init container, sidecar and server"
    assert all("already present on machine" in message for message in pulls), pulls

    again = operate(project, "former")
    assert again.returncode == 2
    assert "rolled back already" in again.stderr

    project.configure(rollbackTo=None)
    assert project.up()["modelDigest"] == second["modelDigest"]


@pytest.mark.parametrize("command", [("preview",), ("up", "--yes", "--skip-preview")], ids=lambda it: it[0])
def test_a_way_back_to_what_is_not_there_declares_nothing(project: Project, command: tuple[str, ...]) -> None:
    project.configure(rollbackTo="sha256:" + "0" * 64)
    refused = project.pulumi(*command, check=False)
    assert refused.returncode
    assert "does not have it" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert set(project.resources()) <= {"pulumi:pulumi:Stack"}


@pytest.mark.extended
def test_a_version_is_on_the_nodes_before_it_is_served(project: Project) -> None:
    project.configure(prePull=True)
    project.up()
    project.change_weights(seed=11)
    changed = project.up()
    here = ("-n", project.namespace)
    keepers = ("get", "pods", "-l", "app.kubernetes.io/name=tiny-pre-pull", "-o")
    images = project.platform.kubectl(*here, *keepers, "jsonpath={.items[*].spec.containers[*].image}")
    assert images == changed["storageUri"].removeprefix("oci://")
    events = json.loads(project.platform.kubectl(*here, "get", "events", "-o", "json"))["items"]
    pulls = [
        event
        for event in events
        if event["reason"] == "Pulled" and changed["modelDigest"] in event["message"]
    ]
    first = min(pulls, key=lambda event: str(event["metadata"]["creationTimestamp"]))
    assert first["involvedObject"]["name"].startswith("tiny-pre-pull-")
    served = [event for event in pulls if event["involvedObject"]["name"].startswith("tiny-predictor-")]
    assert served
    assert all("already present on machine" in event["message"] for event in served)

    project.configure(prePull=None)
    project.up()
    assert project.platform.kubectl(*here, "get", "daemonsets", "-o", "name") == ""
