"""The peers' own packages, in an environment of the benchmark's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from local.debian import unpack_debian
from local.instance import cache_root
from local.up import uv_program

REQUIREMENTS = Path(__file__).parent / "requirements.lock"


def peers(say: Callable[[str], None]) -> Path:
    """Return the environment with oras, olot and matplotlib; made on first use."""
    folder = cache_root() / "bench" / "venv"
    stamp = folder / ".locked"
    content = REQUIREMENTS.read_bytes()
    if not stamp.exists() or stamp.read_bytes() != content:
        say(f"── peers: installing into {folder}")
        uv = str(uv_program())
        environment = {**os.environ, "UV_NO_CONFIG": "1"}
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", folder], check=True, env=environment)
        command = [uv, "pip", "sync", "--quiet", "--python", folder, "--require-hashes", REQUIREMENTS]
        subprocess.run([str(part) for part in command], check=True, env=environment)
        stamp.write_bytes(content)
    _skopeo(folder, say)
    return folder


def _skopeo(folder: Path, say: Callable[[str], None]) -> None:
    """Put skopeo beside them, which olot's layouts are pushed with: from PATH, or Debian's packages."""
    script = folder / "skopeo"
    if script.exists():
        return
    found = shutil.which("skopeo")
    if found is None:
        say("── peers: unpacking skopeo")
        unpack_debian(["skopeo", "libgpgme11", "libassuan0", "libdevmapper1.02.1"], folder / "debian")
        libraries = ":".join(str(path) for path in (folder / "debian").glob("**/*-linux-gnu"))
        found = f"env LD_LIBRARY_PATH={libraries} {folder}/debian/usr/bin/skopeo"
    script.write_text(f'#!/bin/sh\nexec {found} "$@"\n')
    script.chmod(0o755)
