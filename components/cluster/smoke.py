"""Which placements of a model's image this cluster honours, found out with a probe of a few bytes.

KServe's webhooks decide what becomes of an `oci://` URI, and versions and settings differ in it; a node's
container runtime decides what becomes of an image volume, and some mount an empty folder. The probe is
served by each placement in a namespace of its own, on the nodes that `modelcar:scheduling` allows, without a
GPU, and all of it is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.cluster.access import POLL, Cluster, ClusterError
from components.cluster.pods import pods_of, why
from components.cluster.probe_image import NAME, TOKEN
from components.cluster.smoke_namespace import check_own, scratch_namespace
from components.cluster.smoke_volumes import (
    NATIVE,
    OFFERED,
    SUB_PATH,
    VOLUMES,
    WHOLE,
    WRITABLE,
    look_at_volume,
    node_kinds,
    offered,
)
from components.config.model_path import IMAGE_PATH, MODEL_PATH
from components.config.probes import ProbesSettings
from components.config.settings import Settings
from components.config.termination import TerminationSettings
from components.manifests.pull_secret import encoded_docker_config
from components.manifests.service import container, mode_annotation, predictor, serving_runtime
from modelcar.errors import refuse

PLACEMENTS = (*OFFERED, "podAnnotation", SUB_PATH, NATIVE)
ANNOTATION = "internal.serving.kserve.io/storage-initializer-sourceuri"

#: Seconds for a pod to pull the probe and to say what it finds.
PATIENCE = 180.0
#: … and for one of a placement that is not offered, once all others are decided.
SHORT = 10.0

#: What runs in place of a model server. It is asked for its health, and says what it sees.
_SERVER = (
    "busybox mkdir -p /tmp/www && echo ok > /tmp/www/health; "
    f'echo "uid $(busybox id -u)"; '
    f"busybox touch {MODEL_PATH}/written 2>/dev/null && echo '{WRITABLE}'; "
    f"busybox test -d {MODEL_PATH}/models && echo '{WHOLE}'; "
    f'echo "found $(busybox cat {MODEL_PATH}/probe.txt)"; '
    "exec busybox httpd -f -p {port} -h /tmp/www"
)


@dataclass(frozen=True)
class Outcome:
    """What became of one placement.

    verdict: works, refused (by the webhooks, the API server or the runtime), ignored (nothing was injected or
    mounted) or failed. reason: in words, of all but the first. checks: what was looked at, and whether it was
    so. seconds: until the verdict.
    """

    placement: str
    verdict: str
    reason: str = ""
    checks: Mapping[str, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Whether a model is served so."""
        return self.verdict == "works"


@dataclass(frozen=True)
class Smoke:
    """Outcomes of all placements; chosen: the one to use, None where none that can be set works.

    kserve: its version. nodes: kubelet and container runtime of the nodes, each kind once.
    """

    kserve: str
    outcomes: tuple[Outcome, ...]
    chosen: str | None
    nodes: tuple[str, ...] = ()


def smoke(
    cluster: Cluster,
    settings: Settings,
    image: str,
    *,
    namespace: str = NAME,
    patience: float = PATIENCE,
    prefer: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    notice: Callable[[str], None] | None = None,
) -> Smoke:
    """Serve the probe by each placement at once, look at the pods, and remove everything.

    Args:
        cluster: whose KServe is tried.
        settings: the stack's; its placement is preferred, its mode and pull access are used.
        image: REGISTRY/NAME@sha256:… of the probe.
        namespace: to work in; made, and removed.
        patience: seconds for the slowest pod.
        prefer: a placement that is taken where it works.
        say: told what happens.
        notice: told what keeps the test from its work; say, unless given.

    Raises:
        InputError: KServe is not there, the namespace is somebody else's or was removed meanwhile, another
            test does not end, or rights are missing.
        ClusterError: the API server went away. What was made is removed as far as it can be reached.
    """
    version = kserve_version(cluster, settings)
    with scratch_namespace(cluster, namespace, patience, notice or say) as uid:
        _pull_access(cluster, settings, namespace)
        started = time.monotonic()
        refused: dict[str, str] = {}
        for placement in PLACEMENTS:
            try:
                scheme = "oci+native" if placement == NATIVE else "oci"
                for path, body in objects(settings, f"{scheme}://{image}", namespace, placement):
                    cluster.create(path, body)
            except ClusterError as error:
                if error.status == 0:
                    raise
                refused[placement] = str(error)
        outcomes = {placement: Outcome(placement, "refused", reason) for placement, reason in refused.items()}
        waiting = [placement for placement in PLACEMENTS if placement not in refused]
        decided = time.monotonic()
        while waiting:
            if set(waiting) & set(OFFERED):
                decided = time.monotonic()
            for placement in list(waiting):
                # What is not offered is told too, and not waited for.
                late = placement not in OFFERED and time.monotonic() - decided > SHORT
                last = late or time.monotonic() - started > patience
                found = _look(cluster, namespace, placement, image, last=last)
                if found:
                    seconds = time.monotonic() - started
                    outcomes[placement] = Outcome(placement, *found, seconds)
                    waiting.remove(placement)
                    say(f"{placement}: {found[0]}")
            if waiting:
                check_own(cluster, namespace, uid)
                time.sleep(POLL)
        check_own(cluster, namespace, uid)
    nodes = node_kinds(cluster)
    order = dict.fromkeys(name for name in (settings.placement, prefer, *offered(nodes)) if name)
    chosen = next((name for name in order if name in outcomes and outcomes[name].works), None)
    return Smoke(version, tuple(outcomes[placement] for placement in PLACEMENTS), chosen, nodes)


def kserve_version(cluster: Cluster, settings: Settings) -> str:
    """Return the version of KServe's controller, by its image; nothing where it has none.

    Raises:
        InputError: the cluster has no KServe.
    """
    if cluster.get("/apis/serving.kserve.io/v1beta1") is None:
        raise refuse(
            "KServe",
            f"{cluster.name} knows no InferenceService",
            allowed="a cluster with KServe",
            fix="install it, or let the stack do it: modelcar:kserve.install true",
        )
    path = f"/apis/apps/v1/namespaces/{settings.kserve.namespace}/deployments/kserve-controller-manager"
    found = cluster.get(path)
    if found is None:
        return ""
    image = str(found["spec"]["template"]["spec"]["containers"][0]["image"])
    return image.rpartition(":")[2]


def objects(
    settings: Settings, uri: str, namespace: str, placement: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, body) of what serves the probe by one placement, as the stack would serve its model."""
    changes: dict[str, Any] = {
        "placement": _DECLARED.get(placement, placement),
        "namespace": namespace,
        "service_name": service(placement),
        "server_image": uri.partition("://")[2],
        "server_command": ("busybox", "sh", "-c", _SERVER.format(port=settings.server_port)),
        "server_args": (),
        "runtime": "custom",
        "vllm": None,
        "shared_runtime": None,
        "google": None,
        "server_env": (),
        "server_host_paths": (),
        "server_writable_paths": (),
        "read_ahead": False,
        "cpu": "20m",
        "cpu_limit": "500m",
        "memory": "32Mi",
        "shared_memory": "1Mi",
        "gpu_count": 0,
        "min_replicas": 1,
        "max_replicas": 1,
        "idle": False,
        "autoscaling": None,
        "canary_traffic_percent": None,
        "rollout": "auto",
        "start_timeout_seconds": 600,
        "probes": ProbesSettings(),
        # Nothing is lost with a probe, and its namespace waits for it.
        "termination": TerminationSettings.model_validate({"gracePeriodSeconds": 1, "preStopSeconds": 0}),
    }
    probe = settings.model_copy(update=changes)
    secrets = _secret_names(settings)
    spec = predictor(probe, uri)
    if placement == SUB_PATH:
        [server] = spec["containers"]
        [mount] = [one for one in server["volumeMounts"] if one["mountPath"] == IMAGE_PATH]
        mount |= {"mountPath": MODEL_PATH, "subPath": "models"}
    if placement == "podAnnotation":
        spec = {**spec, "annotations": {ANNOTATION: uri}, "containers": [container(probe)]}
        del spec["storageUris"]
    if placement in {"servingRuntime", NATIVE}:
        runtime = {**serving_runtime(probe), **secrets}
        yield (
            f"/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes",
            _object("serving.kserve.io/v1alpha1", "ServingRuntime", probe, runtime),
        )
    else:
        spec |= secrets
    annotations = {
        **mode_annotation(settings),
        "serving.kserve.io/autoscalerClass": "none",
    }
    yield (
        f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices",
        _object("serving.kserve.io/v1beta1", "InferenceService", probe, {"predictor": spec}, annotations),
    )


#: What a placement that is not offered is declared like.
_DECLARED = {"podAnnotation": "storageUris", SUB_PATH: "imageVolume", NATIVE: "servingRuntime"}


def service(placement: str) -> str:
    """Return the name of a placement's InferenceService."""
    return f"probe-{placement.lower()}"


def _object(
    version: str,
    kind: str,
    probe: Settings,
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    metadata = {
        "name": probe.service_name,
        "namespace": probe.namespace,
        "annotations": dict(annotations or {}),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": dict(spec)}


def _look(
    cluster: Cluster, namespace: str, placement: str, image: str, *, last: bool
) -> tuple[str, str, dict[str, bool]] | None:
    """Return verdict, reason and checks of a placement; None while there is nothing to say yet."""
    pods = pods_of(cluster, namespace, service(placement))
    if not pods and last and placement == NATIVE:
        return "ignored", "no pod came about: KServe before 0.20 knows no oci+native://", {}
    if not pods:
        return ("failed", _no_pod(cluster, namespace, placement), {}) if last else None
    pod = pods[-1]
    spec = pod["spec"]
    if placement in VOLUMES:
        return look_at_volume(cluster, pod, image, placement, last=last)
    initial = {box["name"]: box["image"] for box in spec.get("initContainers") or []}
    boxes = {box["name"]: box["image"] for box in spec["containers"]}
    checks = {
        "init container": initial.get("modelcar-init") == image,
        "sidecar": boxes.get("modelcar") == image,
        "shared processes": bool(spec.get("shareProcessNamespace")),
    }
    if not all(checks.values()):
        if "storage-initializer" in initial:
            reason = "KServe would download the URI: modelcar is switched off (enableModelcar)"
            return "ignored", reason, checks
        return "ignored", "KServe injected no modelcar, so the model's folder stays empty", checks
    said = cluster.logs(namespace, pod["metadata"]["name"], "kserve-container")
    if "found " in said:
        checks["uid of the modelcar"] = f"uid {_uid(spec)}\n" in said
        checks["files"] = f"found {TOKEN}\n" in said
        if all(checks.values()):
            return "works", "", checks
        return "failed", f"the server says: {' '.join(said.split())}", checks
    return ("failed", why(cluster, pod), checks) if last else None


def _uid(spec: Mapping[str, Any]) -> int:
    [sidecar] = [box for box in spec["containers"] if box["name"] == "modelcar"]
    return int((sidecar.get("securityContext") or {}).get("runAsUser", 1010))


def _no_pod(cluster: Cluster, namespace: str, placement: str) -> str:
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{service(placement)}"
    status = (cluster.get(path) or {}).get("status") or {}
    said = [str(entry.get("message", "")) for entry in status.get("conditions") or [] if entry.get("message")]
    return f"no pod came about: {said[0]}" if said else "no pod came about, and KServe does not say why"


def _secret_names(settings: Settings) -> dict[str, Any]:
    return {"imagePullSecrets": [{"name": NAME}]} if settings.needs_pull_access else {}


def _pull_access(cluster: Cluster, settings: Settings, namespace: str) -> None:
    """Give the probe's pods the rights to pull that the model's have."""
    if not settings.needs_pull_access:
        return
    if settings.pull_secret:
        path = f"/api/v1/namespaces/{settings.namespace}/secrets/{settings.pull_secret}"
        found = cluster.get(path)
        if found is None:
            raise refuse(
                "modelcar:pullSecret",
                f"{settings.pull_secret} is not in namespace {settings.namespace}",
                allowed="a Secret of type kubernetes.io/dockerconfigjson",
                fix="create it there, or correct modelcar:pullSecret",
            )
        data = found["data"]
    else:
        password = settings.registry_password.get_secret_value() if settings.registry_password else ""
        host = settings.registry.partition("/")[0]
        data = {".dockerconfigjson": encoded_docker_config(host, str(settings.registry_username), password)}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "namespace": namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "data": data,
    }
    cluster.create(f"/api/v1/namespaces/{namespace}/secrets", body)


def table(found: Smoke) -> Iterator[str]:
    """Yield the outcomes as lines of a table, and what follows from them."""
    width = max(len(outcome.placement) for outcome in found.outcomes)
    yield f"KServe {found.kserve or '(its version is not told here)'}"
    yield from (f"nodes: {kind}" for kind in found.nodes)
    if not found.nodes:
        yield "nodes: this account may not list them; an image volume is chosen only where nothing else works"
    for outcome in found.outcomes:
        checks = ", ".join(name if is_so else f"no {name}" for name, is_so in outcome.checks.items())
        said = outcome.reason if outcome.verdict == "refused" else checks
        yield f"{outcome.placement:<{width}}  {outcome.verdict:<7}  {outcome.seconds:5.1f} s  {said}".rstrip()
        if outcome.reason and outcome.verdict != "refused":
            yield f"{'':<{width}}  {outcome.reason}"
    if len(found.nodes) > 1:
        yield "nodes of several kinds: the probe was on one of them, so image volumes are not chosen"
    if found.chosen:
        yield f"placement to use: {found.chosen}"
    else:
        yield "no placement that can be set works here"


def document(found: Smoke) -> dict[str, Any]:
    """Return the outcomes for programs."""
    return {
        "kserve": found.kserve,
        "nodes": list(found.nodes),
        "placement": found.chosen,
        "outcomes": [
            {
                "placement": outcome.placement,
                "verdict": outcome.verdict,
                "reason": outcome.reason,
                "checks": dict(outcome.checks),
                "seconds": round(outcome.seconds, 1),
            }
            for outcome in found.outcomes
        ],
    }
