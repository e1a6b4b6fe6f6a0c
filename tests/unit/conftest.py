"""No unit test asks the makers of the tools whether they can be reached, unless it says so itself."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import proxy_server, registry_server
from tests.conftest import PROJECT
from tests.proxy_server import Proxy


@pytest.fixture(autouse=True)
def from_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "source")


@pytest.fixture(autouse=True)
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test remove control groups of this machine's own platforms."""
    monkeypatch.setattr("local.cgroups.ROOT", Path("/nonexistent"))


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this machine's own proxies away."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def proxy(no_proxies: None) -> Iterator[Proxy]:
    with proxy_server.serve() as running:
        yield running


@pytest.fixture
def plain_registry() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as running:
        yield running


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the wheel has it."""
    folder = tmp_path_factory.mktemp("package")
    hook = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    vars(hook)["BuildHookInterface"] = dict  # hatchling is in the build's own environment only
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, hook.__name__, hook)
        spec = importlib.util.spec_from_file_location("packaging_build", PROJECT / "packaging/build.py")
        assert spec
        assert spec.loader
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
    build.assemble(PROJECT, folder / "modelcar_kserve")
    return folder
