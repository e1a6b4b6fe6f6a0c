"""Entry of the launchers in `bin/`: `python standins NAME [ARGS]`, NAME as in the launcher's own name."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

# The folder itself is on the path as `python FOLDER` puts it there; the project is what makes it a package.
sys.path[0] = str(Path(__file__).resolve().parents[2])


def _skip_sdk() -> None:
    """Let the SDK's generated gRPC modules be imported without the SDK around them.

    Importing all of `pulumi` takes 0.4 s, for each of the stand-ins in every command, and a plugin
    process uses nothing of it (programs run in processes of their own).
    """
    found = importlib.util.find_spec("pulumi")
    if found is None or not found.submodule_search_locations:
        return  # the import that follows says what is missing
    root = Path(found.submodule_search_locations[0])
    for name, folder in (("pulumi", root), ("pulumi.runtime", root / "runtime")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


def main(arguments: list[str]) -> int:
    """Start the stand-in that the first argument names; the rest are the engine's own arguments."""
    name, *rest = arguments or [""]
    _skip_sdk()
    if name == "language-python":
        from local.standins.language_host import main as language_host

        return language_host(rest)
    if name == "resource-gcp":
        from local.standins.gcp_provider.provider import main as gcp_provider

        return gcp_provider(rest)
    known = "language-python or resource-gcp"
    print(f"standins: {name!r} is not one of {known}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
