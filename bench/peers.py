"""The peers' own packages, in an environment of the benchmark's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from local.debian import debian_script
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
    if not (folder / "skopeo").exists():
        say("── peers: skopeo, which olot's layouts are pushed with")
    debian_script("skopeo", ["skopeo", "libgpgme11", "libassuan0", "libdevmapper1.02.1"], folder)
    return folder
