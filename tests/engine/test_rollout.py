"""A model that does not start: `up` fails with the pod's own reason, and the next one goes on from there."""

from __future__ import annotations

import json

from operations.pods import is_ready
from tests.engine.conftest import STUB_SERVER, Project

CRASHES = ["sh", "-c", "echo 'RuntimeError: no GPU was found'; exit 3", "stub"]


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
