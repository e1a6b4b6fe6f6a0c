"""What a preview knows of a model, without its weights: from its lock, and what is kept beside the lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from modelcar.layouts import config_of
from modelcar.lock import Lock
from modelcar.model_config import as_transformers, read_kept


@dataclass(frozen=True)
class KnownModel:
    """A model's files and configurations.

    files: SHA-256 of each, by path; empty where it is not known. kept: the configurations that are beside the
    lock, by path. complete: whether files are all that there are. size: bytes of all of them; None where that
    is not known. teller: what tells of them.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    complete: bool = True
    size: int | None = None
    teller: str = "the model's lock"

    @classmethod
    def of(cls, lock: Lock, folder: Path) -> KnownModel:
        """Read it from a lock's folder.

        Raises:
            InputError: a configuration is not the one that was locked.
        """
        return cls(
            {file.path: file.sha256 for file in lock.files}, read_kept(lock, folder), size=lock.total_size
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's configuration as Transformers names its parts; empty where it is not kept."""
        return as_transformers(self.kept, set(self.files))

    @property
    def has_config(self) -> bool:
        """Whether the model has a configuration that vLLM finds."""
        return config_of(self.files) is not None

    def has_folder(self, path: str) -> bool:
        """Tell whether the model has a folder; the model's own is the empty path."""
        return not path or any(file.startswith(f"{path}/") for file in self.files)
