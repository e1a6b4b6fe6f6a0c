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

from policy.rule import Find, FindInStack, Resource, Rule
from policy.rules import RULES
from policy.values import UNKNOWN

NAME = "modelcar"
#: Ends the name of the policy that is the part of a rule which needs the whole stack.
STACK_SUFFIX = "-in-stack"


def serve() -> None:
    """Answer the engine until it ends this process."""
    PolicyPack(NAME, policies(RULES), enforcement_level=EnforcementLevel.MANDATORY)


def policies(rules: Sequence[Rule]) -> list[Policy]:
    """Return the policies: one for each rule, and one more where it needs the whole stack."""
    made: list[Policy] = []
    for rule in rules:
        severity = Severity(rule.severity)
        if rule.find is not None:
            schema = PolicyConfigSchema(dict(rule.config_schema)) if rule.config_schema else None
            validate = _of_resource(rule, rule.find)
            made.append(
                ResourceValidationPolicy(
                    rule.name, rule.title(), validate, config_schema=schema, severity=severity
                )
            )
        if rule.find_in_stack is not None:
            check = _of_stack(rule, rule.find_in_stack)
            made.append(
                StackValidationPolicy(rule.name + STACK_SUFFIX, rule.title(), check, severity=severity)
            )
    return made


def _of_resource(rule: Rule, find: Find) -> ResourceValidation:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = Resource(args.resource_type, args.name, plain(args.props), args.urn)
        for finding in find(resource, args.get_config()):
            report(rule.details(resource, finding), None)

    return validate


def _of_stack(rule: Rule, find: FindInStack) -> StackValidation:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [Resource(r.resource_type, r.name, plain(r.props), r.urn) for r in args.resources]
        for resource, finding in find(resources):
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
