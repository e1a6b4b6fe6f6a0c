"""A KServe with modelcar switched off: no other test may make pods meanwhile, so it is in this tier."""

from __future__ import annotations

import json

import pytest

from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.engine.test_google import dev
from tests.engine.test_google import pytestmark as without_google

__all__ = ["dev"]

pytestmark = [without_google, pytest.mark.extended]


def test_a_kserve_with_modelcar_off_fails_the_preview(dev: Project) -> None:
    kubectl = dev.platform.kubectl
    here = ("-n", "kserve", "configmap/inferenceservice-config")
    before = kubectl("get", *here, "-o", "jsonpath={.data.storageInitializer}")

    def patch(text: str) -> None:
        kubectl("patch", *here, "--type=merge", "-p", json.dumps({"data": {"storageInitializer": text}}))

    patch(json.dumps({**json.loads(before), "enableModelcar": False}))
    try:
        result = dev.pulumi("preview", check=False)
        assert result.returncode
        assert "storageInitializer.enableModelcar is False" in result.stdout + result.stderr
        assert "kserve.storage.enableModelcar=true" in result.stdout + result.stderr
    finally:
        patch(before)
    dev.pulumi("preview")
