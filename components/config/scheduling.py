"""`modelcar:scheduling`: on which nodes a model's pods run, for clusters whose nodes somebody else made.

What only the cluster knows (is there such a class, has a node the label) is Kubernetes' to say; how a value
has to look is checked here. Sources: https://kubernetes.io/docs/concepts/scheduling-eviction/,
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from components.config.fields import LONGEST_SUBDOMAIN, SUBDOMAIN, SUBDOMAIN_NAME, matches
from components.config.section import Section

#: GKE's own label: https://cloud.google.com/kubernetes-engine/docs/concepts/node-pools
POOL_LABEL = "cloud.google.com/gke-nodepool"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_FIX = "write it as `kubectl get nodes --show-labels` and `kubectl describe node` show it"

LabelKey = Annotated[
    str,
    matches(
        re.compile(rf"((?=[^/]{{1,{LONGEST_SUBDOMAIN}}}/){SUBDOMAIN}/)?{_NAME}"),
        "not the key of a label",
        "[DOMAIN/]NAME, with letters, digits and - _ . in the name, at most 63; DOMAIN at most 253",
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
        re.compile(r"[^\0]{0,10000}"),
        "not a text",
        "a text without NUL characters, at most 10000; quoted, where it looks like a number",
        "quote it, or shorten it",
    ),
]
ClassName = Annotated[
    str,
    matches(
        SUBDOMAIN_NAME,
        "Kubernetes refuses this name",
        "lower-case letters, digits, - and .",
        "take it from `kubectl get runtimeclasses` or `kubectl get priorityclasses`",
    ),
]


class Toleration(Section):
    """A taint of nodes that the pods put up with.

    key: key of the taint; all taints where not set, with operator Exists.
    operator: Equal compares the value too.
    value: value of the taint, with operator Equal.
    effect: effect of the taint; all effects where not set.
    toleration_seconds: until a pod leaves such a node, with effect NoExecute; it stays where not set.
    """

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0, le=10**9)


class NodeRequirement(Section):
    """What the labels of a node have to be (a match expression of required node affinity).

    key: key of the label.
    operator: how the label is compared: In and NotIn compare with the values; Gt and Lt with one number.
    values: values to compare with; none for Exists and DoesNotExist.
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
    pod_labels: labels of the pods, for what else runs in the cluster: queues, meshes, autoscalers.
    pod_annotations: annotations of the pods, for the same.
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
