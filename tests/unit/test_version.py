"""The version is written in one place, and everything that tells it reads it there."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from local import doctor
from local.instance import load
from modelcar import version as told
from tests.conftest import PROJECT

WRITTEN = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]


def test_everything_tells_the_version_of_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_said", lambda *_: None)
    command = [sys.executable, "-m", "modelcar", "--version"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert said == f"modelcar {WRITTEN}\n"
    assert told.version() == WRITTEN
    assert runpy.run_path(str(PROJECT / "docs/conf.py"))["release"] == WRITTEN
    assert doctor.doctor(load("local"), "other", {})[0].found == WRITTEN


def test_the_provider_tells_it_as_semver() -> None:
    tree = ast.parse((PROJECT / "packaging/modelcar_kserve/provider.py").read_text())
    [call] = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "serve"
    ]
    assert [ast.unparse(argument) for argument in call.args[1:]] == ["NAME", "semver()"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[a-z]+\.\d+)?", told.semver())


def test_the_installed_package_reads_its_own_metadata(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(told, "_PYPROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"of {name}")
    assert told.version() == "of modelcar-kserve"


def test_the_changelog_begins_with_the_version_that_is_made_and_what_users_must_do() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    base = told.semver().partition("-")[0]
    assert re.findall(r"^## (\d+\.\d+\.\d+)", text, re.MULTILINE)[0] == base
    for section in re.split(r"(?m)^## ", text)[1:]:
        assert section.split("\n### ", 1)[1].startswith("What you must do\n"), section.splitlines()[0]
    assert f"## To {base}\n" in (PROJECT / "docs/upgrading.md").read_text()


@pytest.mark.parametrize(
    ("python", "semver"),
    [
        ("0.3.0", "0.3.0"),
        ("0.3.0.dev0", "0.3.0-dev.0"),
        ("1.0.0a2", "1.0.0-alpha.2"),
        ("1.0.0b1", "1.0.0-beta.1"),
        ("10.2.0rc11", "10.2.0-rc.11"),
    ],
)
def test_pulumi_and_tags_get_semver(python: str, semver: str) -> None:
    assert told.semver(python) == semver


@pytest.mark.parametrize("wrong", ["1.2", "1.2.3.4", "v1.2.3", "1.2.3+local"])
def test_what_is_no_version_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        told.semver(wrong)
