"""`modelcar:scheduling`: what Kubernetes, or a part of this program, would refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.scheduling import POOL_LABEL, NodeRequirement, Toleration
from modelcar.errors import Problem

#: Owners of labels and annotations that KServe, Knative and this program set on pods; `app` selects them.
RESERVED = (
    "serving.kserve.io",
    "serving.knative.dev",
    "modelcar",
    "pulumi.com",
    "internal.serving.kserve.io",
)


def problems(settings: ModelSpec) -> Iterator[Problem]:
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
    if settings.pool_name is not None and POOL_LABEL in said.node_selector:
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
