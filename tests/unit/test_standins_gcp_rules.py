"""Inputs that Google would refuse, and the words in which the gcp stand-in refuses them in a preview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from local.standins.gcp_provider import discovery
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.rules import check_inputs
from local.standins.gcp_provider.settings import Settings
from local.standins.properties import UNKNOWN, Secret
from tests.unit.test_standins_gcp_provider import (
    ACCOUNT,
    CLUSTER,
    GRANT,
    NAT,
    NETWORK,
    POOL,
    REPOSITORY,
    REPOSITORY_GRANT,
    ROUTER,
    SERVICE,
    STACK,
    SUBNETWORK,
    P,
    R,
    inputs_of,
)


def told(token: str, inputs: dict[str, Any]) -> list[str]:
    found = check_inputs(KINDS[token], inputs, Settings(project=P))
    return [str(finding.problem(inputs)) for finding in found]


def changed(token: str, path: str, value: Any) -> dict[str, Any]:
    """Return the valid inputs of a type with one value (by its dotted path) replaced; None takes it out."""
    inputs = inputs_of(token)
    *parents, last = path.split(".")
    block = inputs
    for name in parents:
        block[name] = dict(block.get(name) or {})
        block = block[name]
    if value is None:
        block.pop(last, None)
    else:
        block[last] = value
    return inputs


def gpu(kind: str, count: int, machine: str, **more: Any) -> dict[str, Any]:
    return {"machineType": machine, "guestAccelerators": [{"type": kind, "count": count, **more}]}


HYPERDISK = {"diskType": "hyperdisk-balanced"}


def policy(**more: Any) -> list[dict[str, Any]]:
    return [{"id": "p", **more}]


# type, path, wrong value, where it is told, words of the message
WRONG: list[tuple[str, str, Any, str, str]] = [
    # against the types of the package
    (POOL, "nodeConfg", {}, "nodeConfg", "did you mean nodeConfig?"),
    (POOL, "nodeConfig.machinType", "x", "nodeConfig.machinType", "did you mean machineType?"),
    (POOL, "nodeConfig.diskSizeGb", "200", "nodeConfig.diskSizeGb", "a whole number"),
    (POOL, "nodeConfig.diskSizeGb", True, "nodeConfig.diskSizeGb", "a whole number"),
    (POOL, "nodeConfig.diskSizeGb", 20.5, "nodeConfig.diskSizeGb", "a whole number"),
    (POOL, "nodeConfig.spot", "true", "nodeConfig.spot", "true or false"),
    (POOL, "nodeConfig.labels", {"a": 1}, "nodeConfig.labels.a", "a string"),
    (POOL, "nodeConfig.taints", {"key": "a"}, "nodeConfig.taints", "a list"),
    (POOL, "nodeConfig.taints", [{"key": "a", "value": "b"}], "nodeConfig.taints[0].effect", "required"),
    (POOL, "nodeConfig.gcfsConfig", True, "nodeConfig.gcfsConfig", "a block with enabled"),
    (POOL, "cluster", None, "cluster", "required"),
    (REPOSITORY, "format", None, "format", "required"),
    # against the API descriptions
    (POOL, "autoscaling.locationPolicy", "SOME", "autoscaling.locationPolicy", "BALANCED, ANY"),
    (POOL, "upgradeSettings.strategy", "surge", "upgradeSettings.strategy", "did you mean SURGE?"),
    (POOL, "nodeConfig.maxRunDuration", "3600s", "nodeConfig.maxRunDuration", "with flexStart only"),
    (
        CLUSTER,
        "rollbackSafeUpgrade.controlPlaneSoakDuration",
        "1h",
        "rollbackSafeUpgrade.controlPlaneSoakDuration",
        "seconds with a final s",
    ),
    (
        POOL,
        "nodeConfig.workloadMetadataConfig.mode",
        "GKE",
        "nodeConfig.workloadMetadataConfig.mode",
        "GKE_METADATA",
    ),
    (POOL, "nodeConfig.loggingVariant", "MAX", "nodeConfig.loggingVariant", "MAX_THROUGHPUT"),
    (POOL, "initialNodeCount", 2**31, "initialNodeCount", "2147483647"),
    (CLUSTER, "releaseChannel.channel", "FAST", "releaseChannel.channel", "RAPID"),
    (CLUSTER, "loggingConfig.enableComponents", ["ALL"], "loggingConfig.enableComponents[0]", "WORKLOADS"),
    (CLUSTER, "datapathProvider", "CILIUM", "datapathProvider", "ADVANCED_DATAPATH"),
    (CLUSTER, "gatewayApiConfig.channel", "STANDARD", "gatewayApiConfig.channel", "CHANNEL_STANDARD"),
    (REPOSITORY, "format", "docker", "format", "did you mean DOCKER?"),
    (REPOSITORY, "mode", "REMOTE", "mode", "REMOTE_REPOSITORY"),
    (NETWORK, "routingMode", "WORLD", "routingMode", "GLOBAL"),
    (SUBNETWORK, "stackType", "IPV4", "stackType", "IPV4_ONLY"),
    (NAT, "natIpAllocateOption", "AUTO", "natIpAllocateOption", "AUTO_ONLY"),
    # names and places
    (CLUSTER, "name", "Serving", "name", "1 to 40 lower-case"),
    (CLUSTER, "name", "c" * 41, "name", "1 to 40 lower-case"),
    (POOL, "name", "gpu-", "name", "no hyphen last"),
    (POOL, "namePrefix", "gpu-", "namePrefix", "either name or namePrefix"),
    (CLUSTER, "project", "Short", "project", "6 to 30"),
    (CLUSTER, "location", "europe", "location", "a region (europe-west4) or a zone"),
    (CLUSTER, "minMasterVersion", "v1.33", "minMasterVersion", "a GKE version"),
    (POOL, "nodeLocations", ["us-east1-b"], "nodeLocations[0]", f"a zone of {R}"),
    (POOL, "nodeLocations", [R], "nodeLocations[0]", "a zone, such as"),
    (REPOSITORY, "location", "eu", "location", "us, europe, asia"),
    (REPOSITORY, "location", f"{R}-a", "location", "a region such as"),
    (REPOSITORY, "repositoryId", "my_models", "repositoryId", "1 to 63 lower-case"),
    (REPOSITORY, "labels", {"Team": "x"}, "labels.Team", "as key"),
    (REPOSITORY, "labels", {"team": "X Y"}, "labels.team", "lower-case letters"),
    (ACCOUNT, "accountId", "nodes", "accountId", "6 to 30"),
    (ACCOUNT, "displayName", "ä" * 51, "displayName", "at most 100 bytes"),
    (SERVICE, "service", "container", "service", "container.googleapis.com"),
    (ROUTER, "region", f"{R}-a", "region", "a region, such as"),
    # nodes
    (POOL, "nodeConfig.diskSizeGb", 9, "nodeConfig.diskSizeGb", "10 to 65536 GB"),
    (POOL, "nodeConfig.diskSizeGb", 65537, "nodeConfig.diskSizeGb", "10 to 65536 GB"),
    (POOL, "nodeConfig.diskType", "ssd", "nodeConfig.diskType", "pd-ssd"),
    (POOL, "nodeConfig.diskType", "pd-standard", "nodeConfig.diskType", "pd-balanced or pd-ssd for g2"),
    (POOL, "nodeConfig.machineType", "big", "nodeConfig.machineType", "a machine type such as"),
    (POOL, "nodeConfig.imageType", "COS", "nodeConfig.imageType", "COS_CONTAINERD"),
    (
        POOL,
        "nodeConfig.labels",
        {"kubernetes.io/x": "y"},
        'nodeConfig.labels["kubernetes.io/x"]',
        "keeps for itself",
    ),
    (POOL, "nodeConfig.labels", {"a b": "y"}, "nodeConfig.labels.a b", "a Kubernetes label key"),
    (POOL, "nodeConfig.flexStart", True, "nodeConfig.flexStart", "one of spot, preemptible and flexStart"),
    (
        POOL,
        "nodeConfig.reservationAffinity",
        {"consumeReservationType": "ANY_RESERVATION"},
        "nodeConfig.reservationAffinity.consumeReservationType",
        "uses no reservations",
    ),
    (
        POOL,
        "nodeConfig.taints",
        [{"key": "a", "value": "b", "effect": "NoSchedule"}],
        "nodeConfig.taints[0].effect",
        "NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE",
    ),
    (
        POOL,
        "nodeConfig.imageType",
        "UBUNTU_CONTAINERD",
        "nodeConfig.gcfsConfig.enabled",
        "COS_CONTAINERD only",
    ),
    (POOL, "maxPodsPerNode", 4, "maxPodsPerNode", "8 to 256"),
    # GPUs
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-l4", 3, "g2-standard-12"),
        "nodeConfig.guestAccelerators[0].count",
        "1, 2, 4, 8",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-l4", 2, "g2-standard-12"),
        "nodeConfig.guestAccelerators[0].count",
        "1, which",
    ),
    (POOL, "nodeConfig", gpu("nvidia-l4", 1, "n1-standard-4"), "nodeConfig.machineType", "g2-standard-*"),
    (POOL, "nodeConfig", gpu("nvidia-l4", 1, "g2-standard-10"), "nodeConfig.machineType", "g2-standard-8"),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-l40", 1, "g2-standard-4"),
        "nodeConfig.guestAccelerators[0].type",
        "did you mean",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-tesla-t4", 8, "n1-standard-8"),
        "nodeConfig.guestAccelerators[0].count",
        "1, 2, 4",
    ),
    (POOL, "nodeConfig", gpu("nvidia-tesla-t4", 1, "g2-standard-4"), "nodeConfig.machineType", "n1-*"),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-tesla-t4", 1, "n1-standard-96"),
        "nodeConfig.machineType",
        "at most 48 vCPUs",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-tesla-a100", 2, "a2-highgpu-1g"),
        "nodeConfig.guestAccelerators[0].count",
        "1, which is what a2-highgpu-1g has",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-a100-80gb", 1, "a2-highgpu-1g"),
        "nodeConfig.machineType",
        "a2-ultragpu",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-h100-mega-80gb", 4, "a3-megagpu-8g"),
        "nodeConfig.guestAccelerators[0].count",
        "8 for nvidia-h100-mega-80gb",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-l4", 1, "g2-standard-4", gpuDriverInstallationConfig={"gpuDriverVersion": "NEW"}),
        "nodeConfig.guestAccelerators[0].gpuDriverInstallationConfig.gpuDriverVersion",
        "LATEST",
    ),
    (
        POOL,
        "nodeConfig",
        gpu("nvidia-rtx-pro-6000", 1, "g4-standard-48"),
        "nodeConfig.diskType",
        "hyperdisk-balanced for g4-standard-48",
    ),
    (
        POOL,
        "nodeConfig",
        {**gpu("nvidia-rtx-pro-6000", 1, "g4-standard-96"), **HYPERDISK},
        "nodeConfig.guestAccelerators[0].count",
        "2, which is what g4-standard-96 has",
    ),
    (
        POOL,
        "nodeConfig",
        {**gpu("nvidia-rtx-pro-6000", 1, "g4-standard-64"), **HYPERDISK},
        "nodeConfig.machineType",
        "g4-standard-48, g4-standard-96",
    ),
    (
        POOL,
        "nodeConfig",
        {**gpu("nvidia-tesla-a100", 1, "a2-highgpu-1g"), **HYPERDISK},
        "nodeConfig.diskType",
        "pd-balanced or pd-ssd",
    ),
    (
        POOL,
        "nodeConfig",
        {**gpu("nvidia-b200", 8, "a4-highgpu-8g"), **HYPERDISK},
        "nodeConfig.machineType",
        "spot or flexStart or reservation only",
    ),
    (
        POOL,
        "nodeConfig",
        {**gpu("nvidia-gb200", 4, "a4x-highgpu-4g"), **HYPERDISK, "spot": True},
        "nodeConfig.machineType",
        "reservation only",
    ),
    (
        POOL,
        "nodeConfig",
        {
            **gpu("nvidia-l4", 1, "g2-standard-8"),
            "ephemeralStorageLocalSsdConfig": {"localSsdCount": 2},
        },
        "nodeConfig.ephemeralStorageLocalSsdConfig.localSsdCount",
        "1 local SSDs on g2-standard-8",
    ),
    # scaling and upgrades
    (POOL, "autoscaling", {"minNodeCount": 3, "maxNodeCount": 2}, "autoscaling.minNodeCount", "which is 2"),
    (
        POOL,
        "autoscaling",
        {"minNodeCount": 0, "maxNodeCount": 2, "totalMaxNodeCount": 4},
        "autoscaling.totalMaxNodeCount",
        "not both",
    ),
    (POOL, "autoscaling", {"minNodeCount": 1}, "autoscaling.maxNodeCount", "1 or more"),
    (POOL, "upgradeSettings", {"maxSurge": 0, "maxUnavailable": 0}, "upgradeSettings.maxSurge", "1 or more"),
    (
        POOL,
        "upgradeSettings",
        {"strategy": "BLUE_GREEN", "maxSurge": 1},
        "upgradeSettings.maxSurge",
        "with strategy SURGE only",
    ),
    (
        POOL,
        "upgradeSettings",
        {"blueGreenSettings": {"standardRolloutPolicy": {"batchNodeCount": 1}}},
        "upgradeSettings.blueGreenSettings",
        "with strategy BLUE_GREEN only",
    ),
    # clusters
    (CLUSTER, "initialNodeCount", None, "initialNodeCount", "1 or more, unless enableAutopilot"),
    (CLUSTER, "initialNodeCount", 0, "initialNodeCount", "1 or more"),
    (CLUSTER, "enableAutopilot", True, "removeDefaultNodePool", "nothing here with enableAutopilot"),
    (
        CLUSTER,
        "workloadIdentityConfig.workloadPool",
        "other.svc.id.goog",
        "workloadIdentityConfig.workloadPool",
        f"{P}.svc.id.goog",
    ),
    (
        CLUSTER,
        "ipAllocationPolicy.clusterIpv4CidrBlock",
        "/16",
        "ipAllocationPolicy.clusterIpv4CidrBlock",
        "either clusterIpv4CidrBlock or clusterSecondaryRangeName",
    ),
    (
        CLUSTER,
        "privateClusterConfig.masterIpv4CidrBlock",
        "172.16.0.0/24",
        "privateClusterConfig.masterIpv4CidrBlock",
        "/28",
    ),
    (CLUSTER, "deletionPolicy", "KEEP", "deletionPolicy", "DELETE, PREVENT, ABANDON"),
    # registries
    (REPOSITORY, "cleanupPolicies", policy(action="KEEP"), "cleanupPolicies[0]", "exactly one of condition"),
    (
        REPOSITORY,
        "cleanupPolicies",
        policy(action="DELETE", mostRecentVersions={"keepCount": 3}),
        "cleanupPolicies[0].mostRecentVersions",
        "with action KEEP only",
    ),
    (
        REPOSITORY,
        "cleanupPolicies",
        policy(action="REMOVE", condition={"olderThan": "30d"}),
        "cleanupPolicies[0].action",
        "DELETE, KEEP",
    ),
    (
        REPOSITORY,
        "cleanupPolicies",
        policy(action="DELETE", condition={"olderThan": "30 days"}),
        "cleanupPolicies[0].condition.olderThan",
        "2592000s",
    ),
    (REPOSITORY, "mavenConfig", {"versionPolicy": "RELEASE"}, "mavenConfig", "with format MAVEN only"),
    (REPOSITORY, "mode", "REMOTE_REPOSITORY", "remoteRepositoryConfig", "a block"),
    # grants
    (GRANT, "member", "model-nodes@example.com", "member", "serviceAccount:MAIL"),
    (GRANT, "member", "allUsers", "member", "somebody in particular"),
    (
        GRANT,
        "member",
        f"principal://iam.googleapis.com/projects/{P}/locations/global/workloadIdentityPools/{P}.svc.id.goog/subject/x",
        "member",
        "the project's number",
    ),
    (REPOSITORY_GRANT, "role", "artifactregistry.reader", "role", "roles/NAME"),
    # networks
    (SUBNETWORK, "ipCidrRange", "10.0.0.1/20", "ipCidrRange", "host part zero"),
    (SUBNETWORK, "ipCidrRange", None, "ipCidrRange", "an address range"),
    (NETWORK, "mtu", 9000, "mtu", "1300 to 8896"),
    (NAT, "natIpAllocateOption", "MANUAL_ONLY", "natIps", "at least one address"),
    (NAT, "sourceSubnetworkIpRangesToNat", "LIST_OF_SUBNETWORKS", "subnetworks", "at least one subnetwork"),
    (ROUTER, "bgp", {"asn": 1}, "bgp.asn", "a private number"),
]


@pytest.mark.parametrize(("token", "path", "value", "where", "words"), WRONG)
def test_wrong_inputs_are_refused_with_the_allowed_and_the_fix(
    token: str, path: str, value: Any, where: str, words: str
) -> None:
    messages = [
        message for message in told(token, changed(token, path, value)) if message.startswith(f"{where}: ")
    ]
    assert len(messages) == 1, told(token, changed(token, path, value))
    assert words in messages[0]
    assert "\n    allowed: " in messages[0]
    assert "\n    fix: " in messages[0]


@pytest.mark.parametrize(
    ("token", "path", "value"),
    [
        (POOL, "nodeConfig", {**gpu("nvidia-h100-80gb", 1, "a3-highgpu-1g"), "spot": True}),
        (POOL, "nodeConfig", {**gpu("nvidia-rtx-pro-6000", 1, "g4-standard-12"), **HYPERDISK}),
        (POOL, "nodeConfig", {**gpu("nvidia-b200", 8, "a4-highgpu-8g"), **HYPERDISK, "flexStart": True}),
        (POOL, "nodeConfig", gpu("nvidia-h100-80gb", 8, "a3-highgpu-8g")),
        (POOL, "nodeConfig", gpu("nvidia-tesla-a100", 16, "a2-megagpu-16g")),
        (POOL, "nodeConfig", gpu("nvidia-a100-80gb", 4, "a2-ultragpu-4g")),
        (POOL, "nodeConfig", gpu("nvidia-tesla-t4", 4, "n1-standard-96")),
        (POOL, "nodeConfig", gpu("nvidia-l4", 8, "g2-standard-96")),
        (POOL, "nodeConfig", {"machineType": "n2-custom-4-8192"}),
        (POOL, "autoscaling", {"totalMinNodeCount": 0, "totalMaxNodeCount": 4}),
        (POOL, "nodeConfig.labels", {"node.kubernetes.io/pool": "x", "example.org/a": "B.c"}),
        (CLUSTER, "privateClusterConfig.masterIpv4CidrBlock", "172.16.0.0/28"),
        (CLUSTER, "location", f"{R}-a"),
        (REPOSITORY, "location", "europe"),
        (GRANT, "member", f"serviceAccount:{P}.svc.id.goog[models/reader]"),
        (GRANT, "member", "group:ml@example.com"),
        (
            GRANT,
            "member",
            f"principal://iam.googleapis.com/projects/1234/locations/global/workloadIdentityPools/{P}.svc.id.goog"
            "/subject/ns/models/sa/reader",
        ),
        (GRANT, "role", "projects/my-project-1/roles/reader"),
    ],
)
def test_what_google_takes_is_taken(token: str, path: str, value: Any) -> None:
    assert told(token, changed(token, path, value)) == []


def unknown(value: Any) -> Any:
    return {key: unknown(item) for key, item in value.items()} if isinstance(value, Mapping) else UNKNOWN


@pytest.mark.parametrize(("token", "inputs"), STACK)
def test_unknown_and_secret_values_pass(token: str, inputs: dict[str, Any]) -> None:
    assert told(token, dict.fromkeys(inputs, UNKNOWN)) == []
    assert told(token, unknown(inputs)) == []
    assert told(token, {key: Secret(value) for key, value in inputs.items()}) == []


def test_no_message_names_a_secret_of_another_property() -> None:
    scaling = {"minNodeCount": 8, "maxNodeCount": Secret(7)}
    (message,) = told(POOL, inputs_of(POOL, autoscaling=scaling))
    assert "at most maxNodeCount, which is [secret]" in message


def test_everything_wrong_is_told_at_once() -> None:
    inputs = inputs_of(POOL, name="GPU", maxPodsPerNode=1, autoscaling={"minNodeCount": 3, "maxNodeCount": 2})
    inputs["nodeConfig"] = {**inputs["nodeConfig"], "diskSizeGb": 1, "diskType": "x", "spott": True}
    assert len(told(POOL, inputs)) == 6


def test_without_the_api_descriptions_the_rest_is_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "document", lambda api: None)
    assert told(CLUSTER, changed(CLUSTER, "releaseChannel.channel", "FAST")) == []
    assert told(CLUSTER, changed(CLUSTER, "name", "X")) != []
