"""A model from a hub to an image's layers: in parallel, resumed, checked against its lock."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelcar import fetching, hub, locking, packing
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.layer_format import LARGE_FILE, layer_size
from modelcar.lock import HubSource, Lock
from modelcar.tiny_model import make_tiny_model
from tests.hub_server import COMMIT, Content, Hub, serve, sha256_of

REPOSITORY = "org/tiny"
BASE = read_base("amd64")
#: Bytes; the tiny model's safetensors (4.1 MB) and this have layers of their own.
LARGE = 10**6
CHECKPOINT = "model.safetensors"
EXTRA = "notes.bin.txt"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    """A model's files; two of them are large."""
    folder = make_tiny_model(tmp_path_factory.mktemp("hub") / "tiny")
    found: dict[str, Content] = {path.name: path for path in folder.iterdir()}
    return {**found, EXTRA: bytes(range(256)) * 8000}


@pytest.fixture
def server(files: Mapping[str, Content]) -> Iterator[Hub]:
    with serve({REPOSITORY: dict(files)}) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces, and tries that follow each other at once."""
    monkeypatch.setattr(hub, "PIECE", 100_000)
    monkeypatch.setattr(hub, "WAITS", (0.0,))
    sleep = time.sleep
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: sleep(0))


def lock(server: Hub, project: Path, **options: Any) -> tuple[Lock, int]:
    description = locking.Description(hub=REPOSITORY, **options)
    resolved = locking.resolve(description, project, endpoint=server.url)
    return locking.lock_model("tiny", description, resolved, project, large_file=LARGE)


def fetch(server: Hub, project: Path, locked: Lock, **options: Any) -> fetching.Fetched:
    place = locking.layout_path(project, "tiny")
    return fetching.fetch(locked, BASE, project, place, endpoint=server.url, **options)


@pytest.fixture
def locked(server: Hub, tmp_path: Path) -> Lock:
    """The lock of a model that is not on this machine any more."""
    found, _ = lock(server, tmp_path)
    shutil.rmtree(locking.layout_path(tmp_path, "tiny"))
    server.requests.clear()
    return found


def test_lock_names_commit_license_and_every_file(
    server: Hub, tmp_path: Path, files: dict[str, Content]
) -> None:
    found, written = lock(server, tmp_path)
    assert found.source == HubSource(REPOSITORY, COMMIT)
    assert found.license == "apache-2.0"
    assert {file.path: file.sha256 for file in found.files} == {
        path: sha256_of(content) for path, content in files.items()
    }
    assert [layer.files for layer in found.layers[:-1]] == [(CHECKPOINT,), (EXTRA,)]
    assert written == found.layers_size
    assert {path: server.sent(path) for path in files} == {file.path: file.size for file in found.files}, (
        "each byte is downloaded once"
    )


def test_fetch_brings_what_was_locked_to_the_same_digest(server: Hub, tmp_path: Path, locked: Lock) -> None:
    fetched = fetch(server, tmp_path, locked)
    assert fetched.written == locked.layers_size
    assert fetching.verify(locked, fetched.layout.path) == ()
    server.requests.clear()
    assert fetch(server, tmp_path, locked).written == 0
    assert server.requests == []


def test_empty_files_of_a_repository_are_locked_and_fetched(
    tmp_path: Path, files: dict[str, Content]
) -> None:
    with serve({REPOSITORY: {**files, "__init__.py": b"", "code/.gitkeep": b""}}) as server:
        locked, _ = lock(server, tmp_path / "one")
        sizes = {file.path: file.size for file in locked.files}
        assert (sizes["__init__.py"], sizes["code/.gitkeep"]) == (0, 0)
        assert (
            fetch(server, tmp_path / "two", locked).layout.image.digest == modelcar_image(locked, BASE).digest
        )


def test_weights_lie_on_the_disk_once(server: Hub, tmp_path: Path, locked: Lock) -> None:
    place = fetch(server, tmp_path, locked).layout.path
    used = sum(path.stat().st_blocks * 512 for path in place.rglob("*"))
    assert used < locked.layers_size + BASE.layer.size + 100_000
    here = [path for path in tmp_path.rglob("*.safetensors") if path.is_file()]
    assert here == [], "no copy as files"


def test_files_are_fetched_side_by_side(server: Hub, tmp_path: Path, locked: Lock) -> None:
    server.gate.clear()
    waiting = threading.Thread(target=fetch, args=(server, tmp_path, locked))
    waiting.start()
    deadline = time.monotonic() + 20
    while server.at_once < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    server.gate.set()
    waiting.join()
    assert server.most_at_once == 3, "both large files and the first of the small ones"


def test_a_fetch_that_was_cut_off_goes_on(server: Hub, tmp_path: Path, locked: Lock) -> None:
    server.fault(CHECKPOINT, cut=2_000_000)
    server.fault(CHECKPOINT, status=503, times=99)
    with pytest.raises(InputError, match="503"):
        fetch(server, tmp_path, locked)
    assert not (locking.layout_path(tmp_path, "tiny") / "index.json").exists()
    server.faults.clear()
    server.requests.clear()
    fetch(server, tmp_path, locked)
    [resumed] = [request for request in server.requests if request.path == CHECKPOINT]
    assert 1_800_000 < resumed.start <= 2_000_000
    assert fetching.verify(locked, locking.layout_path(tmp_path, "tiny")) == ()


def test_a_damaged_part_is_fetched_again(server: Hub, tmp_path: Path, locked: Lock) -> None:
    server.fault(CHECKPOINT, cut=2_000_000)
    server.fault(CHECKPOINT, status=503, times=99)
    with pytest.raises(InputError):
        fetch(server, tmp_path, locked)
    server.faults.clear()
    ingest = locking.layout_path(tmp_path, "tiny") / "ingest"
    part = max(ingest.iterdir(), key=lambda path: path.stat().st_size)
    with part.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    fetch(server, tmp_path, locked)
    assert fetching.verify(locked, locking.layout_path(tmp_path, "tiny")) == ()


@pytest.mark.parametrize("again", [1, 99], ids=["once", "always"])
def test_a_changed_byte_on_the_way_is_never_kept(
    server: Hub, tmp_path: Path, locked: Lock, again: int
) -> None:
    server.fault(CHECKPOINT, flip=3_000_000, times=again)
    with pytest.raises(InputError, match=rf"{REPOSITORY}/{CHECKPOINT}: sha256 .*\n.*as the lock says"):
        fetch(server, tmp_path, locked)
    assert not (locking.layout_path(tmp_path, "tiny") / "index.json").exists()
    server.faults.clear()
    fetch(server, tmp_path, locked)
    assert fetching.verify(locked, locking.layout_path(tmp_path, "tiny")) == ()


def test_a_hub_that_lies_about_a_digest_is_not_locked(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault(EXTRA, flip=5)
    with pytest.raises(InputError, match=rf"{EXTRA}: sha256 .*\n.*as the hub, or --extra, says"):
        lock(server, tmp_path)
    assert not (tmp_path / "modelcar/models/tiny/model.lock").exists()


def test_a_cut_off_safetensors_is_not_locked(tmp_path: Path, files: dict[str, Content]) -> None:
    whole = files[CHECKPOINT]
    assert isinstance(whole, Path)
    spoilt = {**files, CHECKPOINT: whole.read_bytes()[:-1]}
    with serve({REPOSITORY: spoilt}) as server, pytest.raises(InputError, match=r"broken: .*it is cut off"):
        lock(server, tmp_path)
    assert not (tmp_path / "modelcar/models/tiny/model.lock").exists()


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("fault", ["cut off", "no config", "two cases"])
def test_what_the_hub_has_is_checked_however_it_is_packed(
    tmp_path: Path, files: dict[str, Content], compression: str, fault: str
) -> None:
    whole = files[CHECKPOINT]
    assert isinstance(whole, Path)
    spoilt, said = {
        "cut off": ({**files, CHECKPOINT: whole.read_bytes()[:-1]}, "it is cut off"),
        "no config": ({p: c for p, c in files.items() if p != "config.json"}, "there is no such file"),
        "two cases": ({**files, "Vocab.json": b"{}"}, "the same name as"),
    }[fault]
    with serve({REPOSITORY: spoilt}) as server, pytest.raises(InputError, match=said):
        lock(server, tmp_path, compression=compression)
    assert not (tmp_path / "modelcar/models/tiny/model.lock").exists()
    assert not (locking.layout_path(tmp_path, "tiny") / "index.json").exists()


def test_compressed_layers_are_fetched_to_the_same_digest(server: Hub, tmp_path: Path) -> None:
    plain, _ = lock(server, tmp_path / "plain")
    found, written = lock(server, tmp_path, compression="zstd")
    assert written == found.layers_size < plain.layers_size
    assert [layer.diff_id for layer in found.layers] == [layer.digest for layer in plain.layers]
    place = locking.layout_path(tmp_path, "tiny")
    assert not any((place / "ingest").iterdir()), "nothing is left of the check"
    digest = fetch(server, tmp_path, found).layout.image.digest
    shutil.rmtree(place)
    again = fetch(server, tmp_path, found)
    assert again.layout.image.digest == digest
    assert fetching.verify(found, place) == ()


def test_a_file_whose_digest_nobody_told_is_downloaded_from_its_start(
    tmp_path: Path, files: dict[str, Content]
) -> None:
    """What came of it may be of another content by now: only a digest can tell."""
    with serve({REPOSITORY: files}, lfs_from=10**12) as server:
        server.fault(CHECKPOINT, cut=2_000_000)
        server.fault(CHECKPOINT, status=503, times=99)
        with pytest.raises(InputError, match="503"):
            lock(server, tmp_path)
        ingest = locking.layout_path(tmp_path, "tiny") / "ingest"
        assert not any(ingest.iterdir())
        server.faults.clear()
        server.requests.clear()
        lock(server, tmp_path)
        assert [request.start for request in server.requests if request.path == CHECKPOINT] == [0]


def test_an_interrupted_lock_goes_on_too(server: Hub, tmp_path: Path) -> None:
    server.fault(CHECKPOINT, cut=2_000_000)
    server.fault(CHECKPOINT, status=503, times=99)
    with pytest.raises(InputError, match="503"):
        lock(server, tmp_path)
    server.faults.clear()
    server.requests.clear()
    lock(server, tmp_path)
    starts = [request.start for request in server.requests if request.path == CHECKPOINT]
    assert len(starts) == 1
    assert 1_800_000 < starts[0] <= 2_000_000


@pytest.mark.parametrize(
    ("path", "by"), [(EXTRA, 1), (EXTRA, -1), ("config.json", 512), ("config.json", -512)]
)
def test_a_size_edited_in_the_lock_is_found_out(
    server: Hub, tmp_path: Path, locked: Lock, path: str, by: int
) -> None:
    """The lock's own numbers agree; the hub's file does not."""
    changed = tuple(
        dataclasses.replace(file, size=file.size + by) if file.path == path else file for file in locked.files
    )
    sizes = {file.path: file.size for file in changed}
    layers = tuple(
        dataclasses.replace(layer, size=layer_size([(name, sizes[name]) for name in layer.files]))
        for layer in locked.layers
    )
    wrong = dataclasses.replace(locked, files=changed, layers=layers)
    with pytest.raises(InputError) as caught:
        fetch(server, tmp_path, wrong)
    assert any(path in problem.key for problem in caught.value.problems), str(caught.value)
    assert not (locking.layout_path(tmp_path, "tiny") / "index.json").exists()
    fetch(server, tmp_path, locked)
    assert fetching.verify(locked, locking.layout_path(tmp_path, "tiny")) == (), "nothing of it is kept"


def test_a_refused_fetch_leaves_the_former_image(server: Hub, tmp_path: Path) -> None:
    former, _ = lock(server, tmp_path)
    place = locking.layout_path(tmp_path, "tiny")
    index = (place / "index.json").read_bytes()
    name = former.layers[1].files[0]
    files = tuple(
        dataclasses.replace(file, sha256="a" * 64) if file.path == name else file for file in former.files
    )
    wrong = dataclasses.replace(former.layers[1], digest="sha256:" + "a" * 64, diff_id="sha256:" + "a" * 64)
    layers = (former.layers[0], wrong, *former.layers[2:])
    with pytest.raises(InputError, match="as the lock says"):
        fetch(server, tmp_path, dataclasses.replace(former, files=files, layers=layers))
    assert (place / "index.json").read_bytes() == index
    assert fetching.verify(former, place) == ()


def test_layers_that_the_registry_has_are_not_fetched(server: Hub, tmp_path: Path, locked: Lock) -> None:
    place = locking.layout_path(tmp_path, "tiny")
    large = locked.layers[0].digest
    assert fetching.missing_bytes(locked, place) == locked.layers_size
    assert fetching.missing_bytes(locked, place, {large}) == locked.layers_size - locked.layers[0].size
    fetched = fetch(server, tmp_path, locked, elsewhere={large})
    assert server.sent(CHECKPOINT) == 0
    assert fetching.is_complete(fetched.layout.image, place, {large})
    assert not fetching.is_complete(fetched.layout.image, place)
    [problem] = fetching.verify(locked, place)
    assert CHECKPOINT in problem.value
    assert fetch(server, tmp_path, locked).written == locked.layers[0].size
    assert fetching.is_complete(fetched.layout.image, place)


def test_a_new_revision_downloads_what_changed_only(
    server: Hub, tmp_path: Path, files: dict[str, Content]
) -> None:
    lock(server, tmp_path)
    changed = {**files, EXTRA: b"x" * 2_000_000}
    with serve({REPOSITORY: changed}, commit="f" * 40) as later:
        found, written = lock(later, tmp_path)
        assert later.sent(CHECKPOINT) == 0
        assert later.sent(EXTRA) == 2_000_000
    assert found.source == HubSource(REPOSITORY, "f" * 40)
    assert written == sum(layer.size for layer in found.layers[1:])


def test_a_full_disk_in_mid_fetch_is_told_and_gone_on_from(
    server: Hub, tmp_path: Path, locked: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = packing._LayerWriter._put

    def full(self: packing._LayerWriter, data: bytes | memoryview) -> None:
        if self.size > 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, data)

    monkeypatch.setattr(packing._LayerWriter, "_put", full)
    with pytest.raises(InputError, match=r"the disk became full(?s:.*)fix: free some") as caught:
        fetch(server, tmp_path, locked, jobs=1)
    assert str(locking.layout_path(tmp_path, "tiny")) in str(caught.value)
    assert not (locking.layout_path(tmp_path, "tiny") / "index.json").exists()
    monkeypatch.setattr(packing._LayerWriter, "_put", put)
    server.requests.clear()
    fetch(server, tmp_path, locked)
    starts = {request.path: request.start for request in server.requests}
    assert starts[CHECKPOINT] > 900_000
    assert fetching.verify(locked, locking.layout_path(tmp_path, "tiny")) == ()


def fetching_process(server: Hub, project: Path) -> subprocess.Popen[str]:
    """Start `python -m modelcar fetch tiny`, which listens for Ctrl-C."""
    # A shell's background job ignores Ctrl-C, and hands that down to what the tests start.
    listen = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", listen + "runpy.run_module('modelcar', run_name='__main__')"]
    command += ["--project", str(project), "fetch", "tiny", "--endpoint", server.url]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_keeps_what_came(server: Hub, tmp_path: Path, locked: Lock) -> None:
    server.fault(CHECKPOINT, cut=3_000_000)
    server.fault(CHECKPOINT, status=503, times=99)  # the client waits between tries
    place = locking.layout_path(tmp_path, "tiny")
    done = place / "blobs/sha256" / locked.layers[1].digest.removeprefix("sha256:")
    with fetching_process(server, tmp_path) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (server.faults[CHECKPOINT][1].times == 99 or not done.exists()):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "running the same command again continues" in said
    assert "Traceback" not in said
    assert not (place / "index.json").exists()
    server.faults.clear()
    server.requests.clear()
    fetch(server, tmp_path, locked)
    [resumed] = [request for request in server.requests if request.path == CHECKPOINT]
    assert resumed.start > 0
    assert server.sent(EXTRA) == 0, "it was done"
    assert fetching.verify(locked, place) == ()


def test_ctrl_c_does_not_wait_for_a_hub_that_hangs(server: Hub, tmp_path: Path, locked: Lock) -> None:
    server.gate.clear()
    with fetching_process(server, tmp_path) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not server.at_once:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stopped = time.monotonic()
        _, said = process.communicate(timeout=60)
    server.gate.set()
    assert process.returncode == 130, said
    assert "running the same command again continues" in said
    assert "Traceback" not in said
    assert time.monotonic() - stopped < packing.GRACE + 5, "the client's own patience is a minute"
    fetch(server, tmp_path, locked)
    assert fetching.verify(locked, locking.layout_path(tmp_path, "tiny")) == ()


def test_default_layers_are_those_of_the_documentation() -> None:
    assert LARGE_FILE == 16 * 2**20
