"""Debian packages are used when they are whole, also where a run was killed or several share the cache."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local import debian, netfilter, other_versions
from local.tools import Toolbox


class Killed(BaseException):
    """Ends everything, as a signal."""


class Apt:
    """apt-get and dpkg-deb: a package NAME has a program and a library of this name."""

    def __init__(self) -> None:
        self.killed_at = ""
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        self.fetched: list[str] = []

    def __call__(self, command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        if command[:2] == ["apt-get", "download"]:
            with self.lock:
                self.at_once += 1
                self.most = max(self.most, self.at_once)
            time.sleep(0.05)
            for package in command[2:]:
                self.fetched.append(package)
                (Path(more["cwd"]) / f"{package}.deb").touch()
            with self.lock:
                self.at_once -= 1
        elif command[0] == "dpkg-deb":
            name, root = Path(command[2]).stem, Path(command[3])
            if name == self.killed_at:
                raise Killed
            for place in (f"usr/bin/{name}", f"usr/sbin/{name}", f"usr/lib/x-linux-gnu/lib{name}.so"):
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                (root / place).write_text("#!/bin/sh\n")
        else:  # iptables' trial
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> Apt:
    made = Apt()
    monkeypatch.setattr("local.debian.subprocess.run", made)
    monkeypatch.delenv("MODELCAR_NO_INSTALL", raising=False)
    found = {"apt-get": "/a", "dpkg-deb": "/d"}
    monkeypatch.setattr("local.debian.shutil.which", lambda name, **_: found.get(name))
    return made


def test_a_run_that_was_killed_leaves_nothing_that_counts(tmp_path: Path, apt: Apt) -> None:
    root = tmp_path / "debian"
    apt.killed_at = "zlib"
    with pytest.raises(Killed):
        debian.unpack_debian(["etcd", "zlib"], root)
    assert debian.find_debian("etcd", root) is None
    apt.killed_at = ""
    debian.unpack_debian(["etcd", "zlib"], root)
    assert debian.find_debian("etcd", root) == root / "usr/bin/etcd"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["debian", "debian.lock"]


def test_what_is_unpacked_later_comes_beside_the_former(tmp_path: Path, apt: Apt) -> None:
    root = tmp_path / "debian"
    debian.unpack_debian(["etcd"], root)
    debian.unpack_debian(["runc"], root)
    assert {path.name for path in (root / "usr/bin").iterdir()} == {"etcd", "runc"}


def test_half_of_a_former_version_is_unpacked_again_and_a_whole_one_is_taken(
    tmp_path: Path, apt: Apt
) -> None:
    for name in ("netfilter", "whole"):
        for program in netfilter.PROGRAMS.values():
            path = tmp_path / name / "debian/usr/sbin" / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "netfilter/debian/packages").mkdir()  # it was to be removed at the end
    assert netfilter.netfilter(tmp_path / "whole", pytest.fail)
    assert apt.fetched == []
    assert netfilter.netfilter(tmp_path / "netfilter", pytest.fail)
    assert apt.fetched == netfilter.PACKAGES
    assert (tmp_path / "netfilter/debian/usr/lib/x-linux-gnu/liblibmnl0.so").exists()


def test_scripts_and_the_older_containerd_are_not_of_half_a_package(
    tmp_path: Path, apt: Apt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_versions, "tools_folder", lambda: tmp_path)
    for folder, program in ((tmp_path / "debian", "skopeo"), (tmp_path / "containerd-1.6", "containerd")):
        (folder / "usr/bin").mkdir(parents=True)
        (folder / "usr/bin" / program).touch()
        (folder / "packages").mkdir()
    debian.debian_script("skopeo", ["skopeo"], tmp_path)
    other_versions.with_containerd(Toolbox({}, "", tmp_path), "1.6", print)
    assert apt.fetched == ["skopeo", "containerd"]


def test_two_checkouts_that_share_the_cache_unpack_in_turn(tmp_path: Path, apt: Apt) -> None:
    with ThreadPoolExecutor(2) as both:
        runs = [both.submit(debian.unpack_debian, [name], tmp_path / "debian", print) for name in ("a", "b")]
        for run in runs:
            run.result()
    assert apt.most == 1
    assert {path.name for path in (tmp_path / "debian/usr/bin").iterdir()} == {"a", "b"}


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (
            "iptables: error while loading shared libraries: libmnl.so.0: cannot open\nipset: gone",
            r"a program does not start \(iptables: error while .*libmnl.*fix: sudo apt-get install",
        ),
        ("ipset: Kernel support is missing", r"this kernel lacks what they need \(ipset: Kernel support"),
    ],
)
def test_the_kernel_is_blamed_for_what_is_its_fault(
    stderr: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netfilter, "_write", lambda *_: None)
    monkeypatch.setattr(
        "local.netfilter.subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", stderr)
    )
    said: list[str] = []
    assert netfilter.netfilter(tmp_path, said.append) is None
    assert re.search(expected, said[0])
