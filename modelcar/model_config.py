"""The model's configurations beside its lock: what a preview has to know of a model without its weights.

Written by `python -m modelcar lock`, committed with the lock, and held to it by their hashes: `config.json`
beside the lock, others below `configs/` by their paths in the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelcar.errors import refuse
from modelcar.layouts import CONFIG as NAME
from modelcar.layouts import PARAMS, config_of
from modelcar.lock import Lock
from modelcar.oci_layout import replace_file

FOLDER = "configs"
#: What PEFT writes beside an adapter's weights.
ADAPTER = "adapter_config.json"

#: Configurations of Transformers that may name code (auto_map) beside config.json.
_OF_PARTS = (
    *("tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
    *("video_preprocessor_config.json", "generation_config.json"),
)

#: Tokens that vLLM takes a model for where Mistral's params.json does not say them (0.23,
#: transformers_utils/config.py).
MISTRAL_LENGTH = 128_000


def kept_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a model that are kept beside its lock."""
    there = set(paths)
    wanted = {NAME, config_of(there), *(path for path in there if path.endswith(f"/{ADAPTER}"))}
    return tuple(sorted(path for path in there if path in wanted))


def keep(folder: Path, paths: Iterable[str], content: Callable[[str], bytes]) -> None:
    """Write what a preview has to know of a model, in place of what a former lock kept.

    Args:
        folder: that the lock is in.
        paths: of the model's files.
        content: returns a file's content.
    """
    there = set(paths)
    found = {path: content(path) for path in kept_paths(there)}
    found |= {path: data for path in _OF_PARTS if path in there and _names_code(data := content(path))}
    kept = {_place(folder, path): data for path, data in found.items()}
    for place, data in kept.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, data)
    below = sorted((folder / FOLDER).rglob("*"), reverse=True)  # what is in a folder comes before it
    for place in (folder / NAME, *below, folder / FOLDER):
        if place.is_file() and place not in kept:
            place.unlink()
        elif place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def _names_code(data: bytes) -> bool:
    try:
        return bool(foreign_code(json.loads(data.decode())))
    except (ValueError, RecursionError):
        return False


def foreign_code(config: Any) -> list[str]:
    """Return the classes of other repositories that a configuration names, as `OWNER/NAME--file.Class`.

    Transformers downloads their code (5.0, dynamic_module_utils.py: get_class_from_dynamic_module).
    """
    auto_map = config.get("auto_map") if isinstance(config, dict) else None
    if not isinstance(auto_map, dict):
        return []
    parts = [part for value in auto_map.values() for part in (value if isinstance(value, list) else [value])]
    return sorted({part for part in parts if isinstance(part, str) and "--" in part})


def _place(folder: Path, path: str) -> Path:
    return folder / path if path == NAME else folder / FOLDER / path


def read_kept(lock: Lock, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is kept beside a lock, by path; what a lock of before did not keep is not there.

    Args:
        lock: of the model.
        folder: that the lock is in.

    Raises:
        InputError: a file is another one than was locked.
    """
    return dict(_kept(lock, folder))


def _kept(lock: Lock, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = {file.path: file.sha256 for file in lock.files}
    for path in wanted:
        place = _place(folder, path)
        if not path.endswith(".json") or not place.is_file():
            continue
        content = place.read_bytes()
        if hashlib.sha256(content).hexdigest() != wanted[path]:
            raise refuse(
                str(place),
                f"not the {path} that {lock.name}'s lock names",
                allowed="the one that was locked, beside the lock",
                fix=f"take it out of version control again, or: python -m modelcar lock {lock.name}",
            )
        try:
            found = json.loads(content.decode())
        except (ValueError, RecursionError):
            found = None  # the lock takes any file by that name; what reads it misses what it needs
        yield path, found if isinstance(found, dict) else {}


def read_config(lock: Lock, folder: Path) -> dict[str, Any]:
    """Return the model's configuration; empty where it is not beside the lock (locks of before).

    Raises:
        InputError: as `read_kept`.
    """
    return as_transformers(read_kept(lock, folder), {file.path for file in lock.files})


def as_transformers(kept: Mapping[str, dict[str, Any]], paths: set[str]) -> dict[str, Any]:
    """Return the configuration that vLLM takes, as Transformers names its parts.

    Args:
        kept: files by path.
        paths: of the model's files.
    """
    config = kept.get(NAME, {})
    if config_of(paths) != PARAMS:
        return config
    params = kept.get(PARAMS)
    if params is None:
        return {}
    found = {**config, **params}
    found.setdefault("max_position_embeddings", MISTRAL_LENGTH)
    if "n_heads" in params:
        found["num_attention_heads"] = params["n_heads"]
    if isinstance(yarn := params.get("yarn"), dict):
        found["rope_parameters"] = {"rope_type": "yarn", **yarn}
    return found
