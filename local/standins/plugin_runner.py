"""Runs one plugin that is written in Python, on behalf of the stand-in language host.

A policy pack, or a provider of components. The official host starts `python FOLDER ENGINE_ADDRESS`; this
does the same from within, and ends the plugin when the host is gone, as both SDKs wait for ever. Imports
nothing of this package: it may run in another environment.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import threading

#: What a plugin of each kind cannot do without: its module, and how it gets into the environment.
NEEDS = {
    "analyzer": (
        "pulumi_policy",
        "run `make env` in the project, which installs pulumi-policy into .venv",
    ),
    "resource": (
        "pulumi",
        "install what the plugin's requirements.txt names into the environment that its PulumiPlugin.yaml "
        "names (runtime.options.virtualenv)",
    ),
}


def main(arguments: list[str]) -> None:
    """Run a plugin.

    arguments: a descriptor that reaches its end when the host is gone, the plugin's kind and folder, its own.
    """
    descriptor, kind, plugin, *rest = arguments
    threading.Thread(target=_end_with, args=[int(descriptor)], name="host-watch", daemon=True).start()
    module, fix = NEEDS[kind]
    try:
        importlib.import_module(module)  # a plugin without it could not say why it failed
    except ImportError as error:
        sys.exit(f"{sys.executable} cannot run {plugin}: {error}. fix: {fix}")
    sys.argv = [plugin, *rest]
    runpy.run_path(plugin, run_name="__main__")


def _end_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(130)


if __name__ == "__main__":
    # Started as a file: its folder must not be importable for the plugin.
    sys.path.pop(0)
    main(sys.argv[1:])
