"""The program uses what Pulumi's SDK makes public, so that another release of it does not break it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pulumi
import pulumi.provider
import pulumi.provider.experimental
import pulumi.runtime
import pytest

PROJECT = Path(__file__).parents[2]
FOLDERS = ("components", "operations", "policy", "packaging", "local", "modelcar")
PUBLIC = {
    "pulumi": {*pulumi.__all__, "runtime"},
    "pulumi.runtime": set(pulumi.runtime.__all__) - {"rpc"},  # a module of internals
    "pulumi.log": {"debug", "error", "info", "warn"},
    "pulumi.provider": set(pulumi.provider.__all__),
    "pulumi.provider.experimental": set(pulumi.provider.experimental.__all__),
    # Its module names it without an underscore; of it only Provider's own interface is used.
    "pulumi.provider.experimental.component": {"ComponentProvider"},
}


def dotted(node: ast.expr) -> str:
    """Return what an expression of names and dots says."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def is_public(name: str) -> bool:
    """Tell whether a name of the SDK, or an attribute of one, is public."""
    if name in PUBLIC:
        return True
    module, _, own = name.rpartition(".")
    if module in PUBLIC:
        return own in PUBLIC[module]
    return not own.startswith("_") and is_public(module)


def private(source: str) -> Iterator[str]:
    """Yield what a module uses of the SDK that is not public."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    used = {name for name in imports if name.startswith("pulumi.")}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "pulumi":
            used |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Attribute) and "pulumi" in imports and dotted(node).startswith("pulumi."):
            used.add(dotted(node))
    yield from (name for name in sorted(used) if not is_public(name))


def test_nothing_private_of_the_sdk_is_used() -> None:
    paths = [PROJECT / "__main__.py", *(path for one in FOLDERS for path in (PROJECT / one).rglob("*.py"))]
    # Stand-ins speak the engine's protocol, whose messages the SDK has among its internals.
    paths = [path for path in paths if not path.is_relative_to(PROJECT / "local/standins")]
    found = {(path.relative_to(PROJECT), name) for path in paths for name in private(path.read_text())}
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "from pulumi.runtime.stack import ResourceRegistrationFailed",
        "from pulumi.runtime.settings import SETTINGS",
        "from pulumi.runtime import _get_rpc_manager",
        "import pulumi.runtime.settings",
        "import pulumi\npulumi.runtime.config.CONFIG.get()",
        "import pulumi\npulumi.Output._from_data(1)",
    ],
)
def test_what_is_private_is_found(source: str) -> None:
    assert list(private(source))


def test_what_is_public_is_not_found() -> None:
    source = (
        "import pulumi\nfrom pulumi import Output\npulumi.runtime.is_dry_run()\npulumi.Output.all().apply(1)"
    )
    assert list(private(source)) == []
