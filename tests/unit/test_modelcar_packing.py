"""A locked model as an OCI layout: valid, the same everywhere, cheap to repeat, never half-written."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors.numpy import save_file

from modelcar import fetching, locking, oci_layout, packing, sources
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.layer_format import MAX_LAYERS, group_files, layer_size, tar_header
from modelcar.lock import FolderSource, Lock
from modelcar.lock_reader import read_lock
from modelcar.oci_layout import LayoutStore

KIB = 1024
#: In place of 16 MiB, so that models of some KiB have layers of their own.
LARGE = 64 * KIB
#: Of `write_model`. A change here means that everybody's images get other digests and are uploaded anew.
DIGEST = "sha256:b39f04b62bb2d15ffcdd87b326da5f4f55a6c7eff349952ff891b143d3d26a17"
BASE = read_base("amd64")

FORK = multiprocessing.get_context("fork")


def write_model(folder: Path) -> Path:
    """Write a model of two shards and some small files, one in a folder."""
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "original" / "été 1.txt").write_text("x" * 513)
    names = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"t{number}": np.arange(25_000, dtype=np.int32) + number}, folder / name)
    mapping = {f"t{number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the model in `weights`."""
    write_model(tmp_path / "weights")
    return tmp_path


def lock(project: Path, **options: Any) -> tuple[Lock, int]:
    """Lock the model; return the lock and the bytes that were written."""
    options.setdefault("allow", ("*",))  # `original` too, which is left out where nobody says otherwise
    description = locking.Description(folder="weights", **options)
    resolved = locking.resolve(description, project)
    return locking.lock_model("m", description, resolved, project, large_file=LARGE)


def fetch(project: Path, locked: Lock) -> fetching.Fetched:
    return fetching.fetch(locked, BASE, project, layout(project))


def layout(project: Path) -> Path:
    return locking.layout_path(project, "m")


def digest_in(project: Path) -> str:
    """Return the digest of the image that the layout has."""
    return str(json.loads((layout(project) / "index.json").read_bytes())["manifests"][0]["digest"])


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """Return what a descriptor points at, after checking size and digest."""
    content: bytes = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
    assert len(content) == descriptor["size"]
    assert digest_of(content) == descriptor["digest"]
    return content


def read_image(layout: Path) -> tuple[dict[str, Any], dict[str, Any], list[tarfile.TarFile]]:
    """Read a layout back by the rules of the OCI image specification 1.1."""
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    [described] = index["manifests"]
    assert described["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    manifest = json.loads(blob(layout, described))
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == described["mediaType"]
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    config = json.loads(blob(layout, manifest["config"]))
    contents = [blob(layout, layer) for layer in manifest["layers"]]
    if "zstd" in manifest["layers"][-1]["mediaType"]:
        contents[1:] = [zstandard.ZstdDecompressor().decompressobj().decompress(c) for c in contents[1:]]
    assert config["rootfs"] == {"type": "layers", "diff_ids": [digest_of(content) for content in contents]}
    assert len(config["history"]) == len(contents)
    kept = {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}
    assert kept == {
        described["digest"],
        manifest["config"]["digest"],
        *(layer["digest"] for layer in manifest["layers"]),
    }
    assert {path.name for path in layout.iterdir()} == {"oci-layout", "index.json", "blobs", "ingest"}
    assert not any((layout / "ingest").iterdir())
    return manifest, config, [tarfile.open(fileobj=BytesIO(content)) for content in contents]


def files_of(layers: list[tarfile.TarFile]) -> dict[str, bytes]:
    found = {}
    for layer in layers:
        for entry in layer:
            content = layer.extractfile(entry) if entry.isfile() else None
            if content:
                found[entry.name] = content.read()
    return found


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of everything below a folder and beside it."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.parent.rglob("*")}


_opened: list[str] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note_open)


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Note which files of a folder Python opens, by whatever way."""
    global _opened
    _opened = []
    found: list[str] = []
    try:
        yield found
    finally:
        found += [path for path in _opened if path.startswith(str(folder))]
        _opened = None


# --- contents ---------------------------------------------------------------------------------------


def test_layout_is_a_valid_image_with_all_files(project: Path) -> None:
    locked, written = lock(project)
    manifest, config, layers = read_image(layout(project))
    model = project / "weights"
    found = files_of(layers)
    assert found.pop("bin/busybox").startswith(b"\x7fELF")
    assert found == {
        f"models/{path.relative_to(model)}": path.read_bytes() for path in model.rglob("*") if path.is_file()
    }
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert "Entrypoint" not in config["config"]
    assert config["config"]["Labels"] == manifest["annotations"]
    assert manifest["annotations"]["io.modelcar.lock.digest"] == locked.digest
    assert [layer["digest"] for layer in manifest["layers"][1:]] == [layer.digest for layer in locked.layers]
    assert written == locked.layers_size
    assert digest_in(project) == modelcar_image(locked, BASE).digest
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}


def test_programs_come_first_and_large_files_have_layers_of_their_own(project: Path) -> None:
    locked, _ = lock(project)
    assert [layer.files for layer in locked.layers] == [
        ("model-00001-of-00002.safetensors",),
        ("model-00002-of-00002.safetensors",),
        ("config.json", "model.safetensors.index.json", "original/été 1.txt", "tokenizer.json"),
    ]
    history = [entry["created_by"] for entry in read_image(layout(project))[1]["history"]]
    assert history[0] == "modelcar: bin/busybox"
    assert history[-1] == "modelcar: config.json and 3 more"


def test_entries_can_be_read_by_any_user_and_say_nothing_of_this_machine(project: Path) -> None:
    (project / "weights/config.json").chmod(0o600)
    lock(project)
    _, _, layers = read_image(layout(project))
    for layer in layers[1:]:
        seen = {"."}
        for entry in layer:
            assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 0)
            assert entry.mode == (0o755 if entry.isdir() else 0o444)
            assert str(Path(entry.name).parent) in seen
            seen.add(entry.name)
        assert "models" in seen
    assert "models/original" in layers[-1].getnames()


def test_links_become_files(project: Path) -> None:
    model = project / "weights"
    (model / "config.json").rename(model / "original" / "config")
    (model / "config.json").symlink_to("original/config")
    lock(project)
    assert files_of(read_image(layout(project))[2])["models/config.json"] == b'{"model_type": "qwen2"}'


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_empty_files_are_locked_packed_and_fetched(project: Path, compression: str) -> None:
    for name in (".gitkeep", "code/__init__.py", "zz.txt"):
        (project / "weights" / name).parent.mkdir(exist_ok=True)
        (project / "weights" / name).touch()
    locked, _ = lock(project, compression=compression)
    path = project / "modelcar/models/m/model.lock"
    assert read_lock(path) == locked
    _, _, layers = read_image(layout(project))
    found = {entry.name: entry.size for layer in layers for entry in layer if entry.isfile()}
    assert [found[f"models/{name}"] for name in (".gitkeep", "code/__init__.py", "zz.txt")] == [0, 0, 0]
    shutil.rmtree(layout(project))
    assert fetch(project, locked).layout.image.digest == modelcar_image(locked, BASE).digest


@pytest.mark.parametrize(
    "name",
    [
        "with space.txt",
        " spaces at the ends ",
        "東京 🚀.txt",
        "l" * 101,
        "é" * 120,
        "/".join(["folder-of-a-long-name"] * 12 + ["file"]),
        "-rf",
        "'quotes' \"and\" $HOME `ls` \\n;&|",
        "a=b %41 #",
    ],
    ids=["space", "ends", "unicode", "101", "120 of two bytes", "deep", "option", "shell", "signs"],
)
def test_unusual_names_arrive_as_they_are(project: Path, name: str) -> None:
    path = project / "weights" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 700)
    locked, _ = lock(project)
    assert read_lock(project / "modelcar/models/m/model.lock") == locked
    assert files_of(read_image(layout(project))[2])[f"models/{name}"] == b"x" * 700
    digest = digest_in(project)
    shutil.rmtree(layout(project))
    fetch(project, locked)
    assert digest_in(project) == digest


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("models/" + "deep/" * 60 + "x", 0),
        ("models/été-東京.txt", 5),
        ("models/70B.safetensors", 140 * 2**30),
    ],
)
def test_header_holds_what_the_old_tar_format_cannot(name: str, size: int) -> None:
    header = tar_header(name, 0o444, size=size)
    assert len(header) % 512 == 0
    with tarfile.open(fileobj=BytesIO(header + bytes(1024))) as archive:
        entry = archive.next()
    assert entry is not None
    assert (entry.name, entry.size, entry.mode, entry.mtime) == (name, size, 0o444, 0)


def test_very_many_shards_stay_below_the_limit_of_layers() -> None:
    shards = [(f"{number:03}", LARGE) for number in range(500)]
    groups = group_files([*shards, ("small", 1)], large_file=LARGE)
    assert len(groups) <= MAX_LAYERS
    assert [path for group in groups for path, _ in group] == [*(path for path, _ in shards), "small"]


def test_zstd_layers_are_smaller_and_the_same_each_time(project: Path) -> None:
    plain, _ = lock(project)
    locked, _ = lock(project, compression="zstd")
    assert locked.layers_size < plain.layers_size
    assert [layer.diff_id for layer in locked.layers] == [layer.digest for layer in plain.layers]
    manifest, _, layers = read_image(layout(project))
    assert manifest["layers"][1]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    assert "models/tokenizer.json" in files_of(layers)
    shutil.rmtree(layout(project))
    assert fetch(project, locked).layout.image.digest == modelcar_image(locked, BASE).digest
    read_image(layout(project))


def test_another_version_of_zstd_is_told_apart_from_another_content(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, _ = lock(project, compression="zstd")
    shutil.rmtree(layout(project))
    monkeypatch.setattr(packing, "ZSTD_LEVEL", 1)
    with pytest.raises(InputError, match=r"compresses differently here(?s:.*)requirements\.lock"):
        fetch(project, locked)
    assert not (layout(project) / "index.json").exists()


# --- the same everywhere ----------------------------------------------------------------------------


def test_digest_depends_on_names_and_contents_only(project: Path, tmp_path: Path) -> None:
    first, _ = lock(project)
    assert digest_in(project) == DIGEST
    before = os.umask(0o077)
    try:
        other = tmp_path / "another place"
        shutil.copytree(project / "weights", other / "weights", copy_function=shutil.copyfile)
        for number, path in enumerate(sorted(other.rglob("*"), reverse=True)):
            os.utime(path, (10**9 + number, 10**9 - number))
        second, _ = lock(other)
    finally:
        os.umask(before)
    assert second == first
    for path in layout(project).rglob("*"):
        if path.is_file():
            twin = layout(other) / path.relative_to(layout(project))
            assert twin.read_bytes() == path.read_bytes()
            assert twin.stat().st_mode & 0o777 == 0o644


def test_what_was_locked_is_read_back_and_fetched_to_the_same_digest(project: Path) -> None:
    locked, _ = lock(project)
    assert read_lock(project / "modelcar/models/m/model.lock") == locked
    shutil.rmtree(layout(project))
    fetched = fetch(project, locked)
    assert fetched.written == locked.layers_size
    assert digest_in(project) == DIGEST
    read_image(layout(project))
    assert fetch(project, locked).written == 0


def test_other_contents_or_another_name_give_another_digest(project: Path) -> None:
    lock(project)
    digests = {digest_in(project)}
    (project / "weights/tokenizer.json").write_text("{ }")
    lock(project)
    digests.add(digest_in(project))
    (project / "weights/original").rename(project / "weights/first")
    lock(project)
    digests.add(digest_in(project))
    assert len(digests) == 3


def test_another_processor_gets_the_same_weights(project: Path) -> None:
    locked, _ = lock(project)
    fetched = fetching.fetch(locked, read_base("arm64"), project, layout(project))
    assert fetched.written == 0
    manifest, config, _ = read_image(layout(project))
    assert config["architecture"] == "arm64"
    assert [layer["digest"] for layer in manifest["layers"][1:]] == [layer.digest for layer in locked.layers]


# --- only what changed ------------------------------------------------------------------------------


def test_unchanged_weights_are_neither_opened_nor_written(project: Path) -> None:
    first, _ = lock(project)
    before = state(layout(project))
    description = locking.Description(folder="weights", allow=("*",))
    resolved = locking.resolve(description, project)
    with opened_files(project / "weights") as opened:
        second, written = locking.lock_model("m", description, resolved, project, large_file=LARGE)
    assert opened == []
    assert state(layout(project)) == before
    assert (second, written) == (first, 0)


def test_one_changed_file_is_the_only_one_read(project: Path) -> None:
    first, _ = lock(project)
    shard = project / "weights/model-00002-of-00002.safetensors"
    save_file({"t1": np.arange(25_000, dtype=np.int32) + 7}, shard)
    description = locking.Description(folder="weights", allow=("*",))
    resolved = locking.resolve(description, project)
    with opened_files(project / "weights") as opened:
        second, written = locking.lock_model("m", description, resolved, project, large_file=LARGE)
    assert opened == [str(shard)]
    assert second.layers[1].digest != first.layers[1].digest
    assert (second.layers[0], second.layers[2]) == (first.layers[0], first.layers[2])
    assert written == second.layers[1].size
    read_image(layout(project))  # the old layer is gone


@pytest.mark.parametrize("number", [1, 5, 8])
def test_a_change_of_one_of_eight_files_writes_that_one(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "weights"
    write_model(folder)
    for path in folder.glob("model*"):
        path.unlink()
    names = [f"model-{shard:05}-of-00008.safetensors" for shard in range(1, 9)]
    for shard, name in enumerate(names):
        save_file({f"t{shard}": np.arange(25_000, dtype=np.int32) + shard}, folder / name)
    mapping = {f"t{shard}": name for shard, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    first, _ = lock(tmp_path)
    blobs = layout(tmp_path) / "blobs/sha256"
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in blobs.iterdir()}
    changed = folder / names[number - 1]
    save_file({f"t{number - 1}": np.arange(25_000, dtype=np.int32) * 5}, changed)
    second, written = lock(tmp_path)
    assert written == second.layers[number - 1].size
    different = [
        n for n, pair in enumerate(zip(first.layers, second.layers, strict=True)) if len({*pair}) > 1
    ]
    assert different == [number - 1]
    after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in blobs.iterdir()}
    assert len(before.keys() & after.keys()) == 9, "seven shards, the small files, the programs"
    assert all(after[name] == before[name] for name in before.keys() & after.keys())


def test_change_with_the_old_size_and_time_is_seen(project: Path) -> None:
    first, _ = lock(project)
    config = project / "weights/config.json"
    times = config.stat().st_atime_ns, config.stat().st_mtime_ns
    with config.open("r+") as file:
        file.write('{"model_type": "qwen3"}')
    os.utime(config, ns=times)
    assert lock(project)[0].digest != first.digest


def test_reading_begins_when_any_later_change_would_show(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one tick of the kernel's clock a file's times do not change; packing outlasts the tick."""
    monkeypatch.setattr(sources, "CLOCK_TICK", 300_000_000)
    read, began = sources.FolderFiles.read, []

    def noted(self: sources.FolderFiles, path: str, start: int, sink: sources.Sink) -> None:
        began.append(time.time_ns())
        read(self, path, start, sink)

    monkeypatch.setattr(sources.FolderFiles, "read", noted)
    (project / "weights/config.json").write_text('{"model_type": "just written"}')
    lock(project)
    assert min(began) - (project / "weights/config.json").stat().st_ctime_ns >= 300_000_000


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_damaged_layer_is_written_again(project: Path, damage: str) -> None:
    locked, _ = lock(project)
    path = layout(project) / "blobs" / locked.layers[0].digest.replace(":", "/")
    if damage == "remove":
        path.unlink()
    else:
        os.truncate(path, 10)
    assert fetch(project, locked).written == locked.layers[0].size
    read_image(layout(project))


def test_unreadable_record_costs_time_only(project: Path) -> None:
    locked, _ = lock(project)
    [record] = layout(project).parent.glob(".*.record.json")
    record.write_text("{")
    again, written = lock(project)
    assert again == locked
    assert written > 0


@pytest.mark.parametrize("damage", ["a byte", "the end", "the whole"])
def test_verify_finds_what_lock_and_disk_disagree_on(project: Path, damage: str) -> None:
    locked, _ = lock(project)
    assert fetching.verify(locked, layout(project)) == ()
    path = layout(project) / "blobs" / locked.layers[1].digest.replace(":", "/")
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[5000] ^= 1
        path.write_bytes(content)
    elif damage == "the end":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    [problem] = fetching.verify(locked, layout(project))
    assert "model-00002-of-00002.safetensors" in problem.value
    assert "fetch" in problem.fix


# --- what goes wrong --------------------------------------------------------------------------------


def in_child(action: Callable[[], object]) -> int:
    """Run something in another process and return how it ended."""
    process = FORK.Process(target=action)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def killed_while_packing(project: Path, moment: str) -> None:
    """Pack in another process, killed in the middle of a layer or just before the index is written."""

    def pack_and_die() -> None:
        if moment == "publish":
            LayoutStore.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
        else:
            read = sources.FolderFiles.read

            def dying(self: sources.FolderFiles, path: str, start: int, sink: sources.Sink) -> None:
                def die(data: bytes | memoryview) -> None:
                    sink(data[:KIB])
                    os.kill(os.getpid(), signal.SIGKILL)

                read(self, path, start, die if path.startswith("model-00002") else sink)

            sources.FolderFiles.read = dying  # type: ignore[method-assign]
        sources.FolderFiles.jobs = 1  # one layer after the other
        lock(project)

    assert in_child(pack_and_die) == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["layer", "publish"])
def test_kill_during_the_first_write(project: Path, moment: str) -> None:
    killed_while_packing(project, moment)
    assert not (layout(project) / "index.json").exists()
    assert not (project / "modelcar/models/m/model.lock").exists()
    description = locking.Description(folder="weights", allow=("*",))
    resolved = locking.resolve(description, project)
    with opened_files(project / "weights") as opened:
        locking.lock_model("m", description, resolved, project, large_file=LARGE)
    assert str(project / "weights/model-00001-of-00002.safetensors") not in opened, (
        "what was done is not lost"
    )
    assert digest_in(project) == DIGEST
    read_image(layout(project))


@pytest.mark.parametrize("moment", ["layer", "publish"])
def test_kill_during_a_change_leaves_the_former_image(project: Path, moment: str) -> None:
    former, _ = lock(project)
    for number in (1, 2):
        tensors = {f"t{number - 1}": np.arange(25_000, dtype=np.int32) * 3}
        save_file(tensors, project / f"weights/model-{number:05}-of-00002.safetensors")
    killed_while_packing(project, moment)
    assert digest_in(project) == DIGEST
    assert fetching.verify(former, layout(project)) == ()
    assert read_lock(project / "modelcar/models/m/model.lock") == former
    lock(project)
    assert digest_in(project) != DIGEST
    read_image(layout(project))


def refused(action: Callable[[], object], project: Path) -> str:
    """Return the one problem that an action is refused for, having published nothing."""
    with pytest.raises(InputError) as caught:
        action()
    [problem] = caught.value.problems
    assert problem.allowed
    assert problem.fix
    assert not (layout(project) / "index.json").exists()
    return f"{problem.key}: {problem.value}; {problem.allowed}; {problem.fix}"


@pytest.mark.parametrize("change", ["grow", "remove", "replace", "touch"])
def test_file_that_changed_since_the_check(project: Path, change: str) -> None:
    description = locking.Description(folder="weights", allow=("*",))
    resolved = locking.resolve(description, project)
    config = project / "weights/config.json"
    if change == "grow":
        config.write_text("longer than before, by far")
    elif change == "touch":
        config.touch()
    else:
        config.rename(project / "away")
        if change == "replace":
            shutil.copy2(project / "away", config)
    said = refused(lambda: locking.lock_model("m", description, resolved, project), project)
    assert f"{config}: changed while it was packed" in said


@pytest.mark.parametrize("change", ["write", "append", "cut"])
def test_file_that_changes_while_it_is_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    shard = project / "weights/model-00001-of-00002.safetensors"
    read = sources.FolderFiles.read

    left = 1

    def changing(self: sources.FolderFiles, path: str, start: int, sink: sources.Sink) -> None:
        def change_once(data: bytes | memoryview) -> None:
            nonlocal left
            sink(data)
            if left:
                left -= 1
                with shard.open("ab" if change == "append" else "r+b") as file:
                    if change == "cut":
                        file.truncate(1000)
                    else:
                        file.write(b"another content")

        read(self, path, start, change_once if path == shard.name else sink)

    monkeypatch.setattr(sources.FolderFiles, "read", changing)
    monkeypatch.setattr(sources, "BUFFER", 10_000)
    said = refused(lambda: lock(project), project)
    assert f"{shard}: changed while it was packed" in said
    assert not any((layout(project) / "ingest").iterdir())


def test_a_byte_that_differs_from_the_lock_is_refused(project: Path) -> None:
    locked, _ = lock(project)
    shutil.rmtree(layout(project))
    shard = project / "weights/model-00001-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    said = refused(lambda: fetch(project, locked), project)
    assert said.startswith(f"{shard}: sha256 {hashlib.sha256(content).hexdigest()}; ")
    assert f"{locked.files[1].sha256}, as the lock says" in said
    assert not any((layout(project) / "ingest").iterdir())


@pytest.mark.parametrize("change", ["shorter", "gone"])
def test_a_file_of_another_size_than_locked_is_refused_before_it_is_read(project: Path, change: str) -> None:
    locked, _ = lock(project)
    shutil.rmtree(layout(project))
    extra = project / "weights/original/été 1.txt"
    if change == "gone":
        extra.unlink()
    else:
        extra.write_text("x")
    with opened_files(project / "weights/original") as opened:
        said = refused(lambda: fetch(project, locked), project)
    assert ("there is no such file" if change == "gone" else "1 bytes") in said
    assert "513 bytes, as the lock says" in said
    assert len(opened) <= 1, "opened by the check alone"


def link_out(folder: Path) -> None:
    (folder / "x").symlink_to("/etc/hostname")


def names_in_two_cases(folder: Path) -> None:
    for name in ("README.md", "readme.md"):
        (folder / name).write_text("x")


def cut_off(folder: Path) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)


#: What makes a folder unfit, and what is said of it.
UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "link out": (link_out, "outside of the folder"),
    "link to nothing": (lambda folder: (folder / "x").symlink_to("y"), "which is not there"),
    "link to a folder": (lambda folder: (folder / "x").symlink_to("original"), "a link to a folder"),
    "newline": (lambda folder: (folder / "a\nb").write_text("x"), "control character"),
    "not UTF-8": (lambda folder: (folder / os.fsdecode(b"\xe9")).write_text("x"), "not UTF-8"),
    "no bytes": (lambda folder: (folder / "generation_config.json").write_text(""), "0 bytes"),
    "two cases": (names_in_two_cases, "the same name as README.md"),
    "whiteout": (lambda folder: (folder / ".wh.config.json").write_text("x"), "deletes a file"),
    "pickle": (lambda folder: (folder / "pytorch_model.bin").write_text("x"), "can run any code"),
    "cut off": (cut_off, "it is cut off"),
    "shard missing": (lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(), "missing"),
    "unfinished": (lambda folder: (folder / "x.incomplete").write_text("x"), "an unfinished download"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "a device, pipe or socket"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_folder_leaves_image_and_lock_as_they_were(project: Path, case: str) -> None:
    spoil, expected = UNFIT[case]
    former, _ = lock(project)
    before = state(layout(project))
    committed = (project / "modelcar/models/m/model.lock").read_bytes()
    spoil(project / "weights")
    with pytest.raises(InputError) as caught:
        lock(project)
    [problem] = caught.value.problems
    assert expected in problem.value
    assert problem.key.startswith(str(project / "weights"))
    assert problem.key.isprintable()
    assert problem.allowed
    assert problem.fix
    assert state(layout(project)) == before
    assert (project / "modelcar/models/m/model.lock").read_bytes() == committed
    assert fetch(project, former).written == 0


def edited(locked: Lock, size: int, digest: str) -> Lock:
    """Return a lock whose numbers agree with each other, but not with the files."""
    files = tuple(
        dataclasses.replace(file, size=file.size + size, sha256=digest or file.sha256)
        if file.path == "config.json"
        else file
        for file in locked.files
    )
    sizes = {file.path: file.size for file in files}
    layers = tuple(
        dataclasses.replace(layer, size=layer_size([(path, sizes[path]) for path in layer.files]))
        for layer in locked.layers
    )
    return dataclasses.replace(locked, files=files, layers=layers)


@pytest.mark.parametrize(("size", "digest"), [(1, ""), (-1, ""), (512, ""), (0, "a" * 64)])
def test_a_lock_edited_so_that_its_numbers_agree_is_still_found_out(
    project: Path, size: int, digest: str
) -> None:
    locked, _ = lock(project)
    shutil.rmtree(layout(project))
    said = refused(lambda: fetch(project, edited(locked, size, digest)), project)
    assert "weights/config.json" in said
    assert "as the lock says" in said
    assert digest or f"{locked.files[0].size + size} bytes" in said


def test_a_layers_digest_edited_by_hand_is_found_out(project: Path) -> None:
    locked, _ = lock(project)
    shutil.rmtree(layout(project))
    wrong = dataclasses.replace(locked.layers[0], digest="sha256:" + "a" * 64, diff_id="sha256:" + "a" * 64)
    changed = dataclasses.replace(locked, layers=(wrong, *locked.layers[1:]))
    said = refused(lambda: fetch(project, changed), project)
    assert said.startswith(f"model-00001-of-00002.safetensors: make the layer {locked.layers[0].digest}")
    assert "lock the model again" in said


def test_a_lock_that_could_not_be_read_back_is_not_written(project: Path) -> None:
    said = refused(lambda: lock(project, license="two\nlines"), project)
    assert r"license: 'two\nlines'; " in said
    assert "--license" in said
    assert not (project / "modelcar/models/m/model.lock").exists()


def test_a_folder_that_is_gone_is_told(project: Path) -> None:
    locked, _ = lock(project)
    shutil.rmtree(layout(project))
    moved = dataclasses.replace(locked, source=FolderSource("elsewhere"))
    said = refused(lambda: fetch(project, moved), project)
    assert said.startswith(f"{project}/elsewhere: there is no such folder")


def test_a_disk_that_fills_up_in_mid_write_is_told_once_and_gone_on_from(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = packing._LayerWriter._put

    def full(self: packing._LayerWriter, data: bytes | memoryview) -> None:
        if self.size > 50_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, data)

    monkeypatch.setattr(packing._LayerWriter, "_put", full)
    said = refused(lambda: lock(project), project)  # one problem, though two layers are written at a time
    assert said.startswith(f"{layout(project)}: the disk became full")
    assert "run it again" in said
    assert not (project / "modelcar/models/m/model.lock").exists()
    assert not any((layout(project) / "ingest").iterdir()), "no room is held by what is read again anyway"
    monkeypatch.setattr(packing._LayerWriter, "_put", put)
    lock(project)
    assert digest_in(project) == DIGEST


@pytest.mark.parametrize("trouble", [errno.EIO, errno.EACCES])
def test_other_trouble_with_the_disk_is_not_taken_for_a_full_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    def broken(self: packing._LayerWriter, data: bytes | memoryview) -> None:
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(packing._LayerWriter, "_put", broken)
    with pytest.raises(OSError, match=os.strerror(trouble)):
        lock(project)
    assert not (layout(project) / "index.json").exists()


Usage = namedtuple("Usage", ("total", "used", "free"))


def test_full_disk_is_refused_before_anything_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 123_456, 123_456))
    said = refused(lambda: lock(project), project)
    assert said.startswith(f"{layout(project)}: the disk has 123456 bytes free")
    needed = int(said.split("at least ")[1].split()[0])
    total = sum(path.stat().st_size for path in (project / "weights").rglob("*") if path.is_file())
    assert total < needed < total + 9 * 2**20
    there = {path.name for path in (layout(project) / "blobs/sha256").iterdir()}
    assert there == {BASE.layer.digest.removeprefix("sha256:")}, "no weights"


def test_unchanged_weights_need_no_disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, _ = lock(project)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    assert lock(project)[0] == locked
    assert fetch(project, locked).written == 0


def test_folders_with_other_things_are_not_touched(project: Path) -> None:
    place = layout(project)
    (place / "blobs" / "sha256").mkdir(parents=True)
    (place / "blobs" / "sha256" / "0123").write_text("somebody else's")
    assert "holds files that this program did not write" in refused(lambda: lock(project), project)
    assert (place / "blobs" / "sha256" / "0123").read_text() == "somebody else's"
    shutil.rmtree(place)
    place.write_text("x")
    with pytest.raises(InputError, match="is not a folder"):
        lock(project)


def test_somebody_elses_layout_is_not_touched(project: Path) -> None:
    lock(project)
    place = layout(project)
    config = {"history": [{"created_by": "COPY model"}]}
    described = [{"digest": digest_of(json.dumps(config).encode())}]
    manifest = json.dumps({"config": described[0]}).encode()
    for content in (json.dumps(config).encode(), manifest):
        (place / "blobs" / digest_of(content).replace(":", "/")).write_bytes(content)
    (place / "index.json").write_text(json.dumps({"manifests": [{"digest": digest_of(manifest)}]}))
    before = state(place)
    with pytest.raises(InputError, match="did not write"):
        lock(project)
    assert {path: at for path, at in state(place).items() if not path.endswith(".lock")} == {
        path: at for path, at in before.items() if not path.endswith(".lock")
    }


@pytest.mark.parametrize("content", [b"", bytes(64), b'{"manifests": ['], ids=["empty", "zeros", "cut"])
@pytest.mark.parametrize("damaged", ["index", "manifest", "config", "oci-layout"])
def test_what_a_power_cut_leaves_of_a_layout_is_written_again(
    project: Path, damaged: str, content: bytes
) -> None:
    """Gigabytes of layers are there: nobody is told to remove them."""
    locked, _ = lock(project)
    image = modelcar_image(locked, BASE)
    place = layout(project)
    digests = {"manifest": image.digest, "config": image.config_digest}
    known = {"index": place / "index.json", "oci-layout": place / "oci-layout"}
    path = known.get(damaged) or place / "blobs" / digests[damaged].replace(":", "/")
    path.write_bytes(content)
    assert not fetching.verify(locked, place)
    assert fetch(project, locked).written == 0
    assert digest_in(project) == DIGEST
    path.write_bytes(content)
    assert lock(project) == (locked, 0)
    read_image(place)


def test_a_run_that_was_killed_at_its_first_file_is_gone_on_from(project: Path) -> None:
    layout(project).mkdir(parents=True)
    (layout(project) / ".oci-layout.4711").write_bytes(b"{")
    lock(project)
    read_image(layout(project))


def test_concurrent_writers_take_turns(project: Path) -> None:
    other = write_model(project / "other")
    (other / "config.json").write_text('{"model_type": "llama"}')

    def of(folder: str) -> Callable[[], object]:
        description = locking.Description(folder=folder)
        return lambda: locking.lock_model(
            "m", description, locking.resolve(description, project), project, large_file=LARGE
        )

    processes = [FORK.Process(target=of(folder)) for folder in ("weights", "other") * 4]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    read_image(layout(project))
    lock(project)
    assert digest_in(project) == DIGEST


def test_who_waits_for_another_command_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A `push` or an `up` beside a download of an hour seemed to hang."""
    locked, _ = lock(project)
    monkeypatch.setattr(oci_layout, "PATIENCE", 0.0)
    with ThreadPoolExecutor(1) as pool:
        with oci_layout.open_store(layout(project)):
            waiting = pool.submit(fetching.verify, locked, layout(project))
            told = ""
            while "waiting" not in told:
                assert not waiting.done()
                told += capfd.readouterr().err
        assert waiting.result(timeout=60) == ()
    assert "m.oci is in use by another command: waiting" in told
    fetching.verify(locked, layout(project))
    assert capfd.readouterr().err == ""


def test_memory_does_not_grow_with_the_model(project: Path) -> None:
    """256 MiB in one file, by a process that may have little more memory than Python and its libraries."""
    save_file({"t0": np.zeros(64 * 2**20, np.float32)}, project / "weights/model-00001-of-00002.safetensors")
    command = [sys.executable, "-c", MEASURE, str(project)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(result.stdout)
    assert grown < 32 * 2**20, f"{grown / 2**20:.0f} MiB"


MEASURE = """
import resource, sys
from pathlib import Path
from modelcar import locking
project = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
description = locking.Description(folder="weights", allow=("*",))
locking.lock_model("m", description, locking.resolve(description, project), project)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_progress_counts_every_byte(project: Path) -> None:
    seen: list[int] = []
    description = locking.Description(folder="weights", allow=("*",))
    resolved = locking.resolve(description, project)
    locked, _ = locking.lock_model(
        "m", description, resolved, project, large_file=LARGE, progress=seen.append
    )
    assert sum(seen) == locked.layers_size
