"""What the Google side declares, by mocks: least privilege, safe defaults, and the tree a reviewer reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pulumi_gcp as gcp
import pytest
from pulumi.runtime import mocks, rpc

from components.config import disk
from components.config.google import ClusterSettings, GoogleSettings, NodeSettings
from components.google.apis import APIS, SCANNING_API, STREAMING_API
from components.google.cloud import GoogleCloud, GoogleCloudArgs
from components.google.cluster import NewCluster
from components.google.node_pool import GpuNodePoolArgs
from components.manifests.scheduling import nodes
from components.stack.stack_reader import read_stack
from local.standins.gcp_provider.kinds import KINDS
from modelcar.errors import InputError
from tests.unit.mocked_engine import ANSWERS, Engine
from tests.unit.mocked_engine import OUTPUTS as PROVIDED
from tests.unit.test_google_settings import CLUSTER, NODES, dev, load
from tests.unit.test_outputs import OUTPUTS

PROJECT = Path(__file__).parents[2]
ACCOUNT = "nodes@my-project.iam.gserviceaccount.com"


@pytest.fixture
def up() -> Engine:
    return Engine(preview=False)


def declare(
    engine: Engine,
    changes: dict[str, Any] | None = None,
    model_bytes: float = 1e9,
    imports: Any = (),
    endpoint: Any = "ip",
) -> dict[str, Any]:
    """Declare the dev stack's Google side with changes; return its outputs."""
    google = load(dev(**(changes or {}))).google
    assert google

    def program() -> dict[str, pulumi.Output[Any]]:
        needs = {nodes.name: disk.need([disk.OnNode(model_bytes)]) for nodes in google.all_pools}
        args = GoogleCloudArgs(settings=google, needs=needs, imports=imports, endpoint=endpoint)
        cloud = GoogleCloud("modelcar", args)
        return {
            "registry": cloud.registry.path,
            "kubeconfig": cloud.cluster.kubeconfig,
            "endpoint": cloud.cluster.endpoint,
            "account": cloud.node_account,
            "disk": pulumi.Output.from_input(cloud.pools[google.nodes.name].disk_gb),
        }

    return engine.run(program)


def all_of(engine: Engine, kind: str) -> list[dict[str, Any]]:
    return [found.inputs for found in engine.declared if found.type.split(":")[-1] == kind]


def gpu_pool(engine: Engine) -> dict[str, Any]:
    [pool] = [pool for pool in all_of(engine, "NodePool") if pool["name"] == "gpu"]
    return pool


def test_nodes_may_read_this_repository_and_no_other(up: Engine) -> None:
    outputs = declare(up)
    [grant] = all_of(up, "RepositoryIamMember")
    assert grant["role"] == "roles/artifactregistry.reader"
    assert grant["member"] == f"serviceAccount:{ACCOUNT}"
    assert grant["repository"] == "modelcars-dev"
    wide = [member["role"] for member in all_of(up, "IAMMember")]
    assert wide == ["roles/container.defaultNodeServiceAccount"], "nothing wider in the whole project"
    assert outputs["registry"] == "europe-west4-docker.pkg.dev/my-project/modelcars-dev"


def test_what_is_there_is_imported_by_the_ids_that_google_has_for_it(up: Engine) -> None:
    """https://www.pulumi.com/registry/packages/gcp/api-docs/artifactregistry/repositoryiammember/#import"""
    email = "existing@my-project.iam.gserviceaccount.com"
    declare(up, {NODES + "serviceAccount": email}, imports=["Repository", "RepositoryIamMember"])
    place = "projects/my-project/locations/europe-west4/repositories/modelcars-dev"
    assert up.the("Repository").imported == place
    grant = f"{place} roles/artifactregistry.reader serviceAccount:{email}"
    assert up.the("RepositoryIamMember").imported == grant
    assert "cleanupPolicies" in up.the("Repository").ignored, "it is taken over as it is"
    others = [found for found in up.declared if "epository" not in found.type]
    assert not any(found.imported for found in others)


def test_each_stack_of_a_project_has_an_account_of_its_own(up: Engine) -> None:
    accounts = []
    for stack in ("dev", "prod", "team.dev", "team-dev", "a-stack-for-each-of-our-branches"):
        up.stack = stack
        declare(up)
        found = up.the("Account")
        # One of a former version is called `modelcar-nodes`, and would be made anew otherwise.
        assert set(found.ignored) == {"accountId", "displayName"}
        assert found.on_error == ("explain-Account-modelcar-nodes",)
        accounts.append(found.inputs["accountId"])
        assert 6 <= len(accounts[-1]) <= 30
    assert len(set(accounts)) == len(accounts)
    assert accounts[0] == "modelcar-project-dev-nodes"


def test_an_account_that_is_somebody_elses_is_told_with_the_way_out(
    up: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(up)
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", told.append)
    hook: Any = up.hooks["explain-Account-modelcar-nodes"]
    said = "googleapi: Error 409: Service account x already exists within project y., alreadyExists"
    for operation, errors in (("create", [said]), ("create", ["Error 403"]), ("delete", [said])):
        again = hook.callback(
            SimpleNamespace(name="modelcar-nodes", failed_operation=operation, errors=errors)
        )
        assert again is False
    [line] = told
    assert "modelcar:google.nodes.serviceAccount" in line


@pytest.mark.parametrize("stack", ["team.dev", "x" * 80, "Dev"])
def test_labels_are_what_google_takes(up: Engine, stack: str) -> None:
    up.stack = stack
    declare(up)
    labels = [all_of(up, "Cluster")[0]["resourceLabels"], all_of(up, "Repository")[0]["labels"]]
    labels.append(gpu_pool(up)["nodeConfig"]["resourceLabels"])
    for found in labels:
        for value in found.values():
            assert re.fullmatch(r"[a-z0-9_-]{1,63}", value), value


STREAMING_POOL = {
    "name": "big",
    "gpu": "nvidia-l4",
    "machineType": "g2-standard-12",
    "imageStreaming": True,
}


def services(engine: Engine) -> set[str]:
    return {service["service"] for service in all_of(engine, "Service")}


@pytest.mark.parametrize(
    ("changes", "streaming"),
    [({}, None), ({NODES + "imageStreaming": True}, "gpu"), ({"google.pools": [STREAMING_POOL]}, "big")],
    ids=["none", "the first pool", "another pool"],
)
def test_image_streaming_of_any_pool_asks_for_one_more_role_and_api(
    up: Engine, changes: dict[str, Any], streaming: str | None
) -> None:
    declare(up, changes)
    roles = {member["role"] for member in all_of(up, "IAMMember")}
    assert ("roles/serviceusage.serviceUsageConsumer" in roles) == bool(streaming)
    assert ("containerfilesystem.googleapis.com" in services(up)) == bool(streaming)
    config = {pool["name"]: pool["nodeConfig"].get("gcfsConfig") for pool in all_of(up, "NodePool")}
    streams = {name for name, found in config.items() if found == {"enabled": True}}
    assert streams == ({streaming} if streaming else set())


@pytest.mark.parametrize(
    ("scanning", "config", "enabled"),
    [(None, "INHERITED", False), (True, "INHERITED", True), (False, "DISABLED", False)],
)
def test_scanning_that_is_billed_for_the_whole_project_is_switched_on_by_hand_only(
    up: Engine, scanning: bool | None, config: str, enabled: bool
) -> None:
    declare(up, {} if scanning is None else {"google.repository.vulnerabilityScanning": scanning})
    assert up.the("Repository").inputs["vulnerabilityScanningConfig"] == {"enablementConfig": config}
    assert ("containerscanning.googleapis.com" in services(up)) == enabled


def test_all_that_a_stack_declares_has_its_api_switched_on(up: Engine) -> None:
    declare(up)
    kinds = {found.type for found in up.declared} & KINDS.keys()
    assert "gcp:projects/iAMMember:IAMMember" in kinds, "which reads the project"
    assert {KINDS[kind].api for kind in kinds} - {""} <= services(up)


def test_the_page_on_google_names_the_apis_that_are_switched_on() -> None:
    page = (PROJECT / "docs/google-cloud.md").read_text()
    [told] = re.findall(r"^\| APIs \| (.*?) \|", page, re.MULTILINE)
    assert set(re.findall(r"`([a-z]+)\.googleapis\.com`", told)) == {
        name.partition(".")[0] for name in (*APIS, STREAMING_API, SCANNING_API)
    }


def test_an_account_that_is_there_gets_the_grant_and_no_roles(up: Engine) -> None:
    email = "existing@my-project.iam.gserviceaccount.com"
    declare(up, {NODES + "serviceAccount": email})
    assert all_of(up, "Account") == []
    assert all_of(up, "IAMMember") == []
    [grant] = all_of(up, "RepositoryIamMember")
    assert grant["member"] == f"serviceAccount:{email}"
    assert gpu_pool(up)["nodeConfig"]["serviceAccount"] == email


def test_a_cleanup_can_only_delete_images_without_a_tag(up: Engine) -> None:
    declare(up)
    [repository] = all_of(up, "Repository")
    assert repository["dockerConfig"] == {"immutableTags": True}
    deleting = [policy for policy in repository["cleanupPolicies"] if policy["action"] == "DELETE"]
    assert [policy["condition"] for policy in deleting] == [{"tagState": "UNTAGGED", "olderThan": "604800s"}]
    keeping = [policy for policy in repository["cleanupPolicies"] if policy["action"] == "KEEP"]
    assert [policy["condition"] for policy in keeping] == [{"tagState": "TAGGED"}]


def test_a_pool_that_can_be_empty_and_a_disk_that_holds_the_model(up: Engine) -> None:
    outputs = declare(up)
    pool = gpu_pool(up)
    config = pool["nodeConfig"]
    assert pool["autoscaling"] == {"totalMinNodeCount": 0, "totalMaxNodeCount": 1, "locationPolicy": "ANY"}
    assert pool["initialNodeCount"] == 0
    assert pool["upgradeSettings"] == {"strategy": "SURGE", "maxSurge": 0, "maxUnavailable": 1}
    assert (config["diskSizeGb"], config["diskType"]) == (200, "pd-balanced")
    assert outputs["disk"] == 200
    assert config["spot"] is True
    assert config["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    assert config["shieldedInstanceConfig"] == {"enableSecureBoot": True, "enableIntegrityMonitoring": True}
    assert config["guestAccelerators"] == [
        {"type": "nvidia-l4", "count": 1, "gpuDriverInstallationConfig": {"gpuDriverVersion": "DEFAULT"}}
    ]


def test_a_larger_model_gets_a_larger_disk(up: Engine) -> None:
    declare(up, model_bytes=140e9)
    assert gpu_pool(up)["nodeConfig"]["diskSizeGb"] == 750


def test_taint_and_toleration_go_together(up: Engine) -> None:
    declare(up)
    [taint] = gpu_pool(up)["nodeConfig"]["taints"]
    [toleration] = nodes(load(dev()))["tolerations"]
    assert taint == {"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}
    assert toleration["key"] == taint["key"]
    assert (toleration["operator"], toleration["effect"]) == ("Exists", "NoSchedule")


SHARED = "projects/example.com:buyers/reservations/" + "r" * 63


@pytest.mark.parametrize("name", ["r1", "r" * 63, SHARED])
def test_a_reservation_is_used_by_its_name(up: Engine, name: str) -> None:
    declare(up, {NODES + "provisioning": "reservation", NODES + "reservation": name})
    config = gpu_pool(up)["nodeConfig"]
    assert config["spot"] is False
    assert config["reservationAffinity"]["values"] == [name]


@pytest.mark.parametrize("name", ["R1", "r" * 64, "r-", "projects/buyers/r1", "projects//reservations/r1"])
def test_what_no_reservation_is_called_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"NodeSettings\.reservation: .*: not a reservation"):
        NodeSettings(gpu="nvidia-l4", machine_type="g2-standard-8", reservation=name)


#: Of a pool, what does not go together, and what a program is told of it.
WRONG_NODES: dict[str, tuple[dict[str, Any], str]] = {
    "no reservation": ({"provisioning": "reservation"}, "{}.reservation: not set, while provisioning is"),
    "another machine": (
        {"machine_type": "e2-small"},
        "{}.machine_type: e2-small is not known here, and the pool has nvidia-l4",
    ),
    "another GPU": (
        {"gpu": "nvidia-h100-80gb"},
        "{}.machine_type: g2-standard-8 has nvidia-l4, and the pool has nvidia-h100-80gb",
    ),
    "a number of GPUs": ({"gpus_per_node": 2}, "{}.gpus_per_node: 2 on g2-standard-8"),
    "a small disk": ({"disk_gb": 10}, "{}.disk_gb: 10: pulling the model would end"),
    "a disk type": ({"disk_type": "hyperdisk-balanced"}, "{}.disk_type: hyperdisk-balanced on g2-standard-8"),
    "no streaming": (
        {"secondary_boot_disk": "global/images/models"},
        "{}.secondary_boot_disk: global/images",
    ),
    "more nodes at least": ({"min_nodes": 3, "max_nodes": 2}, "{}.min_nodes: 3, above maxNodes 2"),
    "a zone": ({"zones": ("us-central1-d",)}, "{}.zones: us-central1-d"),
}


def pool(**more: Any) -> NodeSettings:
    return NodeSettings(**({"gpu": "nvidia-l4", "machine_type": "g2-standard-8"} | more))


def cloud(*pools: NodeSettings, **cluster: Any) -> GoogleSettings:
    place = {"project": "my-project", "region": "europe-west4"}
    made = ClusterSettings(**({"name": "models"} | cluster))
    return GoogleSettings(**place, cluster=made, nodes=pools[0] if pools else pool(), pools=pools[1:])


@pytest.mark.parametrize("wrong", WRONG_NODES)
def test_a_program_is_told_of_nodes_that_google_would_refuse(wrong: str) -> None:
    nodes, said = WRONG_NODES[wrong]
    place: dict[str, Any] = {
        "project": "p",
        "cluster": "models",
        "location": "europe-west4",
        "service_account": ACCOUNT,
    }
    with pytest.raises(InputError, match=f"(?m)^{re.escape(said.format('nodes'))}"):
        GpuNodePoolArgs(**place, nodes=pool(**nodes))
    with pytest.raises(InputError, match=f"(?m)^{re.escape(said.format('settings.pools[0]'))}"):
        GoogleCloudArgs(settings=cloud(pool(), pool(name="other", **nodes)))


def test_a_program_is_told_of_zones_without_the_gpu_that_it_names_for_a_pool() -> None:
    place: dict[str, Any] = {
        "project": "p",
        "cluster": "models",
        "location": "us-central1",
        "service_account": ACCOUNT,
    }
    with pytest.raises(InputError, match=r"zones: us-central1-d has no nvidia-l4"):
        GpuNodePoolArgs(**place, nodes=pool(), zones=["us-central1-d"])
    assert GpuNodePoolArgs(**place, nodes=pool(check_zones=False), zones=["us-central1-d"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            lambda: cloud(name=None, create=True),
            r"settings\.cluster\.name: not set\n.*\n    fix: set settings\.cluster\.name to models",
        ),
        (lambda: cloud(name=None), r"settings\.cluster\.name: not set\n"),
        (lambda: cloud(stack_reference="a/b/c"), r"settings\.cluster\.stack_reference: a/b/c, beside name"),
        (lambda: cloud(location="us-central1"), r"settings\.cluster\.location: us-central1, outside of"),
        (lambda: cloud(authorized_networks=("10.0.0.0/8",)), r"settings\.cluster\.authorized_networks: 10"),
        (lambda: cloud(pool(), pool()), r"settings\.pools: gpu, 2 times"),
    ],
)
def test_a_program_is_told_of_settings_that_do_not_go_together(
    settings: Callable[[], GoogleSettings], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        GoogleCloudArgs(settings=settings())


def test_a_program_is_told_of_a_disk_that_its_models_do_not_fit_on() -> None:
    needs = {"gpu": disk.need([disk.OnNode(140e9)])}
    with pytest.raises(InputError, match=r"settings\.nodes\.disk_gb: 200: pulling the model would end"):
        GoogleCloudArgs(settings=cloud(pool(disk_gb=200)), needs=needs)
    with pytest.raises(InputError, match=r"settings\.nodes\.local_ssds: 1, 375 GB"):
        GoogleCloudArgs(settings=cloud(pool(local_ssds=1)), needs=needs)


def test_a_stack_is_read_once_however_many_components_read_it(
    up: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {**OUTPUTS, "clusterName": "shared", "clusterLocation": "europe-west4"}
    answer = {"outputs": found, "secretOutputNames": []}
    monkeypatch.setitem(PROVIDED, "pulumi:pulumi:StackReference", answer)
    team = pulumi.ComponentResource

    def program() -> dict[str, pulumi.Output[Any]]:
        settings = cloud(name=None, stack_reference="acme/models/prod")
        made = GoogleCloud("models", GoogleCloudArgs(settings=settings))
        below = [pulumi.ResourceOptions(parent=team("acme:teams:Team", name)) for name in ("a", "b")]
        below.append(pulumi.ResourceOptions(parent=team("acme:teams:Other", "a")))
        all_of = [read_stack("acme/models/prod", opts) for opts in (None, None, *below)]
        all_of.append(read_stack("acme/models/dev"))
        told = {str(number): one.apply(lambda found: found.registry) for number, one in enumerate(all_of)}
        return {"cluster": made.cluster.name, **told}

    told = up.run(program)
    assert told == {"cluster": "shared", **{str(number): OUTPUTS["registry"] for number in range(6)}}
    names = sorted(urn.partition("::project::")[2] for urn in up.read)
    kind = "pulumi:pulumi:StackReference"
    assert names == [
        f"acme:teams:Other${kind}::acme/models/prod",
        f"acme:teams:Team${kind}::acme/models/prod",
        f"pulumi:pulumi:Stack${kind}::acme/models/dev",
        f"pulumi:pulumi:Stack${kind}::acme/models/prod",
    ]


def test_the_nodes_beside_the_models_are_those_that_the_reference_tells(up: Engine) -> None:
    declare(up)
    [pool] = [pool for pool in all_of(up, "NodePool") if pool["name"] == "system"]
    assert pool["autoscaling"] == {"totalMinNodeCount": 1, "totalMaxNodeCount": 3}
    assert pool["initialNodeCount"] == 1, "in each zone"
    told = " ".join((NewCluster.__doc__ or "").split())
    assert f"One to three small nodes ({pool['nodeConfig']['machineType']}) run what is not a model" in told


def test_a_new_cluster_is_closed_by_default(up: Engine) -> None:
    outputs = declare(up)
    [cluster] = all_of(up, "Cluster")
    # Without an address GKE reports both: said so, no run of any provider sees a difference.
    assert cluster["privateClusterConfig"] == {"enablePrivateNodes": True, "enablePrivateEndpoint": True}
    endpoints = cluster["controlPlaneEndpointsConfig"]
    assert endpoints["ipEndpointsConfig"] == {"enabled": False}
    assert endpoints["dnsEndpointConfig"] == {"allowExternalTraffic": True}
    assert cluster["workloadIdentityConfig"] == {"workloadPool": "my-project.svc.id.goog"}
    assert cluster["removeDefaultNodePool"] is True
    assert cluster["nodeConfig"]["serviceAccount"] == ACCOUNT, "not even for a moment the default account"
    config = json.loads(outputs["kubeconfig"])
    assert config["clusters"][0]["cluster"] == {"server": "https://models.gke.goog"}
    assert outputs["endpoint"] == "dns"
    assert config["users"][0]["user"]["exec"]["command"] == "gke-gcloud-auth-plugin"
    assert set(config["users"][0]["user"]) == {"exec"}, "no credential in it"


def test_named_networks_reach_the_control_plane_by_address(up: Engine) -> None:
    outputs = declare(up, {CLUSTER + "authorizedNetworks": ["192.0.2.0/24"]})
    [cluster] = all_of(up, "Cluster")
    blocks = cluster["masterAuthorizedNetworksConfig"]["cidrBlocks"]
    assert [block["cidrBlock"] for block in blocks] == ["192.0.2.0/24"]
    assert cluster["privateClusterConfig"] == {"enablePrivateNodes": True}, "its address is a public one"
    shown = json.loads(outputs["kubeconfig"])["clusters"][0]["cluster"]
    assert shown == {"server": "https://192.0.2.1", "certificate-authority-data": "Q0E="}
    assert outputs["endpoint"] == "ip"


def test_the_endpoint_is_told_once_the_cluster_is_there(up: Engine) -> None:
    """The next run compares both: an endpoint alone would be taken for that of the cluster before."""
    google = load(dev()).google
    assert google

    async def waits_for(output: pulumi.Output[str]) -> list[str]:
        return sorted(resource.pulumi_resource_name for resource in await output.resources())

    def program() -> dict[str, pulumi.Output[Any]]:
        cluster = GoogleCloud("modelcar", GoogleCloudArgs(settings=google)).cluster
        names = {"name": waits_for(cluster.name), "endpoint": waits_for(cluster.endpoint)}
        return {key: pulumi.Output.from_input(found) for key, found in names.items()}

    found = up.run(program)
    assert found["endpoint"] == found["name"] == ["modelcar-models-dev"], (
        "not with the system pool: pools are made anew with it"
    )


@pytest.mark.parametrize("protect", [True, False])
def test_production_cannot_be_deleted_by_mistake(up: Engine, protect: bool) -> None:
    declare(up, {"google.protect": protect})
    [cluster] = all_of(up, "Cluster")
    assert cluster["deletionProtection"] is protect
    protected = {found.type.split(":")[-1] for found in up.declared if found.protect}
    assert protected == ({"Cluster", "Repository"} if protect else set())


def test_what_a_program_protects_by_options_is_protected_with_all_that_is_in_it(up: Engine) -> None:
    google = load(dev()).google
    assert google
    options = pulumi.ResourceOptions(protect=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        GoogleCloud("modelcar", GoogleCloudArgs(settings=google), options)
        return {}

    up.run(program)
    assert not [found.urn for found in up.declared if not found.protect]
    assert up.the("Cluster").inputs["deletionProtection"] is True


def test_a_program_may_have_two_of_them(up: Engine) -> None:
    """As many as there are projects, or regions; resources of former versions are known by their aliases."""
    dev_, other = load(dev()).google, load(dev(**{"google.project": "other-project"})).google
    assert dev_
    assert other

    def program() -> dict[str, pulumi.Output[Any]]:
        GoogleCloud("modelcar", GoogleCloudArgs(settings=dev_))
        GoogleCloud("other", GoogleCloudArgs(settings=other))
        return {}

    up.run(program)
    urns = [found.urn for found in up.declared]
    assert len(set(urns)) == len(urns)
    names = {found.inputs["name"] for found in up.declared if found.type.startswith("gcp:compute")}
    assert names == {"models-dev"}, "in Google they are named as they were"
    former = {urn.rpartition("::")[2] for found in up.declared for urn in found.aliases}
    assert {"compute", "models-dev"} <= former


def test_apis_come_first_and_stay(up: Engine) -> None:
    declare(up)
    services = all_of(up, "Service")
    assert {service["service"].split(".")[0] for service in services} >= {"container", "artifactregistry"}
    assert all(service["disableOnDestroy"] is False for service in services)
    apis = {found.urn for found in up.declared if found.type.endswith(":Service")}
    for kind in ("Repository", "Network", "Account"):
        assert apis <= set(up.the(kind).dependencies), f"{kind} waits for the APIs"


def test_the_tree_names_the_parts_of_the_design(up: Engine) -> None:
    declare(up)
    parts = {found.type for found in up.declared if found.type.startswith("modelcar:google:")}
    assert {part.rsplit(":", 1)[1] for part in parts} == {
        *("GoogleCloud", "ModelRegistry", "NodeServiceAccount", "NewCluster", "GpuNodePool"),
    }
    urns = {found.urn for found in up.declared}
    assert all(found.parent in urns for found in up.declared if found.type != "modelcar:google:GoogleCloud")


ADOPTED: dict[str, dict[str, Any]] = {
    "by name": {CLUSTER + "create": False, CLUSTER + "name": "shared", CLUSTER + "location": "europe-west4"},
    "by another stack": {
        **{CLUSTER + key: None for key in ("create", "name", "location")},
        CLUSTER + "stackReference": "org/clusters/dev",
    },
}


@pytest.mark.parametrize("how", ADOPTED)
def test_a_cluster_that_is_there_gets_a_pool_and_nothing_else(up: Engine, how: str) -> None:
    outputs = declare(up, ADOPTED[how])
    assert not all_of(up, "Cluster")
    assert not all_of(up, "Network")
    pool = gpu_pool(up)
    assert (pool["cluster"], pool["location"]) == ("shared", "europe-west4")
    shown = json.loads(outputs["kubeconfig"])["clusters"][0]["cluster"]
    assert shown == BY_ADDRESS
    assert outputs["endpoint"] == "ip"


BY_ADDRESS = {"server": "https://192.0.2.9", "certificate-authority-data": "Q0E="}
BY_NAME = {"server": "https://gke-1.europe-west4.gke.goog"}


def endpoints(*, outside: bool, address: bool) -> list[dict[str, Any]]:
    """Return what Google says of a control plane with a DNS name."""
    name = {"endpoint": "gke-1.europe-west4.gke.goog", "allowExternalTraffic": outside}
    return [{"dnsEndpointConfigs": [name], "ipEndpointsConfigs": [{"enabled": address}]}]


@pytest.mark.parametrize("how", ADOPTED)
@pytest.mark.parametrize(
    ("outside", "address", "wanted", "expected"),
    [
        # As this program makes clusters: without an address.
        (True, False, "ip", "dns"),
        (True, False, "auto", "dns"),
        # From inside of Google's network only, and there is no other way.
        (False, False, "auto", "dns"),
        (True, True, "auto", "dns"),
        (False, True, "auto", "ip"),
        # What a stack of before made by the address stays so.
        (True, True, "ip", "ip"),
        (False, True, "dns", "dns"),
    ],
)
def test_a_cluster_that_is_there_is_reached_by_the_endpoint_that_it_has(
    up: Engine,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    outside: bool,
    address: bool,
    wanted: Any,
    expected: str,
) -> None:
    answer = ANSWERS["gcp:container/getCluster:getCluster"]
    told = endpoints(outside=outside, address=address)
    monkeypatch.setitem(answer, "controlPlaneEndpointsConfigs", told)
    if not address:
        monkeypatch.setitem(answer, "endpoint", "")
    outputs = declare(up, ADOPTED[how], endpoint=wanted)
    assert outputs["endpoint"] == expected
    shown = json.loads(outputs["kubeconfig"])["clusters"][0]["cluster"]
    assert shown == (BY_NAME if expected == "dns" else BY_ADDRESS), "a public authority vouches for the name"


@pytest.mark.parametrize("wanted", ["auto", "ip"])
def test_a_cluster_without_a_dns_name_is_reached_by_its_address(
    up: Engine, monkeypatch: pytest.MonkeyPatch, wanted: Any
) -> None:
    config: dict[str, list[Any]] = {"dnsEndpointConfigs": [], "ipEndpointsConfigs": []}
    monkeypatch.setitem(
        ANSWERS["gcp:container/getCluster:getCluster"], "controlPlaneEndpointsConfigs", [config]
    )
    assert declare(up, ADOPTED["by name"], endpoint=wanted)["endpoint"] == "ip"


def test_an_endpoint_that_there_is_not_is_refused(up: Engine) -> None:
    with pytest.raises(InputError, match=r"endpoint: by pigeon\n\s+allowed: auto, dns, ip"):
        declare(up, ADOPTED["by name"], endpoint="by pigeon")


def test_a_repository_that_is_there_is_left_as_it_is(up: Engine) -> None:
    declare(up, {"google.repository.existing": True, "google.repository.name": "shared"})
    assert not all_of(up, "Repository"), "it is read, and not managed"
    [grant] = all_of(up, "RepositoryIamMember")
    assert grant["role"] == "roles/artifactregistry.reader"


def test_what_shortens_a_cold_start_is_off_unless_asked_for(up: Engine) -> None:
    declare(up)
    config = gpu_pool(up)["nodeConfig"]
    assert not {"secondaryBootDisks", "ephemeralStorageLocalSsdConfig", "kubeletConfig"} & set(config)
    image = "global/images/qwen"
    declare(
        up,
        {
            NODES + "imageStreaming": True,
            NODES + "secondaryBootDisk": image,
            NODES + "localSsds": 1,
            NODES + "parallelPulls": 5,
        },
    )
    config = gpu_pool(up)["nodeConfig"]
    assert config["secondaryBootDisks"] == [{"diskImage": image, "mode": "CONTAINER_IMAGE_CACHE"}]
    assert config["ephemeralStorageLocalSsdConfig"] == {"localSsdCount": 1}
    assert config["kubeletConfig"] == {"maxParallelImagePulls": 5}


@pytest.mark.parametrize("changes", [{CLUSTER + "authorizedNetworks": ["192.0.2.0/24"]}, ADOPTED["by name"]])
def test_a_kubeconfig_without_credentials_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Google's provider marks the client's key beside the certificate, and the SDK all that holds it."""
    key = {rpc._special_sig_key: rpc._special_secret_sig, "value": ""}
    auth = {"clusterCaCertificate": "Q0E=", "clientKey": key}
    monkeypatch.setitem(PROVIDED["gcp:container/cluster:Cluster"], "masterAuth", auth)
    monkeypatch.setitem(ANSWERS["gcp:container/getCluster:getCluster"], "masterAuths", [auth])
    google = load(dev(**changes)).google
    assert google

    def program() -> dict[str, pulumi.Output[Any]]:
        cluster = GoogleCloud("modelcar", GoogleCloudArgs(settings=google)).cluster
        return {"is": pulumi.Output.from_input(cluster.kubeconfig.is_secret()), "text": cluster.kubeconfig}

    told = Engine(preview=False, secrets=True).run(program)
    assert json.loads(told["text"])["clusters"][0]["cluster"]["certificate-authority-data"] == "Q0E="
    assert not told["is"]


ALL = {"google.repository.existing": True, "google.repository.name": "shared", NODES + "imageStreaming": True}


@pytest.mark.parametrize("as_output", [False, True])
@pytest.mark.parametrize("changes", [{}, {**ADOPTED["by name"], **ALL}, ADOPTED["by another stack"]])
def test_all_of_it_waits_for_what_the_component_depends_on_and_uses_its_provider(
    monkeypatch: pytest.MonkeyPatch, up: Engine, changes: dict[str, Any], as_output: bool
) -> None:
    """A project that is made in the same run, an account that is impersonated: nothing is asked past them."""
    google = load(dev(**changes)).google
    assert google
    waits: list[str] = []
    asked: list[str] = []
    real: Any = mocks.MockMonitor.Invoke

    def invoke(self: Any, request: Any) -> Any:
        asked.append(request.provider)
        assert waits, "nobody is asked before what the component depends on is there"
        return real(self, request)

    monkeypatch.setattr(mocks.MockMonitor, "Invoke", invoke)

    def program() -> dict[str, pulumi.Output[Any]]:
        own = gcp.Provider("own", project="my-project")
        project = gcp.organizations.Project("project", project_id="my-project")
        project.urn.apply(waits.append)
        known = project.urn.apply(lambda _: project)
        first: Any = known if as_output else project
        options = pulumi.ResourceOptions(provider=own, depends_on=[first])
        cluster = GoogleCloud("models", GoogleCloudArgs(settings=google), options).cluster
        return {"cluster": cluster.name, "kubeconfig": cluster.kubeconfig}

    assert up.run(program)["cluster"]
    made = [one for one in up.declared if one.type.startswith("gcp:") and one.type != PROJECT_TYPE]
    assert {"NodePool", "Service", "RepositoryIamMember"} <= {one.type.rpartition(":")[2] for one in made}
    assert not [one.urn for one in made if waits[0] not in one.dependencies]
    assert not [one.urn for one in made if "::own::" not in one.provider]
    assert bool(asked) is not google.cluster.create
    assert all("::own::" in provider for provider in asked)


PROJECT_TYPE = "gcp:organizations/project:Project"
