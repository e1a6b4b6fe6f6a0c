"""Creating, changing and deleting resources in "the cloud", and what Google refuses while doing so."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from local.standins.gcp_provider.cloud import Document, GoogleError
from local.standins.gcp_provider.findings import at, text_at, true_at
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.resources import Kind

_API_TITLES: Final = {
    "artifactregistry.googleapis.com": "Artifact Registry API",
    "cloudresourcemanager.googleapis.com": "Cloud Resource Manager API",
    "compute.googleapis.com": "Compute Engine API",
    "container.googleapis.com": "Kubernetes Engine API",
    "iam.googleapis.com": "Identity and Access Management (IAM) API",
}
_OWN_ACCOUNT = re.compile(r"(?:serviceAccount:)?[^@\[\]/]+@([a-z0-9-]+)\.iam\.gserviceaccount\.com")
_POOL = re.compile(r"(?:serviceAccount:|.*workloadIdentityPools/)([a-z0-9-]+)\.svc\.id\.goog\b.*")
# What holds on to a resource by one of its properties: deleting it is refused while such a one is there.
_HOLDERS: Final = ("network", "subnetwork")
_SERVICE: Final = "gcp:projects/service:Service"


class ProtectedError(Exception):
    """A resource that the program itself protects against deletion."""


def require_project(document: Document, project: str) -> None:
    """Refuse a project that is not among those the file lists (where it lists any)."""
    listed = document.get("projects")
    if listed and project not in listed:
        raise GoogleError(
            403,
            f"Permission denied on resource project {project}., forbidden",
            fix="check the project id (gcp:project), or add it to `projects` of the stand-in's file",
        )


def create(document: Document, kind: Kind, name: str, state: dict[str, Any]) -> None:
    """Add a resource.

    Raises:
        GoogleError: its API is off, what it refers to is missing, or it exists already.
    """
    project = str(state["project"])
    require_project(document, project)
    if kind.token == _SERVICE:
        enabled = document["enabled"].setdefault(project, [])
        if state["service"] not in enabled:
            enabled.append(state["service"])
            enabled.sort()
        document["resources"][name] = {"type": kind.token, "state": state}
        return
    _require_api(document, kind.api, project)
    _require_parents(document, kind, state, project)
    if name in document["resources"] and not kind.shareable:
        raise GoogleError(
            409,
            f"Already exists: {name}., alreadyExists",
            fix=f"`pulumi import {kind.token} NAME {kind.resource_id(state)}`, or choose another name",
        )
    document["resources"][name] = {"type": kind.token, "state": state}


def update(document: Document, kind: Kind, name: str, state: dict[str, Any]) -> None:
    """Change a resource.

    Raises:
        GoogleError: it is gone, its API is off, or what it now refers to is missing.
    """
    if name not in document["resources"]:
        raise GoogleError(
            404, f"Not found: {name}., notFound", fix="run `pulumi refresh`, then run the command again"
        )
    project = str(state["project"])
    _require_api(document, kind.api, project)
    _require_parents(document, kind, state, project)
    document["resources"][name]["state"] = state


def delete(document: Document, kind: Kind, name: str, state: Mapping[str, Any]) -> None:
    """Remove a resource and what lies inside it; one that is gone already is fine.

    Raises:
        GoogleError: another resource still uses it.
        ProtectedError: the resource is protected against deletion.
    """
    if state.get("deletionPolicy") == "PREVENT":
        raise ProtectedError(
            f"{kind.title} {name}: deletionPolicy is PREVENT. fix: set it to DELETE and run `up` first"
        )
    if state.get("deletionPolicy") == "ABANDON":
        return
    if kind.class_name == "Cluster" and state.get("deletionProtection") is True:
        raise ProtectedError(
            f"Cannot destroy cluster {name} because deletionProtection is true. "
            "fix: set deletion_protection=False and run `pulumi up` first"
        )
    resources = document["resources"]
    for other, entry in sorted(resources.items()):
        if other != name and name in _references(entry):
            raise GoogleError(
                400,
                f"The {kind.title} resource '{name}' is already being used by '{other}', "
                "resourceInUseByAnotherResource",
                fix=f"delete {other} first",
            )
    for other in [other for other in resources if other == name or other.startswith(f"{name}/")]:
        del resources[other]
    if kind.token == _SERVICE and state.get("disableOnDestroy") is True:
        project, service = str(state["project"]), str(state["service"])
        document["enabled"][project] = [
            item for item in document["enabled"].get(project, []) if item != service
        ]


def _references(entry: Mapping[str, Any]) -> set[str]:
    kind, state = KINDS[entry["type"]], entry["state"]
    names = kind.parent_names(state)
    return {names[holder] for holder in _HOLDERS if holder in names}


def _require_api(document: Document, api: str, project: str) -> None:
    if api and api not in document["enabled"].get(project, []):
        raise GoogleError(
            403,
            f"{_API_TITLES[api]} has not been used in project {project} before or it is disabled. Enable it "
            f"by visiting https://console.developers.google.com/apis/api/{api}/overview?project={project} "
            "then retry., reason: SERVICE_DISABLED",
            fix=f'declare gcp.projects.Service(..., service="{api}") and let this resource depend on it; or, '
            f'if the real project has it, add it to `enabled["{project}"]` of the stand-in\'s file',
        )


def _require_parents(document: Document, kind: Kind, resolved: Mapping[str, Any], project: str) -> None:
    resources = document["resources"]
    for key, parent in kind.parent_names(resolved).items():
        elsewhere = not parent.startswith(f"projects/{project}/")  # a shared VPC; not ours to know
        if parent in resources or elsewhere or parent.endswith("/networks/default"):
            continue
        if key == "subnetwork" and parent.endswith("/default"):
            continue
        raise GoogleError(
            404,
            f"Not found: {parent}., notFound",
            fix=f"create it first, and give {key} as an output of that resource so that the order is kept",
        )
    if "role" in kind.replacing:  # a grant; an account has a `member` too, which is itself
        _require_account(document, resolved.get("member"), project)
        _require_pool(document, resolved.get("member"), project)
    _require_account(document, at(resolved, "nodeConfig", "serviceAccount"), project)
    if kind.class_name == "NodePool":
        cluster = resources[kind.parent_names(resolved)["cluster"]]["state"]
        if true_at(cluster, "enableAutopilot"):
            raise GoogleError(
                400,
                "Autopilot node pools cannot be accessed or modified., badRequest",
                fix="leave the node pool out, or make the cluster without enableAutopilot",
            )
    if kind.class_name == "Cluster":
        _require_ranges(document, kind, resolved)
    if kind.class_name == "Subnetwork":
        _require_free_range(document, kind, resolved)


def _require_account(document: Document, reference: Any, project: str) -> None:
    """A service account of the same project has to be there; one of another project is not ours to know."""
    match = _OWN_ACCOUNT.fullmatch(reference) if isinstance(reference, str) else None
    if match is None or match[1] != project:
        return
    email = str(reference).removeprefix("serviceAccount:")
    if f"projects/{project}/serviceAccounts/{email}" not in document["resources"]:
        raise GoogleError(
            400,
            f"Service account {email} does not exist., badRequest",
            fix="declare it, and give its `email` or `member` output instead of a text",
        )


def _require_pool(document: Document, member: Any, project: str) -> None:
    """https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity: a cluster makes the pool."""
    match = _POOL.fullmatch(member) if isinstance(member, str) else None
    if match is None or match[1] != project:
        return
    for name, entry in document["resources"].items():
        if entry["type"].endswith(":Cluster") and name.startswith(f"projects/{project}/"):
            state = entry["state"]
            if text_at(state, "workloadIdentityConfig", "workloadPool") or true_at(state, "enableAutopilot"):
                return
    raise GoogleError(
        400,
        f"Identity Pool does not exist ({project}.svc.id.goog). Please check that you specified a valid "
        "resource name as returned in the `name` attribute in the configuration API., badRequest",
        fix="the first cluster with workloadIdentityConfig makes it: let the grant depend on the cluster",
    )


def _require_ranges(document: Document, kind: Kind, resolved: Mapping[str, Any]) -> None:
    """The secondary ranges that a cluster names have to be in its subnetwork."""
    parent = kind.parent_names(resolved).get("subnetwork", "")
    subnetwork = document["resources"].get(parent, {}).get("state")
    if subnetwork is None:
        return
    there = [item.get("rangeName") for item in subnetwork.get("secondaryIpRanges") or []]
    for key in ("clusterSecondaryRangeName", "servicesSecondaryRangeName"):
        wanted = text_at(resolved, "ipAllocationPolicy", key)
        if wanted and wanted not in there:
            listed = ", ".join(map(str, there)) or "none"
            raise GoogleError(
                400,
                f'secondary range "{wanted}" does not exist in {parent} (it has: {listed})., badRequest',
                fix=f"give {key} the rangeName of one of the subnetwork's secondaryIpRanges",
            )


def _require_free_range(document: Document, kind: Kind, resolved: Mapping[str, Any]) -> None:
    """Ranges of one network do not overlap: https://cloud.google.com/vpc/docs/subnets."""
    own, network = kind.resource_name(resolved), kind.parent_names(resolved).get("network")
    for name, entry in document["resources"].items():
        if (
            entry["type"] != kind.token
            or name == own
            or kind.parent_names(entry["state"]).get("network") != network
        ):
            continue
        for new in _ranges(resolved):
            for old in _ranges(entry["state"]):
                if new.version == old.version and new.overlaps(old):
                    raise GoogleError(
                        400,
                        f"Invalid IPCidrRange: {new} conflicts with '{name}' ({old})., badRequest",
                        fix="choose a range that is free",
                    )


def _ranges(state: Mapping[str, Any]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    texts = [
        state.get("ipCidrRange"),
        *(item.get("ipCidrRange") for item in state.get("secondaryIpRanges") or []),
    ]
    return [ipaddress.ip_network(text) for text in texts if isinstance(text, str) and text]
