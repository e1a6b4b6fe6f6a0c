"""The model's config.json beside its lock: what a preview has to know of a model without its weights.

Written by `python -m modelcar lock`, committed with the lock, and held to it by its hash.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from modelcar.errors import refuse
from modelcar.lock import Lock

NAME = "config.json"


def read_config(lock: Lock, folder: Path) -> dict[str, Any]:
    """Return the model's configuration; empty where it is not beside the lock (locks of before).

    Args:
        lock: of the model.
        folder: that the lock is in.

    Raises:
        InputError: it is another one than was locked.
    """
    path = folder / NAME
    wanted = next((file.sha256 for file in lock.files if file.path == NAME), None)
    if wanted is None or not path.is_file():
        return {}
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != wanted:
        raise refuse(
            str(path),
            f"not the {NAME} that {lock.name}'s lock names",
            allowed="the one that was locked, beside the lock",
            fix=f"take it out of version control again, or: python -m modelcar lock {lock.name}",
        )
    found = json.loads(content)
    return found if isinstance(found, dict) else {}
