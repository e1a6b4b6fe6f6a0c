"""Where things live: each part of the program uses what is below it, and nothing goes round in a ring.

docs/architecture.md shows the floors. All imports count, those for types and those inside of functions too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

#: From the ground up; rooms on one floor do not use each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("modelcar",),
    ("components.config", "components.engine"),
    ("components.image", "components.google", "components.manifests"),
    ("components.cluster",),
    ("components.kserve",),
    ("components.stack",),
    ("operations",),
    ("policy", "local"),
    ("bench", "tests"),
)
#: The program itself, which stands on the components alone.
PROGRAM = "__main__"
#: May use nothing of this project: it runs in others' environments.
ALONE = ("local.standins.program_runner",)


def floor_of(module: str) -> int | None:
    """Return the floor that a module stands on; None for what is not of this project, or is any floor's."""
    for number, rooms in enumerate(FLOORS):
        if any(module == room or module.startswith(f"{room}.") for room in rooms):
            return number
    return None


def room_of(module: str) -> str | None:
    """Return the room that a module is in."""
    return next(
        (room for rooms in FLOORS for room in rooms if module == room or module.startswith(f"{room}.")), None
    )


def modules() -> dict[str, Path]:
    """Return all modules of the project, by name."""
    found = {PROGRAM: PROJECT / "__main__.py"}
    for folder in ("modelcar", "components", "operations", "policy", "local", "bench"):
        for path in (PROJECT / folder).rglob("*.py"):
            name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the project that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module


def upwards(known: dict[str, Path]) -> Iterator[str]:
    """Yield each import that goes up, or into the room beside."""
    for name, path in known.items():
        own, room = floor_of(name), room_of(name)
        for other in set(imported(ast.parse(path.read_text()), known)):
            its, its_room = floor_of(other), room_of(other)
            if name == PROGRAM:
                if its_room in {"operations", "policy", "local", "bench"}:
                    yield f"{name} uses {other}"
            elif own is not None and its is not None and (its > own or (its == own and its_room != room)):
                yield f"{name} uses {other}"


def hidden(path: Path) -> Iterator[str]:
    """Yield each import inside of a function that has no reason beside it."""
    text = path.read_text()
    lines = text.splitlines()
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                where = lines[node.lineno - 1 : node.end_lineno]
                if not any("#" in line for line in where):
                    yield f"{path.relative_to(PROJECT)}:{node.lineno}: {where[0].strip()}"


def ring(known: dict[str, Path]) -> list[str]:
    """Return the modules of a ring; nothing where there is none."""
    uses = {
        name: {other for other in imported(ast.parse(path.read_text()), known) if other != name}
        for name, path in known.items()
    }
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        return [str(module) for module in error.args[1]]
    return []


def test_nothing_uses_what_stands_above_it() -> None:
    assert sorted(upwards(modules())) == []


def test_nothing_goes_round_in_a_ring() -> None:
    known = {name: path for name, path in modules().items() if name.startswith(("components", "operations"))}
    assert ring(known) == []


def test_every_module_has_a_floor() -> None:
    assert [
        name for name in modules() if name not in {PROGRAM, "components"} and floor_of(name) is None
    ] == []


def test_an_import_inside_of_a_function_says_why() -> None:
    paths = [path for name, path in modules().items() if name.startswith(("components", "operations"))]
    assert sorted(line for path in paths for line in hidden(path)) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("modelcar.lock", "from components.config import settings"),
        ("components.google.cloud", "def of():\n    from components.image import model_lock"),
        (
            "components.cluster.access",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from operations import validate",
        ),
        (PROGRAM, "import operations.stack"),
    ],
)
def test_an_import_that_goes_up_is_found(name: str, source: str, tmp_path: Path) -> None:
    known = modules()
    known[name] = tmp_path / "module.py"
    known[name].write_text(source)
    assert [line for line in upwards(known) if line.startswith(f"{name} uses")]


def test_a_ring_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("import components.other")
    other.write_text("def later():\n    from components.one import x")
    assert ring({"components.one": one, "components.other": other})
