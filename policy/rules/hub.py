"""No contact with a model hub at run time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from policy.rule import Config, Finding, Resource, Rule
from policy.served import served_models
from policy.values import UNKNOWN, at, entries, has_unknown
from policy.workloads import containers, is_server, pods, storage_uris

SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
#: What huggingface_hub and transformers take for true.
_ON = ("1", "on", "yes", "true")


def _find(resource: Resource, _config: Config) -> Iterator[Finding]:
    for pod in pods(resource):
        for container in containers(pod):
            if is_server(resource, pod, container) and not resource.is_patch:
                yield from _online(container.path, container.body.get("env"))
            elif container.is_model:  # what it does not set, its runtime sets: _find_in_stack
                yield from _online(container.path, container.body.get("env"), may_lack=True)
    for path, uri in storage_uris(resource):
        if isinstance(uri, str) and uri.startswith("hf://"):
            yield Finding(
                path,
                uri,
                "build a modelcar of the weights (README) and write its oci://…@sha256:… URI",
            )


def _find_in_stack(resources: Sequence[Resource]) -> Iterator[tuple[Resource, Finding]]:
    for model in served_models(resources):
        if model.runtime is None:  # a runtime of the stack is judged by itself, before it is created
            for finding in _online(model.path, model.container.get("env"), may_be_off=True):
                yield model.resource, finding


def _online(path: str, env: Any, *, may_lack: bool = False, may_be_off: bool = False) -> Iterator[Finding]:
    """Find the switches that are not there or off, unless another policy looks at that."""
    named = ((at(variable, "name"), at(variable, "value")) for _, variable in entries(env))
    values = {name: value for name, value in named if isinstance(name, str) or name is UNKNOWN}
    wrong = []
    for name in SWITCHES:
        value = values.get(name)  # a value from elsewhere (valueFrom) cannot be seen, so it counts as none
        if value is None:
            if not may_lack and not has_unknown(env) and UNKNOWN not in values:
                wrong.append(f"{name} is not set to a plain value")
        elif value is not UNKNOWN and not may_be_off and str(value).lower() not in _ON:
            wrong.append(f"{name} is set, but not to 1")
    if wrong:
        fix = "add " + ", ".join(f'{{"name": "{name}", "value": "1"}}' for name in SWITCHES)
        yield Finding(f"{path}.env", "; ".join(wrong), fix)


NO_HUB = Rule(
    name="no-model-hub",
    statement="model servers have HF_HUB_OFFLINE=1 and TRANSFORMERS_OFFLINE=1, and no model comes from hf://",
    reason="a server that may ask a hub can fetch other files than the modelcar's, fails when the hub does, "
    "and tells it what runs here; everything that it needs is in the modelcar",
    find=_find,
    judges_specs=True,
    find_in_stack=_find_in_stack,
)
