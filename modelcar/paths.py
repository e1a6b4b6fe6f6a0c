"""Which names of files a model may have: they become names in an image, and part of what is printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

#: Unicode categories that a name may not hold: control, surrogate (bytes that are not UTF-8), line ends.
BAD_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})

#: What a file or folder may be called by (NAME_MAX of ext4 and xfs).
NAME_BYTES = 255


#: Characters that change the order in which others are shown: what is read is not what is there
#: (https://trojansource.codes).
REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_bad(character: str) -> bool:
    """Tell whether a terminal would act on a character, or show something else than what is there."""
    return unicodedata.category(character) in BAD_CATEGORIES or character in REORDERING


def printable(text: str, *, but: str = "") -> str:
    """Return a text with everything escaped that a terminal would act on, but for characters of `but`."""
    return "".join(_escaped(c) if is_bad(c) and c not in but else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def fault_of_name(path: str) -> tuple[str, str, str] | None:
    """Return what is wrong with a file's path in a model: what was found, what is allowed, and the fix."""
    if any(is_bad(character) for character in path):
        found = "a name with a control character, or one that is not UTF-8 or not shown as it is"
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
