"""`modelcar:scheduling`: on which nodes a model's pods run, for clusters whose nodes somebody else made.

What only the cluster knows (is there such a class, has a node the label) is Kubernetes' to say; how a value
has to look is checked here. Sources: https://kubernetes.io/docs/concepts/scheduling-eviction/,
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from components.checks import problem
from components.egress import SERVICE_LABEL
from components.fields import matches
from components.google.settings import Section
from modelcar.errors import Problem

if TYPE_CHECKING:
    from components.settings import Settings

#: GKE's own label: https://cloud.google.com/kubernetes-engine/docs/concepts/node-pools
POOL_LABEL = "cloud.google.com/gke-nodepool"
#: GKE taints nodes with GPUs with nvidia.com/gpu=present:NoSchedule; pods with GPUs tolerate it.
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
#: Owners of labels and annotations that KServe, Knative and this program set on pods; `app` selects them.
RESERVED = (
    "serving.kserve.io",
    "serving.knative.dev",
    "modelcar",
    "pulumi.com",
    "internal.serving.kserve.io",
)
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_FIX = "write it as `kubectl get nodes --show-labels` and `kubectl describe node` show it"

LabelKey = Annotated[
    str,
    matches(
        re.compile(rf"(?=.{{1,317}}$)({_SUBDOMAIN}/)?{_NAME}"),
        "not the key of a label",
        "[DOMAIN/]NAME, with letters, digits and - _ . in the name, at most 63",
        _FIX,
    ),
]
LabelValue = Annotated[
    str,
    matches(
        re.compile(rf"({_NAME})?"),
        "not the value of a label",
        "a text of letters, digits and - _ ., at most 63; quoted, where it looks like a number or true",
        _FIX,
    ),
]
AnnotationValue = Annotated[
    str,
    matches(
        re.compile(r"(?s).{0,10000}"),
        "not a text",
        "a text; quoted, where it looks like a number",
        "quote it",
    ),
]
ClassName = Annotated[
    str,
    matches(
        re.compile(rf"(?=.{{1,253}}$){_SUBDOMAIN}"),
        "Kubernetes refuses this name",
        "lower-case letters, digits, - and .",
        "take it from `kubectl get runtimeclasses` or `kubectl get priorityclasses`",
    ),
]


class Toleration(Section):
    """A taint of nodes that the pods put up with.

    key: of the taint; all taints where not set, with operator Exists.
    operator: Equal compares the value too.
    value: of the taint, with operator Equal.
    effect: of the taint; all effects where not set.
    toleration_seconds: until a pod leaves such a node, with effect NoExecute; it stays where not set.
    """

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0, le=10**9)


class NodeRequirement(Section):
    """What the labels of a node have to be (a match expression of required node affinity).

    key: of the label.
    operator: In and NotIn compare with the values; Gt and Lt with one number.
    values: to compare with; none for Exists and DoesNotExist.
    """

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[LabelValue, ...] = ()


class Spread(Section):
    """How the pods of one model are spread over nodes or zones.

    topology_key: label of nodes whose values are kept apart, as topology.kubernetes.io/zone.
    max_skew: how many pods more one value may have than another.
    when_unsatisfiable: DoNotSchedule leaves a pod pending rather than to break it.
    """

    topology_key: LabelKey
    max_skew: int = Field(1, ge=1, le=1000)
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"


class SchedulingSettings(Section):
    """`modelcar:scheduling`: which nodes take the pods, and what is said of the pods themselves.

    node_selector: labels that a node has to have.
    node_affinity: requirements that a node has to meet, all of them.
    tolerations: taints of nodes that the pods put up with; that of GPUs (nvidia.com/gpu) always is.
    topology_spread: over what the pods of one model are spread.
    runtime_class_name: RuntimeClass, as nvidia where that is not the default runtime of GPU nodes.
    priority_class_name: PriorityClass.
    scheduler_name: scheduler, in place of the default one.
    pod_labels, pod_annotations: of the pods, for what else runs in the cluster: queues, meshes, autoscalers.
    """

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    node_affinity: tuple[NodeRequirement, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    topology_spread: tuple[Spread, ...] = ()
    runtime_class_name: ClassName | None = None
    priority_class_name: ClassName | None = None
    scheduler_name: ClassName | None = None
    pod_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    pod_annotations: dict[LabelKey, AnnotationValue] = Field(default_factory=dict)


def nodes(settings: Settings) -> dict[str, Any]:
    """Return the fields of a pod that say which nodes can take it; those that pull for a model have them too.

    The model's own pool on Google Cloud is among them, whose disk was computed for it.
    """
    said = settings.scheduling
    found: dict[str, Any] = {}
    selector = {**said.node_selector}
    if settings.google is not None:
        selector[POOL_LABEL] = settings.google.nodes.name
    if selector:
        found["nodeSelector"] = selector
    if said.node_affinity:
        rules = [_requirement(entry) for entry in said.node_affinity]
        required = {"nodeSelectorTerms": [{"matchExpressions": rules}]}
        found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    tolerated = [_toleration(entry) for entry in said.tolerations]
    if settings.gpu_count and GPU_TOLERATION not in tolerated:
        tolerated.insert(0, {**GPU_TOLERATION})
    if tolerated:
        found["tolerations"] = tolerated
    if said.runtime_class_name:
        found["runtimeClassName"] = said.runtime_class_name
    return found


def pods(settings: Settings) -> dict[str, Any]:
    """Return the fields of a model's predictor (KServe 0.19, PodSpec and ComponentExtensionSpec).

    They stand in the predictor whatever the placement: KServe puts its tolerations, selector and affinity in
    place of a ServingRuntime's, which has no other of these fields (MergePodSpec).
    """
    said = settings.scheduling
    found = nodes(settings)
    if said.topology_spread:
        own = {"matchLabels": {SERVICE_LABEL: settings.service_name}}
        found["topologySpreadConstraints"] = [
            {
                "topologyKey": entry.topology_key,
                "maxSkew": entry.max_skew,
                "whenUnsatisfiable": entry.when_unsatisfiable,
                "labelSelector": own,
            }
            for entry in said.topology_spread
        ]
    if said.priority_class_name:
        found["priorityClassName"] = said.priority_class_name
    if said.scheduler_name:
        found["schedulerName"] = said.scheduler_name
    if said.pod_labels:
        found["labels"] = {**said.pod_labels}
    if said.pod_annotations:
        found["annotations"] = {**said.pod_annotations}
    return found


def _toleration(said: Toleration) -> dict[str, Any]:
    found: dict[str, Any] = {"key": said.key, "operator": said.operator, "value": said.value}
    found |= {"effect": said.effect, "tolerationSeconds": said.toleration_seconds}
    return {key: value for key, value in found.items() if value is not None}


def _requirement(said: NodeRequirement) -> dict[str, Any]:
    values = {"values": list(said.values)} if said.values else {}
    return {"key": said.key, "operator": said.operator, **values}


def problems(settings: Settings) -> Iterator[Problem]:
    """Yield what Kubernetes would refuse, and what the program or KServe says itself."""
    said = settings.scheduling
    for number, entry in enumerate(said.tolerations):
        yield from _tolerations(f"scheduling.tolerations[{number}]", entry)
    for number, rule in enumerate(said.node_affinity):
        yield from _requirements(f"scheduling.nodeAffinity[{number}]", rule)
    seen: list[tuple[str, str]] = []
    for number, spread in enumerate(said.topology_spread):
        one = (spread.topology_key, spread.when_unsatisfiable)
        if one in seen:
            value, fix = f"{spread.topology_key} with {spread.when_unsatisfiable}, twice", "take one out"
            yield problem(f"scheduling.topologySpread[{number}]", value, "each once", fix)
        seen.append(one)
    if settings.google is not None and POOL_LABEL in said.node_selector:
        yield problem(
            "scheduling.nodeSelector",
            f"{POOL_LABEL}, which modelcar:google sets to the model's pool",
            "other labels",
            "choose the pool by nodePool",
        )
    yield from _metadata("scheduling.podLabels", said.pod_labels)
    yield from _metadata("scheduling.podAnnotations", said.pod_annotations)


def _tolerations(key: str, said: Toleration) -> Iterator[Problem]:
    # k8s.io/kubernetes pkg/apis/core/validation, ValidateTolerations
    if said.operator == "Exists" and said.value:
        yield problem(
            f"{key}.value", f"{said.value}, and operator is Exists", "none", "set operator to Equal"
        )
    if said.operator == "Equal" and not said.key:
        yield problem(
            f"{key}.key", "not set, and operator is Equal", "the taint's key", "set it, or take Exists"
        )
    if said.toleration_seconds is not None and said.effect != "NoExecute":
        value = f"{said.toleration_seconds}, and effect is {said.effect or 'not set'}"
        yield problem(f"{key}.tolerationSeconds", value, "with effect NoExecute only", "remove it")


def _requirements(key: str, said: NodeRequirement) -> Iterator[Problem]:
    count, operator = len(said.values), said.operator
    if operator in {"In", "NotIn"} and not count:
        yield problem(f"{key}.values", f"none, and operator is {operator}", "one or more", "name them")
    elif operator in {"Exists", "DoesNotExist"} and count:
        yield problem(
            f"{key}.values", f"{list(said.values)}, and operator is {operator}", "none", "remove them"
        )
    elif operator in {"Gt", "Lt"} and not (count == 1 and said.values[0].isdecimal()):
        value = f"{list(said.values)}, and operator is {operator}"
        yield problem(f"{key}.values", value, "one integer, quoted", 'write ["8"]')


def _metadata(key: str, said: Mapping[str, str]) -> Iterator[Problem]:
    for name in said:
        owner = name.rpartition("/")[0]
        program = name in {"app", "component"} or name.startswith("app.kubernetes.io/")
        if program or any(owner == one or owner.endswith(f".{one}") for one in RESERVED):
            yield problem(key, f"{name}, which KServe or the program sets", "other keys", "take it out")
