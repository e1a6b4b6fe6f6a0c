"""The bridge between the rules and Pulumi's policy SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidation,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from policy.live import Declared
from policy.rule import Find, Resource, Rule
from policy.rules import RULES
from policy.rules.unseen import UNKNOWN_VALUES
from policy.values import UNKNOWN
from policy.workloads import roots

NAME = "modelcar"
#: Ends the name of the policy that is the part of a rule which needs the whole stack.
STACK_SUFFIX = "-in-stack"


def serve() -> None:
    """Answer the engine until it ends this process."""
    told = policies([UNKNOWN_VALUES], EnforcementLevel.ADVISORY)
    PolicyPack(NAME, [*policies(RULES), *told], enforcement_level=EnforcementLevel.MANDATORY)


def policies(rules: Sequence[Rule], level: EnforcementLevel | None = None) -> list[Policy]:
    """Return the policies: one for each rule, and one more where it needs the whole stack.

    Args:
        rules: of the policies. level: of a rule's own policy, the pack's where None.
    """
    made: list[Policy] = []
    declared = Declared()
    for rule in rules:
        severity = Severity(rule.severity)
        if rule.find is not None:
            schema = PolicyConfigSchema(dict(rule.config_schema)) if rule.config_schema else None
            validate = _of_resource(rule, rule.find, declared)
            made.append(
                ResourceValidationPolicy(
                    rule.name, rule.title(), validate, level, config_schema=schema, severity=severity
                )
            )
        if rule.find_in_stack is not None or rule.judges_specs:
            check = _of_stack(rule, declared)
            made.append(
                StackValidationPolicy(rule.name + STACK_SUFFIX, rule.title(), check, severity=severity)
            )
    return made


def _of_resource(rule: Rule, find: Find, declared: Declared) -> ResourceValidation:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = Resource(args.resource_type, args.name, plain(args.props), args.urn)
        declared.note(resource)
        for finding in find(resource, args.get_config()):
            report(rule.details(resource, finding), None)

    return validate


def _of_stack(rule: Rule, declared: Declared) -> StackValidation:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [
            Resource(r.resource_type, r.name, plain(r.props), r.urn, declared.has(r.urn))
            for r in args.resources
        ]
        found = list(rule.find_in_stack(resources)) if rule.find_in_stack else []
        if rule.judges_specs and rule.find:
            others = [resource for resource in resources if not resource.judged and roots(resource)]
            for resource in others:
                found += [(resource, finding) for finding in rule.find(resource, args.get_config())]
        for resource, finding in found:
            report(rule.details(resource, finding), resource.urn)

    return validate


def plain(value: Any) -> Any:
    """Return the SDK's view of a value as plain dicts and lists.

    The SDK raises where an unknown value is read, and skips the whole policy then; here it becomes UNKNOWN,
    so that a rule still judges what is known beside it.
    """
    if isinstance(value, Mapping):
        return {key: _read(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_read(value, number) for number in range(len(value))]
    return value


def _read(holder: Any, key: Any) -> Any:
    try:
        return plain(holder[key])
    except UnknownValueError:
        return UNKNOWN
