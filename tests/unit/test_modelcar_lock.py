"""The lock: written and read back the same, and whatever is wrong with one is refused in words."""

from __future__ import annotations

import copy
import dataclasses
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelcar import base, locking, strict_yaml
from modelcar.demo_model import make_demo_model
from modelcar.errors import InputError
from modelcar.image import annotations_of, modelcar_image
from modelcar.layer_format import group_files, layer_size
from modelcar.lock import FolderSource, HubSource, Lock, LockedFile, LockedLayer, changed_files, write_lock
from modelcar.lock_reader import check_lock, read_lock

PROJECT = Path(base.__file__).parent.parent
#: Of the tiny model as it is committed; what a real BuildKit pushes is compared in tests/engine.
TINY_DIGEST = "sha256:ff85c0100ddcc8f93d00326b3f6d73d30427551ebd0c4d230f1a2acbdd970b2e"

#: Names that YAML takes for something else, or that need quoting.
NAMES = [
    *("null", "yes", "1e3", "0o17", "2026-11-25", "a: b", "#x", "- y", "~", "'q'", '"d"', "été.txt", "東京"),
    *(
        "with space",
        "a/b/c.json",
        "x" * 120,
        "%TAG",
        "@at",
        "&anchor",
        "*alias",
        "!tag",
        "|",
        ">",
        "{}",
        "[]",
    ),
]


def make_lock(seed: int = 0, **changes: Any) -> Lock:
    """Return a lock with made-up digests."""
    chance = random.Random(seed)

    def digest() -> str:
        digits = "0123456789" if chance.random() < 0.3 else "0123456789abcdef"
        return "".join(chance.choice(digits) for _ in range(64))

    names = sorted(chance.sample(NAMES, chance.randint(1, len(NAMES))))
    files = tuple(LockedFile(name, chance.randint(1, 3 * 10**7), digest()) for name in names)
    layers = []
    compression = "zstd" if seed % 3 == 2 else "none"
    for group in group_files([(file.path, file.size) for file in files]):
        content, paths = f"sha256:{digest()}", tuple(path for path, _ in group)
        if compression == "zstd":
            layers.append(LockedLayer(f"sha256:{digest()}", chance.randint(1, 10**9), content, paths))
        else:
            layers.append(LockedLayer(content, layer_size(group), content, paths))
    sources: list[HubSource | FolderSource] = [
        FolderSource("data/x"),
        HubSource("Qwen/Qwen2.5-0.5B", digest()[:40]),
    ]
    licenses = [None, "Apache-2.0", "no", "1.0", "MIT, or: else"]
    source, license = sources[seed % 2], licenses[seed % len(licenses)]
    made = Lock("tiny", source, license, compression, files, tuple(layers))
    return dataclasses.replace(made, **changes)


def written(lock: Lock, tmp_path: Path) -> Path:
    path = tmp_path / "tiny" / "model.lock"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(write_lock(lock))
    return path


@pytest.mark.parametrize("seed", range(40))
def test_a_lock_is_read_back_as_it_was_written(seed: int, tmp_path: Path) -> None:
    lock = make_lock(seed)
    again = read_lock(written(lock, tmp_path))
    assert again == lock
    assert again.digest == lock.digest


def test_comments_and_order_of_keys_do_not_change_the_image(tmp_path: Path) -> None:
    lock = make_lock()
    path = written(lock, tmp_path)
    document = yaml.safe_load(path.read_text())
    path.write_text("# another comment\n" + yaml.safe_dump(document, sort_keys=True, width=40))
    assert read_lock(path).digest == lock.digest


def test_whatever_the_image_depends_on_changes_the_digest() -> None:
    lock = make_lock(2)
    others = [
        dataclasses.replace(lock, license="other"),
        dataclasses.replace(lock, source=FolderSource("elsewhere")),
        dataclasses.replace(lock, files=lock.files[:-1]),
        dataclasses.replace(lock, layers=lock.layers[:-1]),
        dataclasses.replace(lock, compression="zstd" if lock.compression == "none" else "none"),
    ]
    assert len({other.digest for other in [lock, *others]}) == 6


def test_the_committed_lock_is_that_of_the_tiny_model(tmp_path: Path) -> None:
    committed = read_lock(PROJECT / "modelcar/models/tiny-qwen2/model.lock")
    make_demo_model(tmp_path / "modelcar/data/tiny-qwen2")
    description = locking.read_description(PROJECT / "modelcar/models/tiny-qwen2/model.yaml")
    made, _ = locking.lock_model("tiny-qwen2", description, locking.resolve(description, tmp_path), tmp_path)
    assert made == committed
    assert modelcar_image(committed, base.read_base("amd64")).digest == TINY_DIGEST


def test_the_committed_models_can_be_locked() -> None:
    for path in (PROJECT / "modelcar/models").glob("*/model.yaml"):
        description = locking.read_description(path)
        assert bool(description.hub) != bool(description.folder)
        assert locking.check_name(path.parent.name)


def test_annotations_tell_source_revision_license_and_lock() -> None:
    lock = make_lock(1)
    assert annotations_of(lock) == {
        "io.modelcar.lock.digest": lock.digest,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": lock.source.revision,  # type: ignore[union-attr]
        "org.opencontainers.image.source": "https://huggingface.co/Qwen/Qwen2.5-0.5B",
        "org.opencontainers.image.title": "tiny",
    }


def test_go_writes_some_characters_otherwise_than_python() -> None:
    """`&` in JSON by Go's encoder, which BuildKit uses, is an escape; so it has to be here."""
    manifest = modelcar_image(make_lock(license="A & <B>"), base.read_base("amd64")).manifest
    assert rb"A \u0026 \u003cB\u003e" in manifest


# --- what is refused

Spoil = Callable[[dict[str, Any]], Any]


def change(*path: Any, to: Any) -> Spoil:
    def spoil(document: dict[str, Any]) -> None:
        place: Any = document
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to

    return spoil


def last_size(document: dict[str, Any]) -> None:
    document["files"][0]["size"] += 1


def folder_and_file(document: dict[str, Any]) -> None:
    """Name one path as a file and as a folder, consistently otherwise."""
    document["files"].insert(1, {"path": "a.json/x", "size": 5, "sha256": "c" * 64})
    document["totalSize"] += 5
    document["layers"][1]["files"].append("a.json/x")
    document["layers"][1]["size"] = layer_size([("a.json", 700), ("a.json/x", 5)])


def layer_by_number(document: dict[str, Any]) -> None:
    document["files"][0]["path"] = "1"
    document["layers"][1]["files"] = [1]


def differ_in_case(document: dict[str, Any]) -> None:
    document["files"].insert(0, {**document["files"][0], "path": "A.json"})


WRONG: dict[str, tuple[Spoil, str, str]] = {
    "version": (change("version", to=2), "version", "2"),
    "unknown key": (change("more", to=1), "model.lock", "unknown key more"),
    "missing key": (lambda d: d.pop("license"), "model.lock", "lacks license"),
    "no mapping": (lambda d: None, "", ""),
    "two sources": (change("source", "hub", to="a/b"), "source", "hub"),
    "branch": (change("source", to={"hub": "a/b", "revision": "main"}), "source", "main"),
    "repository": (change("source", to={"hub": "../x", "revision": "a" * 40}), "source", ".."),
    "license": (change("license", to=3), "license", "3"),
    "license with a line end": (change("license", to="a\nb"), "license", "a"),
    "compression": (change("compression", to="gzip"), "compression", "gzip"),
    "no files": (change("files", to=[]), "files", "[]"),
    "file is text": (change("files", 0, to="x"), "files[0]", "x"),
    "file without digest": (lambda d: d["files"][0].pop("sha256"), "files[0]", "lacks sha256"),
    "path is a number": (change("files", 0, "path", to=7), "files[0].path", "7"),
    "path leads out": (change("files", 0, "path", to="../x"), "files[0].path", "leads out"),
    "absolute path": (change("files", 0, "path", to="/etc/x"), "files[0].path", "leads out"),
    "whiteout": (change("files", 0, "path", to="a/.wh.b"), "files[0].path", "deletes a file"),
    "line end in path": (change("files", 0, "path", to="a\nb"), "files[0].path", "control character"),
    "size is text": (change("files", 0, "size", to="1"), "files[0].size", "1"),
    "size is true": (change("files", 0, "size", to=True), "files[0].size", "True"),
    "size is infinite": (change("files", 0, "size", to=2**60), "files[0].size", "1152921504606846976"),
    "digest in upper case": (change("files", 0, "sha256", to="A" * 64), "files[0].sha256", "AAAA"),
    "short digest": (change("files", 0, "sha256", to="a" * 63), "files[0].sha256", "aaa"),
    "not sorted": (lambda d: d["files"].reverse(), "files", "not sorted"),
    "a path twice": (lambda d: d["files"].append(dict(d["files"][-1])), "files", "a path twice"),
    "wrong total": (change("totalSize", to=1), "totalSize", "1"),
    "wrong size by hand": (last_size, "totalSize", ""),
    "no layers": (change("layers", to=None), "layers", "None"),
    "layer size": (change("layers", 0, "size", to=1024), "layers[0].size", "1024"),
    "layer digest": (change("layers", 0, "digest", to="sha256:x"), "layers[0].digest", "sha256:x"),
    "layer of nothing": (change("layers", 0, "files", to=[]), "layers[0].files", "[]"),
    "layer of a stranger": (change("layers", 0, "files", to=["no"]), "layers[0].files", "no"),
    "layer left out": (lambda d: d["layers"].pop(), "layers", "in no layer"),
    "file in two layers": (
        lambda d: d["layers"].append(copy.deepcopy(d["layers"][0])),
        "layers",
        "or in two",
    ),
    "version is true": (change("version", to=True), "version", "True"),
    "version is a fraction": (change("version", to=1.0), "version", "1.0"),
    "no version": (lambda d: d.pop("version"), "version", "None"),
    "source is text": (change("source", to="data/x"), "source", "data/x"),
    "folder with a zero byte": (change("source", "folder", to="a\0b"), "source", r"a\x00b"),
    "folder that acts on the terminal": (change("source", "folder", to="a\x1b[2J"), "source", r"a\x1b[2J"),
    "commit in upper case": (change("source", to={"hub": "a/b", "revision": "A" * 40}), "source", "AAAA"),
    "license is too long": (change("license", to="x" * 201), "license", "xxx"),
    "license is nothing": (change("license", to=""), "license", ""),
    "compression is a list": (change("compression", to=["none"]), "compression", "none"),
    "files are a mapping": (change("files", to={"a": 1}), "files", "dict"),
    "unknown key of a file": (change("files", 0, "mode", to=7), "files[0]", "unknown key mode"),
    "a path up inside": (change("files", 0, "path", to="a/../../x"), "files[0].path", "leads out"),
    "whiteout at the top": (change("files", 0, "path", to=".wh.x"), "files[0].path", "deletes a file"),
    "names differ in case": (differ_in_case, "files", "a.json and A.json"),
    "a file and a folder": (folder_and_file, "files", "a.json is a file and a folder"),
    "negative size": (change("files", 0, "size", to=-1), "files[0].size", "-1"),
    "size is a fraction": (change("files", 0, "size", to=700.0), "files[0].size", "700.0"),
    "digest is a number": (change("files", 0, "sha256", to=int("1" * 64)), "files[0].sha256", "1111"),
    "total is a fraction": (lambda d: d.update(totalSize=float(d["totalSize"])), "totalSize", "20000700.0"),
    "layers are text": (change("layers", to="x"), "layers", "str"),
    "layer is text": (change("layers", 0, to="x"), "layers[0]", "x"),
    "layer without size": (lambda d: d["layers"][0].pop("size"), "layers[0]", "lacks size"),
    "layer digest in upper case": (
        change("layers", 0, "digest", to="sha256:" + "E" * 64),
        "layers[0].digest",
        "EEEE",
    ),
    "layer digest of another kind": (
        change("layers", 0, "digest", to="sha512:" + "e" * 64),
        "layers[0].digest",
        "sha512",
    ),
    "layer files are text": (change("layers", 0, "files", to="b.safetensors"), "layers[0].files", "b.s"),
    "layer file by number": (layer_by_number, "layers[1].files", "1"),
    "zstd without diffId": (change("compression", to="zstd"), "layers[0]", "lacks diffId"),
    "diffId without compression": (change("layers", 0, "diffId", to="x"), "layers[0]", "unknown key diffId"),
}


def small_lock() -> Lock:
    digest = "sha256:" + "e" * 64
    files = (LockedFile("a.json", 700, "a" * 64), LockedFile("b.safetensors", 2 * 10**7, "b" * 64))
    large, small = [("b.safetensors", 2 * 10**7)], [("a.json", 700)]
    layers = (
        LockedLayer(digest, layer_size(large), digest, ("b.safetensors",)),
        LockedLayer(digest, layer_size(small), digest, ("a.json",)),
    )
    return Lock("tiny", FolderSource("data/x"), "MIT", "none", files, layers)


@pytest.mark.parametrize("case", WRONG)
def test_a_lock_edited_by_hand_is_refused_with_key_and_fix(case: str, tmp_path: Path) -> None:
    spoil, key, value = WRONG[case]
    path = written(small_lock(), tmp_path)
    document = yaml.safe_load(path.read_text())
    spoil(document)
    path.write_text("- a list\n" if case == "no mapping" else yaml.safe_dump(document))
    with pytest.raises(InputError) as caught:
        read_lock(path)
    found = [problem for problem in caught.value.problems if key in problem.key and value in problem.value]
    assert found, str(caught.value)
    assert all("python -m modelcar lock tiny" in p.fix or "program" in p.fix for p in caught.value.problems)
    assert "\nb" not in "".join(problem.value for problem in caught.value.problems)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = written(small_lock(), tmp_path)
    document = yaml.safe_load(path.read_text())
    change("license", to=3)(document)
    change("files", 0, "size", to="x")(document)
    change("source", to={})(document)
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(InputError) as caught:
        read_lock(path)
    assert len(caught.value.problems) >= 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        ("a: &x [1]\nb: *x\n", "an alias"),
        ("a: 1\na: 2\n", "the key a twice"),
        ("1: 2\n", "a key that is not text"),
        ("a: [\n", "not YAML"),
        ("a: !!python/object/apply:os.system [id]\n", "not YAML"),
        ("\x00", "not YAML"),
        ("[" * 5000, "not YAML"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"# " + b"x" * strict_yaml.MAX_FILE, "more than"),
    ],
    ids=["missing", "alias", "twice", "number", "cut off", "object", "zero", "deep", "bytes", "large"],
)
def test_what_is_no_plain_yaml_is_refused(text: str | bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.lock"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=re.escape(said)):
        read_lock(path)


def test_a_lock_larger_than_any_model_is_refused_at_once(tmp_path: Path) -> None:
    path = written(small_lock(), tmp_path)
    with path.open("ab") as file:
        file.truncate(strict_yaml.MAX_FILE + 2**30)  # a hole: reading it would take a while
    with pytest.raises(InputError, match=f"more than {strict_yaml.MAX_FILE} bytes"):
        read_lock(path)


def test_thousands_of_files_are_no_bomb(tmp_path: Path) -> None:
    files = tuple(LockedFile(f"{number:06}", 1, f"{number:064x}") for number in range(4000))
    paths = tuple(file.path for file in files)
    digest = "sha256:" + "e" * 64
    layer = LockedLayer(digest, layer_size([(path, 1) for path in paths]), digest, paths)
    lock = Lock("tiny", FolderSource("x"), None, "none", files, (layer,))
    path = written(lock, tmp_path)
    assert path.stat().st_size < strict_yaml.MAX_FILE / 10
    assert read_lock(path) == lock


def test_what_will_not_be_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m" / "model.lock"
    check_lock(small_lock(), path)
    with pytest.raises(InputError, match=r"license: a\\nb\n(?s:.*)--license"):
        check_lock(dataclasses.replace(small_lock(), license="a\nb"), path)


def test_changed_files_are_told_by_name_and_size(tmp_path: Path) -> None:
    lock = dataclasses.replace(small_lock(), source=FolderSource("w"))
    assert changed_files(lock, tmp_path) == (), "the folder is not on this machine"
    (tmp_path / "w").mkdir()
    (tmp_path / "w/a.json").write_bytes(bytes(700))
    assert changed_files(lock, tmp_path) == ("b.safetensors",)
    with (tmp_path / "w/b.safetensors").open("wb") as file:
        file.truncate(2 * 10**7)
    assert changed_files(lock, tmp_path) == ()
    (tmp_path / "w/a.json").write_bytes(bytes(701))
    assert changed_files(lock, tmp_path) == ("a.json",)
    assert changed_files(dataclasses.replace(lock, source=HubSource("a/b", "c" * 40)), tmp_path) == ()


@pytest.mark.parametrize(
    "text",
    [
        "hub: a/b\nfolder: c\n",
        "folder: c\nrevision: v1\n",
        "revision: main\n",
        "hub: 3\n",
        "hub: a/b\nallow: '*.json'\n",
        "hub: a/b\nallowPickle: 'yes'\n",
        "hub: a/b\ncompression: gzip\n",
        "hub: a/b\ncolour: red\n",
        "- hub\n",
    ],
)
def test_a_wrong_description_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(InputError, match="allowed: "):
        locking.read_description(tmp_path / "model.yaml")


def test_a_description_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    description = locking.Description(
        hub="a/b", revision="v1", allow=("*.json",), license="MIT", compression="zstd", allow_pickle=True
    )
    locking.write_description(tmp_path, "m", description)
    assert locking.read_description(locking.description_path(tmp_path, "m")) == description


@pytest.mark.parametrize("name", ["Qwen", "a b", "../x", "", "a" * 101, "a__", "-a"])
def test_a_name_that_no_repository_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="model: "):
        locking.check_name(name)


def test_a_giant_layer_is_warned_of_with_what_a_retry_costs() -> None:
    digest = "sha256:" + "e" * 64
    files = (LockedFile("m.safetensors", 60 * 10**9, "a" * 64),)
    layer = LockedLayer(digest, layer_size([("m.safetensors", 60 * 10**9)]), digest, ("m.safetensors",))
    [warning] = locking.warnings(dataclasses.replace(small_lock(), files=files, layers=(layer,)))
    assert "60.0 GB" in warning
    assert "10 minutes at 100 MB/s" in warning
    assert "one request" in warning.replace("\n", " ")
    assert 'max_shard_size="5GB"' in warning
    assert locking.warnings(small_lock()) == []
