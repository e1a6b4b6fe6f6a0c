"""What a change makes anew in Google is told before it happens, and nothing else is."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components.config import disk
from components.config.google import ClusterSettings, GoogleSettings, NodeSettings, RepositorySettings
from components.config.models import load_stack
from components.google.cloud import GoogleCloud, GoogleCloudArgs
from components.google.replaced import NODE_BY_NODE, OF_POOL, MadeWith, made_with, output, told
from components.stack import delivery, kept_pools
from components.stack.preflight import CheckedStack
from local.standins.gcp_provider.changes import REPLACING, changes
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.settings import Settings
from tests.unit.mocked_engine import Declared, Engine, Provider
from tests.unit.test_google_settings import CLUSTER, NODES, PROJECT, as_texts, dev, load

OWN = "nodes-own@my-project.iam.gserviceaccount.com"
#: A pool that takes reservations and SSDs, to change one setting of it at a time.
BASE = {NODES + "provisioning": "on-demand", NODES + "zones": ["europe-west4-b"]}
#: Another value of every setting of a pool; what goes with it, and None for what is none of a resource.
OTHER: dict[str, dict[str, Any]] = {
    "name": {"name": "another"},
    "gpu": {"gpu": "nvidia-tesla-t4", "machineType": "n1-standard-8"},
    "gpus_per_node": {"gpusPerNode": 2, "machineType": "g2-standard-24"},
    "machine_type": {"machineType": "g2-standard-12"},
    "zones": {"zones": ["europe-west4-a", "europe-west4-b"]},
    "check_zones": {"checkZones": False},
    "min_nodes": {"minNodes": 1},
    "max_nodes": {"maxNodes": 3},
    "provisioning": {"provisioning": "spot"},
    "reservation": {"provisioning": "reservation", "reservation": "bought"},
    "disk_gb": {"diskGb": 900},
    "disk_type": {"diskType": "pd-ssd"},
    "driver": {"driver": "LATEST"},
    "image_streaming": {"imageStreaming": True},
    "secondary_boot_disk": {"secondaryBootDisk": "global/images/models", "imageStreaming": True},
    "local_ssds": {"localSsds": 1},
    "parallel_pulls": {"parallelPulls": 4},
    "service_account": {"serviceAccount": OWN},
}


def google(**changed: Any) -> GoogleSettings:
    found = load(dev(**{**BASE, **changed})).google
    assert found
    return found


def declared(settings: GoogleSettings) -> list[Declared]:
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        GoogleCloud("modelcar", GoogleCloudArgs(settings=settings))
        return {}

    engine.run(program)
    return engine.declared


def replaced(before: GoogleSettings, after: GoogleSettings) -> set[str]:
    """Return what the provider makes anew: by its own comparison of what is declared, by resource name."""
    old = {found.urn: found for found in declared(before)}
    anew = set()
    for found in declared(after):
        if found.urn not in old or found.type not in KINDS:
            continue
        inputs = old[found.urn].inputs
        diff = changes(KINDS[found.type], inputs, inputs, found.inputs, Settings(), list(found.ignored))
        if any(change.kind in REPLACING for change in diff.values()):
            anew.add(found.urn.rpartition("::")[2])
    return anew


def made(settings: GoogleSettings) -> MadeWith:
    return made_with(settings, {nodes.name: nodes.disk_gb or 200 for nodes in settings.all_pools})


def said(before: GoogleSettings, after: GoogleSettings) -> list[str]:
    return list(told(made(before), made(after), {"nodes": ["chat"]}))


def test_the_cases_are_all_settings_of_a_pool() -> None:
    assert set(OTHER) == set(NodeSettings.model_fields)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_a_pool_that_is_made_anew_is_told_and_no_other(name: str) -> None:
    before = google()
    after = google(**{NODES + key: value for key, value in OTHER[name].items()})
    assert getattr(after.nodes, name) != getattr(before.nodes, name)
    lines = said(before, after)
    anew = any(line.startswith("REPLACED: pool gpu") for line in lines)
    by_provider = {"modelcar-gpu": "gpu", "modelcar-models-dev-system": "system"}
    pools = {line.split()[2] for line in lines if line.startswith("REPLACED: pool")}
    assert pools == {by_provider[one] for one in replaced(before, after) if one in by_provider}, lines
    if anew:
        alias = str(NodeSettings.model_fields[name].alias)
        [line] = [line for line in lines if line.startswith("REPLACED: pool gpu")]
        assert f"{alias} " in line
        assert "chat stops until new nodes serve" in line
        assert name in OF_POOL
    elif name in NODE_BY_NODE:
        [line] = lines
        assert "its nodes are made anew one after another" in line
        assert "chat stops on each meanwhile" in line
    else:
        assert lines == []


A3 = {"gpu": "nvidia-h100-80gb", "machineType": "a3-highgpu-8g", "gpusPerNode": 8}


def test_local_ssds_that_a_machine_always_has_are_no_change() -> None:
    """Versions before 0.4.0 told only those that the stack set."""
    settings = google(**{NODES + key: value for key, value in A3.items()}, **{"cpu": "2", "memory": "8Gi"})
    now = made(settings)
    assert now["nodes"]["localSsds"] == "16"
    silent = {**now["nodes"], "localSsds": ""}
    absent = {key: value for key, value in silent.items() if key != "localSsds"}
    for former in (silent, absent, now["nodes"]):
        assert list(told({"nodes": former}, now, {"nodes": ["chat"]})) == []
    said_16 = google(**{NODES + key: value for key, value in {**A3, "localSsds": 16}.items()})
    assert said(said_16, settings) == said(settings, said_16) == []


def test_a_driver_is_told_with_both_its_values() -> None:
    [line] = said(google(), google(**{NODES + "driver": "LATEST"}))
    assert line == (
        "REPLACED: pool gpu (driver DEFAULT → LATEST): it is deleted before the new one is made, and chat "
        "stops until new nodes serve; they may be hard to get"
    )


#: Another value of every setting of cluster and repository, and which of the three are made anew.
PLACES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("cluster.name", {CLUSTER + "name": "others"}, {"cluster", "pool"}),
    ("cluster.location", {CLUSTER + "location": "europe-west4-a"}, {"cluster", "pool"}),
    ("cluster.release_channel", {CLUSTER + "releaseChannel": "RAPID"}, set()),
    ("cluster.authorized_networks", {CLUSTER + "authorizedNetworks": ["203.0.113.0/24"]}, set()),
    ("repository.name", {"google.repository.name": "others"}, {"repository"}),
    ("repository.untagged_days", {"google.repository.untaggedDays": 90}, set()),
    ("repository.vulnerability_scanning", {"google.repository.vulnerabilityScanning": False}, set()),
    (
        "region",
        {"google.region": "europe-west1", CLUSTER + "location": "europe-west1-b"},
        {"cluster", "pool", "repository"},
    ),
    ("project", {"google.project": "other-project"}, {"cluster", "pool", "repository"}),
    ("protect", {"google.protect": True}, set()),
    ("enable_apis", {"google.enableApis": False}, set()),
]


@pytest.mark.parametrize(("name", "change", "anew"), PLACES, ids=[row[0] for row in PLACES])
def test_a_cluster_or_repository_that_is_made_anew_is_told(
    name: str, change: dict[str, Any], anew: set[str]
) -> None:
    # Without zones of its own, which would not fit another place.
    change = {NODES + "zones": [], **change}
    before, after = google(**{NODES + "zones": []}), google(**change)
    lines = said(before, after)
    assert {line.split()[1] for line in lines if line.startswith("REPLACED")} == anew
    names = replaced(before, after)
    # A cluster's own resources are named by it, so that another name is another resource.
    if name != "cluster.name":
        by_provider = {
            "modelcar-gpu": "pool",
            "modelcar-models-dev": "cluster",
            "modelcar-registry": "repository",
        }
        assert {by_provider[one] for one in names if one in by_provider} == anew


def test_every_setting_of_cluster_and_repository_is_looked_at() -> None:
    cases = {name for name, _, _ in PLACES}
    # existing, create and stack_reference change whose they are: told as no longer the stack's own.
    own = {f"cluster.{name}" for name in ClusterSettings.model_fields} - {
        "cluster.create",
        "cluster.stack_reference",
    }
    own |= {f"repository.{name}" for name in RepositorySettings.model_fields} - {"repository.existing"}
    own |= set(GoogleSettings.model_fields) - {"cluster", "repository", "nodes", "pools"}
    assert cases == own


def test_a_pool_that_goes_and_a_cluster_that_is_given_up_are_told() -> None:
    large = {"name": "large", "gpu": "nvidia-l4", "machineType": "g2-standard-24", "gpusPerNode": 2}
    before = google(**{"google.pools": [large]})
    assert "DELETED: pool large" in said(before, google())[0]
    adopted = google(**{CLUSTER + "create": False})
    assert any(line.startswith("DELETED: cluster models-dev") for line in said(google(), adopted))
    assert not any("pool system" in line for line in said(google(), adopted)), "it goes with the cluster"
    existing = google(**{"google.repository.existing": True})
    assert said(google(), existing) == ["repository modelcars-dev is no longer this stack's own"]


def test_google_that_is_taken_out_is_told_with_all_that_goes() -> None:
    lines = list(told(made(google()), {}, {}, gone=True))
    assert [" ".join(line.split()[:3]).rstrip(",;") for line in lines] == [
        "DELETED: repository modelcars-dev",
        "DELETED: cluster models-dev",
        "DELETED: pool gpu",
    ]
    assert "with all images in it" in lines[0]
    assert "move to another one" not in lines[2]
    [line] = told(None, {}, {}, had_pools=True, gone=True)
    assert line.startswith("DELETED: all that this stack made in Google Cloud")
    assert list(told(None, {}, {}, gone=True)) == []


def test_nodes_of_a_zone_that_is_left_are_told() -> None:
    both = google(**{NODES + "zones": ["europe-west4-a", "europe-west4-b"]})
    [line] = said(both, google(**{NODES + "zones": ["europe-west4-b"]}))
    assert line == (
        "pool gpu: its nodes in europe-west4-a are deleted (zones europe-west4-a, europe-west4-b → "
        "europe-west4-b), and chat stops there until nodes in another zone serve"
    )
    assert said(google(**{NODES + "zones": ["europe-west4-b"]}), both) == []
    silent = made(both)
    del silent["nodes"]["zones"]  # as versions before 0.4.0
    assert list(told(silent, made(google()), {"nodes": ["chat"]})) == []


def test_the_system_pool_is_known_from_what_former_versions_told() -> None:
    silent = {key: value for key, value in made(google()).items() if key != "system"}
    lines = list(told(silent, made(google(**{NODES + "serviceAccount": OWN})), {"nodes": ["chat"]}))
    [line] = [line for line in lines if "system" in line]
    assert line == (
        f"REPLACED: pool system (serviceAccount none → {OWN}): it is deleted before the new one is made, and "
        "all that runs on it stops until then, KServe too"
    )


@pytest.mark.parametrize("role", ["serviceUsageConsumer", "defaultNodeServiceAccount", "reader"])
def test_a_grant_that_is_new_replaces_nothing_in_a_preview(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preview knows no id of it, and what hung on that id looked as if it were made anew."""
    before = {found.urn for found in declared(google())}
    make = Provider.new_resource

    def unknown_id(self: Provider, args: Any) -> Any:
        known, outputs = make(self, args)
        return (None if role in args.name else known), outputs

    monkeypatch.setattr(Provider, "new_resource", unknown_id)
    streaming = {NODES + "imageStreaming": True} if role == "serviceUsageConsumer" else {}
    engine = Engine(preview=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        cloud = GoogleCloud("modelcar", GoogleCloudArgs(settings=google(**streaming)))
        return {"registry": cloud.registry.path, "cluster": cloud.cluster.name}

    assert engine.run(program) == {
        "registry": "europe-west4-docker.pkg.dev/my-project/modelcars-dev",
        "cluster": "models-dev",
    }
    for found in engine.declared:
        if found.urn in before and found.type in KINDS:
            assert "Unknown" not in repr(found.inputs), found.urn
        if role != "reader" and found.urn.rpartition("::")[2] in {
            "modelcar-gpu",
            "modelcar-models-dev-system",
        }:
            assert any(role in urn for urn in found.dependencies), "a node starts after its roles"


def test_models_come_after_the_system_pool_and_are_not_made_anew_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pulumi replaces what has a value of a resource that is deleted first, and not what only follows it."""
    make = Provider.new_resource

    def unknown_id(self: Provider, args: Any) -> Any:
        known, outputs = make(self, args)
        return (None if args.name == "modelcar-models-dev-system" else known), outputs

    monkeypatch.setattr(Provider, "new_resource", unknown_id)
    stack = load_stack(as_texts(dev(kserve={"install": False})), PROJECT)
    engine = Engine(preview=True)
    checked = CheckedStack(stack, {}, {}, {"gpu": disk.need([])})

    def program() -> dict[str, pulumi.Output[Any]]:
        place = delivery.destination(checked, delivery.google(checked))
        return {"there": pulumi.Output.from_input(place is not None)}

    engine.run(program)
    by_name = {found.urn.rpartition("::")[2]: found for found in engine.declared}
    system = by_name["modelcar-models-dev-system"].urn
    for name in ("modelcar-gpu", "cluster"):
        assert system in by_name[name].dependencies
        assert "Unknown" not in repr(by_name[name].inputs)


def test_a_new_pool_stops_nothing() -> None:
    large = {"name": "large", "gpu": "nvidia-l4", "machineType": "g2-standard-24", "gpusPerNode": 2}
    assert said(google(), google(**{"google.pools": [large]})) == []
    assert said(google(), google()) == []


def test_what_an_earlier_version_did_not_tell_is_said_to_be_unknown() -> None:
    now = made(google())
    assert list(told(None, now, {})) == [], "the first run makes everything"
    [line] = told(None, now, {}, had_pools=True)
    assert "not known yet" in line
    assert "replaces a node pool stops its models" in line


def test_the_next_run_gets_to_know_it_once_the_pools_are_there() -> None:
    settings = google()
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        cloud = GoogleCloud("modelcar", GoogleCloudArgs(settings=settings))
        return {"made": output(settings, cloud.pools)}

    found = engine.run(program)["made"]
    assert found["nodes"]["driver"] == "DEFAULT"
    assert list(told(found, made_with(settings, {"gpu": disk.need([]).disk}), {})) == []


LARGE: dict[str, Any] = {
    "name": "large",
    "gpu": "nvidia-a100-80gb",
    "gpusPerNode": 2,
    "machineType": "a2-ultragpu-2g",
}
LARGE |= {"checkZones": False}
TWO: dict[str, Any] = {"google.pools": [LARGE]}


def test_a_pool_that_changes_places_is_refused_before_google_is_asked_for_a_second_one() -> None:
    """It is another resource with the name of one that is deleted last."""
    first = dev()["modelcar:google"]["nodes"]
    before = {"googleMadeWith": made(google(**TWO))}
    for changed, refused in (
        ({"google.nodes": LARGE}, ["google.nodes.name: large, which the last run had in google.pools"]),
        (
            {"google.nodes": LARGE, "google.pools": [{**first, "name": "gpu"}]},
            [
                "google.nodes.name: large, which the last run had in google.pools",
                "google.pools[0].name: gpu, which the last run had in google.nodes",
            ],
        ),
    ):
        names = {found.urn.rpartition("::")[2]: found.inputs.get("name") for found in declared(google(**TWO))}
        after = {
            found.urn.rpartition("::")[2]: found.inputs.get("name") for found in declared(google(**changed))
        }
        assert any(names.get(one) != name and name in names.values() for one, name in after.items()), (
            "else no need"
        )
        problems = list(kept_pools.problems(load_stack(as_texts(dev(**changed)), PROJECT), before))
        assert [
            f"{one.key}: {one.value.partition(':')[0]}".removeprefix("modelcar:") for one in problems
        ] == refused
        assert "leave large in google.pools" in problems[0].fix
    heading = problems[0].fix.partition("'")[2].partition("'")[0]
    assert f"**{heading}.**" in (PROJECT / "docs/google-cloud.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        TWO,
        {"google.pools": []},
        {"google.nodes": {**LARGE, "name": "new"}, **TWO},
        {"google.pools": [LARGE, {**LARGE, "name": "new"}]},
        {"google.nodes": LARGE, CLUSTER + "name": "another"},
    ],
    ids=["as before", "without", "the first one anew", "one more", "another cluster"],
)
def test_pools_that_stay_in_their_place_come_and_go(changes: dict[str, Any]) -> None:
    stack = load_stack(as_texts(dev(**changes)), PROJECT)
    assert not list(kept_pools.problems(stack, {"googleMadeWith": made(google(**TWO))}))
    assert not list(kept_pools.problems(stack, {}))
