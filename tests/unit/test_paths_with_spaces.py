"""Folders with a space in their path: make refuses them in words, and written scripts name them whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from local import debian, netfilter
from local.instance import PROJECT
from local.locked_environment import locked_environment


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
        without.setenv("PATH", "/nowhere")
        script = debian.debian_script("patchelf", ["patchelf"], cache)
    assert _said(script) == f"{libraries}||a b"
    netfilter._write(cache, print)
    for name in netfilter.PROGRAMS:
        assert _said(cache / name) == f"{libraries}|{libraries}/xtables|a b"


def test_scripts_of_a_folder_that_was_moved_run_what_is_in_it_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "unpack_debian", lambda *_: pytest.fail("it is unpacked"))
    old, new = tmp_path / "old", tmp_path / "new"
    for program in netfilter.PROGRAMS.values():
        _program(old / "debian/usr/sbin" / program)
    _program(old / "debian/usr/bin/patchelf")
    (old / "debian/usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    for folder in (old, new):
        if folder == new:
            old.rename(new)
        monkeypatch.setattr("local.netfilter.subprocess.run", _works)
        assert netfilter.netfilter(folder, pytest.fail) == folder
        monkeypatch.undo()
        libraries = folder / "debian/usr/lib/x86_64-linux-gnu"
        assert _said(folder / "iptables") == f"{libraries}|{libraries}/xtables|a b"
        assert _said(debian.debian_script("patchelf", [], folder)) == f"{libraries}||a b"


def _works(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 0, "", "")


def test_a_script_is_left_alone_where_nothing_changes(tmp_path: Path) -> None:
    script = debian.write_script(tmp_path / "script", ["echo", "it's"])
    before = script.stat().st_ino
    assert debian.write_script(script, ["echo", "it's"]).stat().st_ino == before
    assert _said(debian.write_script(script, ["echo", "changed"])) == "changed a b"


def test_a_script_does_not_run_itself_where_its_folder_is_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "bin/patchelf")
    _program(tmp_path / "scripts/patchelf")
    folders = [str(tmp_path / "scripts"), str(tmp_path / "bin"), "/usr/bin", "/bin"]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    script = debian.debian_script("patchelf", [], tmp_path / "scripts")
    assert str(tmp_path / "bin/patchelf") in script.read_text()


@pytest.mark.skipif(not (os.environ.get("UV") or shutil.which("uv")), reason="needs uv, as `make` names it")
def test_programs_of_an_environment_run_where_it_was_moved_to(tmp_path: Path) -> None:
    wheel = tmp_path / "hello-1-py3-none-any.whl"
    files = {
        "hello.py": "import sys\ndef run():\n    print(sys.prefix)\n",
        "hello-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: hello\nVersion: 1\n",
        "hello-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "hello-1.dist-info/entry_points.txt": "[console_scripts]\nhello = hello:run\n",
    }
    files["hello-1.dist-info/RECORD"] = "".join(
        f"{name},,\n" for name in [*files, "hello-1.dist-info/RECORD"]
    )
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = tmp_path / "hello.lock"
    lock.write_text(f"hello @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    said: list[str] = []
    locked_environment(tmp_path / "old", lock, lambda: said.append("installing"))
    moved = (tmp_path / "old").rename(tmp_path / "new")
    assert locked_environment(moved, lock, lambda: said.append("again")) == moved
    assert said == ["installing"]
    assert _said(moved / "bin/hello") == str(moved)


def test_scripts_of_programs_on_path_name_their_folders_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "my programs"
    for name in ("patchelf", *netfilter.PROGRAMS):
        _program(programs / name)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), "/usr/bin", "/bin"]))
    assert _said(debian.debian_script("patchelf", [], tmp_path / "cache")).endswith("|a b")
    netfilter._write(tmp_path / "cache", print)
    assert _said(tmp_path / "cache" / "ipset").endswith("|a b")
