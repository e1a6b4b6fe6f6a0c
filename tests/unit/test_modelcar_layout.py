"""The OCI layout of weights: valid, the same everywhere, cheap to repeat, never half-written."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tarfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelcar import layout as layout_module
from modelcar.errors import InputError
from modelcar.layout import MAX_LAYERS, Layout, group_files, write_layout
from modelcar.oci_layout import LayoutStore, tar_header
from modelcar.weights import WeightFile, Weights, read_weights

KIB = 1024
#: In place of 16 MiB, so that models of some KiB have layers of their own.
LARGE = 64 * KIB
#: Of `write_model`. A change here means that everybody's images get other digests and are uploaded anew.
DIGEST = "sha256:e2b92a281b2346045cab2c3c06ad584e9c5118f3dd6360dea31c9ab94c50b89c"

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
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def pack(model: Path, destination: Path) -> Layout:
    return write_layout(read_weights(model), destination, large_file=LARGE)


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
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert config["rootfs"] == {"type": "layers", "diff_ids": [digest_of(content) for content in contents]}
    assert len(config["history"]) == len(contents)
    kept = {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}
    assert kept == {
        described["digest"],
        manifest["config"]["digest"],
        *(layer["digest"] for layer in manifest["layers"]),
    }
    assert {path.name for path in layout.iterdir()} == {"oci-layout", "index.json", "blobs"}
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


def test_layout_is_a_valid_image_with_all_files(model: Path, tmp_path: Path) -> None:
    layout = pack(model, tmp_path / "out")
    manifest, config, layers = read_image(layout.path)
    assert files_of(layers) == {
        f"models/{path.relative_to(model)}": path.read_bytes() for path in model.rglob("*") if path.is_file()
    }
    assert (config["architecture"], config["os"], config["created"]) == (
        "amd64",
        "linux",
        "1970-01-01T00:00:00Z",
    )
    assert "Entrypoint" not in config["config"]
    assert [layer.digest for layer in layout.layers] == [layer["digest"] for layer in manifest["layers"]]
    assert [layer.size for layer in layout.layers] == [layer["size"] for layer in manifest["layers"]]
    assert layout.written == sum(layer.size for layer in layout.layers)
    blobs = (tmp_path / "out" / "blobs" / "sha256").iterdir()
    assert layout.total_size == sum(path.stat().st_size for path in blobs)
    assert layout.context == f"oci-layout://{tmp_path}/out@{layout.manifest_digest}"


def test_large_files_have_layers_of_their_own(model: Path, tmp_path: Path) -> None:
    layout = pack(model, tmp_path / "out")
    assert [layer.files for layer in layout.layers] == [
        ("model-00001-of-00002.safetensors",),
        ("model-00002-of-00002.safetensors",),
        ("config.json", "model.safetensors.index.json", "original/été 1.txt", "tokenizer.json"),
    ]


def test_entries_can_be_read_by_any_user_and_say_nothing_of_this_machine(model: Path, tmp_path: Path) -> None:
    (model / "config.json").chmod(0o600)
    _, _, layers = read_image(pack(model, tmp_path / "out").path)
    for layer in layers:
        seen = {"."}
        for entry in layer:
            assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 0)
            assert entry.mode == (0o755 if entry.isdir() else 0o444)
            assert str(Path(entry.name).parent) in seen
            seen.add(entry.name)
        assert "models" in seen
    assert "models/original" in layers[-1].getnames()


def test_links_become_files(model: Path, tmp_path: Path) -> None:
    (model / "config.json").rename(model / "original" / "config")
    (model / "config.json").symlink_to("original/config")
    _, _, layers = read_image(pack(model, tmp_path / "out").path)
    assert files_of(layers)["models/config.json"] == b'{"model_type": "qwen2"}'


def test_architecture_is_a_parameter(model: Path, tmp_path: Path) -> None:
    layout = write_layout(read_weights(model), tmp_path / "out", architecture="arm64")
    assert read_image(layout.path)[1]["architecture"] == "arm64"


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
    shards = [WeightFile(f"{number:03}", Path("x"), LARGE, 0, 0, number) for number in range(500)]
    groups = group_files([*shards, WeightFile("small", Path("x"), 1, 0, 0, 1)], LARGE)
    assert len(groups) <= MAX_LAYERS
    assert [file.path for group in groups for file in group] == [*(file.path for file in shards), "small"]


# --- the same everywhere ----------------------------------------------------------------------------


def test_digest_depends_on_names_and_contents_only(model: Path, tmp_path: Path) -> None:
    first = pack(model, tmp_path / "first")
    assert first.manifest_digest == DIGEST
    before = os.umask(0o077)
    try:
        other = tmp_path / "another place"
        shutil.copytree(model, other, copy_function=shutil.copyfile)
        for number, path in enumerate(sorted(other.rglob("*"), reverse=True)):
            os.utime(path, (10**9 + number, 10**9 - number))
        second = pack(other, tmp_path / "second")
    finally:
        os.umask(before)
    assert second.manifest_digest == first.manifest_digest
    assert second.layers == first.layers
    for path in first.path.rglob("*"):
        if path.is_file():
            twin = second.path / path.relative_to(first.path)
            assert twin.read_bytes() == path.read_bytes()
            assert twin.stat().st_mode & 0o777 == 0o644


def test_other_contents_or_another_name_give_another_digest(model: Path, tmp_path: Path) -> None:
    digests = {pack(model, tmp_path / "a").manifest_digest}
    (model / "tokenizer.json").write_text("{ }")
    digests.add(pack(model, tmp_path / "b").manifest_digest)
    (model / "original").rename(model / "first")
    digests.add(pack(model, tmp_path / "c").manifest_digest)
    assert len(digests) == 3


# --- only what changed ------------------------------------------------------------------------------


def test_unchanged_weights_are_neither_opened_nor_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "layouts" / "out"
    first = pack(model, out)
    before = state(out)
    weights = read_weights(model)
    with opened_files(model) as opened:
        second = write_layout(weights, out, large_file=LARGE)
    assert opened == []
    assert state(out) == before
    assert second == first
    assert second.written == 0


def test_one_changed_file_is_the_only_one_read(model: Path, tmp_path: Path) -> None:
    first = pack(model, tmp_path / "out")
    shard = model / "model-00002-of-00002.safetensors"
    save_file({"t1": np.arange(25_000, dtype=np.int32) + 7}, shard)
    weights = read_weights(model)
    with opened_files(model) as opened:
        second = write_layout(weights, tmp_path / "out", large_file=LARGE)
    assert opened == [str(shard)]
    assert second.layers[1].digest != first.layers[1].digest
    assert (second.layers[0], second.layers[2]) == (first.layers[0], first.layers[2])
    assert second.written == second.layers[1].size
    read_image(second.path)  # the old layer is gone


def test_change_with_the_old_size_and_time_is_seen(model: Path, tmp_path: Path) -> None:
    first = pack(model, tmp_path / "out")
    config = model / "config.json"
    times = config.stat().st_atime_ns, config.stat().st_mtime_ns
    with config.open("r+") as file:
        file.write('{"model_type": "qwen3"}')
    os.utime(config, ns=times)
    assert pack(model, tmp_path / "out").manifest_digest != first.manifest_digest


def test_change_right_after_packing_is_seen(model: Path, tmp_path: Path) -> None:
    """Within one tick of the clock a file's times do not change; packing outlasts the tick."""
    config = model / "config.json"
    digests = set()
    for number in range(10):
        config.write_text(json.dumps({"model_type": str(number)}))
        digests.add(pack(model, tmp_path / "out").manifest_digest)
    assert len(digests) == 10


@pytest.mark.parametrize("damage", ["truncate", "remove", "overwrite"])
def test_damaged_layer_is_written_again(model: Path, tmp_path: Path, damage: str) -> None:
    layout = pack(model, tmp_path / "out")
    path = layout.path / "blobs" / layout.layers[0].digest.replace(":", "/")
    if damage == "remove":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.write(b"damage")
            file.truncate(10 if damage == "truncate" else None)
    assert pack(model, tmp_path / "out").manifest_digest == layout.manifest_digest
    read_image(layout.path)


def test_unreadable_record_costs_time_only(model: Path, tmp_path: Path) -> None:
    layout = pack(model, tmp_path / "out")
    (tmp_path / ".out.record.json").write_text("{")
    again = pack(model, tmp_path / "out")
    assert again == layout
    assert again.written > 0


# --- what goes wrong --------------------------------------------------------------------------------


def in_child(action: Callable[[], object]) -> int:
    """Run something in another process and return how it ended."""
    process = FORK.Process(target=action)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def killed_while_packing(model: Path, out: Path, moment: str) -> None:
    """Pack in another process, killed in the middle of a layer or just before the index is written."""

    def pack_and_die() -> None:
        if moment == "publish":
            LayoutStore.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
        else:
            content = layout_module._content

            def dying(file: WeightFile, buffer: memoryview) -> Iterator[memoryview]:
                for count, chunk in enumerate(content(file, buffer[:KIB])):
                    if file.path.startswith("model-00002") and count == 3:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield chunk

            layout_module._content = dying
        pack(model, out)

    assert in_child(pack_and_die) == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["layer", "publish"])
def test_kill_during_the_first_write(model: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    killed_while_packing(model, out, moment)
    assert not (out / "index.json").exists()
    weights = read_weights(model)
    with opened_files(model) as opened:
        layout = write_layout(weights, out, large_file=LARGE)
    assert str(model / "model-00001-of-00002.safetensors") not in opened  # what was done is not lost
    assert layout.manifest_digest == DIGEST
    read_image(out)


@pytest.mark.parametrize("moment", ["layer", "publish"])
def test_kill_during_a_change_leaves_the_former_image(model: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    pack(model, out)
    for number in (1, 2):
        tensors = {f"t{number - 1}": np.arange(25_000, dtype=np.int32) * 3}
        save_file(tensors, model / f"model-{number:05}-of-00002.safetensors")
    killed_while_packing(model, out, moment)
    [described] = json.loads((out / "index.json").read_bytes())["manifests"]
    assert described["digest"] == DIGEST
    for layer in json.loads(blob(out, described))["layers"]:
        blob(out, layer)
    assert pack(model, out).manifest_digest != DIGEST
    read_image(out)


def refused(weights: Weights, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        write_layout(weights, out, large_file=LARGE)
    [problem] = caught.value.problems
    assert problem.allowed
    assert problem.fix
    assert not (out / "index.json").exists()
    return f"{problem.key}: {problem.value}; {problem.allowed}; {problem.fix}"


@pytest.mark.parametrize("change", ["grow", "remove", "replace", "touch"])
def test_file_that_changed_since_the_check(model: Path, tmp_path: Path, change: str) -> None:
    weights = read_weights(model)
    config = model / "config.json"
    if change == "grow":
        config.write_text("longer than before, by far")
    elif change == "touch":
        config.touch()
    else:
        config.rename(model / "away")
        if change == "replace":
            shutil.copy2(model / "away", config)
    assert f"{config}: changed while it was packed" in refused(weights, tmp_path / "out")


@pytest.mark.parametrize("size", [10 * KIB, 200 * KIB])
def test_file_that_changes_while_it_is_read(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    shard = model / "model-00001-of-00002.safetensors"
    content = layout_module._content

    def changing(file: WeightFile, buffer: memoryview) -> Iterator[memoryview]:
        for chunk in content(file, buffer[:KIB]):
            os.truncate(shard, size)
            yield chunk

    monkeypatch.setattr(layout_module, "_content", changing)
    assert f"{shard}: changed while it was packed" in refused(read_weights(model), tmp_path / "out")


Usage = namedtuple("Usage", ("total", "used", "free"))


def test_full_disk_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 123_456, 123_456))
    weights = read_weights(model)
    message = refused(weights, tmp_path / "out")
    assert message.startswith(f"{tmp_path}/out: the disk has 123456 bytes free")
    needed = int(message.split("at least ")[1].split()[0])
    assert weights.total_size < needed < weights.total_size + 2 * 2**20
    assert not any((tmp_path / "out" / "blobs" / "sha256").iterdir())


def test_unchanged_weights_need_no_disk(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = pack(model, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    assert pack(model, tmp_path / "out") == layout


def test_folders_with_other_things_are_not_touched(model: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "blobs" / "sha256").mkdir(parents=True)
    (precious / "blobs" / "sha256" / "0123").write_text("somebody else's")
    (tmp_path / "file").write_text("x")
    assert "holds files that this program did not write" in refused(read_weights(model), precious)
    assert "is not a folder" in refused(read_weights(model), tmp_path / "file")
    # Somebody else's image layout, whole and valid.
    layout = pack(model, tmp_path / "out").path
    config = {"history": [{"created_by": "COPY model"}]}
    described = [{"digest": digest_of(json.dumps(config).encode())}]
    manifest = json.dumps({"config": described[0]}).encode()
    for content in (json.dumps(config).encode(), manifest):
        (layout / "blobs" / digest_of(content).replace(":", "/")).write_bytes(content)
    (layout / "index.json").write_text(json.dumps({"manifests": [{"digest": digest_of(manifest)}]}))
    before = state(layout)
    with pytest.raises(InputError, match="did not write"):
        pack(model, layout)
    assert {path: at for path, at in state(layout).items() if not path.endswith(".lock")} == {
        path: at for path, at in before.items() if not path.endswith(".lock")
    }


def test_concurrent_writers_take_turns(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "llama"}')
    out = tmp_path / "out"
    processes = [FORK.Process(target=pack, args=(folder, out)) for folder in (model, other) * 4]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    read_image(out)
    assert pack(model, out).manifest_digest == DIGEST


def test_progress_is_reported(model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    layout = write_layout(
        read_weights(model),
        tmp_path / "out",
        large_file=LARGE,
        report=lambda done, all_: seen.append((done, all_)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (layout.written, layout.written)
