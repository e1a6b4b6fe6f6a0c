"""What container runtimes, Kubernetes and KServe make of each placement: the table of docs/image-volumes.md.

Each row is a platform of its own, with programs of these versions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from components.cluster.access import Cluster
from components.cluster.probe_image import NAME, push_probe
from components.cluster.smoke import objects, service, smoke, table
from components.cluster.smoke_volumes import NATIVE, SUB_PATH
from components.config.models import load_stack
from components.config.stack import Stack
from local import platform, up
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, Instance, load
from local.other_versions import KSERVES, with_containerd, with_kserve, with_older_kubernetes
from local.tool_list import CONTAINERD_VERSION
from local.tools import Toolbox, collect
from modelcar.base import read_base
from modelcar.registry import Target
from operations import admission_builtin
from operations.admission_builtin import ELSEWHERE
from tests.conftest import PROJECT
from tests.hostile_pods import pod, verdicts, volume
from tests.local.conftest import until

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


@contextmanager
def running(
    tools: Toolbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Instance, Stack, str]]:
    """Run a platform meanwhile; yield it, a stack on it, and the probe's image in its registry."""
    monkeypatch.setenv("MODELCAR_STATE", str(folder))
    instance = load("runtime")
    try:
        platform.up(instance, tools, print)
        up.write_platform_settings(instance)
        own = {"gpuCount": "0", "model": "tiny", "namespace": "models"}
        values = {"platformFile": str(instance.settings_file), **own}
        stack = load_stack({f"modelcar:{key}": value for key, value in values.items()}, folder)
        [settings] = stack.models
        target = Target(settings.registry, NAME, settings.registry_insecure)
        digest = push_probe(read_base(settings.architecture), folder, target)
        yield instance, stack, f"{settings.registry}/{NAME}@{digest}"
    finally:
        platform.down(instance, print)
        shutil.rmtree(instance.state)


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: " ".join(row[:3]))
def test_each_row_is_what_the_smoke_test_finds(
    row: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containerd, kubernetes, kserve, *expected = row
    with running(programs(containerd, kubernetes, kserve), tmp_path, monkeypatch) as (_, stack, image):
        [settings] = stack.models
        found = smoke(Cluster.of(settings), settings, image, patience=60)
    print("\n".join(table(found)))
    [nodes] = found.nodes
    assert f"containerd://{containerd}." in nodes.replace("://v", "://")
    verdicts = {outcome.placement: outcome.verdict for outcome in found.outcomes}
    assert [verdicts[name] for name in SHOWN] == expected, "\n".join(table(found))


def test_what_oci_native_mounts_is_held_to_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KServe 0.20 makes an image volume of it, which the API server judges like any other."""
    tools = programs(short(CONTAINERD_VERSION), KUBERNETES_VERSION, "0.20")
    with running(tools, tmp_path, monkeypatch) as (instance, stack, image):
        kubectl = partial(platform.kubectl, instance, tools)
        [settings] = stack.models
        cluster = Cluster.of(settings)
        policy = admission_builtin.policies(stack, "modelcars")
        evil = f"evil.example/models/probe@{image.partition('@')[2]}"
        for namespace in ("models", "other"):
            kubectl("create", "namespace", namespace)
        kubectl("apply", "-f", "-", documents=policy)

        def held() -> bool:
            hostile = pod(image, volumes=[volume(evil)])
            try:
                kubectl("-n", "models", "create", "--dry-run=server", "-f", "-", documents=[hostile])
            except platform.PlatformError as error:
                return ELSEWHERE in str(error)
            return False

        until(held, 60, lambda: "the API server does not take the policy")
        for namespace, mounted in (("other", evil), ("models", evil), ("models", image)):
            for path, body in objects(settings, f"oci+native://{mounted}", namespace, NATIVE):
                text = json.dumps(body).replace(f'"image": "{mounted}"', f'"image": "{image}"')
                name = "ours" if mounted == image else "evil"
                cluster.create(path, json.loads(text.replace(service(NATIVE), name)))

        def said(namespace: str) -> dict[str, str]:
            return verdicts(kubectl("-n", namespace, "get", "replicasets", "-o", "json"))

        shown = partial(kubectl, "get", "replicasets,pods", "-A")
        until(lambda: len(said("models")) == 2 and len(said("other")) == 1, 90, shown)
        assert said("other") == {"evil": ""}, "no policy there"
        assert f"{ELSEWHERE}: {evil}" in said("models")["evil"]
        assert said("models")["ours"] == ""
        [made] = json.loads(kubectl("-n", "models", "get", "pods", "-o", "json"))["items"]
        assert image in {one.get("image", {}).get("reference") for one in made["spec"]["volumes"]}
