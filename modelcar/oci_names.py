"""Names of images: what a registry accepts, and the storage URI that KServe accepts.

The grammar is the OCI distribution specification's (`<name>` and digests) with Docker's reference rules for
the registry host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*(?::[0-9]{{1,5}})?"

NAME = re.compile(_COMPONENT)
REGISTRY = re.compile(rf"(?P<host>{_HOST})(?:/{_COMPONENT})+")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(
    rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[\w][\w.-]{{0,127}})?@sha256:[0-9a-f]{{64}}"
)

_HOST_AND_PORT = re.compile(r"(?P<name>[^:]*)(?::(?P<port>[0-9]{1,5}))?")

#: Longest repository name that registries accept, in characters.
LONGEST_NAME = 255


def fault_of_host(reference: str) -> tuple[str, str] | None:
    """Return why the first part of a reference is no registry's host, and the fix; None where it is one.

    Docker and Kubernetes read a first part without a dot, a port or `localhost` as an account on Docker Hub.
    """
    host, _, path = reference.partition("/")
    found = _HOST_AND_PORT.fullmatch(host)
    if found is None or (found["port"] and not 0 < int(found["port"]) < 2**16):
        return "has a port that does not exist", "use a port from 1 to 65535"
    if not found["port"] and "." not in host and host != "localhost":
        fix = f"for Docker Hub write docker.io/{reference}; for a registry of this name {host}:443/{path}"
        return "names no registry", fix
    return None


def fault_of_registry(text: object) -> tuple[str, str, str] | None:
    """Return why a text names no place in a registry, what is allowed, and the fix; None where it does."""
    allowed = "HOST[:PORT]/PATH, in lower case, without scheme and tag"
    if not isinstance(text, str) or not REGISTRY.fullmatch(text):
        why = "has a scheme" if isinstance(text, str) and "://" in text else "not a place in a registry"
        return why, allowed, "for example europe-docker.pkg.dev/PROJECT/REPO"
    if fault := fault_of_host(text):
        return fault[0], allowed, fault[1]
    return None


def is_digest(text: str) -> bool:
    """Tell whether the text is a sha256 digest (`sha256:` and 64 hexadecimal digits)."""
    return DIGEST.fullmatch(text) is not None


def storage_uri(registry: str, name: str, digest: str) -> str:
    """Return the URI that KServe pulls a modelcar by: by digest, never by tag.

    A tag would make Kubernetes pull the image at every start (imagePullPolicy Always), and would let
    somebody else's push change what is served.

    Raises:
        ValueError: the digest is not one; a preview's empty digest, above all, never gets into a URI.
    """
    if not is_digest(digest):
        raise ValueError(f"not a sha256 digest: {digest!r}; a storage URI is pinned by digest, never by tag")
    return f"oci://{registry}/{name}@{digest}"


def find_storage_uri(spec: Any) -> str | None:
    """Return the storage URI in an InferenceService's spec, wherever it is placed; None: there is none."""
    if isinstance(spec, str):
        return spec if spec.startswith("oci://") else None
    entries: Sequence[Any] = ()
    if isinstance(spec, Mapping):
        entries = list(spec.values())
    elif isinstance(spec, Sequence):
        entries = spec
    return next((found for entry in entries if (found := find_storage_uri(entry))), None)
