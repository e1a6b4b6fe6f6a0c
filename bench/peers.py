"""The peers' own packages, in an environment of the benchmark's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from local.debian import debian_script
from local.instance import cache_root
from local.locked_environment import locked_environment

REQUIREMENTS = Path(__file__).parent / "requirements.lock"


def peers(say: Callable[[str], None]) -> Path:
    """Return the environment with oras, olot and matplotlib; made on first use."""
    folder = cache_root() / "bench" / "venv"
    locked_environment(folder, REQUIREMENTS, lambda: say(f"── peers: installing into {folder}"))
    if not (folder / "skopeo").exists():
        say("── peers: skopeo, which olot's layouts are pushed with")
    debian_script("skopeo", ["skopeo", "libgpgme11", "libassuan0", "libdevmapper1.02.1"], folder)
    return folder
