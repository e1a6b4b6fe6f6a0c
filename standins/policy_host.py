"""Runs one policy pack in an interpreter of its own, on behalf of the stand-in language host.

The official host starts `python PACK ENGINE_ADDRESS`; this does the same from within, and ends the pack when
the host is gone, as the policy SDK waits for ever. Imports nothing of this package: it may run in another
environment.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def main(arguments: list[str]) -> None:
    """Run a pack; arguments: a descriptor that reaches its end when the host is gone, the pack, its own."""
    descriptor, pack, *rest = arguments
    threading.Thread(target=_end_with, args=[int(descriptor)], name="host-watch", daemon=True).start()
    try:
        import pulumi_policy  # noqa: F401 - a pack without it could not say why it failed
    except ImportError as error:
        sys.exit(
            f"{sys.executable} cannot run policy packs: {error}. fix: run `make env` in the project, which "
            "installs pulumi-policy into .venv"
        )
    sys.argv = [pack, *rest]
    runpy.run_path(pack, run_name="__main__")


def _end_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(130)


if __name__ == "__main__":
    # Started as a file: its folder must not be importable for the pack.
    sys.path.pop(0)
    main(sys.argv[1:])
