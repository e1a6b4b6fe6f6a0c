"""Names of repositories: of mirrors, which layers may come from before the hub, and of those they go to."""

from __future__ import annotations

import re

from modelcar import oci_names

_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
#: HOST[:PORT]/PATH (OCI distribution specification 1.1, `<name>`).
_MIRROR = re.compile(rf"{_HOST}(?:/{_COMPONENT})+")

ALLOWED = "HOST[:PORT]/PATH of a repository, in lower case, without scheme, tag and digest"
_EXAMPLE = "name the repository alone, for example europe-docker.pkg.dev/PROJECT/REPO/MODEL"


def fault_of_mirror(text: object) -> tuple[str, str] | None:
    """Return why a text names no mirror, and the fix; None where it does."""
    return _fault(text, ", and layers are looked for by their own digests")


def fault_of_repository(text: object) -> tuple[str, str] | None:
    """Return why a text names no repository to send to, and the fix; None where it does."""
    return _fault(text, "")


def _fault(text: object, unpinned: str) -> tuple[str, str] | None:
    """Look at a name; unpinned: why it has neither tag nor digest."""
    if not isinstance(text, str):
        return "not a repository's name", _EXAMPLE
    if "://" in text:
        rest = text.partition("://")[2]
        if "@" in rest.partition("/")[0]:
            return "has a scheme and credentials", f"{_EXAMPLE}, and `docker login` for its credentials"
        return "has a scheme", f"write {rest.partition('@')[0]}"
    name, at, _ = text.partition("@")
    if at:
        return f"has a digest{unpinned}", f"write {name}"
    last = text.rpartition("/")[2]
    if "/" in text and ":" in last:
        fix = f"write {text[: -len(last)]}{last.partition(':')[0]}"
        return f"has a tag{unpinned}", fix
    if not _MIRROR.fullmatch(text):
        return "not the name of a repository", _EXAMPLE
    return oci_names.fault_of_host(text)
