"""What a model server's environment is made from. Standard library only, as `make up BUNDLE=…` unpacks."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

from local.bundle.packages import installed, read_lock, split_present

#: Written as the last act of an installation: without it the folder is what an interrupted one left.
MARKER = "installed.json"


def base_python() -> Path:
    """Return the interpreter that the running one was made from: a venv of a venv would need that one too."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix) / "bin" / version
    return (base if base.exists() else Path(sys.executable)).resolve()


def fingerprint(lock: Path, present: Path | None) -> dict[str, str]:
    """Return everything that the content of an environment depends on.

    Args:
        lock: its packages.
        present: folder of packages of the machine that it rests on.
    """
    content = lock.read_bytes()
    found = {
        "lock": hashlib.sha256(content).hexdigest(),
        "python": f"{base_python()} {platform.python_version()}",
        "machine": platform.machine(),
    }
    if present:
        _, there = split_present(read_lock(content.decode()), installed(present))
        found["present"] = " ".join([str(present), *(pin.specifier for pin in there)])
    return found


def marked(folder: Path) -> dict[str, str]:
    """Return what an environment says that it was made from; nothing where it is not whole."""
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def mark(folder: Path, made_from: dict[str, str]) -> None:
    """Let an environment say what it was made from, which tells that it is whole."""
    part = folder / f"{MARKER}.part"
    part.write_text(json.dumps(made_from, indent=1) + "\n")
    part.replace(folder / MARKER)
