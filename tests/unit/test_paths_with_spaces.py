"""Folders with a space in their path: make refuses them in words, and written scripts name them whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local import debian, netfilter
from local.instance import PROJECT


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(PROJECT / "Makefile", folder)
    away = ("MODELCAR_CACHE", "MODELCAR_STATE", "CACHE", "UV", "MAKEFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in away}
    command = ["make", *arguments, "help"]
    return subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=False
    )


def test_a_checkout_without_spaces_is_taken(tmp_path: Path) -> None:
    result = make(tmp_path, MODELCAR_CACHE="/var/cache/modelcar")
    assert result.returncode == 0, result.stderr
    assert "serve a model here" in result.stdout


def test_a_checkout_with_a_space_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    result = make(folder)
    assert result.returncode == 2
    assert f"the checkout: '{folder}' has a space" in result.stderr
    assert "fix: move or clone it to a folder without a space" in result.stderr


@pytest.mark.parametrize("name", ["MODELCAR_CACHE", "MODELCAR_STATE"])
def test_other_folders_with_a_space_are_refused(name: str, tmp_path: Path) -> None:
    result = make(tmp_path, **{name: "/some where/else"})
    assert result.returncode == 2
    assert f"{name}: '/some where/else' has a space" in result.stderr


def test_a_uv_in_a_folder_with_a_space_is_refused(tmp_path: Path) -> None:
    result = make(tmp_path, "UV=/some where/uv")
    assert result.returncode == 2
    assert "uv: '/some where/uv' has a space" in result.stderr


def _program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH|$XTABLES_LIBDIR|$*"\n')
    path.chmod(0o755)


def _said(script: Path) -> str:
    return subprocess.run([script, "a b"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("folder", ["plain", "my cache", "it's $HOME"])
def test_scripts_of_unpacked_packages_name_their_folders_whole(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / folder
    root = cache / "debian"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    _program(root / "usr/bin/patchelf")
    for program in netfilter.PROGRAMS.values():
        _program(root / "usr/sbin" / program)
    monkeypatch.setattr(debian, "unpack_debian", lambda *_: None)
    with monkeypatch.context() as without:
        without.setattr("shutil.which", lambda _: None)
        script = debian.debian_script("patchelf", ["patchelf"], cache)
    assert _said(script) == f"{libraries}||a b"
    netfilter._write(cache)
    for name in netfilter.PROGRAMS:
        assert _said(cache / name) == f"{libraries}|{libraries}/xtables|a b"


def test_scripts_of_programs_on_path_name_their_folders_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "my programs"
    for name in ("patchelf", *netfilter.PROGRAMS):
        _program(programs / name)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), "/usr/bin", "/bin"]))
    assert _said(debian.debian_script("patchelf", [], tmp_path / "cache")).endswith("|a b")
    netfilter._write(tmp_path / "cache")
    assert _said(tmp_path / "cache" / "ipset").endswith("|a b")
