"""Starts the components for other languages, and refuses what Pulumi's mapping would drop or misread."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, main
from pulumi.provider.experimental.component import ComponentProvider

#: Why a value is refused: it is not there yet when the component is made; or it is no section.
_LATER = (
    "an output of another resource, or something with a secret in it\n"
    "    allowed: a plain value; docs/package.md says which arguments may be outputs\n"
    "    fix: write its values down, or read them from the stack's configuration"
)
_NO_SECTION = "not a section\n    allowed: an object with keys\n    fix: write KEY: VALUE below it"


class PlainSections(ComponentProvider):
    """A component provider that takes no output where its schema says `plain`.

    Pulumi's own maps a section that is an output, or no object, to an empty one: an image would be left
    unsigned, and a pod would get the default GPU. Typed SDKs refuse such a program; YAML does not, nor does a
    program without an SDK.
    """

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        """Make a component.

        Raises:
            pulumi.InputPropertiesError: with each argument that is no plain value where one is needed.
        """
        schema = json.loads(self.schema or "{}")
        properties = schema["resources"].get(resource_type, {}).get("inputProperties", {})
        if found := list(_faults(inputs, properties, schema["types"])):
            errors = [{"property_path": place, "reason": reason} for place, reason in found]
            raise pulumi.InputPropertiesError(f"{name}: the arguments are not fit", errors)
        return super().construct(name, resource_type, inputs, options)


def serve(components: list[type[pulumi.ComponentResource]], name: str, version: str) -> None:
    """Serve components as Pulumi starts a provider.

    Args:
        components: their classes. name: of the package. version: of the package, and of its SDKs.
    """
    main(PlainSections(components, name, None, version), sys.argv[1:])


def _faults(
    values: Mapping[str, Any], properties: Mapping[str, Any], types: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the place of each value that has to be plain and is not, and the reason."""
    for name, known in properties.items():
        if known.get("plain") and (value := values.get(name)) is not None:
            yield from _faults_of(value, known, types, f"{above}{name}")


def _faults_of(
    value: Any, known: Mapping[str, Any], types: Mapping[str, Any], place: str
) -> Iterator[tuple[str, str]]:
    section = types.get(str(known.get("$ref", "")).removeprefix("#/types/"))
    if isinstance(value, pulumi.Output | type(pulumi.UNKNOWN)):
        yield place, _LATER
    elif section and not isinstance(value, Mapping):
        yield place, _NO_SECTION
    elif section:
        yield from _faults(value, section["properties"], types, f"{place}.")
    elif isinstance(value, Mapping) and "$ref" in known.get("additionalProperties", {}):
        # Of texts by name there are also labels, which Google's provider takes as outputs.
        for key, one in value.items():
            yield from _faults_of(one, known["additionalProperties"], types, f"{place}.{key}")
    elif isinstance(value, list) and "items" in known:
        for number, one in enumerate(value):
            yield from _faults_of(one, known["items"], types, f"{place}[{number}]")
