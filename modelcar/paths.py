"""Which names of files a model may have: they become names in an image, and part of what is printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

#: Unicode categories that a name may not hold: control, surrogate (bytes that are not UTF-8), line ends.
BAD_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})

#: What a file or folder may be called by (NAME_MAX of ext4 and xfs).
NAME_BYTES = 255


def printable(path: str) -> str:
    """Return a name with everything escaped that a terminal would act on."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in BAD_CATEGORIES else c for c in path)


def fault_of_name(path: str) -> tuple[str, str, str] | None:
    """Return what is wrong with a file's path in a model: what was found, what is allowed, and the fix."""
    if any(unicodedata.category(character) in BAD_CATEGORIES for character in path):
        found = "a name with a control character, or one that is not UTF-8"
        return found, "printable names, spaces included", "rename it"
    if PurePosixPath(path).is_absolute() or any(part in {"", ".", ".."} for part in path.split("/")):
        return "a path that leads out of the model's folder", "relative paths without ..", "rename it"
    if any(len(part.encode()) > NAME_BYTES for part in path.split("/")):
        found = f"a name of more than {NAME_BYTES} bytes, which no node's disk takes"
        return found, f"names of at most {NAME_BYTES} bytes", "rename it"
    if any(part.startswith(".wh.") for part in path.split("/")):
        return "a name that deletes a file in an image layer", "names without .wh.", "rename it"
    return None


def same_but_for_case(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of files or folders whose names become one where case or accents do not count."""
    seen: dict[str, str] = {}
    for file in sorted(paths):
        for path in [*(str(parent) for parent in PurePosixPath(file).parents), file]:
            folded = unicodedata.normalize("NFC", path).casefold()
            other = seen.setdefault(folded, path)
            if other != path:
                yield path, other
                seen[folded] = path
