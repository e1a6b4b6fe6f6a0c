"""A deployed service keeps its name, unless the stack says another one, and its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.config.problems import NAMESPACE, problem
from components.config.settings import Settings
from components.config.stack import Stack
from components.stack import last_run
from modelcar.errors import Problem


def problems(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of a service whose name follows from the model, and would change.

    KServe cannot rename a service: it would be deleted, and its clients would lose the address.

    Args:
        stack: its settings.
        outputs: of the last run.
    """
    before, now = outputs.get("serviceName"), stack.shared.service_name
    if stack.service_named or not before or before == now:
        return
    yield problem(
        "serviceName",
        f"not set: the model's name makes it {now}, and the deployed service is {before}",
        f"{before}, which keeps the service and its address; or {now}, which makes a new one in its place",
        f"pulumi config set {NAMESPACE}:serviceName {before}",
    )


def taken(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of an object that the last run made for another model.

    Pulumi knows it by that model's name: it would make it again by the new one, and then delete the former
    one, which is the same object in the cluster.

    Args:
        stack: its settings.
        outputs: of the last run.
    """
    if stack.shared.delivery != "cluster":
        return  # files have no such names
    former = last_run.models(outputs)
    owners = {
        (found.get("namespace", stack.shared.namespace), found.get("serviceName")): key
        for key, found in former.items()
        if found
    }
    told: set[str] = set()
    for number, model in enumerate(stack.models):
        place = f"models[{number}]." if stack.listed else ""
        owner = owners.get((model.namespace, model.service_name))
        if owner is not None and owner not in (model.key, *model.former_names):
            yield problem(
                f"{place}serviceName",
                f"{model.service_name}, which the last run's model {owner} has: Pulumi would delete it "
                f"once it has made it for {model.key}",
                f"a name that no other model of the last run has; or {owner} itself, under another name",
                _way(stack, model, owner, former),
            )
        runtime = model.shared_runtime
        owner = owners.get((model.namespace, runtime))
        if runtime and owner is not None and runtime not in told:
            told.add(runtime)
            yield problem(
                f"{place}sharedRuntime",
                f"{runtime}, as the ServingRuntime of the last run's model {owner} may be called: Pulumi "
                "would delete it once it has made it for several",
                "a name that no model's service had in the last run",
                f"rename it; or run `pulumi up` once with {owner} gone, or with another serviceName, and "
                "without this sharedRuntime",
            )


def _way(stack: Stack, model: Settings, owner: str, former: Mapping[str, Any]) -> str:
    """Return how a service comes to another model, or stays with the one that is called otherwise now."""
    kept = {name for other in stack.models for name in (other.key, *other.former_names)}
    own = {model.key, *model.former_names}
    if owner in kept or own & former.keys():
        return (
            f"set another serviceName; or run `pulumi up` twice: first with a name for {owner}'s service "
            f"that nobody has, or without {owner}, and with {model.key} as it was, then this"
        )
    other = f"if it is another model, run `pulumi up` without {owner} and {model.key} first"
    if not stack.listed:
        return f"if it is the same model, keep it in modelcar:models as {owner}; {other}"
    names = ", ".join([*model.former_names, owner])
    # What follows from an entry's name follows from the first one that it ever had.
    follows = not model.former_names and not model.image and model.model == model.key
    model_too = f" and model: {model.model}" if follows else ""
    return f"if it is the same model, say formerNames: [{names}]{model_too} in its entry; {other}"
