"""What a rule is, and the four parts of every message: the rule, the resource, the reason, the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from policy.values import at

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """A resource as rules see it.

    type: type token, such as `kubernetes:apps/v1:Deployment`.
    name: its name in the program.
    properties: plain values, see `values.py`.
    urn: only needed by rules for whole stacks.
    judged: whether rules have judged it by what the program says of it; only known to rules for whole stacks.
    """

    type: str
    name: str
    properties: dict[str, Any]
    urn: str = ""
    judged: bool = False

    @property
    def group(self) -> str:
        """Kubernetes API group (`core`, `apps`, …); "" for resources of other providers."""
        package, _, rest = self.type.partition(":")
        return rest.partition("/")[0] if package == "kubernetes" else ""

    @property
    def kind(self) -> str:
        """Last part of the type token; a patch has the kind of what it patches."""
        kind = self.type.rpartition(":")[2]
        return kind.removesuffix("Patch") if self.is_patch else kind

    @property
    def is_patch(self) -> bool:
        """Tell whether it holds some fields only (`DeploymentPatch`), so that none of them is missing."""
        return self.type.startswith("kubernetes:") and self.type.endswith("Patch")

    def at(self, *keys: str) -> Any:
        """Return one property, see `values.at`."""
        return at(self.properties, *keys)


@dataclass(frozen=True)
class Finding:
    """One thing in a resource that a rule does not allow.

    path: the property, such as `spec.containers[0].image`; "" for the resource as a whole.
    found: what is there, in words or as it is. Never a value that may be a secret: the SDK hands the values
        of secrets to a pack in the clear, and does not say which they are.
    fix: what the reader can do now.
    reason: where it is not the rule's own.
    """

    path: str
    found: str
    fix: str
    reason: str = ""


Find = Callable[[Resource, Config], Iterable[Finding]]
FindInStack = Callable[[Sequence[Resource]], Iterable[tuple[Resource, Finding]]]


@dataclass(frozen=True)
class Rule:
    """One rule.

    name: of the policy in Pulumi's output and configuration.
    statement: the rule, in one sentence.
    reason: why, and where that is from.
    find: looks at one resource, before it is created.
    find_in_stack: looks at all of them together, at the end of the preview (and of the update).
    judges_specs: `find` looks at what Kubernetes objects hold, see `live.py`.
    config_schema: JSON schema of each of the rule's settings (`--policy-pack-config`).
    """

    name: str
    statement: str
    reason: str
    find: Find | None = None
    find_in_stack: FindInStack | None = None
    judges_specs: bool = False
    severity: Literal["medium", "high", "critical"] = "high"
    config_schema: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def title(self) -> str:
        """Return the message's first part, which Pulumi prints before `details`."""
        return f"rule: {self.statement}"

    def details(self, resource: Resource, finding: Finding) -> str:
        """Return the other three parts."""
        place = f" {finding.path}" if finding.path else ""
        return (
            f"resource: {resource.type} {resource.name!r}{place}: {finding.found}\n"
            f"reason: {finding.reason or self.reason}\n"
            f"fix: {finding.fix}"
        )
