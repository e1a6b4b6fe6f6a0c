"""Compiled kernels as a layer: deterministic, locked, told by digest, and nothing but their own folder."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from modelcar import choosing, kernel_store, kernels, locking
from modelcar.__main__ import main
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.fetching import fetch, missing_bytes, verify
from modelcar.image import modelcar_image
from modelcar.inspect_image import InspectedLayer, Inspection, differences
from modelcar.kernel_cleaning import clean, compiled
from modelcar.kernels import Kernels, Target, fault_of_layer, pack, with_entry
from modelcar.layer_format import END_OF_TAR, tar_header, tar_padding
from modelcar.lock import Lock, lock_path, write_lock
from modelcar.lock_diff import describe, diff
from modelcar.lock_reader import read_lock
from modelcar.manifest import sha256_digest
from modelcar.registry import Registry
from modelcar.registry import Target as Repository
from modelcar.sbom import sbom
from modelcar.tiny_model import make_tiny_model
from tests.registry_server import serve
from tests.unit.kernel_entries import AOT, CACHES, H100, entry

BASE = read_base("amd64")
CPU = Target("local:" + "c" * 16, "cpu", "AMD EPYC", "f00e76e7dc8d", 1, ())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a locked model."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    make_tiny_model(tmp_path / "weights")
    relock(tmp_path)
    return tmp_path


def relock(project: Path) -> Lock:
    description = locking.Description(folder="weights")
    lock, _ = locking.lock_model("tiny", description, locking.resolve(description, project), project)
    return lock


def with_kernels(project: Path, *entries: Kernels) -> Lock:
    path = lock_path(project, "tiny")
    lock = dataclasses.replace(read_lock(path), kernels=entries)
    path.write_bytes(write_lock(lock))
    return read_lock(path)


# --- the layer


def test_the_same_files_make_the_same_layer_whatever_their_order() -> None:
    backwards = dict(reversed(CACHES.items()))
    assert pack(H100, CACHES) == pack(H100, backwards)
    assert pack(H100, {**CACHES, "triton/more": b"x"}) != pack(H100, CACHES)


def test_a_layer_holds_its_folder_only_read_only_and_roots() -> None:
    made, content = entry()
    assert fault_of_layer(made, content) is None
    with tarfile.open(
        fileobj=io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(content))
    ) as tar:
        members = {member.name: member for member in tar}
    folder = f"models/.kernels/{made.name}"
    assert {name.removeprefix(f"{folder}/") for name, member in members.items() if member.isreg()} == {
        "fits",
        *CACHES,
    }
    assert {(m.uid, m.gid, m.mtime, oct(m.mode)) for m in members.values() if m.isreg()} == {
        (0, 0, 0, "0o444")
    }


def test_times_are_kept_of_what_goes_by_them_and_of_nothing_else() -> None:
    files = {**CACHES, "flashinfer/0.6/90a/cached_ops/x/x.so": b"\x7fELF"}
    plain, timed = pack(H100, files), pack(H100, files, dict.fromkeys(files, 1800000000))
    assert plain != timed
    layer = kernels.unpacked(timed[0])
    assert layer is not None
    assert b"1800000000 flashinfer/0.6/90a/cached_ops/x/x.so\n" in layer
    assert layer.count(b"1800000000") == 1
    assert pack(H100, CACHES, dict.fromkeys(CACHES, 1)) == pack(H100, CACHES)


def test_an_entry_is_named_by_all_that_it_is_good_for() -> None:
    others = [
        dataclasses.replace(H100, server="sha256:" + "6" * 64),
        dataclasses.replace(H100, device="NVIDIA H200"),
        dataclasses.replace(H100, capability="9.1"),
        dataclasses.replace(H100, count=2),
        dataclasses.replace(H100, arguments=()),
    ]
    assert len({target.name for target in [H100, *others]}) == 6
    assert re.fullmatch(r"nvidia-h100-80gb-hbm3-x1-[0-9a-f]{8}", H100.name)
    assert CPU.place == "cpu f00e76e7dc8d x1 AMD EPYC"


def test_one_for_the_same_target_is_replaced_and_another_stands_beside_it() -> None:
    first, other = entry()[0], entry(CPU)[0]
    newer = dataclasses.replace(first, size=first.size + 1)
    assert with_entry([first], newer) == (newer,)
    assert with_entry([first], other) == tuple(sorted([first, other], key=lambda one: one.name))


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_changed_byte_is_never_that_layer(place: int) -> None:
    made, content = entry()
    changed = bytearray(content)
    changed[place % len(content)] ^= 1
    assert fault_of_layer(made, bytes(changed))


def _tar(*members: tuple[str, bytes]) -> bytes:
    parts = [
        tar_header(name, 0o444, size=len(data)) + data + tar_padding(len(data)) for name, data in members
    ]
    return b"".join(parts) + END_OF_TAR


OWN = f"models/.kernels/{H100.name}"


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (_tar((f"{OWN}/fits", H100.fits), ("models/config.json", b"{}")), "models/config.json"),
        (_tar((f"{OWN}/fits", H100.fits), ("bin/sh", b"")), "bin/sh"),
        (_tar((f"{OWN}/fits", H100.fits), (f"{OWN}/../../config.json", b"")), "config.json"),
        (_tar((f"{OWN}/fits", CPU.fits), (f"{OWN}/vllm/x", b"")), "fits"),
        (_tar((f"{OWN}/vllm/x", b"")), "fits"),
        (tar_header(f"{OWN}/fits", 0o777, kind=tarfile.SYMTYPE, link="/etc/passwd") + END_OF_TAR, "fits"),
    ],
    ids=["a file of the model", "a program", "out of the folder", "another target", "no target", "a link"],
)
def test_a_layer_of_the_right_digest_with_anything_else_in_it_is_refused(layer: bytes, told: str) -> None:
    content = zstandard.ZstdCompressor().compress(layer)
    made = Kernels(H100, sha256_digest(content), len(content), sha256_digest(layer), "0.23.0", "2.11.0")
    assert told in str(fault_of_layer(made, content))


def test_a_layer_that_unpacks_to_another_digest_is_refused() -> None:
    """The image's configuration names layers unpacked, so a pull would fail on each node."""
    made, content = entry()
    assert "unpacks to another" in str(
        fault_of_layer(dataclasses.replace(made, diff_id="sha256:" + "0" * 64), content)
    )


def test_nothing_compiled_and_names_that_no_image_can_have_are_refused() -> None:
    with pytest.raises(InputError, match="no file of compiled code"):
        pack(H100, {})
    with pytest.raises(InputError, match=r"\.wh\."):
        pack(H100, {"vllm/.wh.model": b""})


# --- the lock


def test_a_lock_with_kernels_is_read_back_and_one_without_is_as_ever(project: Path) -> None:
    plain = read_lock(lock_path(project, "tiny"))
    assert "kernels" not in lock_path(project, "tiny").read_text()
    before = modelcar_image(plain, BASE)
    entries = with_entry([entry()[0]], entry(CPU)[0])
    lock = with_kernels(project, *entries)
    assert lock.kernels == entries
    assert lock.digest != plain.digest
    image = modelcar_image(lock, BASE)
    assert [layer.digest for layer in image.layers] == [
        *(layer.digest for layer in before.layers),
        *(one.digest for one in entries),
    ]
    document = json.loads(image.manifest)
    assert document["layers"][-1]["mediaType"].endswith("+zstd")
    assert with_kernels(project) == plain
    assert modelcar_image(with_kernels(project), BASE).digest == before.digest


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another name": (lambda e: e.update(name="mine"), "which follows from what it is good for"),
    "another device under the name": (lambda e: e.update(device="NVIDIA H200"), "which follows from"),
    "a digest of another kind": (lambda e: e.update(digest="sha512:1"), "sha256: and 64"),
    "no unpacked digest": (lambda e: e.pop("diffId"), "lacks diffId"),
    "an unknown key": (lambda e: e.update(url="https://x"), "unknown key url"),
    "a server by tag": (lambda e: e.update(server="vllm:latest"), "the digest of the server's image"),
    "a capability as a number": (lambda e: e.update(capability=9.0), "compute capability"),
    "another kind": (lambda e: e.update(kind="tpu"), "gpu or cpu"),
    "a count of none": (lambda e: e.update(count=0), "1 to 64"),
    "a size beyond": (lambda e: e.update(size=2**40), "bytes, 1 to"),
    "a device of two lines": (lambda e: e.update(device="a\nserver x"), "one line"),
    "arguments as a text": (lambda e: e.update(arguments="--x"), "a list of texts"),
    "a driver with words": (lambda e: e.update(driver="new"), "a version"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_bad_entry_is_refused_with_its_place(project: Path, change: str) -> None:
    with_kernels(project, entry()[0])
    path = lock_path(project, "tiny")
    document = yaml.safe_load(path.read_text())
    alter, told = CHANGES[change]
    alter(document["kernels"][0])
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(InputError, match=re.escape(told)) as raised:
        read_lock(path)
    assert "kernels[0]" in str(raised.value)
    assert "make kernels" in str(raised.value)


@pytest.mark.parametrize("value", [[], {}, "none", None, [1], [None] * 40])
def test_a_list_that_is_none_is_refused(project: Path, value: Any) -> None:
    path = lock_path(project, "tiny")
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "kernels": value}, sort_keys=False))
    with pytest.raises(InputError, match="kernels"):
        read_lock(path)


def test_two_of_one_name_or_in_another_order_are_refused(project: Path) -> None:
    first, other = with_entry([entry()[0]], entry(CPU)[0])
    for wrong in ((first, first), (other, first)):
        with pytest.raises(InputError, match="each name once, sorted"):
            with_kernels(project, *wrong)


def test_locking_again_keeps_kernels_where_the_configuration_is_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = entry()[0]
    with_kernels(project, made)
    make_tiny_model(project / "weights", seed=1)
    assert main(["--project", str(project), "lock", "tiny", "--folder", str(project / "weights")]) == 0
    assert read_lock(lock_path(project, "tiny")).kernels == (made,)
    assert f"kept: kernels {made.name}" in capsys.readouterr().out
    config = project / "weights/config.json"
    config.write_text(config.read_text().replace('"rope_theta"', '"changed": 1, "rope_theta"', 1) + "\n")
    assert main(["--project", str(project), "lock", "tiny", "--folder", str(project / "weights")]) == 0
    assert read_lock(lock_path(project, "tiny")).kernels == ()
    said = capsys.readouterr()
    assert f"kernels {made.name} are dropped" in said.err
    assert f"- kernels {made.name}" in said.out


def test_a_lock_that_cannot_be_read_is_told_before_its_kernels_are_lost(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a merge that left git's marks in it; its error names this very command."""
    with_kernels(project, entry()[0])
    path = lock_path(project, "tiny")
    path.write_text("<<<<<<< HEAD\n" + path.read_text())
    assert main(["--project", str(project), "lock", "tiny", "--folder", str(project / "weights")]) == 0
    said = capsys.readouterr().err
    assert f"warning: {path} cannot be read: it is written anew, without the kernels" in said
    assert f"git checkout {path}" in said
    path.unlink()
    assert main(["--project", str(project), "lock", "tiny", "--folder", str(project / "weights")]) == 0
    assert "cannot be read" not in capsys.readouterr().err, "a first lock replaces none"


def test_kernels_of_a_hub_or_a_folder_never_get_into_a_model(project: Path) -> None:
    """A pod would run them: only what a stack's own pods compiled may lie there."""
    path = f".kernels/{H100.name}/vllm/model"
    for patterns in ((), ("*",), (".kernels/*",)):
        assert choosing.left_out(["config.json", path], patterns)[path] == choosing.KERNELS
    (project / "weights" / path).parent.mkdir(parents=True)
    (project / "weights" / path).write_bytes(b"code")
    assert [file.path for file in relock(project).files if "kernels" in file.path] == []
    lock = lock_path(project, "tiny")
    document = yaml.safe_load(lock.read_text())
    document["files"].insert(0, {"path": path, "size": 4, "sha256": "a" * 64})
    document["totalSize"] += 4
    lock.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(InputError, match="come out of a stack's own pods"):
        read_lock(lock)


def test_a_difference_of_two_locks_names_kernels(project: Path) -> None:
    plain = read_lock(lock_path(project, "tiny"))
    made = entry()[0]
    lock = with_kernels(project, made)
    lines = list(describe(diff(plain, lock)))
    assert lines[0].startswith(f"+ kernels {made.name}")
    assert diff(plain, lock).upload == made.size
    assert next(iter(describe(diff(lock, plain)))).startswith(f"- kernels {made.name}")


def test_an_image_without_a_locks_kernels_is_another(project: Path) -> None:
    plain, lock = read_lock(lock_path(project, "tiny")), with_kernels(project, entry()[0])

    def found(of: Lock) -> Inspection:
        layers = tuple(
            InspectedLayer(layer.digest, layer.size, "") for layer in modelcar_image(of, BASE).layers
        )
        notes = {"io.modelcar.lock.digest": lock.digest}
        return Inspection("sha256:x", "linux/amd64", 1, notes, layers, (), ())

    assert "its layers are not the lock's" in list(differences(found(plain), lock))
    assert "its layers are not the lock's" not in list(differences(found(lock), lock))


def test_the_bill_of_materials_names_kernels_beside_the_files(project: Path) -> None:
    plain = sbom(read_lock(lock_path(project, "tiny")))
    made = entry()[0]
    bill = json.loads(sbom(with_kernels(project, made)))
    kinds = [component["type"] for component in bill["components"]]
    assert (kinds.count("data"), kinds.count("file")) == (1, len(json.loads(plain)["components"]))
    [data] = [component for component in bill["components"] if component["type"] == "data"]
    assert (data["name"], data["hashes"][0]["content"]) == (f".kernels/{made.name}", made.digest[7:])


# --- where layers are


def test_a_layout_gets_the_layer_that_is_kept_here(project: Path) -> None:
    made, content = entry()
    lock = with_kernels(project, made)
    layout = locking.layout_path(project, "tiny")
    assert missing_bytes(lock, layout) == made.size
    kernel_store.keep(project, content)
    fetched = fetch(lock, BASE, project, layout)
    assert fetched.layout.image.digest == modelcar_image(lock, BASE).digest
    assert (layout / "blobs" / made.digest.replace(":", "/")).read_bytes() == content
    assert missing_bytes(lock, layout) == 0
    assert verify(lock, layout) == ()
    (layout / "blobs" / made.digest.replace(":", "/")).write_bytes(b"x" * made.size)
    assert [made.name in problem.value for problem in verify(lock, layout)] == [True]


@pytest.mark.parametrize("kept", ["nothing", "a changed byte", "another layer"])
def test_a_layer_that_is_nowhere_is_told_with_the_commands(project: Path, kept: str) -> None:
    made, content = entry()
    lock = with_kernels(project, made)
    path = kernel_store.kept_path(project, made.digest)
    path.parent.mkdir(parents=True)
    if kept == "a changed byte":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kept == "another layer":
        path.write_bytes(entry(CPU)[1])
    with pytest.raises(InputError) as raised:
        fetch(lock, BASE, project, locking.layout_path(project, "tiny"))
    for part in (made.name, made.digest, "kernels add", "make kernels", f"kernels remove {made.name}"):
        assert part in str(raised.value)


def test_a_layer_that_the_registry_has_is_not_needed_here(project: Path) -> None:
    made, _ = entry()
    lock = with_kernels(project, made)
    layout = locking.layout_path(project, "tiny")
    fetch(lock, BASE, project, layout, elsewhere=[made.digest])
    assert not (layout / "blobs" / made.digest.replace(":", "/")).exists()


def test_a_registry_keeps_a_layer_by_a_tag_that_follows_from_it(project: Path) -> None:
    made, content = entry()
    with serve() as server:
        target = Repository(f"{server.host}/models", "tiny", insecure=True)
        with Registry(target, write=True) as registry:
            assert kernel_store.pull(registry, made) is None
            tag = kernel_store.push(registry, made, content)
            assert kernel_store.push(registry, made, content) == tag
            assert kernel_store.pull(registry, made) == content
        assert tag == f"kernels-{made.digest[7:23]}"
        manifest = json.loads(server.manifests[tag][0])
        assert manifest["artifactType"] == kernel_store.ARTIFACT_TYPE
        assert [layer["digest"] for layer in manifest["layers"]] == [made.digest]
        server.blobs[made.digest] = content[:-1] + b"!"
        with Registry(target) as registry, pytest.raises(InputError, match="of other content"):
            kernel_store.pull(registry, made)


def test_a_layer_that_is_kept_for_another_target_stays_as_it_is(project: Path) -> None:
    made, content = entry()
    with serve() as server:
        server.immutable_tags = True
        target = Repository(f"{server.host}/models", "tiny", insecure=True)
        with Registry(target, write=True) as registry:
            tag = kernel_store.push(registry, made, content)
            before = server.manifests[tag]
            assert kernel_store.push(registry, dataclasses.replace(made, target=CPU), content) == tag
            assert server.manifests[tag] == before
            server.manifests[tag] = theirs = (b'{"manifests": []}', "application/json")
            with pytest.raises(InputError, match=f"{tag}: names sha256:"):
                kernel_store.push(registry, made, content)
            assert server.manifests[tag] == theirs


def test_an_archive_brings_entries_to_another_machine(project: Path) -> None:
    entries = [entry(), entry(CPU)]
    path = project / "kernels.tar"
    kernel_store.write_archive(path, entries, "basis")
    first = path.read_bytes()
    found, basis = kernel_store.read_archive(path)
    assert (sorted(found, key=str), basis) == (sorted(entries, key=str), "basis")
    kernel_store.write_archive(path, entries, "basis")
    assert path.read_bytes() == first


@pytest.mark.parametrize("damage", ["no file", "a byte", "cut off", "no list", "a list of something"])
def test_a_damaged_archive_is_refused(project: Path, damage: str) -> None:
    path = project / "kernels.tar"
    kernel_store.write_archive(path, [entry()], "basis")
    content = bytearray(path.read_bytes())
    if damage == "no file":
        path.unlink()
    elif damage == "a byte":
        at = content.rindex(b"\x28\xb5\x2f\xfd") + 20  # in the layer
        content[at] ^= 1
        path.write_bytes(content)
    elif damage == "cut off":
        path.write_bytes(content[: content.rindex(b"\x28\xb5\x2f\xfd") + 20])
    else:
        name, data = ("other", b"{}") if damage == "no list" else ("kernels.json", b"[1]")
        path.write_bytes(_tar((name, data)))
    with pytest.raises(InputError, match="kernels save --out"):
        kernel_store.read_archive(path)


# --- cleaning


def test_what_differs_by_run_or_belongs_to_one_machine_is_left_out() -> None:
    noise = {
        f"{AOT}/inductor_cache/locks/c3q5.lock": b"",
        f"{AOT}/rank_0_0/model.412.tmp": b"half",
        "vllm/torch_compile_cache/0c1d/rank_0_0/backbone/cache_key_factors.json": b'{"VLLM_API_KEY": "x"}',
        "vllm/torch_compile_cache/0c1d/rank_0_0/backbone/computation_graph.py": b"dump",
        "vllm/gpu_p2p_access_cache_for_0,1.json": b"{}",
        "vllm/assets/picture.png": b"",
        "triton/tmp.pid_12_abcd/kernel.cubin": b"half",
        "triton/ABCD/__pycache__/x.pyc": b"",
        "torchinductor/precompiled_headers/c5.h.gch": b"large",
        "torchinductor/tmpab12cd_9": b"",
        "flashinfer/0.6/90/flashinfer_jit.log": b"when",
        ".": b"no name of a server's",
        "/vllm/modelinfos/x.json": b"out of its folder",
        "other/x": b"no cache",
    }
    assert clean({**CACHES, **noise}) == CACHES


def test_a_model_that_was_not_compiled_to_its_end_is_left_out() -> None:
    half = "vllm/torch_compile_cache/torch_aot_compile/" + "b2" * 32
    files = {**CACHES, f"{half}/inductor_cache/3q/c3.py": b"x"}
    assert compiled(files) == {AOT.removeprefix("vllm/torch_compile_cache/"): 1, half[25:].lstrip("/"): 0}
    assert clean(files) == CACHES


def test_ranks_are_counted() -> None:
    files = {f"{AOT}/rank_{rank}_0/model": b"x" for rank in range(2)}
    assert list(compiled(files).values()) == [2]


def test_the_folder_has_a_dot_so_that_no_loader_takes_it_for_the_model() -> None:
    assert kernels.FOLDER.startswith(".")
