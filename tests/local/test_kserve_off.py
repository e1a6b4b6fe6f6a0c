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


def test_auto_takes_what_works_where_kserve_injects_nothing(project: Project) -> None:
    """Image volumes are the kubelet's affair."""
    project.configure(placement="auto")
    with modelcar_off(project.platform):
        assert project.preview(), "nothing was tested yet, and a preview refuses nothing"
        said = project.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
        assert "modelcar is switched off" in said
        assert "placement to use: imageVolume" in said
        assert project.preview() == []
        project.configure(placement="servingRuntime")
        refused = project.pulumi("preview", "--color=never", check=False)
    assert refused.returncode
    assert "storageInitializer.enableModelcar: False" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr
