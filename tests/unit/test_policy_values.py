"""What rules make of values that are unknown, secret, empty or of the wrong type, and of odd resources."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE

from tests.unit.test_policy_cases import (
    CASES,
    CPU_MEMORY,
    DIGEST,
    GPU_RESOURCES,
    IDS,
    NODE_ACCOUNT,
    NODES,
    OFFLINE,
    READER,
    TOLERATIONS,
    URI,
    Case,
    Res,
    all_messages,
    container,
    grant,
    inference_service,
    kserve_config,
    kubernetes,
    load_balancer,
    messages,
    model,
    node_pool,
    release,
    runtime,
    server,
    workload,
)

UNKNOWN = UNKNOWN_STRING_VALUE


def secret(value: Any) -> dict[str, Any]:
    return {SPECIAL_SIG_KEY: SPECIAL_SECRET_SIG, "value": value}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value below."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, below in value.items():
            yield from places(below, (*path, key))
    if isinstance(value, list):
        for number, below in enumerate(value):
            yield from places(below, (*path, number))


def replaced(resource: Res, path: tuple[Any, ...], make: Any) -> Res:
    properties = copy.deepcopy(resource.properties)
    holder: Any = properties
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = make(holder[path[-1]])
    return Res(resource.type, resource.name, properties)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_no_single_unknown_value_is_a_violation(case: Case) -> None:
    for number, resource in enumerate(case.good):
        for path in places(resource.properties):
            if path[-1] in ("apiVersion", "kind"):
                continue
            resources = list(case.good)
            resources[number] = replaced(resource, path, lambda _: UNKNOWN)
            assert all_messages(*resources) == [], path


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_secret_is_judged_as_its_value(case: Case) -> None:
    for resources, count in ((case.bad, 1), (case.good, 0)):
        hidden = [
            Res(r.type, r.name, {key: secret(value) for key, value in r.properties.items()})
            for r in resources
        ]
        assert len(messages(case.policy, *hidden)) == count


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_no_rule_fails_over_values_of_the_wrong_type(case: Case) -> None:
    for junk in (None, "", [], 7, [None], {"a": None}):
        for resource in case.good:
            for path in places(resource.properties):
                all_messages(replaced(resource, path, lambda _, junk=junk: junk))


def test_the_digest_that_a_preview_gives_as_known_and_empty_is_refused() -> None:
    for uri in ("", f"{URI}@", f"{URI}@sha256:", "oci://"):
        (message,) = messages("pinned-images", model(storageUri=uri))
        assert "pass the build's digest output on" in message


@pytest.mark.parametrize(
    "image", ["x:latest", "x@sha256:abc", f"x@sha512:{'a' * 64}", "x@sha256:" + "A" * 64, ""]
)
def test_only_a_whole_sha256_digest_pins(image: str) -> None:
    assert len(messages("pinned-images", workload("Pod", {"containers": [container(image=image)]}))) == 1


def test_one_unknown_value_hides_nothing_beside_it() -> None:
    pod = {"containers": [container(image=UNKNOWN), container(image="nginx:1.27")]}
    (message,) = messages("pinned-images", workload("Deployment", pod))
    assert "containers[1].image: nginx:1.27" in message


def test_values_of_variables_are_never_shown() -> None:
    env = [{"name": "HF_HUB_OFFLINE", "value": "hf_token"}, {"name": "HF_TOKEN", "value": "hf_token"}]
    (message,) = messages("no-model-hub", runtime(env=env))
    assert "hf_token" not in message


def test_a_switch_from_a_config_map_does_not_count() -> None:
    env = [OFFLINE[0], {"name": "TRANSFORMERS_OFFLINE", "valueFrom": {"configMapKeyRef": {"name": "x"}}}]
    (message,) = messages("no-model-hub", runtime(env=env))
    assert "TRANSFORMERS_OFFLINE is not set to a plain value" in message


def test_the_last_of_two_variables_counts() -> None:
    assert messages("no-model-hub", runtime(env=[{**OFFLINE[0], "value": "0"}, *OFFLINE])) == []
    assert len(messages("no-model-hub", runtime(env=[*OFFLINE, {**OFFLINE[0], "value": "0"}]))) == 1


def test_a_model_may_not_switch_its_runtimes_variables_off() -> None:
    service = model(env=[{"name": "HF_HUB_OFFLINE", "value": "0"}])
    (message,) = messages("no-model-hub", runtime(), service)
    assert "spec.predictor.model.env: HF_HUB_OFFLINE is set, but not to 1" in message


def test_a_patch_lacks_nothing_but_may_not_add_a_tag() -> None:
    body = {"name": "c", "image": "nginx:1.27"}
    spec = {"template": {"spec": {"containers": [body]}}}
    patch = kubernetes("apps/v1", "Deployment", "web", {"spec": spec})
    patch = Res("kubernetes:apps/v1:DeploymentPatch", patch.name, patch.properties)
    (message,) = all_messages(patch)
    assert "image: nginx:1.27" in message


def test_a_patch_of_kserves_config_map_may_leave_the_section_out() -> None:
    whole = kserve_config("{}")
    del whole.properties["data"]["storageInitializer"]
    assert len(all_messages(whole)) == 1
    assert all_messages(Res("kubernetes:core/v1:ConfigMapPatch", whole.name, whole.properties)) == []


def test_a_patch_of_a_service_lacks_no_ranges_but_may_not_let_everybody_in() -> None:
    def patch(spec: dict[str, Any]) -> Res:
        return Res("kubernetes:core/v1:ServicePatch", "door", load_balancer(spec).properties)

    assert all_messages(patch({})) == []
    assert len(all_messages(patch({"loadBalancerSourceRanges": ["0.0.0.0/0"]}))) == 1


@pytest.mark.parametrize("section", ["{", "", "[]", "{}", json.dumps({"enableModelcar": "no"})])
def test_a_section_without_modelcar_is_refused(section: str) -> None:
    assert len(messages("kserve-modelcar-enabled", kserve_config(section))) == 1


@pytest.mark.parametrize(
    ("chart", "count"),
    [
        ("kserve", 1),
        ("kserve-resources", 1),
        ("./charts/kserve-resources/", 1),
        ("https://example.org/kserve-resources-v0.19.0.tgz", 1),
        ("oci://ghcr.io/kserve/charts/kserve-llmisvc-resources", 1),
        ("oci://ghcr.io/kserve/charts/kserve-crd", 0),
        ("kserve-runtime-configs", 0),
        ("cert-manager", 0),
    ],
)
def test_charts_that_write_kserves_configuration(chart: str, count: int) -> None:
    assert len(messages("kserve-modelcar-enabled", release(None, chart))) == count


def test_other_config_maps_and_services_are_left_alone() -> None:
    other = kubernetes("core/v1", "ConfigMap", "other", {"data": {"storageInitializer": "{}"}})
    inside = kubernetes("core/v1", "Service", "inside", {"spec": {"type": "ClusterIP"}})
    knative = kubernetes(
        "serving.knative.dev/v1",
        "Service",
        "web",
        {"spec": {"template": {"spec": {"containers": [container()]}}}},
    )
    assert all_messages(other, inside, knative) == []


def test_a_world_wide_range_beside_others_is_refused() -> None:
    assert len(all_messages(load_balancer({"loadBalancerSourceRanges": ["192.0.2.0/24", "::/0"]}))) == 1


def test_images_of_an_llm_inference_service_are_pinned_too() -> None:
    spec = {
        "model": {"uri": f"{URI}:v1", "lora": {"adapters": [{"uri": f"{URI}-adapter"}]}},
        "template": {"containers": [container(image="x:1")]},
    }
    service = kubernetes("serving.kserve.io/v1alpha2", "LLMInferenceService", "llm", {"spec": spec})
    assert len(messages("pinned-images", service)) == 3


# --- models and runtimes together


def test_a_runtime_in_another_namespace_is_another_runtime() -> None:
    far = runtime()
    far.properties["metadata"]["namespace"] = "elsewhere"
    assert len(messages("container-resources-in-stack", far, model())) == 1


def test_a_runtime_of_the_cluster_serves_every_namespace() -> None:
    near = runtime()
    cluster_wide = Res(
        "kubernetes:serving.kserve.io/v1alpha1:ClusterServingRuntime", near.name, near.properties
    )
    del near.properties["metadata"]["namespace"]
    assert all_messages(cluster_wide, model()) == []


def test_a_runtime_is_judged_with_each_service_that_uses_it() -> None:
    bare = runtime(resources={})
    full = model(resources={"requests": CPU_MEMORY, "limits": CPU_MEMORY})
    (message,) = all_messages(bare, full, model(name="other"))
    assert "'other' spec.predictor.model.resources" in message


def test_a_predictors_own_tolerations_replace_its_runtimes() -> None:
    service = model()
    service.properties["spec"]["predictor"]["tolerations"] = [{"key": "spot", "operator": "Exists"}]
    assert len(all_messages(runtime(resources=GPU_RESOURCES, tolerations=TOLERATIONS), service)) == 1


def test_a_model_without_a_named_runtime_says_all_by_itself() -> None:
    service = model()
    del service.properties["spec"]["predictor"]["model"]["runtime"]
    policies = {message.splitlines()[0] for message in all_messages(service)}
    assert len(policies) == 2  # hub, resources


@pytest.mark.parametrize(
    ("toleration", "count"),
    [
        ({"operator": "Exists"}, 0),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, 0),
        ({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}, 0),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "true"}, 1),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, 1),
        ({"key": "spot", "operator": "Exists"}, 1),
    ],
)
def test_tolerations_that_fit_gkes_taint(toleration: dict[str, str], count: int) -> None:
    pod = {"containers": [server(resources=GPU_RESOURCES)], "tolerations": [toleration]}
    assert len(all_messages(inference_service(pod))) == count


# --- Google


def cluster(**properties: Any) -> Res:
    return Res("gcp:container/cluster:Cluster", "cluster", properties)


@pytest.mark.parametrize(
    ("properties", "found"),
    [
        ({}, "nodeConfig.serviceAccount: not set"),
        ({"removeDefaultNodePool": True}, ""),
        ({"removeDefaultNodePool": UNKNOWN}, ""),
        ({"removeDefaultNodePool": True, "nodeConfig": {"serviceAccount": "default"}}, "nodeConfig"),
        ({"nodeConfig": {"serviceAccount": NODE_ACCOUNT}}, ""),
        ({"nodePools": [{"nodeConfig": {}}]}, "nodePools[0].nodeConfig.serviceAccount: not set"),
        ({"nodePools": [{"nodeConfig": {"serviceAccount": NODE_ACCOUNT}}]}, ""),
        ({"enableAutopilot": True}, "clusterAutoscaling.autoProvisioningDefaults.serviceAccount: not set"),
        (
            {
                "enableAutopilot": True,
                "clusterAutoscaling": {"autoProvisioningDefaults": {"serviceAccount": NODE_ACCOUNT}},
            },
            "",
        ),
        (
            {"removeDefaultNodePool": True, "clusterAutoscaling": {"enabled": True}},
            "clusterAutoscaling.autoProvisioningDefaults.serviceAccount: not set",
        ),
        (
            {
                "removeDefaultNodePool": True,
                "clusterAutoscaling": {
                    "enabled": True,
                    "autoProvisioningDefaults": {"serviceAccount": NODE_ACCOUNT},
                },
            },
            "",
        ),
        ({"removeDefaultNodePool": True, "clusterAutoscaling": {"enabled": False}}, ""),
        ({"removeDefaultNodePool": True, "clusterAutoscaling": UNKNOWN}, ""),
    ],
)
def test_node_accounts_of_clusters(properties: dict[str, Any], found: str) -> None:
    got = all_messages(cluster(**properties))
    assert len(got) == bool(found)
    assert all(found in message for message in got)


@pytest.mark.parametrize(
    ("changes", "policies"),
    [
        ({"machineType": "n1-standard-8", "guestAccelerators": [{"type": "t4", "count": 1}]}, 2),
        ({"machineType": "n1-standard-8", "guestAccelerators": [{"type": "t4", "count": 0}]}, 0),
        ({"machineType": "n1-standard-8", "guestAccelerators": UNKNOWN}, 0),
        ({"machineType": "n1-standard-8"}, 0),
        ({"machineType": "a4x-highgpu-4g"}, 2),
        ({"machineType": "a2-highgpu-1g", "bootDisk": {"sizeGb": 500}}, 1),
    ],
)
def test_nodes_with_gpus(changes: dict[str, Any], policies: int) -> None:
    assert len(all_messages(node_pool(diskSizeGb=None, taints=None, **changes))) == policies


@pytest.mark.parametrize(
    ("limit", "disk", "found"),
    [
        ("nvidia-l4", {"diskSize": 50}, "autoProvisioningDefaults.diskSize: 50 GB"),
        ("nvidia-l4", {}, "autoProvisioningDefaults.diskSize: not set, which is 100 GB"),
        ("nvidia-l4", {"diskSize": 200}, ""),
        ("nvidia-l4", {"diskSize": UNKNOWN}, ""),
        ("cpu", {"diskSize": 50}, ""),
    ],
)
def test_disks_of_nodes_that_gke_provisions_by_itself(limit: str, disk: dict[str, Any], found: str) -> None:
    """Their taint is GKE's own matter: the defaults have no place for one."""
    autoscaling = {
        "enabled": True,
        "resourceLimits": [{"resourceType": limit, "maximum": 8}],
        "autoProvisioningDefaults": {"serviceAccount": NODE_ACCOUNT, **disk},
    }
    got = all_messages(cluster(removeDefaultNodePool=True, clusterAutoscaling=autoscaling))
    assert len(got) == bool(found)
    assert all(found in message for message in got)


def test_a_need_that_is_no_number_is_refused() -> None:
    (message,) = all_messages(node_pool(resourceLabels={"modelcar-disk-need-gb": "big"}))
    assert "'big' is no whole number" in message


def test_roles_inside_of_a_policy_document_are_found() -> None:
    bindings = [
        {"role": READER, "members": [NODES]},
        {"role": "roles/owner", "members": ["user:a@example.org", NODES]},
    ]
    policy = Res("gcp:projects/iAMPolicy:IAMPolicy", "p", {"policyData": json.dumps({"bindings": bindings})})
    wide, owner = all_messages(policy)
    assert "bindings[0].role" in wide
    assert f"roles/owner for {NODES}" in owner


POOLS = "iam.googleapis.com/projects/1/locations/global/workloadIdentityPools"


@pytest.mark.parametrize(
    "member",
    [
        f"principal://{POOLS}/p.svc.id.goog/subject/ns/models/sa/default",
        f"principalSet://{POOLS}/github/attribute.repository/o/r",
        f"principalSet://{POOLS}/github/*",
        "principalSet://cloudresourcemanager.googleapis.com/projects/1/type/ServiceAccount",
        "allUsers",
        "allAuthenticatedUsers",
    ],
)
@pytest.mark.parametrize("role", ["roles/owner", "roles/editor"])
def test_pods_ci_and_everybody_get_no_basic_role_either(member: str, role: str) -> None:
    (message,) = messages("narrow-service-account-roles", grant("projects", "IAMMember", role, member=member))
    assert f"role: {role} for {member}" in message
    assert all_messages(grant("projects", "IAMMember", "roles/logging.logWriter", member=member)) == []


@pytest.mark.parametrize(
    "member",
    [
        "user:a@example.org",
        "group:a@example.org",
        "principal://iam.googleapis.com/locations/global/workforcePools/staff/subject/a@example.org",
        "principalSet://iam.googleapis.com/locations/global/workforcePools/staff/group/admins",
    ],
)
def test_people_may_be_owners(member: str) -> None:
    assert all_messages(grant("projects", "IAMMember", "roles/owner", member=member)) == []


def test_everybody_may_act_as_no_account_of_a_project() -> None:
    role = "roles/iam.serviceAccountTokenCreator"
    (message,) = messages("private-service-account", grant("projects", "IAMMember", role, member="allUsers"))
    assert "member: allUsers" in message
    assert all_messages(grant("projects", "IAMMember", role, member=NODES)) == []


@pytest.mark.parametrize("module", ["folder", "organizations"])
def test_wider_scopes_than_a_project(module: str) -> None:
    assert len(all_messages(grant(module, "IAMMember", READER, member=NODES))) == 1


def test_a_key_for_cloud_storage_is_a_key() -> None:
    assert len(all_messages(Res("gcp:storage/hmacKey:HmacKey", "k", {}))) == 1


def test_a_pinned_image_of_every_kind_has_nothing_against_it() -> None:
    assert DIGEST in server()["image"]
    assert (
        all_messages(workload("Deployment", {"containers": [server()], "initContainers": [container()]}))
        == []
    )
