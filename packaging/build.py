"""Builds the wheel: the components as one package, `modelcar_kserve`, that can be imported from anywhere.

In this repository they are top-level folders, as a Pulumi program has them. Under such names (`components`)
they would be in the way of others' own, so the wheel holds them below one name, and changes their imports.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "modelcar_kserve"
#: Folders that go in.
PARTS = ("components", "modelcar")
#: What is of this repository's own program, or made by it.
LEFT_OUT = ("__pycache__", "data", "models", "cloudbuild.yaml", "reference.py")
#: The program's own frame, and what of it goes in: how others read a stack.
FRAME = "components/stack"
OF_THE_FRAME = frozenset({"__init__.py", "output_schema.py", "stack_reader.py"})

_IMPORT = re.compile(rf"^(\s*)(from|import) ({'|'.join(PARTS)})(?=[. ])", re.MULTILINE)
#: A command that a message names; not in the first lines of files that are committed, such as a lock.
_COMMAND = re.compile(r'^(?!.*"# )(.*)python -m modelcar(?= )', re.MULTILINE)
#: How it is called where the package is installed.
SCRIPT = "modelcar-kserve"


def renamed(source: str) -> str:
    """Return a module's text with the imports of these folders, and the commands it names, as installed."""
    return _COMMAND.sub(rf"\1{SCRIPT}", _IMPORT.sub(rf"\1\2 {NAME}.\3", source))


def assemble(project: Path, target: Path) -> None:
    """Put the package's files into a folder."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        out = shutil.ignore_patterns(*LEFT_OUT)(folder, names)
        return out | (set(names) - OF_THE_FRAME if Path(folder) == project / FRAME else set())

    shutil.copytree(project / "packaging" / NAME, target, ignore=left_out)
    for part in PARTS:
        shutil.copytree(project / part, target / part, ignore=left_out)
        for path in (target / part).rglob("*.py"):
            path.write_text(renamed(path.read_text()))


class Hook(BuildHookInterface[Any]):
    """Called by hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- hatchling's own
        """Put the package together, outside of the project."""
        self.folder = tempfile.mkdtemp(prefix="modelcar-wheel-")
        assemble(Path(self.root), Path(self.folder) / NAME)
        build_data["force_include"][str(Path(self.folder) / NAME)] = NAME

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was put together."""
        shutil.rmtree(self.folder)
