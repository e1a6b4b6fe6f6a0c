"""In a container with control groups of version 2 its processes make room for the platform's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from local import cgroups


class Kernel:
    """A folder that stands for cgroupfs, and what the kernel does when it is written to."""

    def __init__(self, root: Path, processes: list[str], controllers: str = "cpu memory pids") -> None:
        self.root, self.gone, self.starts = root, {"7"}, {"3": "9"}
        (root / "cgroup.controllers").write_text(f"{controllers}\n")
        (root / "cgroup.subtree_control").write_text("\n")
        (root / "cgroup.type").write_text("domain\n")
        self.put(root, processes)
        self.refuses: dict[str, int] = {}

    def put(self, group: Path, processes: list[str]) -> None:
        (group / "cgroup.procs").write_text("".join(f"{number}\n" for number in processes))

    def processes(self, group: Path) -> list[str]:
        path = group / "cgroup.procs"
        return path.read_text().split() if path.exists() else []

    def write(self, file: Path, text: str) -> None:
        if text in self.refuses:
            raise OSError(self.refuses[text], os.strerror(self.refuses[text]))
        there = self.processes(self.root)
        if file.name == "cgroup.subtree_control":
            if there:
                raise OSError(errno.EBUSY, "Device or resource busy")
            enabled = [*file.read_text().split(), text.removeprefix("+")]
            file.write_text(" ".join(enabled) + "\n")
            return
        assert text != "0", "the writer itself"
        there.remove(text)
        if text in self.starts:
            there.append(self.starts.pop(text))  # before it was moved
        self.put(self.root, there)
        if text in self.gone:
            raise ProcessLookupError(errno.ESRCH, "No such process")
        self.put(file.parent, [*self.processes(file.parent), text])


def kernel_of(root: Path, monkeypatch: pytest.MonkeyPatch, processes: list[str]) -> Kernel:
    kernel = Kernel(root, processes)
    monkeypatch.setattr(cgroups, "_write", kernel.write)
    return kernel


def test_a_containers_processes_move_and_controllers_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, said = kernel_of(tmp_path, monkeypatch, ["1", "3", "7"]), list[str]()
    cgroups.make_room(said.append, tmp_path)
    assert kernel.processes(tmp_path) == []
    assert kernel.processes(tmp_path / "init") == ["1", "3", "9"], "also what was started meanwhile"
    assert (tmp_path / "cgroup.subtree_control").read_text().split() == ["cpu", "memory", "pids"]
    assert said == []
    cgroups.make_room(said.append, tmp_path)  # the next `make up`
    assert kernel.processes(tmp_path / "init") == ["1", "3", "9"]


def test_a_machine_itself_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(tmp_path, monkeypatch, ["1", "3"])
    (tmp_path / "cgroup.type").unlink()
    cgroups.make_room(pytest.fail, tmp_path)
    assert kernel.processes(tmp_path) == ["1", "3"]
    assert (tmp_path / "cgroup.subtree_control").read_text() == "\n"
    assert not (tmp_path / "init").exists()


def test_version_1_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    cgroups.make_room(pytest.fail, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_systemd_in_a_container_has_done_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_of(tmp_path, monkeypatch, [])
    cgroups.make_room(pytest.fail, tmp_path)
    assert not (tmp_path / "init").exists()


def test_what_cannot_be_done_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, said = kernel_of(tmp_path, monkeypatch, ["1"]), list[str]()
    kernel.refuses = {"+cpu": errno.EINVAL}
    cgroups.make_room(said.append, tmp_path)
    assert said == ["NOTE: pods have no cgroup controller cpu: [Errno 22] Invalid argument"]
    assert (tmp_path / "cgroup.subtree_control").read_text().split() == ["memory", "pids"]
    said.clear()
    kernel.put(tmp_path, ["1"])
    kernel.refuses = {"1": errno.EROFS}
    cgroups.make_room(said.append, tmp_path)
    [line] = said
    assert "cannot be moved" in line
    assert "Read-only file system" in line


def test_processes_of_other_namespaces_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, said = kernel_of(tmp_path, monkeypatch, ["0", "1"]), list[str]()
    cgroups.make_room(said.append, tmp_path)
    assert kernel.processes(tmp_path) == ["0"]
    assert len(said) == 3, "each controller is told"
