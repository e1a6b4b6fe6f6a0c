"""Every rule with a resource that it refuses and the same one put right, through the policy SDK's service.

The engine tier shows the same cases to the real CLI.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import analyzer_pb2
from pulumi_policy import EnforcementLevel
from pulumi_policy.policy import _PolicyAnalyzerServicer

from policy.pack import policies
from policy.rules import RULES

SERVICE: Any = _PolicyAnalyzerServicer("modelcar", "0.0.1", policies(RULES), EnforcementLevel.MANDATORY)

DIGEST = "@sha256:" + "a" * 64
SERVER = "vllm/vllm-openai:v0.23.0"
URI = "oci://europe-docker.pkg.dev/my-project-1/models/qwen"
CPU_MEMORY = {"cpu": "1", "memory": "1Gi"}
RESOURCES = {"requests": CPU_MEMORY, "limits": CPU_MEMORY}
GPU = {**CPU_MEMORY, "nvidia.com/gpu": "1"}
GPU_RESOURCES = {"requests": GPU, "limits": GPU}
TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}
OFFLINE = [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "TRANSFORMERS_OFFLINE", "value": "1"}]
POD = (
    "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/my-project-1.svc.id.goog"
    "/subject/ns/models/sa/default"
)
NODE_ACCOUNT = "nodes@my-project-1.iam.gserviceaccount.com"

Json = dict[str, Any]


@dataclass(frozen=True)
class Res:
    """A resource of a program."""

    type: str
    name: str
    properties: Json


@dataclass(frozen=True)
class Case:
    """policy: its name; found: what the message's resource line has to say; bad, good: resources."""

    policy: str
    found: str
    bad: Sequence[Res]
    good: Sequence[Res]
    title: str = ""


def messages(policy: str, *resources: Res) -> list[str]:
    """Return what one policy says of the resources."""
    return [entry.message for entry in diagnostics(*resources) if entry.policyName == policy]


def all_messages(*resources: Res) -> list[str]:
    """Return what all policies say of the resources."""
    return [entry.message for entry in diagnostics(*resources)]


def diagnostics(*resources: Res) -> list[analyzer_pb2.AnalyzeDiagnostic]:
    """Show the resources to the pack as the engine does: each alone, then all together."""
    structs = [json_format.ParseDict(r.properties, struct_pb2.Struct()) for r in resources]
    found: list[analyzer_pb2.AnalyzeDiagnostic] = []
    together = analyzer_pb2.AnalyzeStackRequest()
    for r, struct in zip(resources, structs, strict=True):
        alone = analyzer_pb2.AnalyzeRequest(type=r.type, name=r.name, urn=f"urn:{r.name}", properties=struct)
        found += SERVICE.Analyze(alone, None).diagnostics
        together.resources.add(type=r.type, name=r.name, urn=f"urn:{r.name}", properties=struct)
    found += SERVICE.AnalyzeStack(together, None).diagnostics
    assert all(entry.enforcementLevel == analyzer_pb2.MANDATORY for entry in found), found
    return found


# --- makers of resources that no rule has anything against, unless changed


def container(**changes: Any) -> Json:
    return {"name": "c", "image": f"busybox{DIGEST}", "resources": RESOURCES, **changes}


def server(**changes: Any) -> Json:
    return container(**{"name": "kserve-container", "image": f"{SERVER}{DIGEST}", "env": OFFLINE, **changes})


def workload(kind: str, pod: Json, name: str = "") -> Res:
    name = name or kind.lower()
    group = {"Pod": "core/v1", "Job": "batch/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    spec: Json = {"template": {"spec": pod}}
    if kind == "Pod":
        spec = pod
    if kind == "CronJob":
        spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec": pod}}}}
    if kind in ("DaemonSet", "Deployment", "StatefulSet"):
        spec |= {"selector": {"matchLabels": {"app": name}}}
        spec["template"]["metadata"] = {"labels": {"app": name}}
    return kubernetes(group, kind, name, {"spec": spec})


def kubernetes(group_version: str, kind: str, name: str, more: Json) -> Res:
    api_version = group_version.removeprefix("core/")
    metadata = {"name": name, "namespace": "models", **more.pop("metadata", {})}
    properties = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}
    return Res(f"kubernetes:{group_version}:{kind}", name, properties)


def inference_service(predictor: Json, name: str = "qwen") -> Res:
    return kubernetes(
        "serving.kserve.io/v1beta1", "InferenceService", name, {"spec": {"predictor": predictor}}
    )


def runtime(*, tolerations: Any = None, name: str = "runtime", **server_changes: Any) -> Res:
    spec: Json = {"supportedModelFormats": [{"name": "vLLM"}], "containers": [server(**server_changes)]}
    if tolerations is not None:
        spec["tolerations"] = tolerations
    return kubernetes("serving.kserve.io/v1alpha1", "ServingRuntime", name, {"spec": spec})


def model(runtime: str = "runtime", name: str = "qwen", **changes: Any) -> Res:
    body = {"modelFormat": {"name": "vLLM"}, "runtime": runtime, "storageUri": URI + DIGEST, **changes}
    return inference_service({"model": body}, name)


def load_balancer(spec: Json, annotations: Json | None = None) -> Res:
    service = {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}
    return kubernetes(
        "core/v1", "Service", "door", {"metadata": {"annotations": annotations or {}}, "spec": service}
    )


def node_pool(**changes: Any) -> Res:
    config = {
        "machineType": "g2-standard-8",
        "diskSizeGb": 200,
        "serviceAccount": NODE_ACCOUNT,
        "taints": [TAINT],
        **changes,
    }
    config = {key: value for key, value in config.items() if value is not None}
    return Res("gcp:container/nodePool:NodePool", "gpu", {"cluster": "models", "nodeConfig": config})


def grant(module: str, type_name: str, role: str, **member: Any) -> Res:
    lower = type_name[0].lower() + type_name[1:]
    return Res(f"gcp:{module}/{lower}:{type_name}", "grant", {"role": role, **member})


def repository_grant(member: str) -> Res:
    return Res(
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
        "pull",
        {"repository": "models", "role": "roles/artifactregistry.reader", "member": member},
    )


def release(values: Json | None, chart: str = "oci://ghcr.io/kserve/charts/kserve-resources") -> Res:
    properties: Json = {"chart": chart, "version": "v0.19.0", "namespace": "kserve"}
    if values is not None:
        properties["values"] = values
    return Res("kubernetes:helm.sh/v3:Release", "kserve", properties)


def kserve_config(section: str) -> Res:
    return kubernetes(
        "core/v1", "ConfigMap", "inferenceservice-config", {"data": {"storageInitializer": section}}
    )


NODES = f"serviceAccount:{NODE_ACCOUNT}"
READER = "roles/artifactregistry.reader"
ENABLED = {"kserve": {"storage": {"enableModelcar": True}}}
REPLACED = [repository_grant(NODES)]

KUBERNETES_CASES = [
    *(
        Case(
            "pinned-images",
            "image: nginx:1.27",
            [workload(kind, {"containers": [container(image="nginx:1.27")]})],
            [workload(kind, {"containers": [container(image=f"nginx:1.27{DIGEST}")]})],
            kind,
        )
        for kind in ("Pod", "Deployment", "DaemonSet", "StatefulSet", "Job", "CronJob")
    ),
    Case(
        "pinned-images",
        "spec.template.spec.initContainers[0].image: busybox",
        [
            workload(
                "Deployment", {"initContainers": [container(image="busybox")], "containers": [container()]}
            )
        ],
        [workload("Deployment", {"initContainers": [container()], "containers": [container()]})],
        "init container",
    ),
    Case(
        "pinned-images",
        f"spec.containers[0].image: {SERVER}",
        [runtime(image=SERVER), model()],
        [runtime(), model()],
        "ServingRuntime",
    ),
    Case(
        "pinned-images",
        f"spec.predictor.model.storageUri: {URI}:v1",
        [runtime(), model(storageUri=f"{URI}:v1")],
        [runtime(), model()],
        "model.storageUri",
    ),
    Case(
        "pinned-images",
        f"spec.predictor.storageUris[0].uri: {URI}@",
        [inference_service({"storageUris": [{"uri": f"{URI}@"}], "containers": [server()]})],
        [inference_service({"storageUris": [{"uri": URI + DIGEST}], "containers": [server()]})],
        "storageUris, digest empty",
    ),
    Case(
        "pinned-images",
        f"env[2].value: {URI}",
        [inference_service({"containers": [server(env=[*OFFLINE, {"name": "STORAGE_URI", "value": URI}])]})],
        [
            inference_service(
                {"containers": [server(env=[*OFFLINE, {"name": "STORAGE_URI", "value": URI + DIGEST}])]}
            )
        ],
        "STORAGE_URI",
    ),
    Case(
        "no-model-hub",
        "spec.containers[0].env: HF_HUB_OFFLINE is not set",
        [runtime(env=OFFLINE[1:]), model()],
        [runtime(), model()],
        "ServingRuntime",
    ),
    Case(
        "no-model-hub",
        "spec.predictor.containers[0].env: TRANSFORMERS_OFFLINE is set, but not to 1",
        [inference_service({"containers": [server(env=[OFFLINE[0], {**OFFLINE[1], "value": "0"}])]})],
        [inference_service({"containers": [server()]})],
        "custom container",
    ),
    Case(
        "no-model-hub",
        "spec.predictor.model.storageUri: hf://Qwen/Qwen2.5-0.5B",
        [runtime(), model(storageUri="hf://Qwen/Qwen2.5-0.5B")],
        [runtime(), model()],
        "hf://",
    ),
    Case(
        "no-model-hub-in-stack",
        "spec.predictor.model.env: HF_HUB_OFFLINE is not set",
        [model("of-the-cluster", resources=RESOURCES)],
        [model("of-the-cluster", resources=RESOURCES, env=OFFLINE)],
        "runtime of somebody else",
    ),
    Case(
        "gpu-pod-toleration",
        "spec.tolerations: none for nvidia.com/gpu, which spec.containers[0] requests",
        [workload("Pod", {"containers": [container(resources=GPU_RESOURCES)]})],
        [workload("Pod", {"containers": [container(resources=GPU_RESOURCES)], "tolerations": TOLERATIONS})],
        "Pod",
    ),
    Case(
        "gpu-pod-toleration",
        "spec.predictor.tolerations: none",
        [inference_service({"containers": [server(resources=GPU_RESOURCES)]})],
        [inference_service({"containers": [server(resources=GPU_RESOURCES)], "tolerations": TOLERATIONS})],
        "custom container",
    ),
    Case(
        "gpu-pod-toleration-in-stack",
        "'qwen' spec.predictor.tolerations: none",
        [runtime(), model(resources=GPU_RESOURCES)],
        [runtime(tolerations=TOLERATIONS), model(resources=GPU_RESOURCES)],
        "tolerated by the runtime",
    ),
    Case(
        "container-resources",
        "resources: no limits.cpu, limits.memory",
        [workload("Job", {"containers": [container(resources={"requests": CPU_MEMORY})]})],
        [workload("Job", {"containers": [container()]})],
        "Job",
    ),
    Case(
        "container-resources-in-stack",
        "'qwen' spec.predictor.model.resources: no requests.cpu, requests.memory",
        [runtime(resources={"limits": CPU_MEMORY}), model()],
        [runtime(resources={"limits": CPU_MEMORY}), model(resources={"requests": CPU_MEMORY})],
        "put together",
    ),
    Case(
        "container-resources-in-stack",
        "'runtime' spec.containers[0].resources: no",
        [runtime(resources={})],
        [runtime()],
        "runtime that nothing uses",
    ),
    Case(
        "limited-load-balancer",
        "spec.loadBalancerSourceRanges: not set",
        [load_balancer({})],
        [load_balancer({"loadBalancerSourceRanges": ["192.0.2.0/24"]})],
        "no ranges",
    ),
    Case(
        "limited-load-balancer",
        "spec.loadBalancerSourceRanges: 0.0.0.0/0",
        [load_balancer({"loadBalancerSourceRanges": ["0.0.0.0/0"]})],
        [load_balancer({}, {"networking.gke.io/load-balancer-type": "Internal"})],
        "everybody",
    ),
    Case(
        "limited-load-balancer",
        "spec.loadBalancerSourceRanges: 0.0.0.0/1, 128.0.0.0/1",
        [load_balancer({"loadBalancerSourceRanges": ["0.0.0.0/1", "128.0.0.0/1"]})],
        [load_balancer({"loadBalancerSourceRanges": ["0.0.0.0/1"]})],
        "everybody by halves",
    ),
    Case(
        "kserve-modelcar-enabled",
        "data.storageInitializer: enableModelcar: False",
        [kserve_config(json.dumps({"enableModelcar": False}))],
        [kserve_config(json.dumps({"enableModelcar": True}))],
        "ConfigMap",
    ),
]

HELM_CASES = [
    Case(
        "kserve-modelcar-enabled",
        "values.kserve.storage.enableModelcar: not set",
        [release({"kserve": {"controller": {"deploymentMode": "Standard"}}})],
        [release(ENABLED)],
        "chart",
    )
]

GOOGLE_CASES = [
    Case(
        "registry-roles-per-repository",
        f"role: {READER} on the whole project",
        [grant("projects", "IAMMember", READER, project="my-project-1", member=NODES)],
        REPLACED,
        "project member",
    ),
    Case(
        "registry-roles-per-repository",
        "role: roles/artifactregistry.writer on the whole project",
        [
            grant(
                "projects",
                "IAMBinding",
                "roles/artifactregistry.writer",
                project="my-project-1",
                members=[NODES],
            )
        ],
        REPLACED,
        "project binding",
    ),
    Case(
        "private-repository",
        "member: allUsers",
        [repository_grant("allUsers")],
        REPLACED,
    ),
    Case(
        "gpu-node-disk",
        "nodeConfig.diskSizeGb: 100 GB",
        [node_pool(diskSizeGb=100)],
        [node_pool()],
        "small",
    ),
    Case(
        "gpu-node-disk",
        "nodeConfig.diskSizeGb: 300 GB",
        [node_pool(diskSizeGb=300, resourceLabels={"modelcar-disk-need-gb": "350"})],
        [node_pool(diskSizeGb=350, resourceLabels={"modelcar-disk-need-gb": "350"})],
        "smaller than the model needs",
    ),
    Case(
        "gpu-node-taint",
        "nodeConfig.taints: no taint nvidia.com/gpu",
        [node_pool(taints=None)],
        [node_pool()],
    ),
    Case(
        "node-service-account",
        "nodeConfig.serviceAccount: not set",
        [node_pool(serviceAccount=None)],
        [node_pool()],
        "unset",
    ),
    Case(
        "node-service-account",
        "nodeConfig.serviceAccount: 123456789-compute@developer.gserviceaccount.com",
        [node_pool(serviceAccount="123456789-compute@developer.gserviceaccount.com")],
        [node_pool()],
        "default",
    ),
    Case(
        "narrow-service-account-roles",
        f"role: roles/editor for {NODES}",
        [grant("projects", "IAMMember", "roles/editor", project="my-project-1", member=NODES)],
        [grant("projects", "IAMMember", "roles/logging.logWriter", project="my-project-1", member=NODES)],
        "account",
    ),
    Case(
        "narrow-service-account-roles",
        f"role: roles/owner for {POD}",
        [grant("projects", "IAMMember", "roles/owner", project="my-project-1", member=POD)],
        [grant("projects", "IAMMember", "roles/logging.logWriter", project="my-project-1", member=POD)],
        "pod",
    ),
    Case(
        "private-service-account",
        "member: allAuthenticatedUsers",
        [
            grant(
                "serviceaccount",
                "IAMMember",
                "roles/iam.workloadIdentityUser",
                serviceAccountId=f"projects/my-project-1/serviceAccounts/{NODE_ACCOUNT}",
                member="allAuthenticatedUsers",
            )
        ],
        [
            grant(
                "serviceaccount",
                "IAMMember",
                "roles/iam.workloadIdentityUser",
                serviceAccountId=f"projects/my-project-1/serviceAccounts/{NODE_ACCOUNT}",
                member="serviceAccount:my-project-1.svc.id.goog[models/qwen]",
            )
        ],
    ),
    Case(
        "no-static-keys",
        "a service account key",
        [
            Res(
                "gcp:serviceaccount/key:Key",
                "key",
                {"serviceAccountId": f"projects/my-project-1/serviceAccounts/{NODE_ACCOUNT}"},
            )
        ],
        [Res("gcp:serviceaccount/account:Account", "account", {"accountId": "node-account"})],
    ),
]

UNSEEN_CASES = [
    Case(
        "judged-objects-in-stack",
        "spec: cannot be judged: neither declared nor read from the cluster",
        [kubernetes("serving.kserve.io/v1beta1", "InferenceService", "unseen", {})],
        [model("seen-runtime", "seen"), runtime(name="seen-runtime")],
    )
]

CASES = [*KUBERNETES_CASES, *UNSEEN_CASES, *HELM_CASES, *GOOGLE_CASES]
IDS = [f"{case.policy}: {case.title}".removesuffix(": ") for case in CASES]


def assert_four_parts(message: str, case: Case) -> None:
    rule, resource, reason, fix = message.splitlines()
    assert rule.startswith("rule: ")
    assert resource.startswith("resource: ")
    assert reason.startswith("reason: ")
    assert fix.startswith("fix: ")
    assert all(len(part) > 20 for part in (rule, resource, reason)), message
    assert case.found in resource
    assert any(f"{bad.type} {bad.name!r}" in resource for bad in case.bad)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_violation_is_refused_with_rule_resource_reason_and_fix(case: Case) -> None:
    (message,) = messages(case.policy, *case.bad)
    assert_four_parts(message, case)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_was_put_right_passes_every_rule(case: Case) -> None:
    assert all_messages(*case.good) == []


def test_other_roles_on_a_project_pass_as_the_security_page_says() -> None:
    """A reviewer has to look at them: the pack does not."""
    for role in ("roles/container.admin", "roles/resourcemanager.projectIamAdmin"):
        assert all_messages(grant("projects", "IAMMember", role, project="my-project-1", member=NODES)) == []
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    assert "Other roles on the project pass" in page


#: Judges what is imported, of which no program says anything: test_policy_live.py.
ONLY_LIVE = {"pinned-images-in-stack"}


def test_every_rule_has_a_case() -> None:
    assert {policy.name for policy in policies(RULES)} - ONLY_LIVE == {case.policy for case in CASES}
