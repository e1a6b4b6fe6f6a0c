"""The smoke test on a cluster with an older KServe: a platform of the test's own, removed afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.cluster.access import Cluster
from components.cluster.probe_image import NAME, push_probe
from components.cluster.smoke import smoke
from components.config import loading as stack
from components.config.settings import Settings
from local import platform, up
from local.instance import load
from local.other_versions import with_kserve
from local.tool_list import OLDER_KSERVE
from local.tools import collect
from modelcar.base import read_base
from modelcar.registry import Target

pytestmark = pytest.mark.extended


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path))
    tools = with_kserve(collect(print), OLDER_KSERVE, print)
    instance = load("older")
    try:
        platform.up(instance, tools, print)
        up.write_platform_settings(instance)
        own = {"gpuCount": "0", "model": "tiny", "namespace": "models"}
        values = {"platformFile": str(instance.settings_file), **own}
        yield stack.load({f"modelcar:{key}": value for key, value in values.items()}, tmp_path)
    finally:
        platform.down(instance, print)
        shutil.rmtree(instance.state)


def test_another_placement_is_found_where_this_version_ignores_the_stacks_own(
    settings: Settings, tmp_path: Path
) -> None:
    cluster = Cluster.of(settings)
    target = Target(settings.registry, NAME, settings.registry_insecure)
    digest = push_probe(read_base(settings.architecture), tmp_path, target)
    wanted = settings.model_copy(update={"placement": "storageUris"})
    found = smoke(cluster, wanted, f"{settings.registry}/{NAME}@{digest}")
    outcomes = {outcome.placement: outcome for outcome in found.outcomes}
    assert {name: outcome.verdict for name, outcome in outcomes.items()} == {
        "storageUris": "ignored",  # KServe 0.19 honours it
        "servingRuntime": "works",
        "storageUriEnv": "works",
        "podAnnotation": "ignored",
        "imageVolume": "works",  # the kubelet's affair
        "imageVolumeSubPath": "works",
        "ociNative": "ignored",
    }
    assert "injected no modelcar" in outcomes["storageUris"].reason
    assert found.chosen == "imageVolume"
