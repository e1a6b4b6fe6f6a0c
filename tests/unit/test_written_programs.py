"""Programs that are written as text (in tests, benchmarks, docs and shell recipes) import names that exist.

mypy does not see them, and most of them run in the slow tests or in none.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LEFT_OUT = {".venv", ".cache", ".local", ".git", "build", "dist", "node_modules", ".gpu"}
ROOMS = ("components", "modelcar", "operations", "local", "tests", "bench", "policy", "modelcar_kserve")
IMPORT = re.compile(
    rf"^[ \t>]*from ((?:{'|'.join(ROOMS)})(?:\.\w+)*) import (\([^)]*\)|[\w ,]+)", re.MULTILINE
)


def place(module: str) -> Path:
    """Return where a module's file would be, less its ending; the package has all of this in one folder."""
    inside = module.removeprefix("modelcar_kserve.")
    if module.startswith("modelcar_kserve") and inside.split(".")[0] not in ROOMS[:2]:
        return PROJECT / "packaging" / Path(*module.split("."))
    return PROJECT / Path(*inside.split("."))


@cache
def names_of(module: str) -> frozenset[str] | None:
    """Return what can be imported from a module; None if there is no such module."""
    base = place(module)
    path = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
    beside = {child.stem for child in base.glob("*.py")} | {
        child.parent.name for child in base.glob("*/*.py")
    }
    if not path.is_file():
        return frozenset(beside) if beside else None
    names = beside
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Return all files that may hold a program, each with its name."""
    found = []
    for folder, below, files in os.walk(PROJECT):
        below[:] = sorted(set(below) - LEFT_OUT)
        paths = [Path(folder, file) for file in sorted(files)]
        found += [path for path in paths if path.suffix in {".py", ".md", ".mk", ".yml", ".yaml"}]
    return tuple((str(path.relative_to(PROJECT)), path.read_text()) for path in found)


def imports(text: str) -> Iterator[tuple[str, str]]:
    """Yield the module and name of each import of this project's parts, in strings and comments too."""
    for found in IMPORT.finditer(text):
        listed = re.sub(r"#.*", "", found[2]).strip("() \n")
        for entry in listed.split(","):
            name = entry.split(" as ")[0].strip()
            if name.isidentifier():
                yield found[1], name


def test_imports_in_programs_written_as_text_exist() -> None:
    wrong = [
        f"{file}: from {module} import {name}"
        for file, text in texts()
        for module, name in imports(text)
        if (names := names_of(module)) is None or name not in names
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        'PROGRAM = """\nfrom modelcar.lock import lock_path, read_lock\n"""',  # the name moved
        "    from modelcar.no_such import Lock\n",
        "from modelcar_kserve import NoSuchComponent\n",
        "from components.config.network import (\n    EgressRule,  # a comment\n    NoSuchRule,\n)\n",
    ],
)
def test_a_name_that_is_gone_is_found(text: str) -> None:
    """The check above can fail."""
    assert any((names := names_of(module)) is None or name not in names for module, name in imports(text)), (
        text
    )


def programs() -> Iterator[tuple[str, ast.Module]]:
    """Yield the Python programs that tests and benchmarks hold as text."""
    for file, text in texts():
        own = PROJECT / file == Path(__file__)
        if own or not file.endswith(".py") or file.partition("/")[0] not in {"tests", "bench"}:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
                with suppress(SyntaxError):
                    yield file, ast.parse(node.value)


def wrong_calls(program: ast.Module) -> Iterator[str]:
    """Yield the calls of this project's classes with arguments that they do not take."""
    known: dict[str, object] = {}
    for part in program.body:
        if isinstance(part, ast.ImportFrom) and str(part.module).startswith("components."):
            module = importlib.import_module(str(part.module))
            known |= {alias.asname or alias.name: getattr(module, alias.name, None) for alias in part.names}
    for node in ast.walk(program):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        called = known.get(node.func.id)
        if not inspect.isclass(called) or any(one.arg is None for one in node.keywords):
            continue
        try:
            inspect.signature(called).bind(*node.args, **{str(one.arg): one.value for one in node.keywords})
        except TypeError as error:
            yield f"{node.func.id}: {error}"


def test_programs_written_as_text_call_what_exists() -> None:
    found = list(programs())
    assert len(found) > 5
    wrong = [f"{file}: {call}" for file, program in found for call in wrong_calls(program)]
    assert not wrong, "\n".join(wrong)


def test_a_call_that_the_class_does_not_take_is_found() -> None:
    """The check above can fail."""
    text = "from components.image.modelcar_image import ModelcarImageArgs\nModelcarImageArgs(1, registry=2)"
    [found] = wrong_calls(ast.parse(text))
    assert "positional" in found
