"""The base image from a static BusyBox."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tarfile
from pathlib import Path

import pytest

from modelcar.base import APPLETS, write_base_layout
from modelcar.errors import InputError


def elf(machine: int = 62, program_headers: tuple[int, ...] = (1,), text: bytes = b"BusyBox v1.36") -> bytes:
    """Return an ELF program that goes as far as the check looks: file header, program headers, some text."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, len(program_headers), 0, 0, 0
    )
    return header + b"".join(struct.pack("<I", kind).ljust(56, b"\0") for kind in program_headers) + text


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    path = tmp_path / "busybox"
    path.write_bytes(elf())
    return path


def image(layout: Path) -> tuple[dict[str, object], tarfile.TarFile]:
    """Return the image's configuration and its only layer."""

    def blob(digest: str) -> Path:
        path = layout / "blobs" / digest.replace(":", "/")
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == digest
        return path

    manifest = json.loads(
        blob(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]).read_text()
    )
    [layer] = manifest["layers"]
    return json.loads(blob(manifest["config"]["digest"]).read_text()), tarfile.open(blob(layer["digest"]))


def test_image_has_what_kserve_runs(busybox: Path, tmp_path: Path) -> None:
    layout = write_base_layout(busybox, tmp_path / "base")
    config, layer = image(layout.path)
    with layer:
        program = layer.extractfile("bin/busybox")
        assert program is not None
        assert program.read() == busybox.read_bytes()
        for name in ("sh", "ln", "sleep", "ls"):
            assert layer.getmember(f"bin/{name}").linkname == "busybox"
        assert layer.getmember("tmp").mode == 0o1777
        assert layer.getmember("bin/busybox").mode == 0o755
        assert {entry.mtime for entry in layer} == {0}
        assert {entry.uid for entry in layer} == {0}
    run = config["config"]
    assert isinstance(run, dict)
    assert "Entrypoint" not in run
    assert run["Cmd"]
    assert "PATH=/bin" in run["Env"]
    assert layout.context == f"oci-layout://{tmp_path}/base@{layout.image.digest}"


def test_same_busybox_gives_the_same_digest(busybox: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "bb"
    copy.parent.mkdir()
    copy.write_bytes(busybox.read_bytes())
    first = write_base_layout(busybox, tmp_path / "a")
    assert write_base_layout(copy, tmp_path / "b").image.digest == first.image.digest
    assert write_base_layout(busybox, tmp_path / "a") == first


@pytest.mark.parametrize(("machine", "name"), [(62, "amd64"), (183, "arm64")])
def test_architecture_is_that_of_the_program(tmp_path: Path, machine: int, name: str) -> None:
    (tmp_path / "busybox").write_bytes(elf(machine))
    config, _ = image(write_base_layout(tmp_path / "busybox", tmp_path / "base").path)
    assert config["architecture"] == name


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (None, "No such file"),
        (b"#!/bin/sh\n" * 20, "not an ELF program"),
        (b"\x7fELF", "not an ELF program"),
        (elf(program_headers=(1, 3)), "dynamically linked"),
        (elf(machine=8), "unknown processor (ELF machine 8)"),
        (elf(text=b"toybox"), "not BusyBox"),
        (elf(program_headers=(1,) * 9)[:100], "damaged"),
    ],
)
def test_other_programs_are_refused(tmp_path: Path, content: bytes | None, value: str) -> None:
    path = tmp_path / "busybox"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        write_base_layout(path, tmp_path / "base")
    [problem] = caught.value.problems
    assert problem.key == str(path)
    assert value in problem.value
    assert "static" in problem.allowed
    assert "busybox-static" in problem.fix
    assert not (tmp_path / "base").exists()


def test_a_program_of_this_machine_that_needs_libraries_is_refused(tmp_path: Path) -> None:
    program = shutil.which("ls")
    if program is None or b"ld-linux" not in Path(program).read_bytes():
        pytest.skip("no dynamically linked ls here")
    with pytest.raises(InputError, match="dynamically linked"):
        write_base_layout(Path(program), tmp_path / "base")


def test_applets_are_in_order_and_named_once() -> None:
    assert list(APPLETS) == sorted(set(APPLETS))
