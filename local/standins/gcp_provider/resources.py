"""What a resource type is: where it is declared, how it is named, what it refers to, what replaces it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.standins.gcp_provider import sdk_types
from local.standins.gcp_provider.findings import text_at
from local.standins.gcp_provider.settings import Settings

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Kind:
    """One resource type.

    module, class_name: where pulumi_gcp declares it.
    title: what messages call it.
    api: the API that has to be enabled, "" where none.
    resource: its Google resource name, the key in "the cloud"; id: what the official provider gives as id.
        Both are templates over input names; `{name}` is the property that name_property says.
    place: the property that says where it is (location or region), "" for global ones.
    name_property: the property that names it; autoname: the longest name made up for it, 0 where none is.
    replacing: properties (dotted, without list indexes) under which a change needs a new resource.
    in_place: exceptions from replacing.
    read_back: blocks (dotted) that the provider compares as Google reports them, though no program gave them:
        in its schema they are optional and not computed.
    forced: properties (dotted) with the setting (dotted) that makes Google choose their value where it is
        false: the provider then compares nothing.
    parents: properties that name another resource, with the template of that resource's name.
    shareable: creating what is there already is no error (grants and services, which are only added).
    """

    token: str
    module: str
    title: str
    api: str
    resource: str
    id: str
    place: str = ""
    name_property: str = "name"
    autoname: int = 0
    replacing: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    read_back: tuple[str, ...] = ()
    forced: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    shareable: bool = False

    @property
    def class_name(self) -> str:
        """The class in pulumi_gcp."""
        return self.token.rpartition(":")[2]

    def inputs(self) -> dict[str, sdk_types.Field]:
        """Return the properties that a program can give."""
        return sdk_types.fields(self.module, f"{self.class_name}Args")

    def outputs(self) -> dict[str, sdk_types.Field]:
        """Return the properties that the resource has once it exists."""
        return sdk_types.fields(self.module, f"_{self.class_name}State")

    def resolve(self, inputs: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        """Return plain inputs with project and place filled in from the provider's settings.

        A network, router or cluster that is given by its full name or URL has the project in it.
        """
        resolved = dict(inputs)
        if resolved.get("project") is None and settings.project:
            resolved["project"] = settings.project
        if self.place and resolved.get(self.place) is None:
            found = settings.region or settings.zone.rpartition("-")[0]
            if self.place == "location" and self.token.startswith("gcp:container/"):
                found = settings.zone or settings.region
            for parent in ("cluster", "repository"):  # given by its full name, it says where it is
                within = re.search(r"locations/([^/]+)/", text_at(inputs, parent) or "")
                found = within[1] if within else found
            if found:
                resolved[self.place] = found
        return resolved

    def resource_name(self, resolved: Mapping[str, Any]) -> str | None:
        """Return the key in "the cloud", None where a part of it is unknown or missing."""
        return self._filled(self.resource, resolved)

    def resource_id(self, resolved: Mapping[str, Any]) -> str:
        """Return the id; only for complete inputs."""
        return self._filled(self.id, resolved) or ""

    def parent_names(self, resolved: Mapping[str, Any]) -> dict[str, str]:
        """Return the resources that have to exist, by the property that refers to them."""
        # A cluster says its location, its subnetwork lies in the region of that.
        location = text_at(resolved, "location") or ""
        values = {"region": "-".join(location.split("-")[:2]), **resolved}
        found = {}
        for name, template in self.parents.items():
            given = text_at(resolved, name)
            full = self._filled(template, values)
            if given and "projects/" in given:
                found[name] = given[given.index("projects/") :]
            elif given and full:
                found[name] = full
        return found

    def parse(self, id: str) -> dict[str, str] | None:
        """Return the inputs that an id says (for an import), None where it has no known form."""
        short = "/".join(f"{{{name}}}" for name in dict.fromkeys(_PLACEHOLDER.findall(self.resource)))
        for template in (self.id, self.resource, short):
            match = re.fullmatch(_pattern(template), id.replace(" ", "/"))
            if match:
                values = match.groupdict()
                if "name" in values:
                    values[self.name_property] = values.pop("name")
                return values
        return None

    def _filled(self, template: str, resolved: Mapping[str, Any]) -> str | None:
        values: dict[str, str] = {}
        for name in _PLACEHOLDER.findall(template):
            value = resolved.get(self.name_property if name == "name" else name)
            if not isinstance(value, str):  # missing or unknown
                return None
            values[name] = value if name in ("role", "member") else value.rpartition("/")[2]
        return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _pattern(template: str) -> str:
    """Return the regular expression of what a template gives."""
    pattern, seen = "", set[str]()
    for index, text in enumerate(_PLACEHOLDER.split(template)):
        if index % 2 == 0:
            pattern += re.escape(text)
        elif text in seen:
            pattern += f"(?P={text})"
        else:
            # Only a role and a member may hold a slash.
            pattern += f"(?P<{text}>{'.+' if text in ('role', 'member') else '[^/ ]+'})"
            seen.add(text)
    return pattern
