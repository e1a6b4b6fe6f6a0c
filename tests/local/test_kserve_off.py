"""A KServe with modelcar switched off: no other test may make pods meanwhile, so it is in this tier."""

from __future__ import annotations

import pytest

from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.engine.test_google import dev
from tests.engine.test_google import pytestmark as without_google
from tests.modelcar_switch import modelcar_off

__all__ = ["dev"]


@without_google
@pytest.mark.extended
def test_a_kserve_with_modelcar_off_fails_the_preview(dev: Project) -> None:
    with modelcar_off(dev.platform):
        result = dev.pulumi("preview", check=False)
        assert result.returncode
        assert "storageInitializer.enableModelcar: False" in result.stdout + result.stderr
        assert "kserve.storage.enableModelcar=true" in result.stdout + result.stderr
    dev.pulumi("preview")


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
    assert "storageInitializer.enableModelcar: False" in preview.stdout
    assert "Traceback" not in preview.stdout + preview.stderr
