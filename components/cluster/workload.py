"""What KServe's workload lacks until it serves a declaration: a Deployment, or in Knative mode a Service.

The InferenceService itself does not tell. KServe (0.19 and 0.20) writes the generation of the *workload* into
its `status.observedGeneration` (PropagateRawStatus, PropagateStatus), so that number cannot be compared with
`metadata.generation`; and it reports Ready as long as former pods serve. docs/decisions/0007-our-own-wait.md
"""

from __future__ import annotations

from components.cluster.access import JSON, Cluster
from components.config.model_spec import ModelSpec
from components.manifests.service import AUTOSCALER, REVISION, fixed_replicas, service_annotations, strategy

#: Of a Knative Service: its least and its largest number of pods.
MIN_SCALE, MAX_SCALE = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale"
NOT_TAKEN_OVER = "KServe has not taken the change over yet"
#: Ends what is said while new pods are missing: a former one may have to go first.
NEW_PODS = "new pods are there"


def lacking(cluster: Cluster, settings: ModelSpec, revision: str) -> str | None:
    """Return what is missing until all pods are of a revision and serve; None where nothing is.

    Args:
        revision: of the declaration, `components.manifests.service.revision`.

    Raises:
        ClusterError: the API server went away, or rights are missing.
    """
    found = cluster.get(path(settings))
    if settings.deployment_mode == "Knative":
        missing = _other_scale(found, settings) or of_knative_service(found, revision)
    else:
        missing = _other_scaling(found, settings) or of_deployment(found, revision)
        missing = missing or _other_count(found, settings)
    if missing is None and not settings.idle:
        missing = _not_ready(inference_service(cluster, settings))
    return missing


def start_from_none(cluster: Cluster, settings: ModelSpec) -> bool:
    """Give a Deployment its first pods where an autoscaler keeps their number; tell whether that was done.

    KServe leaves the size to the HorizontalPodAutoscaler, which never touches a workload of size 0
    (Kubernetes: `ScalingDisabled`). So a model that was idle would stay so.

    Raises:
        ClusterError: as `lacking`, or the right to patch `deployments/scale` is missing.
    """
    if settings.deployment_mode != "Standard" or fixed_replicas(settings) or not settings.min_replicas:
        return False
    found = cluster.get(path(settings))
    if found is None or found["spec"].get("replicas", 1) != 0:
        return False
    if (found["metadata"].get("annotations") or {}).get(AUTOSCALER) == "none":
        return False  # KServe has not taken the change over yet, and would undo it
    cluster.patch(f"{path(settings)}/scale", {"spec": {"replicas": settings.min_replicas}})
    return True


def path(settings: ModelSpec) -> str:
    """Return where the workload of a model is."""
    group, kind = ("apps", "deployments")
    if settings.deployment_mode == "Knative":
        group, kind = ("serving.knative.dev", "services")
    return f"/apis/{group}/v1/namespaces/{settings.namespace}/{kind}/{settings.service_name}-predictor"


def inference_service(cluster: Cluster, settings: ModelSpec) -> JSON | None:
    """Return a model's InferenceService as it is; None where there is none.

    Raises:
        ClusterError: the API server went away, or rights are missing.
    """
    return cluster.get(
        f"/apis/serving.kserve.io/v1beta1/namespaces/{settings.namespace}"
        f"/inferenceservices/{settings.service_name}"
    )


def of_deployment(deployment: JSON | None, revision: str) -> str | None:
    """Return what a Deployment lacks to have rolled out a revision, as `kubectl rollout status` sees it."""
    if deployment is None:
        return "KServe has made no Deployment yet"
    if not _taken_over(deployment, revision):
        return NOT_TAKEN_OVER
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    updated, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    former = status.get("replicas", 0) - updated
    if updated < wanted:
        return f"{updated} of {wanted} {NEW_PODS}"
    if former > 0:
        return f"the new pods are not ready, or former ones not gone yet ({former})"
    if ready < wanted:
        return f"{ready} of {wanted} new pods are ready"
    if updated > wanted:
        return f"{updated - wanted} pods have to go"
    return None


def of_knative_service(service: JSON | None, revision: str) -> str | None:
    """Return what a Knative Service lacks until its newest revision is this one, and gets its requests."""
    if service is None:
        return "KServe has made no Knative Service yet"
    if not _taken_over(service, revision):
        return NOT_TAKEN_OVER
    status = service.get("status") or {}
    created, ready = status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")
    if not created or created != ready:
        return f"revision {created or '(none yet)'} is not ready"
    return _condition(status, "the Knative Service is not ready")


def _other_scale(service: JSON | None, settings: ModelSpec) -> str | None:
    """Tell that KServe has not handed on yet how many pods there are to be, which is no revision of ours.

    Of Knative it is one, whose first pod has to be ready (KServe 0.19, SetAutoScalingAnnotations).
    """
    template = ((service or {}).get("spec") or {}).get("template") or {}
    said = template.get("metadata", {}).get("annotations") or {}
    wanted = {MIN_SCALE: 0 if settings.idle else settings.min_replicas, MAX_SCALE: settings.max_replicas}
    others = [name for name, count in wanted.items() if said.get(name) not in {None, str(count)}]
    return NOT_TAKEN_OVER if others else None


def _other_scaling(deployment: JSON | None, settings: ModelSpec) -> str | None:
    """Tell that KServe has not handed on yet who keeps the number of pods, which is no revision of ours.

    It copies that to Deployment and pods alike, so that a change of it makes new pods (0.15 to 0.20,
    createRawDefaultDeployment), and with `maxReplicas` the way in which they come may be another one.
    """
    if deployment is None:
        return None
    wanted = service_annotations(settings).get(AUTOSCALER)
    own, pods = (
        (one["metadata"].get("annotations") or {}).get(AUTOSCALER)
        for one in (deployment, deployment["spec"]["template"])
    )
    # A KServe that hands it to the Deployment alone makes no new pods by it.
    if pods != wanted and not (pods is None and own == wanted):
        return NOT_TAKEN_OVER
    way = strategy(settings).get("deploymentStrategy", {}).get("type", "RollingUpdate")
    there = (deployment["spec"].get("strategy") or {}).get("type")
    return NOT_TAKEN_OVER if there not in {None, way} else None


def declares(workload: JSON, revision: str) -> bool:
    """Tell whether the pods that a workload makes are of a revision."""
    annotations = workload["spec"]["template"]["metadata"].get("annotations") or {}
    return bool(annotations.get(REVISION) == revision)


def _taken_over(workload: JSON, revision: str) -> bool:
    """Tell whether a workload declares a revision, and its own controller has seen that."""
    seen = (workload.get("status") or {}).get("observedGeneration", 0)
    return declares(workload, revision) and bool(seen >= workload["metadata"]["generation"])


def _other_count(deployment: JSON | None, settings: ModelSpec) -> str | None:
    """Tell that a Deployment is not of the size yet that is declared; a change of it alone is no revision."""
    there = ((deployment or {}).get("spec") or {}).get("replicas", 1)
    wanted = 0 if settings.idle else settings.min_replicas
    if there < wanted or (there > wanted and fixed_replicas(settings)):
        return f"the Deployment is to have {wanted} pods, and has {there}"
    return None


def _not_ready(service: JSON | None) -> str | None:
    if service is None:
        return "the InferenceService is not there"
    return _condition(service.get("status") or {}, "KServe does not report Ready yet")


def _condition(status: JSON, fault: str) -> str | None:
    """Return a fault with its reason, unless Ready is True."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return None
            told = " ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            return f"{fault}: {told}" if told else fault
    return fault
