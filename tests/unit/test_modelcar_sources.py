"""Where a model's bytes come from: what is told of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelcar.sources import FolderFiles, HubFiles, JoinedFiles, Source
from modelcar.weights import Weights

COUNT = 50


@dataclass
class Counted:
    """A file whose size is counted each time that somebody asks for it."""

    path: str
    asked: list[str]
    sha256: str | None = None

    @property
    def size(self) -> int:
        self.asked.append(self.path)
        return 1


def source(kind: str, asked: list[str]) -> Source:
    files: list[Any] = [Counted(f"{number}.safetensors", asked) for number in range(COUNT)]
    if kind == "folder":
        return FolderFiles(Weights(Path(), tuple(files), 0, None, 0))
    if kind == "hub":
        return HubFiles("owner/name", "c" * 40, files)
    first, second = files[: COUNT // 2], files[COUNT // 2 :]
    return JoinedFiles(HubFiles("a/b", "c" * 40, first), HubFiles("a/b", "c" * 40, second))


@pytest.mark.parametrize("kind", ["folder", "hub", "joined"])
def test_each_size_is_asked_for_once_however_many_files_there_are(kind: str) -> None:
    """Sizes are asked for with each file: 8,000 files took more than a minute, with nothing read."""
    asked: list[str] = []
    files = source(kind, asked)
    for number in range(COUNT):
        path = f"{number}.safetensors"
        assert files.sizes[path] == 1
        assert files.sha256(path) is None
    assert len(files.sizes) == COUNT
    assert len(asked) == COUNT
