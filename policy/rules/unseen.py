"""What rules could not see: objects without a spec, and what a preview does not know yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from policy.live import missing
from policy.nodes import CLUSTER, NODE_POOL
from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN

#: Properties that one message names.
_MOST = 5


def _find_missing(resources: Sequence[Resource]) -> Iterator[tuple[Resource, Finding]]:
    for resource in resources:
        # A component of an object's type has inputs alone.
        if not resource.judged and (names := missing(resource)):
            yield (
                resource,
                Finding(
                    " or ".join(names),
                    "cannot be judged: neither declared nor read from the cluster",
                    "run it again where the cluster answers, so that it can be read; or declare it whole",
                ),
            )


def _find_unknown(resource: Resource, _config: Config) -> Iterator[Finding]:
    if not (resource.group or resource.type in (NODE_POOL, CLUSTER) or "iam" in resource.kind.lower()):
        return
    paths = list(_unknown(resource.properties, ""))
    if paths:
        named = ", ".join(paths[:_MOST]) + (f" and {len(paths) - _MOST} more" if paths[_MOST:] else "")
        yield Finding(named, "not known in this preview", "none now; `up` stops where a rule refuses it")


def _unknown(value: Any, path: str) -> Iterator[str]:
    if value is UNKNOWN:
        yield path
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _unknown(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _unknown(below, f"{path}[{number}]")


SEEN_OBJECTS = Rule(
    name="judged-objects",
    statement="no object that holds pods or models passes without its spec having been judged",
    reason="Pulumi imports a custom resource without its spec; a rule that sees nothing must not pass",
    find_in_stack=_find_missing,
)
#: Told, never refused; so it is none of `RULES`.
UNKNOWN_VALUES = Rule(
    name="unknown-in-preview",
    statement="what a preview does not know is judged in the update, before the resource is made or changed",
    reason="another resource has to be made first; a preview without a violation says nothing of them",
    find=_find_unknown,
    severity="medium",
)
