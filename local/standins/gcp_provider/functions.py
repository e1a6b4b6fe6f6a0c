"""The provider's functions (data sources) that the stand-in has, answered from "the cloud"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local.standins.gcp_provider import made_up, operations
from local.standins.gcp_provider.cloud import Document, GoogleError, project_number
from local.standins.gcp_provider.findings import Finding
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.names import PROJECT, check_form
from local.standins.gcp_provider.resources import Kind
from local.standins.gcp_provider.sdk_types import Field, ListOf, ObjectOf, Type, fields, function_fields
from local.standins.gcp_provider.settings import Settings
from local.standins.gcp_provider.type_check import check_object


@dataclass(frozen=True)
class Function:
    """One function: where pulumi_gcp declares it, and which type of resource it looks up ("" for none)."""

    module: str
    name: str
    result: str
    kind: str

    def arguments(self) -> dict[str, Field]:
        """Return what it takes."""
        return function_fields(self.module, self.name)


_PROJECT: Final = "gcp:organizations/getProject:getProject"
FUNCTIONS: Final = {
    "gcp:container/getCluster:getCluster": Function(
        "container/get_cluster", "get_cluster", "GetClusterResult", "gcp:container/cluster:Cluster"
    ),
    "gcp:artifactregistry/getRepository:getRepository": Function(
        "artifactregistry/get_repository",
        "get_repository",
        "GetRepositoryResult",
        "gcp:artifactregistry/repository:Repository",
    ),
    "gcp:serviceaccount/getAccount:getAccount": Function(
        "serviceaccount/get_account", "get_account", "GetAccountResult", "gcp:serviceaccount/account:Account"
    ),
    _PROJECT: Function("organizations/get_project", "get_project", "GetProjectResult", ""),
}


def check_arguments(token: str, arguments: dict[str, Any], settings: Settings) -> list[Finding]:
    """Return what is wrong with the arguments of a function."""
    function = FUNCTIONS[token]
    found = [*check_object(arguments, function.arguments())]
    name = "projectId" if token == _PROJECT else "project"
    found += check_form(arguments, (name,), PROJECT)
    if arguments.get(name) is None and not settings.project:
        found.append(Finding((name,), PROJECT.allowed, f"pulumi config set gcp:project {PROJECT.example}"))
    if function.kind:
        kind = KINDS[function.kind]
        given = _named(kind, arguments)
        resolved = kind.resolve(given, settings)
        for key in (kind.name_property, kind.place):
            if key and resolved.get(key) is None:
                found.append(Finding((key,), "a value", f"give {key}"))
    return found


def call(token: str, arguments: dict[str, Any], settings: Settings, document: Document) -> dict[str, Any]:
    """Return the result of a function for arguments that were checked.

    Raises:
        GoogleError: what it looks up is not there.
    """
    function = FUNCTIONS[token]
    if token == _PROJECT:
        return _project(str(arguments.get("projectId") or settings.project), document)
    kind = KINDS[function.kind]
    resolved = kind.resolve(_named(kind, arguments), settings)
    operations.require_project(document, resolved["project"])
    name = str(kind.resource_name(resolved))
    entry = document["resources"].get(name)
    if entry is None:
        raise GoogleError(
            404, f"Not found: {name}., notFound", fix="check project, location and name, or create it first"
        )
    state = {**entry["state"], "id": kind.resource_id(resolved)}
    if kind.class_name == "Cluster":
        state |= made_up.live_cluster(state)
    shaped = _shaped(state, fields(function.module, function.result).items())
    return {**shaped, **{key: item for key, item in arguments.items() if item is not None}}


def _named(kind: Kind, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as inputs of the resource; an account may be given by its address or full name."""
    given = dict(arguments)
    account = given.get("accountId")
    if kind.class_name == "Account" and isinstance(account, str):
        given["accountId"], _, domain = account.rpartition("/")[2].partition("@")
        if domain:
            given.setdefault("project", domain.partition(".")[0])
    return given


def _shaped(state: Mapping[str, Any], wanted: Iterable[tuple[str, Field]]) -> dict[str, Any]:
    """Return state in the form of a function's result, where every block is in a list with a plural name."""
    result: dict[str, Any] = {}
    for name, field in wanted:
        singular = f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
        value = state.get(name, state.get(singular))
        if value is not None:
            result[name] = _fit(value, field.type)
        elif isinstance(field.type, ListOf):
            result[name] = []
    return result


def _fit(value: Any, wanted: Type) -> Any:
    if isinstance(wanted, ListOf):
        return [_fit(item, wanted.item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(wanted, ObjectOf) and isinstance(value, dict):
        return _shaped(value, fields(wanted.module, wanted.name).items())
    return value


def _project(project: str, document: Document) -> dict[str, Any]:
    operations.require_project(document, project)
    known = (document.get("projects") or {}).get(project) or {}
    return {
        "id": f"projects/{project}",
        "projectId": project,
        "name": known.get("name", project),
        "number": project_number(document, project),
        "orgId": known.get("orgId", ""),
        "folderId": known.get("folderId", ""),
        "billingAccount": known.get("billingAccount", ""),
        "autoCreateNetwork": True,
        "deletionPolicy": "PREVENT",
        "labels": known.get("labels", {}),
        "effectiveLabels": known.get("labels", {}),
        "pulumiLabels": {},
        "tags": {},
    }
