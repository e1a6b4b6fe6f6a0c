"""A model that does not start: `up` fails with the pod's own reason, and the next one goes on from there."""

from __future__ import annotations

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
