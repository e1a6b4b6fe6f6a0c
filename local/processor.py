"""What this machine's processor is called."""

from __future__ import annotations

import platform

#: What Linux and other systems (arm64: macOS) call a processor, and what OCI and Go do.
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def architecture() -> str:
    """Return what images call this machine's processor; amd64 where it is none that images are made for."""
    return ARCHITECTURES.get(platform.machine(), "amd64")
