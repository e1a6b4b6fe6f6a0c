"""The served model: an InferenceService whose storage URI is pinned by digest.

KServe (v0.19) injects into the pod an init container that pulls the modelcar, a sidecar that keeps it
mounted, `shareProcessNamespace`, and the link /mnt/models. The server's container is ours. With placement
imageVolume nothing is injected: the kubelet mounts the image (components/manifests/image_volume.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pulumi

from components.config.kserve import MODELCAR_UID
from components.config.model_path import MODEL_PATH
from components.config.model_spec import ModelSpec
from components.config.server import USER_VARIABLES
from components.manifests import image_volume, kernels, knative, read_ahead, scheduling, termination
from components.manifests.autoscaling import EXTERNAL
from components.manifests.probes import probes
from components.manifests.server_arguments import server_arguments

#: The only folders that uid 1010, which KServe forces, can write to.
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
CONTAINER = "kserve-container"
MODEL_FORMAT = "vLLM"

#: What keeps a model server from asking a hub.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

#: The user's name. The server's image has no user 1010 in /etc/passwd, and Python's `getpass.getuser` fails
#: there unless a variable names one; torch 2.11 asks it when it is imported, wherever its caches are.
USER_NAME = dict.fromkeys(sorted(USER_VARIABLES), "model")

#: Pod Security Standard `restricted`, of every container that this project makes.
RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": MODELCAR_UID,
    "readOnlyRootFilesystem": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

#: The same of pods: what holds for containers that say nothing of it, as those that KServe injects. Its init
#: container has no user of its own, so that it would be root (0.19, pkg/webhook/admission/pod).
RESTRICTED_POD: Mapping[str, Any] = {
    key: RESTRICTED[key] for key in ("runAsNonRoot", "runAsUser", "seccompProfile")
}

#: Of every pod that this program declares, beside its user.
#: No token: the server asks Kubernetes nothing. No variables of the namespace's Services: where one is named
#: `vllm`, Kubernetes would set `VLLM_PORT=tcp://…` in each pod, and vLLM ends with it at its start. `master`
#: and `vllm-dp-master` make others that torch and vLLM read (`MASTER_PORT`, `VLLM_DP_MASTER_PORT`).
#: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
CLOSED_POD: Mapping[str, Any] = {"automountServiceAccountToken": False, "enableServiceLinks": False}

#: The link to the weights is made asynchronously, by the sidecar; a server that starts first would fail.
#: What it says tells how long a start took, and of what (`operations/cold_start.py`).
MODEL_IS_THERE = f"{MODEL_PATH} is there"
#: Any file tells: not every model has a config.json.
_UNTIL_IT_IS_THERE = (
    f"echo 'waiting for {MODEL_PATH}'; "
    f'until for file in {MODEL_PATH}/*; do [ -r "$file" ] && break; done; do sleep 0.1 || sleep 1; done; '
    f"echo '{MODEL_IS_THERE}'; "
)
_SERVE = 'exec "$@"'

#: Of an InferenceService: what its pods are declared as. KServe hands it on to the template of the Deployment
#: or Knative Service, which tells the pods of this declaration from those of a former one.
REVISION = "modelcar/revision"
#: Of the server's port; Knative takes HTTP/1.1 from it.
PORT_NAME = "http1"
#: KServe's: what keeps the number of pods.
AUTOSCALER = "serving.kserve.io/autoscalerClass"


#: Seconds that `up` waits beyond a server's own start: for the image, and for Kubernetes.
PULLING = 60


def labels(settings: ModelSpec) -> dict[str, str]:
    """Kubernetes' recommended labels."""
    return {"app.kubernetes.io/name": settings.service_name, "app.kubernetes.io/managed-by": "pulumi"}


def endpoint(service: str, namespace: str) -> str:
    """Return the address of a model inside of the cluster; KServe, which has the same, is not asked.

    The cluster's domain is taken to be `cluster.local`, Kubernetes' default.
    Port 80 of the predictor: in Standard mode a Service, in Knative mode the route of a Knative Service,
    which is there with any ingress (the InferenceService's own route is Istio's only).
    """
    return f"http://{service}-predictor.{namespace}.svc.cluster.local"


def service_annotations(settings: ModelSpec) -> dict[str, str]:
    """Return what KServe is told of the mode, whoever applies it; KServe copies annotations to the pods."""
    found = mode_annotation(settings) | knative.revision_annotations(settings)
    if fixed_replicas(settings):
        # A HorizontalPodAutoscaler could only do harm: it makes one replica of none.
        found[AUTOSCALER] = "none"
    elif settings.autoscaling:
        found[AUTOSCALER] = EXTERNAL
    return found


def mode_annotation(settings: ModelSpec) -> dict[str, str]:
    """Return how KServe is told the mode of an InferenceService: Standard by name, Knative by its default.

    KServe 0.19 takes the status of an object that it has not looked at yet for Standard, and its webhook then
    refuses the controller's own first change of one that says Knative ("deploymentMode cannot be changed",
    validateDeploymentMode; mended in 0.20): nothing ever comes of it. `components.cluster.kserve_config`
    refuses a cluster whose default is another one.
    """
    standard = settings.deployment_mode == "Standard"
    return {"serving.kserve.io/deploymentMode": "Standard"} if standard else {}


def fixed_replicas(settings: ModelSpec) -> bool:
    """Tell whether the Deployment is always of one size."""
    fixed = settings.idle or settings.min_replicas == settings.max_replicas
    return settings.deployment_mode == "Standard" and fixed


def serving_timeout(settings: ModelSpec) -> int:
    """Return how long it may take, in seconds, until a declaration is served, once nothing stands before it.

    Pulling comes before the startup probe's time begins. Where a former pod has answers to finish first, that
    time comes on top of it (components/cluster/rollout.py).
    """
    return settings.start_timeout_seconds + PULLING


def revision(settings: ModelSpec, storage_uri: str, service_account: str | None = None) -> str:
    """Return a short hash of all that makes a new pod necessary; how many there are does not."""
    pods = predictor(settings, storage_uri, service_account)
    parts = [pods, serving_runtime(settings)]
    for name in ("minReplicas", "maxReplicas", "deploymentStrategy", "canaryTrafficPercent"):
        pods.pop(name, None)
    if settings.deployment_mode == "Knative":  # which makes a revision of its own for these
        parts.append(knative.revision_annotations(settings))
    text = json.dumps(parts, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def serving_runtime(settings: ModelSpec) -> dict[str, Any]:
    """Return the spec of a ServingRuntime that serves with the stack's model server.

    One that models share holds what they have in common: KServe appends a model's arguments, merges its
    variables by name, and puts its resources in place of the runtime's (0.19, MergeRuntimeContainers).
    """
    server = container(settings)
    if settings.shared_runtime:
        server = {**server, "env": environment(settings, extra=False)}
        del server["args"], server["resources"]
    return {
        "supportedModelFormats": [{"name": MODEL_FORMAT, "version": "1", "autoSelect": False}],
        "containers": [server],
        "volumes": volumes(settings),
    }


def predictor(
    settings: ModelSpec, storage_uri: pulumi.Input[str], service_account: pulumi.Input[str] | None = None
) -> dict[str, Any]:
    """Return the predictor, with the storage URI where the placement puts it."""
    common = {
        "minReplicas": 0 if settings.idle else settings.min_replicas,
        "maxReplicas": settings.max_replicas,
        **CLOSED_POD,  # a ServingRuntime has neither field; KServe takes the predictor's (0.19, MergePodSpec)
        **pod_security(settings),
        **({"serviceAccountName": service_account} if service_account is not None else {}),
        **strategy(settings),
        **canary(settings),
        **knative.timeout(settings),
        **termination.grace_period(settings),
        **scheduling.pods(settings),
    }
    if settings.placement == "servingRuntime":
        model: dict[str, Any] = {
            "modelFormat": {"name": MODEL_FORMAT, "version": "1"},
            "runtime": settings.shared_runtime or settings.service_name,
            "storageUri": storage_uri,
            # Said here too: KServe's defaulter would fill in 1 CPU and 2Gi.
            "resources": resources(settings),
        }
        if settings.shared_runtime:
            model["args"] = server_arguments(settings)
            if own := environment(settings, own=False):  # KServe's webhook drops an empty list
                model["env"] = own
        return {"model": model, **common}
    if settings.placement == "imageVolume":
        mounted = [*volumes(settings), *image_volume.volumes(settings, storage_uri)]
        return {"containers": [container(settings)], "volumes": mounted, **common}
    custom = {"volumes": volumes(settings), **common}
    if settings.placement == "storageUriEnv":
        server = container(settings)
        server["env"] = [*server["env"], {"name": "STORAGE_URI", "value": storage_uri}]
        return {"containers": [server], **custom}
    uris = [{"uri": storage_uri, "mountPath": MODEL_PATH}]
    return {"storageUris": uris, "containers": [container(settings)], **custom}


def container(settings: ModelSpec) -> dict[str, Any]:
    """Return the model server's container; its arguments are never parsed by a shell."""
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    mounts += [
        {"name": f"host-{number}", "mountPath": path, "readOnly": True}
        for number, path in enumerate(settings.server_host_paths)
    ]
    mounts += [
        {"name": f"writable-{number}", "mountPath": path}
        for number, path in enumerate(settings.server_writable_paths)
    ]
    mounts += image_volume.mounts(settings)
    return {
        "name": CONTAINER,
        "image": settings.server_image,
        "command": ["sh", "-c", start_script(settings), "server", *settings.server_command],
        "args": server_arguments(settings),
        "env": environment(settings),
        "ports": [{"name": PORT_NAME, "containerPort": settings.server_port, "protocol": "TCP"}],
        "resources": resources(settings),
        **probes(settings),
        **termination.lifecycle(settings),
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }


def start_script(settings: ModelSpec) -> str:
    """Return what the container runs before its server, whose command and arguments follow."""
    # vLLM's: what was compiled for it is copied out of the image.
    copy = "" if settings.runtime == "custom" else kernels.script(MODEL_PATH)
    # Only then: on an H200 a copy of 0.1 s took 3 s while the disk was busy with the weights.
    ahead = read_ahead.script(MODEL_PATH) if settings.read_ahead else ""
    if settings.placement == "imageVolume":
        return f"{image_volume.REQUIRE_MODEL}echo '{MODEL_IS_THERE}'; {copy}{ahead}{image_volume.SERVE}"
    return f"{_UNTIL_IT_IS_THERE}{copy}{ahead}{_SERVE}"


def environment(settings: ModelSpec, *, own: bool = True, extra: bool = True) -> list[dict[str, Any]]:
    """Return the server's variables: no hub, and every cache in the folder that can be written to.

    Args:
        own: those that the program says of every server.
        extra: those that are this model's.
    """
    found: dict[str, str] = own_environment() if own else {}
    found |= kernels.environment(settings, own=own, extra=extra)
    if extra and settings.runtime == "custom":
        # For its arguments: Kubernetes expands $(NAME) in them.
        found |= {"MODEL_PATH": MODEL_PATH, "SERVED_MODEL_NAME": settings.model_name}
        found |= {"SERVER_PORT": str(settings.server_port)}
    if extra:
        found |= dict(entry.split("=", 1) for entry in settings.server_env)
    return [{"name": name, "value": value} for name, value in found.items()]


def own_environment(scratch: str = SCRATCH) -> dict[str, str]:
    """Return what every server is told, on every stack: no hub, a user, and folders that it can write to.

    Args:
        scratch: the folder that can be written to; another one than the pod's where no pod is.
    """
    return {
        **OFFLINE,
        **USER_NAME,
        "HOME": scratch,
        "XDG_CACHE_HOME": f"{scratch}/.cache",
        "HF_HOME": f"{scratch}/.cache/huggingface",
        "VLLM_CACHE_ROOT": f"{scratch}/.cache/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/.cache/torchinductor",
        "TRITON_CACHE_DIR": f"{scratch}/.cache/triton",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # What a server prints is to be seen at once, and its last words too.
        "PYTHONUNBUFFERED": "1",
    }


def resources(settings: ModelSpec) -> dict[str, dict[str, str]]:
    """Return requests and limits, both always set; a GPU cannot be shared, so its two are equal."""
    gpu = {"nvidia.com/gpu": str(settings.gpu_count)} if settings.gpu_count else {}
    requests = {"cpu": settings.cpu, "memory": settings.memory, **gpu}
    return {"requests": requests, "limits": {**requests, "cpu": settings.cpu_limit or settings.cpu}}


def volumes(settings: ModelSpec) -> list[dict[str, Any]]:
    """Return the writable folders, and the local stack's read-only host folders."""
    shared = {"medium": "Memory", "sizeLimit": settings.shared_memory}
    found: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": shared},
    ]
    for number, path in enumerate(settings.server_host_paths):
        found.append({"name": f"host-{number}", "hostPath": {"path": path, "type": "Directory"}})
    for number, _ in enumerate(settings.server_writable_paths):
        found.append({"name": f"writable-{number}", "emptyDir": {}})
    return found


def pod_security(settings: ModelSpec) -> dict[str, Any]:
    """Say for the whole pod what holds in it; Knative refuses that unless a feature of its own is enabled.

    https://knative.dev/docs/serving/configuration/feature-flags/#kubernetes-security-context
    """
    return {"securityContext": RESTRICTED_POD} if settings.deployment_mode == "Standard" else {}


def canary(settings: ModelSpec) -> dict[str, Any]:
    """Knative: the share of requests, in percent, that the newest revision gets beside the former one."""
    share = settings.canary_traffic_percent
    return {} if share is None else {"canaryTrafficPercent": share}


def strategy(settings: ModelSpec) -> dict[str, Any]:
    """A single pod with GPUs goes before the new one comes: there may be no GPUs for a second one."""
    single = settings.gpu_count > 0 and settings.max_replicas == 1
    automatic = "Recreate" if single else "RollingUpdate"
    wanted = automatic if settings.rollout == "auto" else settings.rollout
    if wanted == "Recreate" and settings.deployment_mode == "Standard":
        return {"deploymentStrategy": {"type": "Recreate"}}
    return {}
