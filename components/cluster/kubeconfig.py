"""Which kubeconfig counts, and which context of it: by the rules of kubectl and of the Kubernetes provider.

`KUBECONFIG` may name several files: those that are not there are passed over, the first entry of a name wins,
and so does the first file that names a current context. The Python client takes the last one's.
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from modelcar.home import in_home

_LISTS = ("contexts", "clusters")


def is_text(setting: str) -> bool:
    """Tell whether a kubeconfig is given as text, and not by its path."""
    return "\n" in setting or setting.lstrip().startswith("{")


def read(setting: str | None, default: str | None = None) -> dict[str, Any] | None:
    """Return contexts, clusters and current context of a kubeconfig; None where there is none.

    Args:
        setting: its text or path; the machine's own files where there is none.
        default: stands for KUBECONFIG, for tests.

    Raises:
        OSError, yaml.YAMLError: it cannot be read.
    """
    if setting:
        return _merged([("", setting) if is_text(setting) else _text(in_home(setting))])
    files = _files(os.environ.get("KUBECONFIG", "") if default is None else default)
    return _merged([_text(path) for path in files]) if files else None


def current_context() -> str | None:
    """Return the context that kubectl uses on this machine; None where there is none.

    Raises:
        OSError, yaml.YAMLError: a kubeconfig cannot be read.
    """
    return (read(None) or {}).get("current-context")


def named(config: dict[str, Any], kind: str, what: str) -> dict[str, dict[str, Any]]:
    """Return what a kubeconfig has in one of its lists, by name: `contexts` and `context`, for example."""
    found = {str(entry["name"]): entry.get(what) for entry in config[kind]}
    return {name: value if isinstance(value, dict) else {} for name, value in found.items()}


def _files(default: str) -> list[Path]:
    paths = [in_home(path) for path in default.split(os.pathsep) if path]
    return [path for path in paths or [in_home("~/.kube/config")] if path.is_file()]


def _text(path: Path) -> tuple[str, str]:
    """Return how a file is named in messages, and what it holds."""
    try:
        return f"{path}: ", path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"{path}: no text in UTF-8 ({error})") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL
        # Where there is no such file, the setting may be a kubeconfig itself, with its token.
        there = isinstance(error, PermissionError | IsADirectoryError)
        shown = str(path) if there else "the file that it names"
        raise yaml.YAMLError(f"{shown}: {getattr(error, 'strerror', error)}") from None


def _merged(texts: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {kind: [] for kind in _LISTS}
    for where, text in texts:
        try:
            document = _document(text, may_be_empty=len(texts) > 1)
            entries = {kind: _entries(document, kind) for kind in _LISTS}
        except yaml.YAMLError as error:
            raise yaml.YAMLError(f"{where}{error}") from None
        for kind in _LISTS:
            there = {entry["name"] for entry in found[kind]}
            for entry in entries[kind]:
                if entry["name"] not in there:
                    found[kind].append(entry)
                    there.add(entry["name"])
        found["current-context"] = found.get("current-context") or document.get("current-context") or None
    return found


def _document(text: str, *, may_be_empty: bool) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # of PyYAML: `!!bool x`
        raise yaml.YAMLError("not the YAML of a kubeconfig") from None
    if document is None and may_be_empty:
        return {}
    if not isinstance(document, dict):
        raise yaml.YAMLError("it holds no kubeconfig")
    current = document.get("current-context")
    if current is not None and not isinstance(current, str):
        raise yaml.YAMLError("its current-context is no name")
    return document


def _entries(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = document.get(kind) or []
    if not isinstance(entries, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in entries
    ):
        raise yaml.YAMLError(f"its {kind} are no list of entries with names")
    return entries
