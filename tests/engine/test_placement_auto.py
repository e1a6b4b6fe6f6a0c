"""`placement: auto` by the real engine: tested once, kept, tested again when KServe's settings change."""

from __future__ import annotations

from tests.engine.conftest import Project
from tests.modelcar_switch import modelcar_off


def test_auto_is_tested_once_and_kept(project: Project) -> None:
    project.configure(placement="auto")
    said = project.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert "testing which one this cluster's KServe honours" in said
    assert "placement to use: servingRuntime" in said
    assert any(kind.endswith(":SmokeTest") for kind in project.resources())
    assert any(kind.endswith(":ServingRuntime") for kind in project.resources())

    assert project.preview() == []
    again = project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes", "--color=never").stdout
    assert "testing which" not in again


def test_a_kserve_that_honours_nothing_stops_up_before_anything_is_made(project: Project) -> None:
    project.configure(placement="auto")
    with modelcar_off(project.platform):
        failed = project.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
        preview = project.pulumi("preview", "--color=never", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode
    assert "modelcar:placement: auto, and none works on this cluster" in said
    assert "modelcar is switched off" in said
    assert "Traceback" not in said
    assert not any("modelcar:kserve" in kind for kind in project.resources())
    assert preview.returncode, "the configuration that KServe has says it to a preview already"
    assert "storageInitializer.enableModelcar is False" in preview.stdout
    assert "Traceback" not in preview.stdout + preview.stderr
