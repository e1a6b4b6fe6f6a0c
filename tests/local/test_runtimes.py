"""What container runtimes, Kubernetes and KServe make of each placement: the table of docs/image-volumes.md.

Each row is a platform of its own, with programs of these versions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.cluster.access import Cluster
from components.cluster.probe_image import NAME, push_probe
from components.cluster.smoke import smoke, table
from components.cluster.smoke_volumes import NATIVE, SUB_PATH
from components.config import loading as stack
from local import platform, up
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, load
from local.other_versions import KSERVES, with_containerd, with_kserve, with_older_kubernetes
from local.tool_list import CONTAINERD_VERSION
from local.tools import Toolbox, collect
from modelcar.base import read_base
from modelcar.registry import Target
from tests.conftest import PROJECT

pytestmark = pytest.mark.extended

PAGE = PROJECT / "docs/image-volumes.md"
SHOWN = ("imageVolume", SUB_PATH, NATIVE, "servingRuntime")
GATE = "ImageVolume=true"


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the table's rows: containerd, Kubernetes, KServe, and a verdict for each of SHOWN."""
    _, _, text = PAGE.read_text().partition("| containerd | Kubernetes | KServe |")
    for line in text.partition("\n\n")[0].splitlines()[2:]:
        yield tuple(cell.strip() for cell in line.strip("|").split("|"))


def short(version: str) -> str:
    return version.rpartition(".")[0]


def programs(containerd: str, kubernetes: str, kserve: str) -> Toolbox:
    tools = collect(print)
    if containerd != short(CONTAINERD_VERSION):
        tools = with_containerd(tools, containerd, print)
    if not kubernetes.startswith(short(KUBERNETES_VERSION)):
        tools = with_older_kubernetes(tools, print, GATE if "gate" in kubernetes else "")
    if kserve != short(KSERVE_VERSION):
        [name] = [name for name, version in KSERVES.items() if short(version) == kserve]
        tools = with_kserve(tools, name, print)
    return tools


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: " ".join(row[:3]))
def test_each_row_is_what_the_smoke_test_finds(
    row: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containerd, kubernetes, kserve, *expected = row
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path))
    instance = load("runtime")
    try:
        platform.up(instance, programs(containerd, kubernetes, kserve), print)
        up.write_platform_settings(instance)
        own = {"gpuCount": "0", "model": "tiny", "namespace": "models"}
        values = {"platformFile": str(instance.settings_file), **own}
        settings = stack.load({f"modelcar:{key}": value for key, value in values.items()}, tmp_path)
        target = Target(settings.registry, NAME, settings.registry_insecure)
        digest = push_probe(read_base(settings.architecture), tmp_path, target)
        image = f"{settings.registry}/{NAME}@{digest}"
        found = smoke(Cluster.of(settings), settings, image, patience=60)
    finally:
        platform.down(instance, print)
        shutil.rmtree(instance.state)
    print("\n".join(table(found)))
    [nodes] = found.nodes
    assert f"containerd://{containerd}." in nodes.replace("://v", "://")
    verdicts = {outcome.placement: outcome.verdict for outcome in found.outcomes}
    assert [verdicts[name] for name in SHOWN] == expected, "\n".join(table(found))
