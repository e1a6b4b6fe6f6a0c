"""Names of images as the kubelet and containerd read them, as patterns for policies (RE2).

A registry answers to more names than the one that it is known by: hosts take capitals, `:443` is HTTPS' own
port, and Docker Hub is left out or has three names (github.com/distribution/reference, `normalize.go`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelcar.oci_names import REGISTRY

_HUB = "docker.io"
_HUB_HOSTS = r"(?:(?i:(?:index\.|registry-1\.)?docker\.io)(?::443)?/)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"(?::\w[\w.-]{0,127})?"
_DIGEST = "@sha256:[0-9a-f]{64}"

#: By digest, and by nothing that somebody else can move.
PINNED = rf"^[^@\s]+{_DIGEST}$"
#: An image's own identifier, which means whatever a node already has.
IDENTIFIER = "^sha256:"


def below(registry: str) -> str:
    """Return a pattern of all names of images below a registry's path, in any spelling.

    Args:
        registry: HOST[:PORT]/PATH.
    """
    return f"{_place(registry)}/"


def within(repository: str) -> str:
    """Return a pattern of all names of a repository's own images, in any spelling.

    Args:
        repository: HOST[:PORT]/PATH.
    """
    return f"{_place(repository)}(?:[:@]|$)"


def _place(name: str) -> str:
    """Return a pattern of a registry's path, in any spelling of its host."""
    host, _, path = name.partition("/")
    if host.lower() in {_HUB, f"index.{_HUB}", f"registry-1.{_HUB}"}:
        return f"^{_HUB_HOSTS}{re.escape(path)}"
    name, _, port = host.partition(":")
    # Without a port it is 443, or 80 without TLS; who wrote one of them may be named without it.
    shown = f":{port}" if port not in {"", "443", "80"} else "(?::443|:80)?"
    return f"^(?i:{re.escape(name)}){shown}/{re.escape(path)}"


def allowed(registry: str, repositories: Sequence[str]) -> str:
    """Return a pattern of pinned images below a registry, or in one of the repositories or below them.

    Each place is taken as it is spelt, so that another spelling is another place, and refused.
    """
    places = [f"{re.escape(registry)}/{_COMPONENT}", *map(re.escape, repositories)]
    return rf"^(?:{'|'.join(places)})(?:/{_COMPONENT})*{_TAG}{_DIGEST}$"


def repository_of(image: str) -> str:
    """Return an image's name without tag and digest, as it is spelt."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def is_repository(name: str) -> bool:
    """Tell whether it names a repository by its host: HOST[:PORT]/PATH, without tag and digest."""
    host = name.partition("/")[0]
    return bool(REGISTRY.fullmatch(name)) and (bool(set(".:") & set(host)) or host == "localhost")
