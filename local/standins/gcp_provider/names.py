"""Forms that Google's names have. Each rule says where Google wrote it down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from local.standins.gcp_provider.findings import Finding, Path, at, text_at


@dataclass(frozen=True)
class Form:
    """What a text has to look like; allowed: the same in words."""

    pattern: re.Pattern[str]
    allowed: str
    example: str


def _form(pattern: str, allowed: str, example: str) -> Form:
    return Form(re.compile(pattern), allowed, example)


# https://cloud.google.com/resource-manager/docs/creating-managing-projects (and domain-scoped ones)
PROJECT: Final = _form(
    r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
    "a project id: 6 to 30 lower-case letters, digits and hyphens, a letter first, no hyphen last",
    "my-project-1",
)
# https://cloud.google.com/compute/docs/regions-zones
REGION: Final = _form(r"[a-z]+-[a-z]+\d+", "a region, such as europe-west4", "europe-west4")
ZONE: Final = _form(
    r"[a-z]+-[a-z]+\d+-([a-z]|ai\d+[a-z])", "a zone, such as europe-west4-a", "europe-west4-a"
)
LOCATION: Final = _form(
    rf"{REGION.pattern.pattern}(-([a-z]|ai\d+[a-z]))?",
    "a region (europe-west4) or a zone (europe-west4-a)",
    "europe-west4",
)
# https://cloud.google.com/artifact-registry/docs/repositories/repo-locations
REGISTRY_LOCATION: Final = _form(
    rf"us|europe|asia|{REGION.pattern.pattern}",
    "a region such as europe-west4, or one of the multi-regions us, europe, asia",
    "europe-west4",
)
# https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/projects.locations.clusters#Cluster
GKE_NAME: Final = _form(
    r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
    "1 to 40 lower-case letters, digits and hyphens, a letter first, no hyphen last",
    "models",
)
# https://cloud.google.com/compute/docs/naming-resources
COMPUTE_NAME: Final = _form(
    r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
    "1 to 63 lower-case letters, digits and hyphens, a letter first, no hyphen last",
    "models",
)
# https://cloud.google.com/artifact-registry/docs/repositories/create-repos
REPOSITORY_ID: Final = _form(
    r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    "1 to 63 lower-case letters, digits and hyphens, a letter first, no hyphen last",
    "models",
)
# https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/create
ACCOUNT_ID: Final = _form(
    r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
    "6 to 30 lower-case letters, digits and hyphens, a letter first, no hyphen last",
    "model-reader",
)
# https://cloud.google.com/service-usage/docs/reference/rest/v1/services
SERVICE: Final = _form(
    r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)*\.(googleapis\.com|cloud\.goog)",
    "the full name of an API, such as container.googleapis.com",
    "container.googleapis.com",
)
# https://cloud.google.com/compute/docs/labeling-resources#requirements
LABEL_KEY: Final = _form(
    r"[a-z\u00df-\uffff][\w-]{0,62}",
    "1 to 63 lower-case letters, digits, _ and -, a letter first",
    "team",
)
LABEL_VALUE: Final = _form(r"[\w-]{0,63}", "at most 63 lower-case letters, digits, _ and -", "search")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
NODE_LABEL_KEY: Final = _form(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?",
    "a Kubernetes label key: at most 63 letters, digits, - _ . after an optional domain/",
    "pool",
)
NODE_LABEL_VALUE: Final = _form(
    r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?",
    "a Kubernetes label value: at most 63 letters, digits, - _ . with a letter or digit at both ends",
    "gpu",
)
# https://cloud.google.com/kubernetes-engine/versioning
VERSION: Final = _form(
    r"latest|-|1\.\d+(\.\d+(-gke\.\d+)?)?|1\.X", "a GKE version: 1.33, 1.33.4, 1.33.4-gke.100, latest", "1.33"
)
_MOST_LABELS = 64


def check_form(inputs: Any, path: Path, form: Form) -> Iterator[Finding]:
    """Yield a finding where the text at a path is known and not of the form."""
    value = text_at(inputs, *path)
    if value is not None and form.pattern.fullmatch(value) is None:
        yield Finding(path, form.allowed, f"write it like {form.example}")


def check_labels(inputs: Any, *path: str | int) -> Iterator[Finding]:
    """Yield what is wrong with Google Cloud labels."""
    labels = at(inputs, *path)
    if not isinstance(labels, dict):
        return
    if len(labels) > _MOST_LABELS:
        yield Finding(path, f"at most {_MOST_LABELS} labels", "remove some")
    for key, value in labels.items():
        if LABEL_KEY.pattern.fullmatch(key) is None or key != key.lower():
            yield Finding((*path, key), f"as key {LABEL_KEY.allowed}", f"rename it, like {LABEL_KEY.example}")
        wrong = isinstance(value, str) and (
            LABEL_VALUE.pattern.fullmatch(value) is None or value != value.lower()
        )
        if wrong:
            yield Finding((*path, key), LABEL_VALUE.allowed, f"write it like {LABEL_VALUE.example}")


def check_node_labels(inputs: Any, *path: str | int) -> Iterator[Finding]:
    """Yield what is wrong with Kubernetes labels of nodes."""
    labels = at(inputs, *path)
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if NODE_LABEL_KEY.pattern.fullmatch(key) is None:
            yield Finding((*path, key), f"as key {NODE_LABEL_KEY.allowed}", "rename the label")
        elif is_reserved(key):
            yield Finding((*path, key), RESERVED, "use a domain of your own, such as example.org/pool")
        if isinstance(value, str) and NODE_LABEL_VALUE.pattern.fullmatch(value) is None:
            yield Finding((*path, key), NODE_LABEL_VALUE.allowed, "shorten or rename the value")


# https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
RESERVED: Final = "a key outside kubernetes.io and k8s.io, which Kubernetes keeps for itself"


def is_reserved(key: str) -> bool:
    """Say whether a node label's key is kept for Kubernetes itself."""
    domain = key.rpartition("/")[0]
    own = domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io"))
    return own and not domain.endswith(("node.kubernetes.io", "kubelet.kubernetes.io"))
