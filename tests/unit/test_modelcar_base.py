"""The base image from a static BusyBox."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import struct
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelcar import base, locking
from modelcar.base import APPLETS, write_base_layout
from modelcar.errors import InputError
from modelcar.manifest import sha256_digest
from modelcar.oci_layout import open_store
from modelcar.tiny_model import make_tiny_model
from tests.served import served


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


# --- base.lock, and where the program comes from ----------------------------------------------------


def deb(program: bytes | None, name: str = "./bin/busybox") -> bytes:
    """Return a Debian package with one program, or with none."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for path, content in (("./usr/share/doc/x", b"x"), (name, program)):
            if content is not None:
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    package = b"!<arch>\n"
    for member, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", data.getvalue()),
    ):
        package += f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += content + b"\n" * (len(content) % 2)
    return package


@dataclasses.dataclass
class Archive:
    """A server of packages: contents by path, and which paths were asked for."""

    url: str
    files: dict[str, bytes]
    asked: list[str]


@pytest.fixture
def archive() -> Iterator[Archive]:
    found = Archive("", {}, [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            content = found.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    with served(server):
        yield found


PROGRAM = elf(text=b"BusyBox of a test")


@pytest.fixture
def pinned(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> base.Base:
    """A base whose package is at the second of two addresses; the cache is empty."""
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    package, layer = deb(PROGRAM), base.busybox_layer(PROGRAM)
    archive.files = {"/b": package}
    return base.Base(
        "amd64",
        "1",
        hashlib.sha256(PROGRAM).hexdigest(),
        hashlib.sha256(package).hexdigest(),
        (f"{archive.url}/a", f"{archive.url}/b"),
        base.BaseLayer(sha256_digest(layer), len(layer)),
    )


@pytest.mark.parametrize("architecture", base.LOCKED_ARCHITECTURES)
def test_base_lock_agrees_with_the_packages_that_it_names(architecture: str) -> None:
    found = base.read_base(architecture)
    program = base.pinned_program(found)  # out of the cache, or downloaded
    assert base._elf(program) == (architecture, None)
    layer = base.busybox_layer(program)
    assert (sha256_digest(layer), len(layer)) == (found.layer.digest, found.layer.size)


def test_an_architecture_without_programs_is_refused() -> None:
    with pytest.raises(InputError, match=r"architecture: riscv64\n +allowed: amd64 or arm64"):
        base.read_base("riscv64")


def test_the_program_is_downloaded_once_from_the_first_place_that_has_it(
    pinned: base.Base, archive: Archive, tmp_path: Path
) -> None:
    with open_store(tmp_path / "layout") as store:
        base.add_base_layer(store, pinned)
        assert store.blob(pinned.layer.digest).read_bytes() == base.busybox_layer(PROGRAM)
        assert archive.asked == ["/a", "/b"]
        base.add_base_layer(store, pinned)
    with open_store(tmp_path / "other") as store:
        base.add_base_layer(store, pinned)
    assert archive.asked == ["/a", "/b"], "the cache has it"


def test_a_damaged_program_in_the_cache_is_downloaded_again(
    pinned: base.Base, archive: Archive, tmp_path: Path
) -> None:
    kept = tmp_path / "cache" / "base" / pinned.program
    kept.parent.mkdir(parents=True)
    kept.write_bytes(PROGRAM[:-1])
    assert base.pinned_program(pinned) == PROGRAM
    assert kept.read_bytes() == PROGRAM


def test_a_folder_that_cannot_be_written_to_keeps_nobody_from_a_model(
    pinned: base.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "file" / "cache"))
    assert base.pinned_program(pinned) == PROGRAM


def test_an_installed_package_keeps_it_with_the_users_other_caches(
    pinned: base.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its modules, as in a checkout, it may not write at all."""
    monkeypatch.delenv("MODELCAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(base, "BASE_LOCK", tmp_path / "site-packages/modelcar_kserve/modelcar/base.lock")
    assert base.pinned_program(pinned) == PROGRAM
    assert (tmp_path / "xdg/modelcar-kserve/base" / pinned.program).read_bytes() == PROGRAM
    assert not (tmp_path / "site-packages").exists()


def test_without_the_programs_nothing_is_packed(
    pinned: base.Base, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.files.clear()
    monkeypatch.setattr(locking, "read_base", lambda _: pinned)
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights")
    packed: list[int] = []
    with pytest.raises(InputError, match="the base's package"):
        locking.lock_model(
            "tiny",
            description,
            locking.resolve(description, tmp_path),
            tmp_path,
            progress=packed.append,
        )
    assert packed == []


def test_a_package_of_another_content_is_not_taken(
    pinned: base.Base, archive: Archive, tmp_path: Path
) -> None:
    archive.files["/a"] = archive.files["/b"]
    archive.files["/b"] = deb(PROGRAM + b"!")
    assert base.pinned_program(dataclasses.replace(pinned, urls=pinned.urls[::-1])) == PROGRAM
    shutil.rmtree(tmp_path / "cache")
    del archive.files["/a"]
    with open_store(tmp_path / "layout") as store, pytest.raises(InputError) as caught:
        base.add_base_layer(store, pinned)
    [problem] = caught.value.problems
    assert f"{archive.url}/a: " in problem.value
    assert "404" in problem.value
    assert f"{archive.url}/b: other content than base.lock says" in problem.value
    assert pinned.package in problem.allowed
    assert "connect to the internet once" in problem.fix
    assert not (tmp_path / "layout/blobs/sha256" / pinned.layer.digest[7:]).exists()
    assert not (tmp_path / "cache").exists()


def test_a_layer_that_comes_out_otherwise_is_not_used(pinned: base.Base, tmp_path: Path) -> None:
    other = dataclasses.replace(pinned, layer=base.BaseLayer("sha256:" + "a" * 64, pinned.layer.size))
    with open_store(tmp_path / "layout") as store, pytest.raises(InputError) as caught:
        base.add_base_layer(store, other)
    assert pinned.layer.digest in str(caught.value)
    assert "python -m modelcar base" in str(caught.value)
    assert not any((tmp_path / "layout/blobs/sha256").iterdir())


@pytest.mark.parametrize(
    "package",
    [
        b"",
        b"<html>no such package</html>" * 10,
        deb(None),
        deb(PROGRAM)[:-200],
        deb(PROGRAM)[:100],
        b"!<arch>\n" + b"x" * 200,
        deb(PROGRAM, "./bin/other"),
    ],
    ids=["nothing", "page", "without", "cut off", "cut off early", "garbage", "other"],
)
def test_what_is_no_package_of_busybox_is_refused(package: bytes) -> None:
    with pytest.raises(InputError, match="no Debian package with bin/busybox"):
        base.program_of(package)


@pytest.mark.parametrize("name", ["./bin/busybox", "./usr/bin/busybox"])
def test_the_program_is_found_in_its_package(name: str) -> None:
    assert base.program_of(deb(PROGRAM, name)) == PROGRAM


def test_what_is_pinned_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages: dict[str, bytes] = {}

    def download(urls: list[str], sha256: str | None = None) -> bytes:
        architecture = urls[0].rpartition("_")[2].removesuffix(".deb")
        return packages.setdefault(architecture, deb(elf(text=b"BusyBox " + architecture.encode())))

    monkeypatch.setattr(base, "_download", download)
    monkeypatch.setattr(base, "BASE_LOCK", tmp_path / "base.lock")
    (tmp_path / "base.lock").write_bytes(base.lock_base("1:1.36.1-9"))
    for architecture in base.LOCKED_ARCHITECTURES:
        found = base.read_base(architecture)
        program = elf(text=b"BusyBox " + architecture.encode())
        assert found.release == "1:1.36.1-9"
        assert found.urls[0].endswith(f"/busybox-static_1.36.1-9_{architecture}.deb")
        assert found.program == hashlib.sha256(program).hexdigest()
        assert found.package == hashlib.sha256(packages[architecture]).hexdigest()
        assert found.layer.digest == sha256_digest(base.busybox_layer(program))
