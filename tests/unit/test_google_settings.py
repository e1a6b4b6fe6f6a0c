"""Settings of the Google side: what is refused, with which words, and all of it at once."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import disk, gpus
from components.config import loading as settings
from components.config import settings as settings_settings
from components.config.checks.google import small_ssds
from components.google.names import account_id, label_value
from modelcar.errors import InputError, Problem

PROJECT = Path(__file__).resolve().parents[2]
STACKS = ["dev", "prod"]


def stack_config(name: str) -> dict[str, Any]:
    """Return a committed stack's configuration as Pulumi hands it over, objects still as objects."""
    config: dict[str, Any] = yaml.safe_load((PROJECT / f"Pulumi.{name}.yaml").read_text())["config"]
    return config


def as_texts(config: dict[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def load(config: dict[str, Any]) -> settings_settings.Settings:
    return settings.load(as_texts(config), PROJECT)


def dev(**changes: Any) -> dict[str, Any]:
    """Return the dev stack with changes; a key `a.b.c` reaches into objects, and None removes."""
    config = copy.deepcopy(stack_config("dev"))
    for path, value in changes.items():
        *parents, last = path.split(".")
        target: Any = config
        for number, part in enumerate(parents):
            target = target.setdefault(f"modelcar:{part}" if number == 0 else part, {})
        last = last if parents else f"modelcar:{last}"
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    return config


def problems(**changes: Any) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        load(dev(**changes))
    return caught.value.problems


@pytest.mark.parametrize("name", STACKS)
def test_the_committed_stacks_are_right(name: str) -> None:
    loaded = load(stack_config(name))
    assert loaded.google
    assert loaded.registry == loaded.google.registry
    assert loaded.google.zones_of(loaded.google.nodes), "there is a zone with that GPU"


@pytest.mark.parametrize("name", STACKS)
def test_the_committed_stacks_say_it_in_vllms_terms_and_their_models_can_be_locked(name: str) -> None:
    loaded = load(stack_config(name))
    assert loaded.server_args == ()
    assert loaded.vllm
    assert loaded.vllm.max_model_len
    assert (PROJECT / loaded.lock_path).with_name("model.yaml").is_file()


def test_a_repository_is_referred_to_or_imported_and_not_both() -> None:
    changes = {"google.repository.existing": True, "importExisting": ["Repository"]}
    [found] = problems(**changes)
    assert found.key == "modelcar:importExisting"
    assert "google.repository.existing" in found.value


def test_a_grant_is_imported_to_an_account_that_is_there() -> None:
    [found] = problems(importExisting=["RepositoryIamMember"])
    assert found.key == "modelcar:importExisting"
    assert "one that this stack makes" in found.value
    assert "google.nodes.serviceAccount" in found.fix


def test_an_import_is_no_second_mistake_where_google_is_wrong() -> None:
    changes = {"google.project": "No", "importExisting": ["Repository"]}
    [found] = problems(**changes)
    assert found.key == "modelcar:google.project"


def test_environments_differ_where_they_should() -> None:
    one, other = (load(stack_config(name)) for name in STACKS)
    assert one.google
    assert other.google
    assert (one.google.protect, other.google.protect) == (False, True)
    assert (one.google.nodes.spot, other.google.nodes.spot) == (True, False)
    assert one.google.nodes.min_nodes == 0
    assert other.min_replicas > one.min_replicas
    assert other.google.nodes.min_nodes == other.min_replicas
    assert other.google.nodes.max_nodes > other.max_replicas, "a new version starts beside the old one"
    assert other.google.repository.untagged_days > one.google.repository.untagged_days


NODES = "google.nodes."
CLUSTER = "google.cluster."
H100 = {NODES + "gpu": "nvidia-h100-80gb", NODES + "machineType": "a3-highgpu-1g"}
RTX = {
    NODES + "gpu": "nvidia-rtx-pro-6000",
    NODES + "machineType": "g4-standard-48",
    NODES + "zones": ["europe-west4-b"],
}
B200 = {
    **{NODES + "gpu": "nvidia-b200", NODES + "machineType": "a4-highgpu-8g", NODES + "gpusPerNode": 8},
    **{CLUSTER + "location": "europe-west4", NODES + "zones": ["europe-west4-b"], "gpuCount": 4},
}
#: What is changed in the dev stack → key, part of the value shown, part of what is allowed.
WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "project number": ({"google.project": "123456789012"}, "google.project", "123456789012", "6 to 30"),
    "project name": ({"google.project": "My Project"}, "google.project", "My Project", "lower-case"),
    "project too short": ({"google.project": "abc"}, "google.project", "abc", "6 to 30"),
    "no project": ({"google.project": None}, "google.project", "not set", ""),
    "region is a zone": ({"google.region": "europe-west4-b"}, "google.region", "europe-west4-b", "a region"),
    "region misspelt": ({"google.region": "europe_west4"}, "google.region", "europe_west4", "a region"),
    "region without the GPU": (
        {"google.region": "europe-north1", CLUSTER + "location": None},
        "google.region",
        "europe-north1 has no nvidia-l4",
        "a region with it",
    ),
    "zone without the GPU": (
        {NODES + "gpu": "nvidia-a100-80gb", NODES + "machineType": "a2-ultragpu-1g"},
        CLUSTER + "location",
        "europe-west4-b has no nvidia-a100-80gb",
        "europe-west4-a",
    ),
    "nodes in a zone without the GPU": (
        {"google.region": "us-east1", CLUSTER + "location": "us-east1-b", NODES + "zones": ["us-east1-a"]},
        NODES + "zones",
        "us-east1-a has no nvidia-l4",
        "us-east1-b",
    ),
    "nodes in another region": (
        {NODES + "zones": ["us-east1-b"]},
        NODES + "zones",
        "us-east1-b, outside",
        "",
    ),
    "zone is a region": ({NODES + "zones": ["europe-west4"]}, NODES + "zones[0]", "europe-west4", "a zone"),
    "cluster elsewhere": (
        {CLUSTER + "location": "us-central1-a"},
        CLUSTER + "location",
        "us-central1-a, outside",
        "europe-west4",
    ),
    "scanning of somebody else's repository": (
        {"google.repository.existing": True, "google.repository.vulnerabilityScanning": True},
        "google.repository.vulnerabilityScanning",
        "true, and google.repository.existing says that somebody else manages it",
        "not set",
    ),
    "another account for another pool": (
        {
            "google.pools": [
                {
                    "name": "big",
                    "gpu": "nvidia-l4",
                    "machineType": "g2-standard-12",
                    "serviceAccount": "nodes-own@my-project.iam.gserviceaccount.com",
                }
            ]
        },
        "google.pools[0].serviceAccount",
        "nodes-own@my-project.iam.gserviceaccount.com, and the nodes of all pools run as",
        "not set",
    ),
    "disk too small for any model": ({NODES + "diskGb": 100}, NODES + "diskGb", "100", "at least 200"),
    "disk larger than Google has": ({NODES + "diskGb": 70000}, NODES + "diskGb", "70000", "65536"),
    "preloaded disk without streaming": (
        {NODES + "secondaryBootDisk": "global/images/qwen"},
        NODES + "secondaryBootDisk",
        "global/images/qwen, without imageStreaming",
        "with imageStreaming",
    ),
    "preloaded disk that is no image": (
        {NODES + "secondaryBootDisk": "qwen", NODES + "imageStreaming": True},
        NODES + "secondaryBootDisk",
        "qwen",
        "global/images/NAME",
    ),
    "more SSDs than the machine takes": (
        {NODES + "localSsds": 2},
        NODES + "localSsds",
        "2 on g2-standard-8",
        "1",
    ),
    "more pulls than GKE allows": ({NODES + "parallelPulls": 6}, NODES + "parallelPulls", "6", "5"),
    "machine without GPUs": (
        {NODES + "machineType": "e2-standard-8"},
        NODES + "machineType",
        "e2-standard-8 is not known",
        "g2-standard-4",
    ),
    "machine with another GPU": (
        {NODES + "machineType": "a2-highgpu-1g"},
        NODES + "machineType",
        "a2-highgpu-1g has nvidia-tesla-a100",
        "g2-standard-4",
    ),
    "count that the machine has not": (
        {NODES + "gpusPerNode": 2},
        NODES + "gpusPerNode",
        "2 on g2-standard-8",
        "1",
    ),
    "image for other processors": (
        {"architecture": "arm64"},
        "architecture",
        "arm64, and g2-standard-8 is x86",
        "amd64",
    ),
    "address in place of a network": (
        {"google.cluster.authorizedNetworks": ["203.0.113.7"]},
        "google.cluster.authorizedNetworks[0]",
        "'203.0.113.7': not in CIDR notation",
        "203.0.113.0/24",
    ),
    "no such GPU": ({NODES + "gpu": "nvidia-l5"}, NODES + "gpu", "nvidia-l5", "nvidia-l4"),
    "min above max": ({NODES + "minNodes": 3}, NODES + "minNodes", "3, above maxNodes 1", "at most"),
    "negative": ({NODES + "minNodes": -1}, NODES + "minNodes", "-1", ""),
    "no nodes at all": ({NODES + "maxNodes": 0}, NODES + "maxNodes", "0", ""),
    "more replicas than GPUs": ({"maxReplicas": 2}, "maxReplicas", "2, more than 1 nodes hold", "at most 1"),
    "more GPUs than a node has": ({"gpuCount": 2}, "gpuCount", "2, more than one node has", "at most 1"),
    "no GPU in the pod": ({"gpuCount": 0}, "gpuCount", "0 on a stack with GPU nodes", "1 or more"),
    "more CPU than a node has": ({"cpu": "8"}, "cpu", "8, more than g2-standard-8 has", "at most 7"),
    "more memory than a node has": ({"memory": "32Gi"}, "memory", "32Gi, more than", "at most 2"),
    "provisioning misspelt": ({NODES + "provisioning": "sport"}, NODES + "provisioning", "sport", "spot"),
    "reservation without a name": (
        {NODES + "provisioning": "reservation"},
        NODES + "reservation",
        "not set",
        "the reservation's name",
    ),
    "reservation beside spot": ({NODES + "reservation": "r1"}, NODES + "reservation", "r1", "only then"),
    "disk type that the machine refuses": (
        {NODES + "diskType": "hyperdisk-balanced"},
        NODES + "diskType",
        "hyperdisk-balanced on g2",
        "pd-balanced",
    ),
    "persistent disk on a machine that takes Hyperdisk only": (
        {**RTX, NODES + "diskType": "pd-ssd"},
        NODES + "diskType",
        "pd-ssd on g4-standard-48",
        "hyperdisk-balanced",
    ),
    "H100 on demand, fewer than eight": (
        {**H100, NODES + "provisioning": "on-demand"},
        NODES + "provisioning",
        "on-demand of a3-highgpu-1g",
        "spot",
    ),
    "B200 on demand": (
        {**B200, NODES + "provisioning": "on-demand"},
        NODES + "provisioning",
        "on-demand of a4-highgpu-8g",
        "spot or reservation",
    ),
    "GPUs of which no zones are known, in a region": (
        {**B200, NODES + "zones": None},
        NODES + "zones",
        "not known here which zones of europe-west4 have nvidia-b200",
        "zones of europe-west4",
    ),
    "such GPUs in another region": (
        {**B200, NODES + "zones": ["us-central1-b"]},
        NODES + "zones",
        "us-central1-b, outside of the region europe-west4",
        "zones that have it",
    ),
    "new zones in another region": (
        {NODES + "zones": ["us-central1-d"], NODES + "checkZones": False},
        NODES + "zones",
        "us-central1-d, outside of the region europe-west4",
        "zones that have it",
    ),
    "new zones that nobody names": (
        {**B200, NODES + "zones": None, NODES + "checkZones": False},
        NODES + "zones",
        "not set, and it is not known here which zones",
        "zones of europe-west4",
    ),
    "fewer GPUs than the machine has": (
        {**B200, NODES + "gpusPerNode": 4},
        NODES + "gpusPerNode",
        "4 on a4-highgpu-8g",
        "8",
    ),
    "GPUs that the program does not set up": (
        {**B200, NODES + "gpu": "nvidia-gb200", NODES + "machineType": "a4x-highgpu-4g"},
        NODES + "gpu",
        "Arm ones in racks of 72",
        "nvidia-b200",
    ),
    "disk type misspelt": ({NODES + "diskType": "pd-standart"}, NODES + "diskType", "pd-standart", "pd-ssd"),
    "reserved name": ({CLUSTER + "name": "google-models"}, CLUSTER + "name", "google-models", "goog"),
    "name in capitals": ({NODES + "name": "GPU"}, NODES + "name", "GPU", "lower-case"),
    "name too long": ({CLUSTER + "name": "m" * 41}, CLUSTER + "name", "mmm", "up to 40"),
    "repository in capitals": ({"google.repository.name": "Models"}, "google.repository.name", "Models", ""),
    "cluster without a name": ({CLUSTER + "name": None}, CLUSTER + "name", "not set", "stackReference"),
    "two ways to the cluster": (
        {CLUSTER + "stackReference": "org/clusters/dev"},
        CLUSTER + "stackReference",
        "beside name",
        "one way",
    ),
    "no stack": (
        {CLUSTER + "stackReference": "clusters"},
        CLUSTER + "stackReference",
        "clusters",
        "ORGANIZATION",
    ),
    "networks of a cluster that is not ours": (
        {CLUSTER + "create": False, CLUSTER + "authorizedNetworks": ["192.0.2.0/24"]},
        CLUSTER + "authorizedNetworks",
        "192.0.2.0/24",
        "creates",
    ),
    "everybody": (
        {CLUSTER + "authorizedNetworks": ["0.0.0.0/0"]},
        CLUSTER + "authorizedNetworks[0]",
        "",
        "narrower",
    ),
    "everybody by halves": (
        {CLUSTER + "authorizedNetworks": ["0.0.0.0/1", "128.0.0.0/1"]},
        CLUSTER + "authorizedNetworks",
        "",
        "narrower",
    ),
    "no network": (
        {CLUSTER + "authorizedNetworks": ["10.0.0.1/8"]},
        CLUSTER + "authorizedNetworks[0]",
        "",
        "/24",
    ),
    "malformed account": (
        {NODES + "serviceAccount": "nodes@my-project"},
        NODES + "serviceAccount",
        "nodes@my-project",
        "iam.gserviceaccount.com",
    ),
    "default account": (
        {NODES + "serviceAccount": "123456-compute@developer.gserviceaccount.com"},
        NODES + "serviceAccount",
        "123456-compute",
        "NAME@PROJECT",
    ),
    "driver misspelt": ({NODES + "driver": "NEWEST"}, NODES + "driver", "NEWEST", "LATEST"),
    "unknown key": ({NODES + "machinType": "x"}, NODES + "machinType", "unknown key", "machineType"),
    "wrong type": ({"google.protect": "maybe"}, "google.protect", "maybe", "true or false"),
    "retention of nothing": (
        {"google.repository.untaggedDays": 0},
        "google.repository.untaggedDays",
        "0",
        "",
    ),
    "KServe without its v": ({"kserve.version": "0.19.0"}, "kserve.version", "0.19.0", ""),
    "modelcar as root": ({"kserve.modelcarUid": 0}, "kserve.modelcarUid", "0", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_google_would_refuse_is_refused_before(case: str) -> None:
    changes, key, value, allowed = WRONG[case]
    found = {problem.key.removeprefix("modelcar:"): problem for problem in problems(**changes)}
    assert set(found) == {key}
    assert value in found[key].value
    assert allowed in found[key].allowed
    assert found[key].fix


def test_all_mistakes_are_told_at_once() -> None:
    changes = {
        NODES + "gpusPerNode": 2,
        NODES + "minNodes": 5,
        "google.region": "x",
        "serviceName": "0",
        "typo": "1",
    }
    keys = {problem.key.removeprefix("modelcar:") for problem in problems(**changes)}
    assert {"google.region", "serviceName", "typo"} <= keys


#: The same stack elsewhere and on other GPUs, as the how-to shows them.
ELSEWHERE: dict[str, dict[str, Any]] = {
    "L4 in Tokyo": {"google.region": "asia-northeast1", CLUSTER + "location": "asia-northeast1-a"},
    "A100 40 GB in Iowa": {
        "google.region": "us-central1",
        CLUSTER + "location": "us-central1",
        NODES + "gpu": "nvidia-tesla-a100",
        NODES + "machineType": "a2-highgpu-1g",
    },
    "A100 80 GB": {
        CLUSTER + "location": "europe-west4-a",
        NODES + "gpu": "nvidia-a100-80gb",
        NODES + "machineType": "a2-ultragpu-1g",
    },
    "eight H100 for 70 billion parameters": {
        NODES + "gpu": "nvidia-h100-80gb",
        NODES + "gpusPerNode": 8,
        NODES + "machineType": "a3-highgpu-8g",
        "gpuCount": 8,
    },
    "RTX PRO 6000": RTX,
    "half of eight B200": B200,
    "a new zone": {NODES + "zones": ["europe-west4-d"], NODES + "checkZones": False},
    "the zone of the cluster, new": {
        **{"google.region": "europe-north1", CLUSTER + "location": "europe-north1-b"},
        NODES + "checkZones": False,
    },
    "eight H200, reserved": {
        **B200,
        NODES + "gpu": "nvidia-h200-141gb",
        NODES + "machineType": "a3-ultragpu-8g",
        NODES + "provisioning": "reservation",
        NODES + "reservation": "ours",
    },
    "T4 in Belgium": {
        "google.region": "europe-west1",
        CLUSTER + "location": "europe-west1-b",
        NODES + "gpu": "nvidia-tesla-t4",
        NODES + "machineType": "n1-standard-8",
    },
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_other_regions_and_gpus_are_a_few_settings_away(case: str) -> None:
    loaded = load(dev(**ELSEWHERE[case]))
    assert loaded.google
    zones = loaded.google.zones_of(loaded.google.nodes)
    assert all(gpus.region_of(zone) == loaded.google.region for zone in zones)
    assert zones


def test_every_machine_of_the_table_is_known_by_its_name() -> None:
    for name, machine in gpus.MACHINES.items():
        assert gpus.GPU_MEMORY[machine.gpu] >= 16, name
        assert machine.disks, name
        assert machine.provisioning, name
        suffix = name.rsplit("-", 1)[1]
        if suffix.endswith("g"):
            assert machine.gpus == (int(suffix[:-1]),), "the name says how many GPUs it has"


def need(*sizes: float, gpus_per_node: int = 1) -> disk.DiskNeed:
    return disk.need([disk.OnNode(size) for size in sizes], gpus_per_node)


def test_models_that_one_node_can_have_together_share_its_disk() -> None:
    alone = need(140e9, 30e9, 20e9)
    assert alone.model == 140, "one GPU takes one model at a time"
    assert need(140e9, 30e9, 20e9, gpus_per_node=2).model == 170
    assert need(140e9, 30e9, 20e9, gpus_per_node=8).model == 190
    wide = [disk.OnNode(140e9, gpus=8), *(disk.OnNode(20e9, gpus=1) for _ in range(6))]
    assert disk.need(wide, 8).model == 140, "beside a model on all GPUs there is none"
    small = [disk.OnNode(50e9, gpus=4), *(disk.OnNode(20e9, gpus=1) for _ in range(6))]
    assert disk.need(small, 8).model == 50 + 4 * 20
    servers = [disk.OnNode(1e9, server_image=name) for name in ("a", "b", "b")]
    assert disk.need(servers, 8).used == 20 + 2 * 30 + 20 + 4 * 3
    assert "of 3 models that one node can have together" in str(disk.need(servers, 8))


def test_the_disk_follows_the_model() -> None:
    assert disk.need([]).disk == 200
    assert need(1e9).disk == 200
    large = need(140e9)
    assert large.used == 20 + 30 + 20 + 4 * 140
    assert large.used <= 0.85 * large.disk < large.used + 10
    assert need(280e9).disk > large.disk


@pytest.mark.parametrize(("memory", "left"), [(4, 2.9), (16, 13.3), (32, 28.3), (128, 118.6)])
def test_what_gke_keeps_of_a_node(memory: int, left: float) -> None:
    assert gpus.allocatable_memory(memory) == pytest.approx(left, abs=0.1)


def test_account_ids_fit_and_stay_apart() -> None:
    assert account_id("models") == "models-nodes"
    long = [account_id(f"a-very-long-name-of-a-team-and-its-models-{end}") for end in ("one", "two")]
    assert len(set(long)) == 2
    alike = [account_id(f"models-dev{end}") for end in ("-1", ".1", "_1")]
    assert alike[0] == "models-dev-1-nodes"
    assert len(set(alike)) == 3
    for made in [*long, *alike, account_id("7b"), account_id("Ünïcode"), account_id("x")]:
        assert 6 <= len(made) <= 30
        assert made[0].isalpha()
        assert made[-1].isalnum()
        assert made == made.lower()
        assert made.isascii()


def test_labels_fit_and_stay_apart() -> None:
    """What was a label of before stays as it was."""
    for right in ("dev", "dev-1", "dev_1", "a" * 63):
        assert label_value(right) == right
    assert label_value("Dev") == "dev"
    apart = [label_value(name) for name in ("team.dev", "team-dev", "team dev", "a" * 64, "a" * 65)]
    assert len(set(apart)) == 5
    assert apart[0].startswith("team-dev-")
    for made in apart:
        assert re.fullmatch(r"[a-z0-9_-]{1,63}", made)


def test_local_ssds_hold_what_is_pulled() -> None:
    google = load(dev(**{NODES + "localSsds": 1})).google
    assert google
    assert not list(small_ssds("google.nodes", google.nodes, need(60e9)))
    [found] = small_ssds("google.nodes", google.nodes, need(140e9))
    assert found.key == "modelcar:google.nodes.localSsds"
    assert "1, 375 GB: pulling the model would end in ImageGCFailed" in found.value
    assert found.allowed.startswith("at least 2 (")


def test_images_lie_on_the_local_ssds_that_a_machine_always_has() -> None:
    a3: dict[str, Any] = {NODES + "gpu": "nvidia-h100-80gb", NODES + "machineType": "a3-highgpu-1g"}
    a3 |= {NODES + "provisioning": "spot", NODES + "zones": ["europe-west4-b"]}
    google = load(dev(**a3)).google
    assert google
    assert google.nodes.ssds_per_node == 2
    assert not list(small_ssds("google.nodes", google.nodes, need(80e9)))
    [found] = small_ssds("google.nodes", google.nodes, need(150e9))
    assert found.key == "modelcar:google.nodes.localSsds"
    assert found.value.startswith("2, 750 GB: ")
    assert found.fix == "take a machine with 3 or more, or serve fewer models on this pool"
    [refused] = problems(**a3, **{NODES + "localSsds": 1})
    assert (refused.value, refused.allowed) == ("1 on a3-highgpu-1g", "2")
    assert refused.fix == "remove it: the machine always has them"


def test_an_unknown_key_of_a_pool_in_a_list_is_told_with_the_pools_own_keys() -> None:
    google = stack_config("dev")["modelcar:google"]
    config = {
        **stack_config("dev"),
        "modelcar:google": {**google, "pools": [{"machinType": "g2-standard-4"}]},
    }
    with pytest.raises(InputError) as caught:
        settings.load(as_texts(config), PROJECT)
    [problem] = [found for found in caught.value.problems if found.value == "unknown key"]
    assert problem.key == "modelcar:google.pools[0].machinType"
    assert "did you mean machineType?" in problem.fix
