"""The table of machines, and the stand-in's rules that were written apart from it: both say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.config import disk, gpus
from components.google.node_pool import GpuNodePool, GpuNodePoolArgs
from local.standins.gcp_provider import outputs
from local.standins.gcp_provider.accelerators import GPUS, attached_ssds
from local.standins.gcp_provider.changes import changes as changes_of
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.rules import check_inputs
from local.standins.gcp_provider.settings import Settings
from modelcar.errors import InputError
from tests.unit.mocked_engine import Engine
from tests.unit.test_google_components import ACCOUNT
from tests.unit.test_google_settings import CLUSTER, NODES, dev, load

POOL = "gcp:container/nodePool:NodePool"
OFFERED = {name: row for name, row in gpus.MACHINES.items() if row.gpu not in gpus.NOT_OFFERED}
#: Pascal and Volta, which CUDA 13 has left behind.
TOO_OLD = {"nvidia-tesla-p4", "nvidia-tesla-p100", "nvidia-tesla-v100"}


def stack(name: str, **nodes: Any) -> dict[str, Any]:
    """Return changes of the dev stack that put it on a machine, as cheap as it can be had."""
    machine = gpus.MACHINES[name]
    settings = {
        "gpu": machine.gpu,
        "machineType": name,
        "gpusPerNode": machine.gpus[0],
        "provisioning": machine.provisioning[0],
        "zones": ["europe-west4-a"],
        "checkZones": False,
        **nodes,
    }
    if settings["provisioning"] == "reservation":
        settings["reservation"] = "ours"
    return {
        **{NODES + key: value for key, value in settings.items()},
        **{CLUSTER + "location": "europe-west4", "cpu": "2", "memory": "8Gi"},
    }


def declared(*stacks: dict[str, Any], model_bytes: float = 1e9) -> list[dict[str, Any]]:
    """Return the pools that the program declares for these stacks, as the provider is handed them."""
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        for number, changes in enumerate(stacks):
            google = load(dev(**changes)).google
            assert google
            need = disk.need([disk.OnNode(model_bytes)])
            arguments = GpuNodePoolArgs(
                project=google.project,
                cluster="models",
                location=google.region,
                nodes=google.nodes,
                service_account=ACCOUNT,
                zones=google.zones_of(google.nodes),
                need=need,
            )
            GpuNodePool(f"pool-{number}", arguments)
        return {}

    engine.run(program)
    pools = [found for found in engine.declared if found.type == POOL]
    pools.sort(key=lambda found: int(found.urn.rpartition("-")[2]))
    return [whole(found.inputs) for found in pools]


def whole(value: Any) -> Any:
    """Return a value with whole numbers as such: on the wire all of them have a fraction."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def google_says(inputs: dict[str, Any]) -> list[str]:
    """Return what the stand-in says of a pool."""
    found = check_inputs(KINDS[POOL], inputs, Settings(project="my-project"))
    return [str(finding.problem(inputs)) for finding in found]


def refused(changes: dict[str, Any]) -> list[str]:
    """Return the keys that the program refuses, or nothing."""
    try:
        load(dev(**changes))
    except InputError as error:
        return [problem.key.removeprefix("modelcar:") for problem in error.problems]
    return []


@pytest.mark.parametrize("name", OFFERED)
def test_what_the_program_declares_google_takes(name: str) -> None:
    row = OFFERED[name]
    ways = [(type_, row.provisioning[0], row.gpus[0], 0) for type_ in (None, *row.disks)]
    ways += [(None, way, row.gpus[0], 0) for way in row.provisioning[1:]]
    ways += [(None, row.provisioning[0], count, 0) for count in row.gpus[1:]]
    ways += [(None, row.provisioning[0], row.gpus[0], ssds) for ssds in row.ssds]
    stacks = [
        stack(name, diskType=type_, provisioning=way, gpusPerNode=count, localSsds=ssds)
        for type_, way, count, ssds in ways
    ]
    assert [refused(changes) for changes in stacks] == [[]] * len(stacks)
    pools = declared(*stacks)
    assert [google_says(pool) for pool in pools] == [[]] * len(stacks)


@pytest.mark.parametrize("name", OFFERED)
def test_what_google_would_refuse_the_program_refuses_first(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = OFFERED[name]
    wrong: list[tuple[str, Any]] = [
        ("diskType", type_) for type_ in gpus.DISK_TYPES if type_ not in row.disks
    ]
    wrong += [("provisioning", way) for way in gpus.PROVISIONING if way not in row.provisioning]
    wrong += [("gpusPerNode", count) for count in range(1, 17) if count not in row.gpus]
    wrong += [("localSsds", count) for count in range(1, 33) if count not in row.ssds]
    stacks = [stack(name, **{key: value}) for key, value in wrong]
    assert [refused(changes) for changes in stacks] == [[NODES + key] for key, _ in wrong]
    monkeypatch.setattr("components.config.checks.together.google.problems", lambda *_: iter(()))
    monkeypatch.setattr("components.google.node_pool.of_pool", lambda *_: iter(()))
    for (key, value), pool in zip(wrong, declared(*stacks), strict=True):
        assert google_says(pool), f"Google takes {key} {value}, and the program refuses it"


def test_both_know_which_machines_have_local_ssds_unasked() -> None:
    assert {name: row.own_ssds for name, row in gpus.MACHINES.items() if row.with_ssds} == {
        **{"a3-highgpu-1g": 2, "a3-highgpu-2g": 4, "a3-highgpu-4g": 8, "a3-highgpu-8g": 16},
        **{"a3-megagpu-8g": 16, "a3-ultragpu-8g": 32, "a4-highgpu-8g": 32},
    }
    page = (Path(__file__).resolve().parents[2] / "docs" / "google-cloud.md").read_text()
    rows = re.findall(r"^\| (`a[34]-.+`) \| (\d+) \|$", page, re.MULTILINE)
    told = {name: int(count) for names, count in rows for name in re.findall(r"`(\S+)`", names)}
    assert told == {name: row.own_ssds for name, row in gpus.MACHINES.items() if row.with_ssds}
    for name, row in gpus.MACHINES.items():
        if row.gpu not in gpus.NOT_OFFERED:
            assert row.own_ssds == attached_ssds(name), name


@pytest.mark.parametrize("name", OFFERED)
def test_a_second_up_changes_nothing_of_a_pool(name: str) -> None:
    """Google reports local SSDs that come with a machine, and the provider makes a pool without them anew."""
    kind, settings = KINDS[POOL], Settings(project="my-project")
    [inputs] = declared(stack(name))
    made = outputs.created(kind, "projects/my-project/pool", kind.resolve(inputs, settings), settings)
    assert changes_of(kind, inputs, made, inputs, settings, []) == {}
    # What a version deployed that did not say them.
    config = {key: value for key, value in inputs["nodeConfig"].items() if "LocalSsd" not in key}
    former = {**inputs, "nodeConfig": config}
    made = outputs.created(kind, "projects/my-project/pool", kind.resolve(former, settings), settings)
    assert changes_of(kind, former, made, inputs, settings, []) == {}


def test_both_know_the_same_gpus() -> None:
    assert set(gpus.GPUS) == set(GPUS) - TOO_OLD
    for name, row in gpus.MACHINES.items():
        assert re.fullmatch(GPUS[row.gpu].machines, name), name
        assert set(row.gpus) <= set(GPUS[row.gpu].counts), name


def test_a_disk_becomes_a_hyperdisk_where_google_takes_no_other() -> None:
    expected = {
        "g2-standard-8": "pd-balanced",
        "a3-highgpu-8g": "pd-balanced",
        "a3-ultragpu-8g": "hyperdisk-balanced",
        "a4-highgpu-8g": "hyperdisk-balanced",
        "g4-standard-48": "hyperdisk-balanced",
    }
    pools = declared(*map(stack, expected), model_bytes=140e9)
    assert [pool["nodeConfig"]["diskType"] for pool in pools] == [*expected.values()]
    assert {pool["nodeConfig"]["diskSizeGb"] for pool in pools} == {750}
