"""A Python environment beside the project's own, for packages whose pins do not go with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from local.up import uv_program
from modelcar.progress import working


def locked_environment(folder: Path, lock: Path, installing: Callable[[], None]) -> Path:
    """Make the environment of a lock, unless it is there as the lock has it, and return its folder.

    Args:
        folder: of the environment.
        lock: requirements with hashes, as `uv pip compile --generate-hashes` writes them.
        installing: called before anything is installed, to say so.

    Raises:
        InputError: uv is missing.
        CalledProcessError: uv failed; it has said why.
    """
    stamp = folder / ".locked"
    content = lock.read_bytes()
    if not stamp.exists() or stamp.read_bytes() != content:
        installing()
        uv, variables = str(uv_program()), {**os.environ, "UV_NO_CONFIG": "1"}
        # Its programs find their Python beside them, also where the cache is copied or moved.
        venv = [uv, "venv", "--quiet", "--allow-existing", "--relocatable", str(folder)]
        subprocess.run(venv, check=True, env=variables)
        command = [uv, "pip", "sync", "--quiet", "--python", folder, "--require-hashes", lock]
        with working("   installing packages"):
            subprocess.run([str(part) for part in command], check=True, env=variables)
        stamp.write_bytes(content)
    return folder
