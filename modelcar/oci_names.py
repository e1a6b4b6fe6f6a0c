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

#: Longest repository name that registries accept, in characters.
LONGEST_NAME = 255


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
