"""Layers from mirrors: mounted or streamed by digest, checked as they come; and what mirrors do wrong."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from modelcar import fetching, locking, mirror_blob, mirrors, promote
from modelcar.__main__ import main
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.lock import Lock, lock_path
from modelcar.lock_reader import read_lock
from modelcar.manifest import Image, ImageLayer
from modelcar.mirror_blob import read_blob
from modelcar.mirrors import look, mirror_targets, reader
from modelcar.registry import Target
from modelcar.tiny_model import make_tiny_model
from tests.registry_server import PASSWORD, USER, Answer, ReadFault, serve
from tests.registry_server import Registry as Server
from tests.unit.kernel_entries import entry

BASE = read_base("amd64")
PAGE = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Log in</html>")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a model and all of its layers."""
    folder = tmp_path_factory.mktemp("whole")
    make_tiny_model(folder / "weights")
    description = locking.Description(folder="weights")
    resolved = locking.resolve(description, folder)
    lock, _ = locking.lock_model("tiny", description, resolved, folder, large_file=1000)
    fetching.fetch(lock, BASE, folder, locking.layout_path(folder, "tiny"))
    return folder


@pytest.fixture
def project(whole: Path, tmp_path: Path) -> Path:
    """The same, as a checkout has it: the lock, and no weights."""
    path = lock_path(tmp_path, "tiny")
    path.parent.mkdir(parents=True)
    shutil.copy(lock_path(whole, "tiny"), path)
    return tmp_path


@pytest.fixture
def lock(project: Path) -> Lock:
    return read_lock(lock_path(project, "tiny"))


@pytest.fixture
def image(lock: Lock) -> Image:
    return modelcar_image(lock, BASE)


@pytest.fixture
def blobs(whole: Path, image: Image) -> dict[str, bytes]:
    layout = locking.layout_path(whole, "tiny")
    return {
        layer.digest: (layout / "blobs" / layer.digest.replace(":", "/")).read_bytes()
        for layer in image.layers
    }


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker configuration without credentials."""
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces, and tries that follow each other at once."""
    monkeypatch.setattr(mirror_blob, "PIECE", 10_000)
    monkeypatch.setattr(mirrors, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(mirrors, "PATIENCE", 0.1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience with a registry that says nothing; still enough for one on a busy machine."""
    monkeypatch.setattr(mirrors, "STALL", 2.0)


@pytest.fixture
def dev(blobs: dict[str, bytes]) -> Iterator[Server]:
    """A registry of a stack that was deployed: its repository dev/tiny has every layer."""
    with serve() as registry:
        registry.own["dev/tiny"] = dict(blobs)
        yield registry


@pytest.fixture
def prod() -> Iterator[Server]:
    with serve() as registry:
        yield registry


def at(registry: Server, repository: str) -> Target:
    path, _, name = f"{registry.host}/{repository}".rpartition("/")
    return Target(path, name, insecure=True)


def bring(
    image: Image, target: Target, *sources: Target, mounts_only: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Promote all layers; return how they came, and what was noted."""
    notes: list[str] = []
    counted = [0]
    origins = promote.promote(
        image.layers, target, sources, progress=counted.append, note=notes.append, mounts_only=mounts_only
    )
    assert sum(counted) == sum(layer.size for layer in image.layers if layer.digest in origins)
    return origins, notes


def largest(image: Image) -> ImageLayer:
    return max(image.layers, key=lambda layer: layer.size)


def files_below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


# --- copies -----------------------------------------------------------------------------------------


def test_layers_are_copied_from_registry_to_registry_and_not_to_disk(
    dev: Server, prod: Server, project: Path, image: Image, blobs: dict[str, bytes]
) -> None:
    before = files_below(project)
    origins, notes = bring(image, at(prod, "prod/tiny"), at(dev, "dev/tiny"))
    assert origins == dict.fromkeys(blobs, f"copied from {dev.host}/dev/tiny")
    assert notes == []
    assert prod.blobs == blobs
    assert sorted(dev.read) == sorted(blobs), "each is read once"
    assert files_below(project) == before


def test_only_what_the_target_lacks_is_copied(dev: Server, prod: Server, image: Image) -> None:
    there = image.layers[1].digest
    origins = promote.promote(
        image.layers, at(prod, "prod/tiny"), [at(dev, "dev/tiny")], there=frozenset({there})
    )
    assert set(origins) == {layer.digest for layer in image.layers} - {there}
    assert there not in dev.read


def test_pieces_are_small_and_the_last_one_waits_for_the_digest(dev: Server, image: Image) -> None:
    """What a copy holds in memory is two pieces, whatever the layer's size."""
    layer = largest(image)
    mirror = at(dev, "dev/tiny")
    with reader(mirror) as client:
        pieces = [len(piece) for piece in read_blob(client, mirror, layer)]
    assert max(pieces) <= 10_000
    assert sum(pieces) == layer.size
    dev.read_faults.append(ReadFault(flip=5))
    came: list[bytes] = []
    with reader(mirror) as client:
        spoilt = read_blob(client, mirror, layer)
        with pytest.raises(mirror_blob.MirrorError, match="sends other bytes"):
            came.extend(spoilt)
    assert 0 < sum(map(len, came)) < layer.size, "a registry never gets all bytes of a wrong layer"


@pytest.mark.parametrize("ignore_range", [False, True])
def test_a_copy_goes_on_where_it_was_cut(dev: Server, prod: Server, image: Image, ignore_range: bool) -> None:
    dev.own["dev/tiny"] = {largest(image).digest: dev.own["dev/tiny"][largest(image).digest]}
    dev.read_faults += [ReadFault(cut=1_000_000), ReadFault(cut=1_500_000, ignore_range=ignore_range)]
    origins, notes = bring(image, at(prod, "prod/tiny"), at(dev, "dev/tiny"))
    assert list(origins) == [largest(image).digest]
    assert notes == []
    assert prod.sent == [largest(image).digest]
    assert sum("PUT" in request for request in prod.requests) == 1, "the upload goes on"
    first, second, third = dev.read_from
    assert first == 0
    assert 900_000 < second <= 1_000_000 or ignore_range
    assert third > 900_000


@pytest.mark.usefixtures("impatient")
def test_a_mirror_that_stalls_is_asked_again(dev: Server, prod: Server, image: Image) -> None:
    dev.read_faults.append(ReadFault(cut=1000, stall=30))
    origins, notes = bring(image, at(prod, "prod/tiny"), at(dev, "dev/tiny"))
    assert len(origins) == len(image.layers)
    assert notes == []


def test_a_registry_in_trouble_is_sent_a_layer_again(dev: Server, prod: Server, image: Image) -> None:
    prod.failures += [503, 502]
    origins, _ = bring(image, at(prod, "prod/tiny"), at(dev, "dev/tiny"))
    assert len(origins) == len(image.layers)
    assert sorted(prod.sent) == sorted(origins)


def test_a_registry_that_refuses_is_no_fault_of_a_mirror(dev: Server, prod: Server, image: Image) -> None:
    prod.failures += [403] * 20
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        bring(image, at(prod, "prod/tiny"), at(dev, "dev/tiny"))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (ReadFault(flip=100), "sends other bytes: sha256:"),
        (ReadFault(instead=b"short"), "has 5 bytes in place of"),
        (ReadFault(instead=b"x" * 5_000_000), "has 5000000 bytes in place of"),
        (ReadFault(cut=100_000), "broke off at byte 100000 of"),
        (ReadFault(cut=0, stall=30), "broke off at byte 0 of .*does not answer in time"),
    ],
    ids=["flipped byte", "shorter", "longer", "cut for good", "stalls for good"],
)
def test_a_mirror_with_a_wrong_layer_gives_way_to_the_next(
    dev: Server, prod: Server, image: Image, blobs: dict[str, bytes], fault: ReadFault, says: str
) -> None:
    layer = largest(image)
    with serve() as spoilt:
        spoilt.own["dev/tiny"] = {layer.digest: blobs[layer.digest]}
        # After the first cut no request brings another byte.
        spoilt.read_faults += [fault, *[ReadFault(cut=0, stall=fault.stall)] * 5]
        origins, [note] = bring(image, at(prod, "prod/tiny"), at(spoilt, "dev/tiny"), at(dev, "dev/tiny"))
        assert note.startswith(f"mirror {spoilt.host}/dev/tiny does not bring {layer.digest}: it ")
        assert re.search(says, note)
    assert origins == dict.fromkeys(blobs, f"copied from {dev.host}/dev/tiny")
    assert prod.blobs == blobs


def test_a_mirror_that_fails_layer_by_layer_is_left_after_some(
    dev: Server, prod: Server, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promote, "JOBS", 1)
    monkeypatch.setattr(mirror_blob, "STRIKES", 2)
    assert len(image.layers) > 2
    dev.read_faults += [ReadFault(cut=0)] * 100
    origins, notes = bring(image, at(prod, "prod/tiny"), at(dev, "dev/tiny"))
    assert origins == {}
    assert len(notes) == 3, notes
    assert notes[-1] == f"mirror {dev.host}/dev/tiny is asked for no more layers in this run"
    assert len(set(dev.read)) == 2


# --- mirrors that cannot be used --------------------------------------------------------------------


def always(answer: Answer) -> Callable[[str, str], Answer | None]:
    return lambda _method, _path: answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {}, b""), "it answers 401"),
        ((403, {}, b""), "it answers 403"),
        ((429, {"Retry-After": "3600"}, b""), "it answers 429"),
        ((500, {}, b""), "it answers 500"),
        (PAGE, "answers 200 with text/html: this is not a registry"),
    ],
    ids=["401", "403", "429", "500", "login page"],
)
def test_a_mirror_that_cannot_be_used_is_told_once_and_left(
    dev: Server, prod: Server, image: Image, answer: Answer, says: str
) -> None:
    with serve() as broken:
        broken.instead = always(answer)
        origins, [note] = bring(image, at(prod, "p/tiny"), at(broken, "dev/tiny"), at(dev, "dev/tiny"))
        assert note.startswith(f"mirror {broken.host}/dev/tiny is not used: ")
        assert says in note
    assert set(origins.values()) == {f"copied from {dev.host}/dev/tiny"}


def test_a_mirror_that_is_down_is_told(dev: Server, prod: Server, image: Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    down = Target(f"127.0.0.1:{port}/dev", "tiny", insecure=True)
    origins, [note] = bring(image, at(prod, "p/tiny"), down, at(dev, "dev/tiny"))
    assert note.startswith(f"mirror 127.0.0.1:{port}/dev/tiny is not used: it cannot be reached")
    assert len(origins) == len(image.layers)


@pytest.mark.usefixtures("impatient")
def test_a_mirror_that_never_answers_is_told(prod: Server, image: Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        origins, [note] = bring(image, at(prod, "p/tiny"), Target(f"{host}/dev", "tiny", insecure=True))
    assert (origins, note) == ({}, f"mirror {host}/dev/tiny is not used: it does not answer in time")


def test_what_no_mirror_has_is_left_without_a_word(prod: Server, image: Image) -> None:
    with serve() as empty:
        assert bring(image, at(prod, "p/tiny"), at(empty, "dev/tiny")) == ({}, [])
        assert not [request for request in empty.requests if request.startswith("GET")]
    assert not [request for request in prod.requests if request.startswith("P")]


def test_a_mirror_in_trouble_for_a_moment_is_used(dev: Server, prod: Server, image: Image) -> None:
    left: list[Answer] = [(502, {}, b""), (503, {}, b"")]
    dev.instead = lambda _method, _path: left.pop() if left else None
    assert len(bring(image, at(prod, "p/tiny"), at(dev, "dev/tiny"))[0]) == len(image.layers)


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_docker_s_credentials_are_used_for_a_mirror(
    prod: Server, image: Image, blobs: dict[str, bytes], credentials: Path, wants: str
) -> None:
    with serve(wants) as private:
        private.own["dev/tiny"] = dict(blobs)
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        credentials.write_text(json.dumps({"auths": {private.host: {"auth": encoded}}}))
        origins, notes = bring(image, at(prod, "p/tiny"), at(private, "dev/tiny"))
        assert len(origins) == len(image.layers), notes
        assert set(private.scopes) <= {"repository:dev/tiny:pull"}, "no right to write is asked for"


# --- mounts -----------------------------------------------------------------------------------------


def test_layers_of_the_same_registry_are_mounted_and_not_sent(
    dev: Server, image: Image, blobs: dict[str, bytes]
) -> None:
    dev.mounts = True
    origins, notes = bring(image, at(dev, "prod/tiny"), at(dev, "dev/tiny"))
    assert origins == dict.fromkeys(blobs, f"mounted from {dev.host}/dev/tiny")
    assert notes == []
    assert sorted(dev.mounted) == sorted((digest, "dev/tiny") for digest in blobs)
    assert (dev.read, dev.sent) == ([], [])


def test_the_right_to_read_the_other_repository_is_asked_for(
    image: Image, blobs: dict[str, bytes], credentials: Path
) -> None:
    with serve("Bearer") as registry:
        registry.mounts, registry.own["dev/tiny"] = True, dict(blobs)
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        credentials.write_text(json.dumps({"auths": {registry.host: {"auth": encoded}}}))
        assert len(bring(image, at(registry, "prod/tiny"), at(registry, "dev/tiny"))[0]) == len(blobs)
        assert registry.scopes[-2:] == ["repository:prod/tiny:pull,push", "repository:dev/tiny:pull"]


def test_a_registry_that_mounts_nothing_gets_copies(
    dev: Server, image: Image, blobs: dict[str, bytes]
) -> None:
    origins, [note] = bring(image, at(dev, "prod/tiny"), at(dev, "dev/tiny"))
    assert origins == dict.fromkeys(blobs, f"copied from {dev.host}/dev/tiny")
    assert note == (
        f"layers of {dev.host}/dev/tiny are not mounted: {dev.host} answers 202, which asks for their bytes"
    )
    assert sum("mount=" in request for request in dev.requests) == 1, "it is asked once"
    assert sum(request.startswith("DELETE") for request in dev.requests) == 1, "no upload stays open"


def test_a_registry_that_says_mounted_and_has_nothing_gets_copies(
    dev: Server, image: Image, blobs: dict[str, bytes]
) -> None:
    dev.instead = lambda _method, path: (201, {}, b"") if "mount=" in path else None
    origins, [note] = bring(image, at(dev, "prod/tiny"), at(dev, "dev/tiny"))
    assert set(origins.values()) == {f"copied from {dev.host}/dev/tiny"}
    assert "answers 201, and has sha256:" in note


def test_a_registry_that_forbids_to_mount_gets_copies(dev: Server, image: Image) -> None:
    dev.instead = lambda _method, path: (403, {}, b"") if "mount=" in path else None
    origins, [note] = bring(image, at(dev, "prod/tiny"), at(dev, "dev/tiny"))
    assert set(origins.values()) == {f"copied from {dev.host}/dev/tiny"}
    assert note.endswith(f"are not mounted: {dev.host} answers 403")


def test_where_no_byte_may_pass_layers_are_mounted_or_left(dev: Server, prod: Server, image: Image) -> None:
    """As `fetchOn: builder` wants it."""
    assert bring(image, at(prod, "p/tiny"), at(dev, "dev/tiny"), mounts_only=True) == ({}, [])
    assert dev.requests == []
    origins, [note] = bring(image, at(dev, "prod/tiny"), at(dev, "dev/tiny"), mounts_only=True)
    assert origins == {}
    assert "202" in note
    assert dev.read == []


# --- names, and what mirrors have -------------------------------------------------------------------


def test_a_mirror_that_is_the_target_is_left_out() -> None:
    target = Target("h.io/models", "tiny", insecure=True)
    found = mirror_targets(["h.io/models/tiny", "h.io/dev/tiny", "x.io/dev/tiny", "x.io/dev/tiny"], target)
    assert [mirrors.name_of(mirror) for mirror in found] == ["h.io/dev/tiny", "x.io/dev/tiny"]
    assert [mirror.insecure for mirror in found] == [True, False], "as the target, on its own host"
    assert mirror_targets(["x.io/dev/tiny"], target, insecure=True)[0].insecure


@pytest.mark.parametrize(
    ("name", "says", "fix"),
    [
        ("https://h.io/dev/tiny", "has a scheme", "write h.io/dev/tiny"),
        ("oci://h.io/dev/tiny@sha256:" + "0" * 64, "has a scheme", "write h.io/dev/tiny"),
        ("https://me:pw@h.io/dev", "has a scheme and credentials", "docker login"),
        ("h.io/dev/tiny:latest", "has a tag", "write h.io/dev/tiny"),
        ("h.io:5000/dev/tiny:1", "has a tag", "write h.io:5000/dev/tiny"),
        ("h.io/dev/tiny@sha256:" + "0" * 64, "has a digest", "write h.io/dev/tiny"),
        ("h.io", "not the name of a repository", "for example"),
        ("h.io/Dev", "not the name of a repository", "for example"),
        ("h.io:70000/dev", "has a port that does not exist", "1 to 65535"),
        ("myorg/dev", "names no registry", "docker.io/myorg/dev"),
        ("", "not the name of a repository", "for example"),
    ],
)
def test_a_mirror_is_the_name_of_a_repository(name: str, says: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        mirror_targets([name])
    [problem] = caught.value.problems
    assert problem.key == f"mirror {name}"
    assert problem.value.startswith(says)
    assert "HOST[:PORT]/PATH" in problem.allowed
    assert fix in problem.fix
    assert "pw" not in problem.fix


def test_what_mirrors_have_is_found_out_without_reading_it(
    dev: Server, image: Image, blobs: dict[str, bytes]
) -> None:
    small = min(blobs, key=lambda digest: len(blobs[digest]))
    dev.own["other/tiny"] = {small: blobs[small]}
    first, second = at(dev, "other/tiny"), at(dev, "dev/tiny")
    plan = look(image.layers, [first, second])
    assert plan.having[small] == (first, second)
    assert all(plan.having[digest] == (second,) for digest in blobs if digest != small)
    assert plan.faults == {}
    assert dev.read == []


# --- onto this machine ------------------------------------------------------------------------------


def fetch(lock: Lock, project: Path, *sources: Target) -> tuple[fetching.Fetched, list[str]]:
    notes: list[str] = []
    destination = locking.layout_path(project, "tiny")
    found = fetching.fetch(lock, BASE, project, destination, mirrors=sources, note=notes.append)
    assert fetching.verify(lock, destination) == ()
    return found, notes


def test_a_model_is_fetched_from_a_mirror_alone(dev: Server, project: Path, lock: Lock) -> None:
    """Its folder is not there: nothing but the mirror has the weights."""
    fetched, notes = fetch(lock, project, at(dev, "dev/tiny"))
    assert fetched.written == lock.layers_size
    assert set(fetched.origins) == {layer.digest for layer in lock.layers}
    assert set(fetched.origins.values()) == {f"fetched from {dev.host}/dev/tiny"}
    assert notes == []
    assert fetched.layout.image.digest == modelcar_image(lock, BASE).digest


def test_kernels_come_from_a_mirror_too(dev: Server, project: Path, lock: Lock) -> None:
    """They cannot be made again from a lock, and this machine did not save them."""
    saved, content = entry()
    lock = dataclasses.replace(lock, kernels=(saved,))
    with pytest.raises(InputError, match="neither on this machine nor in the image's repository"):
        fetch(lock, project, at(dev, "dev/tiny"))
    dev.own["dev/tiny"][saved.digest] = content
    fetched, notes = fetch(lock, project, at(dev, "dev/tiny"))
    assert fetched.origins[saved.digest] == f"fetched from {dev.host}/dev/tiny"
    assert notes == []
    assert saved.digest in {layer.digest for layer in fetched.layout.image.layers}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_fetch_from_a_mirror_goes_on_where_a_run_was_killed(
    dev: Server, project: Path, lock: Lock, image: Image, blobs: dict[str, bytes], damaged: bool
) -> None:
    layer = largest(image)
    ingest = locking.layout_path(project, "tiny") / "ingest"
    fetching.missing_bytes(lock, locking.layout_path(project, "tiny"))  # makes the layout
    part = ingest / f"{layer.digest.removeprefix('sha256:')}.mirror"
    content = bytearray(blobs[layer.digest][:2_000_000])
    content[7] ^= damaged
    part.write_bytes(content)
    (ingest / f"{'0' * 64}.mirror").write_bytes(b"of a layer that nobody wants")
    _, notes = fetch(lock, project, at(dev, "dev/tiny"))
    assert notes == []
    assert dev.read.count(layer.digest) == 1 + damaged
    assert list(ingest.iterdir()) == []


def test_what_a_mirror_spoils_comes_from_the_source(
    dev: Server, whole: Path, project: Path, lock: Lock, image: Image
) -> None:
    shutil.copytree(whole / "weights", project / "weights")
    dev.own["dev/tiny"] = {largest(image).digest: dev.own["dev/tiny"][largest(image).digest]}
    dev.read_faults.append(ReadFault(flip=3))
    fetched, [note] = fetch(lock, project, at(dev, "dev/tiny"))
    assert "sends other bytes" in note
    assert fetched.origins == {}
    assert fetched.written == lock.layers_size


def test_a_full_disk_is_told_before_a_mirror_is_read(
    dev: Server, project: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(project)
    monkeypatch.setattr("modelcar.oci_layout.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="the disk has 1000 bytes free"):
        fetch(lock, project, at(dev, "dev/tiny"))
    assert dev.read == []


# --- the commands -----------------------------------------------------------------------------------


def run(project: Path, *arguments: str) -> int:
    return main(["--project", str(project), *arguments])


def test_push_from_another_registry_needs_no_weights_here(
    dev: Server, prod: Server, project: Path, blobs: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["push", "tiny", f"{prod.host}/prod/tiny", "--insecure"]
    assert run(project, *command, "--from", f"{dev.host}/dev/tiny", "--from-insecure") == 0
    said = capsys.readouterr()
    assert "from mirrors, 0 B sent; the registry has every layer of sha256:" in said.out
    assert f"copied from {dev.host}/dev/tiny" in said.err
    assert prod.blobs == blobs


def test_push_sends_from_this_machine_what_mirrors_lack(
    dev: Server, prod: Server, whole: Path, image: Image, blobs: dict[str, bytes]
) -> None:
    del dev.own["dev/tiny"][largest(image).digest]
    command = ["push", "tiny", f"{prod.host}/prod/tiny", "--insecure"]
    assert run(whole, *command, "--from", f"{dev.host}/dev/tiny", "--from-insecure") == 0
    assert prod.blobs == blobs


def test_push_names_a_layer_that_is_nowhere(
    dev: Server, prod: Server, project: Path, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    del dev.own["dev/tiny"][largest(image).digest]
    command = ["push", "tiny", f"{prod.host}/prod/tiny", "--insecure"]
    assert run(project, *command, "--from", f"{dev.host}/dev/tiny", "--from-insecure") == 2
    said = capsys.readouterr().err
    assert f"1 of its layers are in no mirror, and not fetched: {largest(image).digest}" in said
    assert "python -m modelcar fetch tiny" in said


def test_push_with_a_mirror_that_is_no_repository_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, "push", "tiny", "h.io/prod/tiny", "--from", "https://h.io/dev/tiny") == 2
    assert "mirror https://h.io/dev/tiny: has a scheme" in capsys.readouterr().err
    assert run(project, "fetch", "tiny", "--from", "h.io/dev/tiny:1") == 2
    assert "mirror h.io/dev/tiny:1: has a tag" in capsys.readouterr().err


def test_push_by_a_builder_takes_mirrors_of_the_same_registry_only(
    dev: Server, project: Path, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    dev.mounts = True
    command = ["push", "tiny", f"{dev.host}/prod/tiny", "--insecure", "--builder", "far-away"]
    assert run(project, *command, "--from", "other.io/dev/tiny") == 2
    assert "other.io/dev/tiny, beside --builder: a copy from another" in capsys.readouterr().err
    assert run(project, *command, "--from", f"{dev.host}/dev/tiny") == 0, "no builder is called"
    assert len(dev.mounted) == len(image.layers)


def test_fetch_from_a_mirror_tells_each_layers_origin(
    dev: Server, project: Path, lock: Lock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, "fetch", "tiny", "--from", f"{dev.host}/dev/tiny", "--from-insecure") == 0
    said = capsys.readouterr()
    for layer in lock.layers:
        assert f"{layer.digest}: fetched from {dev.host}/dev/tiny" in said.err


@pytest.mark.parametrize("command", ["push", "fetch"])
def test_ctrl_c_does_not_wait_for_a_mirror_that_hangs(
    dev: Server, prod: Server, project: Path, lock: Lock, command: str
) -> None:
    dev.read_faults += [ReadFault(cut=3_000_000, stall=60)] * 9
    # A shell's background job ignores Ctrl-C, and hands that down to what the tests start.
    listen = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    listen += "runpy.run_module('modelcar', run_name='__main__')"
    arguments = ["--project", str(project), command, "tiny", "--from", f"{dev.host}/dev/tiny"]
    arguments += ["--from-insecure", *([f"{prod.host}/p/tiny", "--insecure"] if command == "push" else [])]
    place = locking.layout_path(project, "tiny")

    def is_under_way() -> bool:
        parts = place.glob("ingest/*.mirror")
        return bool(dev.read) if command == "push" else any(p.stat().st_size > 10**6 for p in parts)

    with subprocess.Popen(
        [sys.executable, "-c", listen, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not is_under_way():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stopped = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert time.monotonic() - stopped < 20, "a mirror's own patience is half a minute"
    if command == "fetch":
        dev.read_faults.clear()
        dev.read_from.clear()
        fetch(lock, project, at(dev, "dev/tiny"))
        assert any(start > 10**6 for start in dev.read_from), "it goes on where it was"
