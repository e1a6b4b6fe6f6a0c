"""`placement: auto` by the real engine: tested once, kept, tested again when KServe's settings change."""

from __future__ import annotations

from tests.engine.conftest import Project


def test_auto_is_tested_once_and_kept(project: Project) -> None:
    project.configure(placement="auto")
    said = project.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert "testing which one this cluster's KServe honours" in said
    assert "placement to use: imageVolume" in said
    assert any(kind.endswith(":SmokeTest") for kind in project.resources())
    assert not any(kind.endswith(":ServingRuntime") for kind in project.resources())

    assert project.preview() == []
    again = project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes", "--color=never").stdout
    assert "testing which" not in again
