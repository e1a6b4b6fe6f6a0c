"""The served model: an InferenceService whose storage URI is pinned by digest.

KServe (v0.19) injects into the pod an init container that pulls the modelcar, a sidecar that keeps it
mounted, `shareProcessNamespace`, and the link /mnt/models. The server's container is ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components import kernels, knative, oci, scheduling, termination
from components.autoscaling import EXTERNAL
from components.checks import USER_VARIABLES
from components.guard import guarded
from components.options import OWNED, child, imported
from components.probes import probes
from components.runtime import MODEL_PATH, server_arguments
from components.settings import Settings
from components.taken_over import telling
from components.threads import in_thread

#: The only folders that uid 1010, which KServe forces, can write to.
SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
CONTAINER = "kserve-container"
MODEL_FORMAT = "vLLM"

#: What keeps a model server from asking a hub.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

#: What KServe makes the modelcar and the server run as (uidModelcar), so that the link through /proc can be
#: followed.
USER = 1010

#: The user's name. The server's image has no user 1010 in /etc/passwd, and Python's `getpass.getuser` fails
#: there unless a variable names one; torch 2.11 asks it when it is imported, wherever its caches are.
USER_NAME = dict.fromkeys(sorted(USER_VARIABLES), "model")

#: Pod Security Standard `restricted`, of every container that this project makes.
RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": USER,
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
WAIT_FOR_MODEL = _UNTIL_IT_IS_THERE + _SERVE
#: … and, for vLLM, copies what was compiled for it out of the image.
WAIT_AND_COPY = f"{_UNTIL_IT_IS_THERE}{kernels.script(MODEL_PATH)}{_SERVE}"

#: Of an InferenceService: what its pods are declared as. KServe hands it on to the template of the Deployment
#: or Knative Service, which tells the pods of this declaration from those of a former one.
REVISION = "modelcar/revision"
#: Of the server's port; Knative takes HTTP/1.1 from it.
PORT_NAME = "http1"
#: KServe's: what keeps the number of pods.
AUTOSCALER = "serving.kserve.io/autoscalerClass"


#: Seconds that `up` waits beyond a server's own start: for the image, and for Kubernetes.
PULLING = 60


@dataclass(frozen=True)
class ModelServiceArgs:
    """storage_uri: `oci://…@sha256:…`; settings: the stack's, for everything else.

    service_account: of the pods; the namespace's default one where None.
    kubeconfig: of the cluster, where the settings have none; it is asked whether the model is served.
    shared_runtime: the ServingRuntime that the settings name; made by `SharedRuntime`.
    """

    storage_uri: pulumi.Input[str]
    settings: Settings
    service_account: pulumi.Input[str] | None = None
    kubeconfig: pulumi.Input[str] | None = None
    shared_runtime: pulumi.Resource | None = None


class ModelService(pulumi.ComponentResource):
    """Serve one modelcar with KServe.

    The storage URI is placed as the setting `placement` says
    (docs/decisions/0001-storage-uri-placement.md); the runbook's own placement, a `model` beside a custom
    container, is refused by KServe 0.19 and not offered.

    Outputs:
        name, namespace: of the InferenceService.
        storage_uri: what it serves; there once it does. Of a service that is imported, what it served then.

    Raises (inside of the outputs):
        pulumi.RunError: the pods of this declaration are not ready in time, or cannot get ready. KServe alone
            would not tell: it calls a service ready as long as former pods serve.
    """

    name: pulumi.Output[str]
    namespace: pulumi.Output[str]
    storage_uri: pulumi.Output[str]

    def __init__(self, name: str, args: ModelServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the InferenceService, and its ServingRuntime where the placement has one."""
        super().__init__("modelcar:kserve:ModelService", name, None, opts)
        settings = args.settings
        metadata = {
            "name": settings.service_name,
            "namespace": settings.namespace,
            "labels": labels(settings),
        }
        identity = f"{settings.namespace}/{settings.service_name}"
        told = pulumi.ResourceOptions(hooks=telling(name))
        depends_on = [args.shared_runtime] if args.shared_runtime else []
        if settings.placement == "servingRuntime" and not settings.shared_runtime:
            runtime = CustomResource(
                f"{name}-runtime",
                api_version="serving.kserve.io/v1alpha1",
                kind="ServingRuntime",
                metadata={**metadata, "annotations": OWNED},
                spec=serving_runtime(settings),
                opts=imported(
                    pulumi.ResourceOptions.merge(child(self, opts), told),
                    "ServingRuntime",
                    settings.import_objects,
                    identity,
                    hooks=guarded("ServingRuntime", f"{name}-runtime", settings, args.kubeconfig),
                ),
            )
            depends_on.append(runtime)
        declared = pulumi.Output.all(args.storage_uri, args.service_account).apply(
            lambda found: revision(settings, *found)
        )
        annotations: dict[str, pulumi.Input[str]] = {
            **service_annotations(settings),
            # Awaited here, with reasons: docs/decisions/0007-our-own-wait.md
            "pulumi.com/skipAwait": "true",
            REVISION: declared,
        }
        service = CustomResource(
            name,
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata={**metadata, "annotations": {**OWNED, **annotations}},
            spec={"predictor": predictor(settings, args.storage_uri, args.service_account)},
            opts=imported(
                pulumi.ResourceOptions.merge(
                    pulumi.ResourceOptions.merge(child(self, opts, *depends_on), told),
                    pulumi.ResourceOptions(custom_timeouts=_timeouts(settings)),
                ),
                "InferenceService",
                settings.import_objects,
                identity,
                hooks=guarded("InferenceService", name, settings, args.kubeconfig),
            ),
        )
        # Known in a preview, and tied to the service: nobody gets the name before it is served.
        served = _served(service, declared, args)
        self.name = served.apply(lambda _: settings.service_name)
        self.namespace = served.apply(lambda _: settings.namespace)
        if "InferenceService" in settings.import_objects:
            self.storage_uri = _imported_uri(service, args)
        else:
            self.storage_uri = pulumi.Output.all(served, args.storage_uri).apply(lambda found: str(found[1]))
        self.register_outputs(
            {"name": self.name, "namespace": self.namespace, "storageUri": self.storage_uri}
        )


class SharedRuntime(pulumi.ComponentResource):
    """A ServingRuntime that several models serve with: one image and one set of probes for all of them.

    Outputs:
        name: of the ServingRuntime.
    """

    name: pulumi.Output[str]

    def __init__(
        self,
        settings: Settings,
        opts: pulumi.ResourceOptions | None = None,
        kubeconfig: pulumi.Input[str] | None = None,
    ) -> None:
        """Declare it.

        Args:
            settings: of any of the models that share it.
            kubeconfig: of the cluster, where the settings have none.
        """
        name = str(settings.shared_runtime)
        super().__init__("modelcar:kserve:SharedRuntime", name, None, opts)
        runtime = CustomResource(
            name,
            api_version="serving.kserve.io/v1alpha1",
            kind="ServingRuntime",
            metadata={
                "name": name,
                "namespace": settings.namespace,
                "labels": {**labels(settings), "app.kubernetes.io/name": name},
                "annotations": OWNED,
            },
            spec=serving_runtime(settings),
            opts=pulumi.ResourceOptions.merge(
                child(self, opts),
                pulumi.ResourceOptions(hooks=guarded("SharedRuntime", name, settings, kubeconfig)),
            ),
        )
        self.name = runtime.urn.apply(lambda _: name)
        self.register_outputs({"name": self.name})


def _served(
    service: CustomResource, declared: pulumi.Output[str], args: ModelServiceArgs
) -> pulumi.Output[str]:
    """Return an output that is there once the pods of this declaration serve, and no others."""
    settings = args.settings
    # What is imported is as somebody else declared it; an idle model's pods go, or in Knative mode come once.
    known = settings.await_ready and "InferenceService" not in settings.import_objects
    known = known and not (settings.idle and settings.deployment_mode == "Knative")
    if pulumi.runtime.is_dry_run() or not known:
        return service.urn

    async def wait(found: list[str]) -> str:
        from operations.rollout import await_rolled_out

        urn, wanted, kubeconfig = found
        await in_thread(await_rolled_out, settings.reached_by(kubeconfig), wanted, pulumi.log.info)
        return urn

    return pulumi.Output.all(service.urn, declared, args.kubeconfig).apply(wait)


def _imported_uri(service: CustomResource, args: ModelServiceArgs) -> pulumi.Output[str]:
    """Return what a service that is imported serves, which this program did not say."""
    settings = args.settings

    async def look(found: list[str]) -> str:
        from operations.cluster import Cluster
        from operations.workload import inference_service

        _, planned, kubeconfig = found
        own = settings.reached_by(kubeconfig)
        document = await in_thread(lambda: inference_service(Cluster.of(own), own))
        return oci.find_storage_uri((document or {}).get("spec")) or planned

    if pulumi.runtime.is_dry_run():
        return pulumi.Output.from_input(args.storage_uri)
    return pulumi.Output.all(service.urn, args.storage_uri, args.kubeconfig).apply(look)


def labels(settings: Settings) -> dict[str, str]:
    """Kubernetes' recommended labels."""
    return {"app.kubernetes.io/name": settings.service_name, "app.kubernetes.io/managed-by": "pulumi"}


def service_annotations(settings: Settings) -> dict[str, str]:
    """Return what KServe is told of the mode, whoever applies it; KServe copies annotations to the pods."""
    found = mode_annotation(settings) | knative.revision_annotations(settings)
    if fixed_replicas(settings):
        # A HorizontalPodAutoscaler could only do harm: it makes one replica of none.
        found[AUTOSCALER] = "none"
    elif settings.autoscaling:
        found[AUTOSCALER] = EXTERNAL
    return found


def mode_annotation(settings: Settings) -> dict[str, str]:
    """Return how KServe is told the mode of an InferenceService: Standard by name, Knative by its default.

    KServe 0.19 takes the status of an object that it has not looked at yet for Standard, and its webhook then
    refuses the controller's own first change of one that says Knative ("deploymentMode cannot be changed",
    validateDeploymentMode; mended in 0.20): nothing ever comes of it. `components.kserve_config` refuses a
    cluster whose default is another one.
    """
    standard = settings.deployment_mode == "Standard"
    return {"serving.kserve.io/deploymentMode": "Standard"} if standard else {}


def fixed_replicas(settings: Settings) -> bool:
    """Tell whether the Deployment is always of one size."""
    fixed = settings.idle or settings.min_replicas == settings.max_replicas
    return settings.deployment_mode == "Standard" and fixed


def serving_timeout(settings: Settings) -> int:
    """Return how long it may take, in seconds, until a declaration is served, once nothing stands before it.

    Pulling comes before the startup probe's time begins. Where a former pod has answers to finish first, that
    time comes on top of it (operations/rollout.py).
    """
    return settings.start_timeout_seconds + PULLING


def _timeouts(settings: Settings) -> pulumi.CustomTimeouts:
    """Return the time for a deletion: the provider waits until the pods are gone, and they may finish."""
    return pulumi.CustomTimeouts(delete=f"{max(600, termination.patience(settings) + 2 * PULLING)}s")


def revision(settings: Settings, storage_uri: str, service_account: str | None = None) -> str:
    """Return a short hash of all that makes a new pod necessary; how many there are does not."""
    pods = predictor(settings, storage_uri, service_account)
    parts = [pods, serving_runtime(settings)]
    for name in ("minReplicas", "maxReplicas", "deploymentStrategy", "canaryTrafficPercent"):
        pods.pop(name, None)
    if settings.deployment_mode == "Knative":  # which makes a revision of its own for these
        parts.append(knative.revision_annotations(settings))
    text = json.dumps(parts, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def serving_runtime(settings: Settings) -> dict[str, Any]:
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
    settings: Settings, storage_uri: pulumi.Input[str], service_account: pulumi.Input[str] | None = None
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
    custom = {"volumes": volumes(settings), **common}
    if settings.placement == "storageUriEnv":
        server = container(settings)
        server["env"] = [*server["env"], {"name": "STORAGE_URI", "value": storage_uri}]
        return {"containers": [server], **custom}
    uris = [{"uri": storage_uri, "mountPath": MODEL_PATH}]
    return {"storageUris": uris, "containers": [container(settings)], **custom}


def container(settings: Settings) -> dict[str, Any]:
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


def start_script(settings: Settings) -> str:
    """Return what the container runs before its server, whose command and arguments follow."""
    return WAIT_FOR_MODEL if settings.runtime == "custom" else WAIT_AND_COPY


def environment(settings: Settings, *, own: bool = True, extra: bool = True) -> list[dict[str, Any]]:
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


def resources(settings: Settings) -> dict[str, dict[str, str]]:
    """Return requests and limits, both always set; a GPU cannot be shared, so its two are equal."""
    gpu = {"nvidia.com/gpu": str(settings.gpu_count)} if settings.gpu_count else {}
    requests = {"cpu": settings.cpu, "memory": settings.memory, **gpu}
    return {"requests": requests, "limits": {**requests, "cpu": settings.cpu_limit or settings.cpu}}


def volumes(settings: Settings) -> list[dict[str, Any]]:
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


def pod_security(settings: Settings) -> dict[str, Any]:
    """Say for the whole pod what holds in it; Knative refuses that unless a feature of its own is enabled.

    https://knative.dev/docs/serving/configuration/feature-flags/#kubernetes-security-context
    """
    return {"securityContext": RESTRICTED_POD} if settings.deployment_mode == "Standard" else {}


def canary(settings: Settings) -> dict[str, Any]:
    """Knative: the share of requests, in percent, that the newest revision gets beside the former one."""
    share = settings.canary_traffic_percent
    return {} if share is None else {"canaryTrafficPercent": share}


def strategy(settings: Settings) -> dict[str, Any]:
    """With a single GPU the old pod has to go before the new one can be placed."""
    one_gpu = settings.gpu_count > 0 and settings.max_replicas == 1
    automatic = "Recreate" if one_gpu else "RollingUpdate"
    wanted = automatic if settings.rollout == "auto" else settings.rollout
    if wanted == "Recreate" and settings.deployment_mode == "Standard":
        return {"deploymentStrategy": {"type": "Recreate"}}
    return {}
