"""The files of an image, as far as the beginnings of its layers tell: later layers win over earlier ones."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelcar.layer_head import Entry, LayerHead

#: How layers delete what earlier ones have (OCI image specification 1.1, layer.md).
_GONE, _ALL_GONE = ".wh.", ".wh..wh..opq"
#: Links that are followed for one path, as Linux has it.
_MOST_LINKS = 40


@dataclass(frozen=True)
class ImageFiles:
    """files: by path, without a leading slash. config: the model's config.json, where it was read.

    unread_models: whether a layer that was not read to its end may have more below /models.
    unread_programs: the same of everything beside it. why: what ended the reading.
    """

    files: Mapping[str, Entry]
    config: bytes | None
    unread_models: bool
    unread_programs: bool
    why: tuple[str, ...] = ()

    @classmethod
    def of(cls, heads: Sequence[LayerHead], models_only: Sequence[bool]) -> ImageFiles:
        """Put layers together, the first one at the bottom.

        Args:
            heads: what was read of them; of the later ones of very many nothing was.
            models_only: of each layer, whether it is known to have files below /models only.
        """
        files: dict[str, Entry] = {}
        config = None
        for head in heads:
            for path in head.files:
                folder, name = posixpath.split(path)
                if name.startswith(_GONE):
                    gone = folder if name == _ALL_GONE else posixpath.join(folder, name[len(_GONE) :])
                    files = _without(files, gone, itself=name != _ALL_GONE)
            files |= {
                path: entry
                for path, entry in head.files.items()
                if not posixpath.basename(path).startswith(_GONE)
            }
            config = head.config or config
        partial = [number for number, head in enumerate(heads) if not head.whole]
        partial += range(len(heads), len(models_only))
        reasons = dict.fromkeys(head.why for head in heads if not head.whole and not head.files and head.why)
        return cls(
            files,
            config,
            unread_models=bool(partial),
            unread_programs=any(not models_only[number] for number in partial),
            why=tuple(reasons),
        )

    def find(self, path: str) -> Entry | None:
        """Return what is at a path, links followed inside of the image; None where nothing is seen."""
        return self.files.get(self.real(path))

    def real(self, path: str) -> str:
        """Return where a path leads to, links followed inside of the image; "" where they go in a ring."""
        parts = [part for part in path.split("/") if part not in {"", "."}]
        there = ""
        for _ in range(_MOST_LINKS):
            for number, part in enumerate(parts):
                step = posixpath.normpath(posixpath.join("/", there, part)).lstrip("/")
                entry = self.files.get(step)
                if entry is not None and entry.kind == "link":
                    target = posixpath.join("/", posixpath.dirname(step), entry.target)
                    parts = [*target.split("/")[1:], *parts[number + 1 :]]
                    there = ""
                    break
                there = step
            else:
                return there
        return ""

    def below(self, folder: str) -> list[str]:
        """Return the paths below a folder."""
        return [path for path in self.files if path.startswith(f"{folder}/")]

    def elsewhere(self, name: str) -> str | None:
        """Return the path of a file of this name anywhere."""
        return next((path for path in self.files if posixpath.basename(path) == name), None)

    def leads_out(self, path: str) -> bool:
        """Tell whether it is a link that another container would follow in its own file system."""
        entry = self.files.get(path)
        return entry is not None and entry.kind == "link" and entry.target.startswith("/")

    def closed_to(self, path: str, user: int) -> bool:
        """Tell whether a user may not read a file or folder."""
        entry = self.files.get(path)
        return entry is not None and entry.kind in {"file", "folder"} and not entry.readable_by(user)


def _without(files: dict[str, Entry], gone: str, *, itself: bool) -> dict[str, Entry]:
    return {
        path: entry
        for path, entry in files.items()
        if not path.startswith(f"{gone}/") and not (itself and path == gone)
    }
