"""The gcp stand-in as the engine calls it: the life of a stack, what "the cloud" refuses, the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from local.standins import properties
from local.standins.gcp_provider import made_up
from local.standins.gcp_provider.answers import VERSION
from local.standins.gcp_provider.cloud import VARIABLE, Cloud
from local.standins.gcp_provider.provider import NOTICE, Provider
from local.standins.plugin import EngineLog
from local.standins.properties import UNKNOWN, Secret

PROJECT = Path(__file__).resolve().parents[2]
LAUNCHER = PROJECT / "local" / "standins" / "bin" / "pulumi-resource-gcp"
P, R = "my-project-1", "europe-west4"
SERVICE = "gcp:projects/service:Service"
REPOSITORY = "gcp:artifactregistry/repository:Repository"
REPOSITORY_GRANT = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"
ACCOUNT = "gcp:serviceaccount/account:Account"
GRANT = "gcp:projects/iAMMember:IAMMember"
NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ROUTER = "gcp:compute/router:Router"
NAT = "gcp:compute/routerNat:RouterNat"
CLUSTER = "gcp:container/cluster:Cluster"
POOL = "gcp:container/nodePool:NodePool"
APIS = ("artifactregistry", "cloudresourcemanager", "compute", "container", "iam")
EMAIL = f"model-nodes@{P}.iam.gserviceaccount.com"
# One valid resource of every type, in an order in which they can be created.
STACK: list[tuple[str, dict[str, Any]]] = [
    *((SERVICE, {"service": f"{api}.googleapis.com"}) for api in APIS),
    (
        REPOSITORY,
        {
            "repositoryId": "models",
            "location": R,
            "format": "DOCKER",
            "labels": {"team": "search"},
            "cleanupPolicies": [
                {"id": "old", "action": "DELETE", "condition": {"tagState": "UNTAGGED", "olderThan": "30d"}},
                {"id": "keep", "action": "KEEP", "mostRecentVersions": {"keepCount": 3}},
            ],
        },
    ),
    (ACCOUNT, {"accountId": "model-nodes", "displayName": "Nodes"}),
    (
        REPOSITORY_GRANT,
        {
            "repository": "models",
            "location": R,
            "role": "roles/artifactregistry.reader",
            "member": f"serviceAccount:{EMAIL}",
        },
    ),
    (GRANT, {"project": P, "role": "roles/logging.logWriter", "member": f"serviceAccount:{EMAIL}"}),
    (NETWORK, {"name": "net", "autoCreateSubnetworks": False}),
    (
        SUBNETWORK,
        {
            "name": "sub",
            "network": f"projects/{P}/global/networks/net",
            "region": R,
            "ipCidrRange": "10.0.0.0/20",
            "secondaryIpRanges": [{"rangeName": "pods", "ipCidrRange": "10.4.0.0/14"}],
        },
    ),
    (ROUTER, {"name": "router", "network": "net", "region": R}),
    (
        NAT,
        {
            "name": "nat",
            "router": "router",
            "region": R,
            "natIpAllocateOption": "AUTO_ONLY",
            "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
        },
    ),
    (
        CLUSTER,
        {
            "name": "serving",
            "location": R,
            "network": "net",
            "subnetwork": f"projects/{P}/regions/{R}/subnetworks/sub",
            "initialNodeCount": 1,
            "removeDefaultNodePool": True,
            "deletionProtection": False,
            "ipAllocationPolicy": {"clusterSecondaryRangeName": "pods"},
            "workloadIdentityConfig": {"workloadPool": f"{P}.svc.id.goog"},
        },
    ),
    (
        POOL,
        {
            "name": "gpu",
            "cluster": "serving",
            "location": R,
            "nodeLocations": [f"{R}-a"],
            "autoscaling": {"minNodeCount": 0, "maxNodeCount": 2, "locationPolicy": "ANY"},
            "nodeConfig": {
                "machineType": "g2-standard-12",
                "diskType": "pd-balanced",
                "diskSizeGb": 200,
                "spot": True,
                "serviceAccount": EMAIL,
                "guestAccelerators": [{"type": "nvidia-l4", "count": 1}],
                "gcfsConfig": {"enabled": True},
                "labels": {"pool": "gpu"},
                "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}],
            },
        },
    ),
]


class RefusedError(Exception):
    """What a method aborted with."""


class Context:
    """As much of a call as the servicer uses."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise RefusedError(details)


def urn(token: str, name: str = "r") -> str:
    return f"urn:pulumi:dev::models::{token}::{name}"


class World:
    """A configured provider and short ways to call it."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.provider = Provider(EngineLog(), Cloud(path))
        self.path = path
        self.context: Any = Context()
        self.configure(**({"project": P} | settings))

    def configure(self, **settings: Any) -> None:
        request = provider_pb2.ConfigureRequest(args=properties.encode(settings))
        self.provider.Configure(request, self.context)

    def document(self) -> dict[str, Any]:
        return Cloud(self.path).read()

    def check(
        self, token: str, inputs: dict[str, Any], olds: dict[str, Any] | None = None, name: str = "r"
    ) -> tuple[dict[str, Any], list[str]]:
        response = self.provider.Check(
            provider_pb2.CheckRequest(
                urn=urn(token, name),
                news=properties.encode(inputs),
                olds=properties.encode(olds or {}),
                randomSeed=b"seed",
            ),
            self.context,
        )
        return properties.decode(response.inputs), [failure.reason for failure in response.failures]

    def create(
        self, token: str, inputs: dict[str, Any], *, preview: bool = False
    ) -> tuple[str, dict[str, Any]]:
        response = self.provider.Create(
            provider_pb2.CreateRequest(urn=urn(token), properties=properties.encode(inputs), preview=preview),
            self.context,
        )
        return response.id, properties.decode(response.properties)

    def diff(
        self, token: str, state: dict[str, Any], old: dict[str, Any], new: dict[str, Any], *ignored: str
    ) -> provider_pb2.DiffResponse:
        return self.provider.Diff(
            provider_pb2.DiffRequest(
                urn=urn(token),
                olds=properties.encode(state),
                old_inputs=properties.encode(old),
                news=properties.encode(new),
                ignoreChanges=ignored,
            ),
            self.context,
        )

    def update(
        self,
        token: str,
        state: dict[str, Any],
        old: dict[str, Any],
        new: dict[str, Any],
        *,
        preview: bool = False,
    ) -> dict[str, Any]:
        response = self.provider.Update(
            provider_pb2.UpdateRequest(
                urn=urn(token),
                olds=properties.encode(state),
                old_inputs=properties.encode(old),
                news=properties.encode(new),
                preview=preview,
            ),
            self.context,
        )
        return properties.decode(response.properties)

    def read(
        self, token: str, id: str, inputs: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        response = self.provider.Read(
            provider_pb2.ReadRequest(urn=urn(token), id=id, inputs=properties.encode(inputs or {})),
            self.context,
        )
        return response.id, properties.decode(response.properties), properties.decode(response.inputs)

    def delete(self, token: str, state: dict[str, Any]) -> None:
        self.provider.Delete(
            provider_pb2.DeleteRequest(urn=urn(token), properties=properties.encode(state)), self.context
        )

    def invoke(self, token: str, **arguments: Any) -> dict[str, Any]:
        request = provider_pb2.InvokeRequest(tok=token, args=properties.encode(arguments))
        response = self.provider.Invoke(request, self.context)
        assert not response.failures, response.failures
        return properties.decode(getattr(response, "return"))

    def stack(self, until: str = "") -> dict[str, tuple[str, dict[str, Any]]]:
        """Create the valid stack, up to and without the type `until`."""
        made = {}
        for token, inputs in STACK:
            if token == until:
                break
            made[token] = self.create(token, inputs)
        return made


def inputs_of(token: str, **more: Any) -> dict[str, Any]:
    """Return the valid inputs of a type, with some replaced; None takes one out."""
    base = next(inputs for other, inputs in STACK if other == token)
    return {key: value for key, value in {**base, **more}.items() if value is not None}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for variable in ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv(made_up.KUBECONFIG, raising=False)
    return World(tmp_path / "cloud.json")


# --- a stack from preview to delete


def test_a_stack_of_every_type_lives_from_preview_to_delete(world: World) -> None:
    for token, inputs in STACK:
        assert world.check(token, inputs) == (inputs, [])
        assert world.create(token, inputs, preview=True)[0] == ""
    assert not world.path.exists()

    made = [(token, inputs, *world.create(token, inputs)) for token, inputs in STACK]
    for token, inputs, id, state in made:
        again = world.diff(token, state, inputs, inputs)
        assert again.changes == provider_pb2.DiffResponse.DIFF_NONE, (token, again)
        assert world.read(token, id, inputs) == (id, state, inputs)
        changed = world.update(token, state, inputs, inputs)
        assert changed == state
    for token, _, _, state in reversed(made):
        world.delete(token, state)
        world.delete(token, state)  # what is gone already is fine
    assert world.document()["resources"] == {}


def test_a_pool_that_does_not_say_the_ssds_of_its_machine_is_made_anew_by_each_up(world: World) -> None:
    world.stack(until=POOL)
    config = {
        "machineType": "a3-highgpu-8g",
        "guestAccelerators": [{"type": "nvidia-h100-80gb", "count": 8}],
        "serviceAccount": EMAIL,
    }
    silent = inputs_of(POOL, nodeConfig=config)
    _, state = world.create(POOL, silent)
    assert state["nodeConfig"]["ephemeralStorageLocalSsdConfig"] == {"localSsdCount": 16}
    again = world.diff(POOL, state, silent, silent)
    assert list(again.replaces) == ["nodeConfig.ephemeralStorageLocalSsdConfig.localSsdCount"]
    said = {**config, "ephemeralStorageLocalSsdConfig": {"localSsdCount": 16}}
    assert not world.diff(POOL, state, silent, inputs_of(POOL, nodeConfig=said)).detailedDiff


def test_of_a_cluster_without_an_address_google_chooses_the_private_endpoint(world: World) -> None:
    world.stack(until=CLUSTER)
    by_name = {"ipEndpointsConfig": {"enabled": False}}
    nodes = {"enablePrivateNodes": True}
    silent = inputs_of(CLUSTER, controlPlaneEndpointsConfig=by_name, privateClusterConfig=nodes)
    _, state = world.create(CLUSTER, silent)
    assert state["privateClusterConfig"] == {**nodes, "enablePrivateEndpoint": True}
    said = {**silent, "privateClusterConfig": {**nodes, "enablePrivateEndpoint": True}}
    assert world.check(CLUSTER, said) == (said, [])
    assert not world.diff(CLUSTER, state, silent, said).detailedDiff
    by_address = {**said, "controlPlaneEndpointsConfig": {"ipEndpointsConfig": {"enabled": True}}}
    assert "privateClusterConfig.enablePrivateEndpoint" in str(world.check(CLUSTER, by_address)[1])


def test_ids_and_outputs_have_the_form_of_the_official_provider(world: World) -> None:
    made = world.stack()
    assert made[SERVICE][0] == f"{P}/iam.googleapis.com"
    id, repository = made[REPOSITORY]
    assert id == f"projects/{P}/locations/{R}/repositories/models"
    assert (repository["name"], repository["registryUri"]) == ("models", f"{R}-docker.pkg.dev/{P}/models")
    assert repository["effectiveLabels"] == Secret({"team": "search", "goog-pulumi-provisioned": "true"})
    id, account = made[ACCOUNT]
    assert id == account["name"] == f"projects/{P}/serviceAccounts/{EMAIL}"
    assert (account["email"], account["member"]) == (EMAIL, f"serviceAccount:{EMAIL}")
    assert made[REPOSITORY_GRANT][0].endswith(
        f"/repositories/models/roles/artifactregistry.reader/serviceAccount:{EMAIL}"
    )
    assert made[GRANT][0] == f"{P}/roles/logging.logWriter/serviceAccount:{EMAIL}"
    assert made[NAT][0] == f"{P}/{R}/router/nat"
    id, cluster = made[CLUSTER]
    assert id == f"projects/{P}/locations/{R}/clusters/serving"
    assert cluster["endpoint"] == "203.0.113.10"
    assert cluster["masterAuth"]["clusterCaCertificate"]
    id, pool = made[POOL]
    assert id == f"projects/{P}/locations/{R}/clusters/serving/nodePools/gpu"
    assert f"/zones/{R}-a/instanceGroups/gke-serving-gpu-" in pool["instanceGroupUrls"][0]
    assert pool["nodeConfig"]["imageType"] == "COS_CONTAINERD"


def test_a_preview_knows_what_the_provider_works_out_and_no_more(world: World) -> None:
    _, account = world.create(ACCOUNT, inputs_of(ACCOUNT), preview=True)
    assert (account["email"], account["project"]) == (EMAIL, P)
    assert account["uniqueId"] is UNKNOWN
    _, cluster = world.create(CLUSTER, inputs_of(CLUSTER, name=UNKNOWN), preview=True)
    assert cluster["endpoint"] is UNKNOWN
    assert cluster["deletionPolicy"] == "DELETE"


def test_an_update_keeps_what_google_made_up_and_takes_back_what_is_no_longer_given(world: World) -> None:
    _, state = world.stack()[POOL]
    old = inputs_of(POOL)
    new = inputs_of(POOL, autoscaling=None, management={"autoUpgrade": False})
    planned = world.update(POOL, state, old, new, preview=True)
    assert planned["instanceGroupUrls"] == state["instanceGroupUrls"]
    assert world.read(POOL, f"{P}/{R}/serving/gpu", old)[1] == state
    changed = world.update(POOL, state, old, new)
    assert "autoscaling" not in changed
    assert changed["management"] == {"autoRepair": True, "autoUpgrade": False}
    assert changed["instanceGroupUrls"] == state["instanceGroupUrls"]


def test_an_import_takes_what_was_given_by_any_form_of_the_id(world: World) -> None:
    world.stack()
    for id in (f"projects/{P}/locations/{R}/clusters/serving/nodePools/gpu", f"{P}/{R}/serving/gpu"):
        found, _, inputs = world.read(POOL, id)
        assert found == f"projects/{P}/locations/{R}/clusters/serving/nodePools/gpu"
        assert inputs["autoscaling"] == inputs_of(POOL)["autoscaling"]
        assert not {"instanceGroupUrls", "deletionPolicy", "upgradeSettings"} & set(inputs)
    assert world.read(ACCOUNT, f"projects/{P}/serviceAccounts/{EMAIL}")[2]["accountId"] == "model-nodes"
    grant = (
        f"projects/{P}/locations/{R}/repositories/models roles/artifactregistry.reader serviceAccount:{EMAIL}"
    )
    assert world.read(REPOSITORY_GRANT, grant)[2]["role"] == "roles/artifactregistry.reader"
    assert world.read(CLUSTER, f"projects/{P}/locations/{R}/clusters/other")[0] == ""
    with pytest.raises(RefusedError, match="no id of a cluster"):
        world.read(CLUSTER, "serving?")


def test_a_refresh_reads_drift_and_the_diff_takes_it_back(world: World) -> None:
    id, _ = world.stack()[POOL]
    text = world.path.read_text(encoding="utf-8")
    world.path.write_text(text.replace('"diskSizeGb": 200', '"diskSizeGb": 500'), encoding="utf-8")
    _, state, inputs = world.read(POOL, id, inputs_of(POOL))
    assert inputs["nodeConfig"]["diskSizeGb"] == 500
    found = world.diff(POOL, state, inputs, inputs_of(POOL))
    assert [*found.detailedDiff] == ["nodeConfig.diskSizeGb"]


# --- names and differences


def test_names_are_made_up_and_kept(world: World) -> None:
    inputs, failures = world.check(CLUSTER, inputs_of(CLUSTER, name=None), name="c")
    assert not failures
    assert inputs["name"].startswith("c-")
    assert len(inputs["name"]) == len("c-") + 7
    assert world.check(CLUSTER, inputs_of(CLUSTER, name=None), inputs, name="c")[0] == inputs
    _, failures = world.check(CLUSTER, inputs_of(CLUSTER, name=None), name="c" * 40)
    assert "longer than 40 characters" in failures[0]
    assert "name" not in world.check(SERVICE, inputs_of(SERVICE))[0]


@pytest.mark.parametrize(
    ("token", "changes", "path", "replaces"),
    [
        (POOL, {"nodeConfig": {"machineType": "g2-standard-16"}}, "nodeConfig.machineType", False),
        (POOL, {"nodeConfig": {"diskSizeGb": 300}}, "nodeConfig.diskSizeGb", False),
        (POOL, {"nodeConfig": {"labels": {"pool": "b"}}}, "nodeConfig.labels.pool", False),
        (POOL, {"nodeConfig": {"spot": False}}, "nodeConfig.spot", True),
        (
            POOL,
            {"nodeConfig": {"guestAccelerators": [{"type": "nvidia-l4", "count": 2}]}},
            "nodeConfig.guestAccelerators[0].count",
            True,
        ),
        (POOL, {"nodeConfig": {"oauthScopes": ["x"]}}, "nodeConfig.oauthScopes", True),
        (POOL, {"cluster": UNKNOWN}, "cluster", True),
        (POOL, {"name": "other"}, "name", True),
        (POOL, {"autoscaling": {"maxNodeCount": 3}}, "autoscaling.maxNodeCount", False),
        (CLUSTER, {"network": "other"}, "network", True),
        (CLUSTER, {"project": "my-project-2"}, "project", True),
        (CLUSTER, {"releaseChannel": {"channel": "RAPID"}}, "releaseChannel.channel", False),
        (REPOSITORY, {"location": "us"}, "location", True),
        (REPOSITORY, {"description": "x"}, "description", False),
        (REPOSITORY_GRANT, {"role": "roles/viewer"}, "role", True),
        (SERVICE, {"service": "run.googleapis.com"}, "service", True),
        (ACCOUNT, {"displayName": "x"}, "displayName", False),
    ],
)
def test_what_is_immutable_replaces(
    world: World, token: str, changes: dict[str, Any], path: str, replaces: bool
) -> None:
    old = inputs_of(token)
    new = {
        **old,
        **{
            key: {**old.get(key, {}), **value} if isinstance(value, dict) else value
            for key, value in changes.items()
        },
    }
    found = world.diff(token, {**old, "project": P}, old, new)
    assert [*found.detailedDiff] == [path]
    assert [*found.replaces] == ([path] if replaces else [])
    # Only what keeps its name has to go first.
    keeps = replaces and path not in ("name", "project", "location", "role", "service", "cluster")
    assert found.deleteBeforeReplace == keeps
    assert world.diff(token, {**old, "project": P}, old, new, path).changes == found.DIFF_NONE


def test_what_means_the_same_is_no_difference(world: World) -> None:
    old = inputs_of(CLUSTER)
    state = {**old, "project": P}
    new = {**old, "network": f"projects/{P}/global/networks/net", "project": P}
    assert world.diff(CLUSTER, state, old, new).changes == provider_pb2.DiffResponse.DIFF_NONE
    world.configure(project="my-project-2")
    assert [*world.diff(CLUSTER, state, old, old).replaces] == ["project"]


def test_secrets_stay_secret_and_are_never_printed(world: World) -> None:
    inputs = inputs_of(REPOSITORY, description=Secret("hidden"))
    _, state = world.stack(until=REPOSITORY), world.create(REPOSITORY, inputs)[1]
    assert state["description"] == Secret("hidden")
    _, failures = world.check(REPOSITORY, inputs_of(REPOSITORY, format=Secret("hidden")))
    assert "[secret]" in failures[0]
    assert "hidden" not in failures[0]


# --- what the cloud refuses


def test_an_api_has_to_be_enabled_first(world: World) -> None:
    with pytest.raises(
        RefusedError, match=r"403: Artifact Registry API has not been used .*SERVICE_DISABLED"
    ):
        world.create(REPOSITORY, inputs_of(REPOSITORY))
    world.path.write_text(json.dumps({"enabled": {P: ["artifactregistry.googleapis.com"]}}), encoding="utf-8")
    world.create(REPOSITORY, inputs_of(REPOSITORY))


@pytest.mark.parametrize(
    ("token", "changes", "message"),
    [
        (POOL, {"cluster": "other"}, f"404: Not found: projects/{P}/locations/{R}/clusters/other"),
        (POOL, {"location": f"{R}-a"}, f"404: Not found: projects/{P}/locations/{R}-a/clusters/serving"),
        (POOL, {"nodeConfig": {"serviceAccount": EMAIL.replace("model", "no")}}, "does not exist"),
        (CLUSTER, {"subnetwork": "other"}, "subnetworks/other"),
        (CLUSTER, {"ipAllocationPolicy": {"clusterSecondaryRangeName": "x"}}, 'range "x" does not exist'),
        (SUBNETWORK, {"network": "other"}, "networks/other"),
        (SUBNETWORK, {"name": "s2"}, "conflicts with"),
        (NAT, {"router": "other"}, "routers/other"),
        (REPOSITORY_GRANT, {"repository": "other"}, "repositories/other"),
        (GRANT, {"member": f"serviceAccount:nobody@{P}.iam.gserviceaccount.com"}, "nobody@.* does not exist"),
    ],
)
def test_what_a_resource_refers_to_has_to_exist(
    world: World, token: str, changes: dict[str, Any], message: str
) -> None:
    world.stack(until=POOL)
    with pytest.raises(RefusedError, match=message):
        world.create(token, inputs_of(token, **changes))


def test_a_workload_identity_grant_needs_the_cluster_first(world: World) -> None:
    world.stack(until=CLUSTER)
    grant = inputs_of(REPOSITORY_GRANT, member=f"serviceAccount:{P}.svc.id.goog[models/reader]")
    with pytest.raises(RefusedError, match=f"Identity Pool does not exist \\({P}.svc.id.goog\\)"):
        world.create(REPOSITORY_GRANT, grant)
    world.create(CLUSTER, inputs_of(CLUSTER))
    world.create(REPOSITORY_GRANT, grant)


def test_an_autopilot_cluster_takes_no_node_pool(world: World) -> None:
    world.stack(until=CLUSTER)
    autopilot = inputs_of(CLUSTER, initialNodeCount=None, removeDefaultNodePool=None, enableAutopilot=True)
    world.create(CLUSTER, autopilot)
    with pytest.raises(RefusedError, match="Autopilot node pools"):
        world.create(POOL, inputs_of(POOL))


def test_what_exists_already_is_refused_but_grants_are_added(world: World) -> None:
    world.stack()
    for token in (REPOSITORY, ACCOUNT, NETWORK, CLUSTER, POOL):
        with pytest.raises(RefusedError, match=r"409: Already exists: .*pulumi import"):
            world.create(token, inputs_of(token))
    for token in (SERVICE, GRANT, REPOSITORY_GRANT):
        world.create(token, inputs_of(token))
    world.create(ACCOUNT, inputs_of(ACCOUNT, createIgnoreAlreadyExists=True))


def test_deletes_are_refused_where_google_or_the_program_protects(world: World) -> None:
    made = world.stack()
    cluster = made[CLUSTER][1]
    with pytest.raises(RefusedError, match="deletionProtection is true"):
        world.delete(CLUSTER, {**cluster, "deletionProtection": True})
    with pytest.raises(RefusedError, match="deletionPolicy is PREVENT"):
        world.delete(REPOSITORY, {**made[REPOSITORY][1], "deletionPolicy": "PREVENT"})
    with pytest.raises(RefusedError, match="already being used by"):
        world.delete(NETWORK, made[NETWORK][1])
    world.delete(CLUSTER, cluster)
    assert not [name for name in world.document()["resources"] if "/nodePools/" in name]
    with pytest.raises(RefusedError, match="404: Not found"):
        world.update(CLUSTER, cluster, inputs_of(CLUSTER), inputs_of(CLUSTER))


def test_only_listed_projects_exist(world: World) -> None:
    world.path.write_text(json.dumps({"projects": {"other-project": {"number": "42"}}}), encoding="utf-8")
    with pytest.raises(RefusedError, match=f"403: Permission denied on resource project {P}"):
        world.create(SERVICE, inputs_of(SERVICE))
    with pytest.raises(RefusedError, match="403"):
        world.invoke("gcp:organizations/getProject:getProject")
    assert (
        world.invoke("gcp:organizations/getProject:getProject", projectId="other-project")["number"] == "42"
    )


def test_other_types_and_functions_are_refused_by_name(world: World) -> None:
    with pytest.raises(RefusedError, match=r"gcp:storage/bucket:Bucket; the official plugin does.*fix:"):
        world.check("gcp:storage/bucket:Bucket", {})
    with pytest.raises(RefusedError, match="getZones"):
        world.invoke("gcp:compute/getZones:getZones")


# --- functions


def test_functions_answer_from_the_cloud(world: World) -> None:
    world.stack()
    cluster = world.invoke("gcp:container/getCluster:getCluster", name="serving", location=R)
    assert cluster["masterAuths"][0]["clusterCaCertificate"]
    assert cluster["workloadIdentityConfigs"] == [{"workloadPool": f"{P}.svc.id.goog"}]
    repository = world.invoke(
        "gcp:artifactregistry/getRepository:getRepository", repositoryId="models", location=R
    )
    assert repository["registryUri"] == f"{R}-docker.pkg.dev/{P}/models"
    for name in ("model-nodes", EMAIL):
        account = world.invoke("gcp:serviceaccount/getAccount:getAccount", accountId=name)
        assert account["member"] == f"serviceAccount:{EMAIL}"
    assert len(world.invoke("gcp:organizations/getProject:getProject")["number"]) == 12
    with pytest.raises(RefusedError, match=f"404: Not found: projects/{P}/locations/{R}/clusters/none"):
        world.invoke("gcp:container/getCluster:getCluster", name="none", location=R)
    request = provider_pb2.InvokeRequest(
        tok="gcp:container/getCluster:getCluster", args=properties.encode({"nam": "x", "location": R})
    )
    assert "did you mean name?" in world.provider.Invoke(request, world.context).failures[0].reason


def test_a_control_plane_has_a_dns_name_and_an_address_unless_that_is_switched_off(world: World) -> None:
    ask = "gcp:container/getCluster:getCluster"
    world.stack()
    cluster = world.invoke(ask, name="serving", location=R)
    assert cluster["endpoint"] == "203.0.113.10"
    [endpoints] = cluster["controlPlaneEndpointsConfigs"]
    [dns] = endpoints["dnsEndpointConfigs"]
    assert dns["endpoint"].startswith("gke-")
    assert dns["endpoint"].endswith(f".{R}.gke.goog")
    assert (dns["allowExternalTraffic"], endpoints["ipEndpointsConfigs"]) == (False, [{"enabled": True}])

    own = {
        "dnsEndpointConfig": {"allowExternalTraffic": True},
        "ipEndpointsConfig": {"enabled": False},
    }
    inputs = inputs_of(CLUSTER, name="closed", controlPlaneEndpointsConfig=own)
    assert world.create(CLUSTER, inputs, preview=True)[1]["controlPlaneEndpointsConfig"] == {
        "dnsEndpointConfig": {"endpoint": UNKNOWN, "allowExternalTraffic": True},
        "ipEndpointsConfig": {"enabled": False},
    }
    _, state = world.create(CLUSTER, inputs)
    assert state["endpoint"] == ""
    cluster = world.invoke(ask, name="closed", location=R)
    assert cluster["endpoint"] == ""
    [endpoints] = cluster["controlPlaneEndpointsConfigs"]
    [dns] = endpoints["dnsEndpointConfigs"]
    assert dns["allowExternalTraffic"] is True
    assert dns["endpoint"] == state["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"]
    assert endpoints["ipEndpointsConfigs"] == [{"enabled": False}]


def test_a_kubeconfig_gives_the_endpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv(made_up.KUBECONFIG, str(path))
    world.stack(until=CLUSTER)
    with pytest.raises(RefusedError, match=f"{made_up.KUBECONFIG}: .*fix:"):
        world.create(CLUSTER, inputs_of(CLUSTER))
    path.write_text(
        "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443', "
        "certificate-authority-data: Q0E=}}]\n",
        encoding="utf-8",
    )
    _, state = world.create(CLUSTER, inputs_of(CLUSTER))
    assert (state["endpoint"], state["masterAuth"]["clusterCaCertificate"]) == ("127.0.0.1:6443", "Q0E=")


# --- settings, the file and the process


def test_provider_settings_are_checked(world: World) -> None:
    news = {"project": "P", "region": "mars", "zon": "x", "version": VERSION}
    request = provider_pb2.CheckRequest(news=properties.encode(news))
    told = [failure.reason for failure in world.provider.CheckConfig(request, world.context).failures]
    assert len(told) == 3
    assert any("did you mean zone?" in reason for reason in told)


def test_project_and_region_fall_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.configure(project="", region="")
    failures = world.check(REPOSITORY, inputs_of(REPOSITORY, location=None))[1]
    assert any("gcp:project" in reason for reason in failures)
    assert any("gcp:region" in reason for reason in failures)
    monkeypatch.setenv("GOOGLE_PROJECT", P)
    world.configure(region=R)
    assert world.check(REPOSITORY, inputs_of(REPOSITORY, location=None))[1] == []


def test_a_broken_file_is_named(world: World) -> None:
    world.path.write_text("{", encoding="utf-8")
    with pytest.raises(RefusedError, match=f"{world.path}.*fix: correct or delete the file"):
        world.stack()


def test_writers_at_a_time_lose_nothing(tmp_path: Path) -> None:
    """Threads of two processes: each adds its own keys to the same file."""
    path = tmp_path / "cloud.json"
    code = (
        "import sys, pathlib\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from local.standins.gcp_provider.cloud import Cloud\n"
        "cloud = Cloud(pathlib.Path(sys.argv[1]))\n"
        "def add(number):\n"
        "    with cloud.change() as document:\n"
        "        document['resources'][f'{sys.argv[2]}/{number}'] = {}\n"
        "list(ThreadPoolExecutor(8).map(add, range(40)))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=PROJECT) for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(Cloud(path).read()["resources"]) == 80
    assert not [*tmp_path.glob(".cloud.json.*")]


Start = Callable[[], provider_pb2_grpc.ResourceProviderStub]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the launcher as the engine does; every call is another process."""
    running: list[tuple[subprocess.Popen[str], grpc.Channel]] = []

    def begin() -> provider_pb2_grpc.ResourceProviderStub:
        process = subprocess.Popen(
            [LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                VARIABLE: str(tmp_path / "cloud.json"),
                "PULUMI_STANDIN_PYTHON": sys.executable,
                "GOOGLE_PROJECT": P,
            },
        )
        assert process.stdout is not None
        channel = grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}")
        running.append((process, channel))
        return provider_pb2_grpc.ResourceProviderStub(channel)

    yield begin
    for process, channel in running:
        channel.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def test_two_processes_share_the_cloud(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = start(), start()
    for stub in (first, second):
        assert stub.GetPluginInfo(empty_pb2.Empty()).version == VERSION
        for _ in range(2):
            stub.Configure(provider_pb2.ConfigureRequest(args=properties.encode({})))
    assert capfd.readouterr().err.count(NOTICE) == 2  # once for each process
    service, repository = STACK[0], STACK[len(APIS)]
    first.Create(provider_pb2.CreateRequest(urn=urn(service[0]), properties=properties.encode(service[1])))
    made = second.Create(
        provider_pb2.CreateRequest(urn=urn(repository[0]), properties=properties.encode(repository[1]))
    )
    read = first.Read(provider_pb2.ReadRequest(urn=urn(repository[0]), id=made.id))
    assert properties.decode(read.properties) == properties.decode(made.properties)
    with pytest.raises(grpc.RpcError, match="409: Already exists"):
        first.Create(
            provider_pb2.CreateRequest(urn=urn(repository[0]), properties=properties.encode(repository[1]))
        )
