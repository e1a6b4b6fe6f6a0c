"""What a folder of weights may hold: a refusal names the path, what was found, what is allowed, and a fix."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from modelcar.errors import InputError, Problem
from modelcar.safetensors_header import MAX_HEADER, HeaderError, read_header
from modelcar.weights import read_weights


def write_model(folder: Path) -> Path:
    """Write the least that is a model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"a": np.zeros((2, 3), np.float32)}, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # the library makes it 0600
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def problems(folder: Path) -> dict[str, Problem]:
    """Return the problems of a folder by name of the file."""
    with pytest.raises(InputError) as caught:
        read_weights(folder)
    found = {os.path.relpath(problem.key, folder): problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    for problem in caught.value.problems:
        assert problem.key.startswith(str(folder))
        assert problem.value
        assert problem.allowed
        assert problem.fix
        assert str(problem) in str(caught.value)
        assert "\n" not in problem.key + problem.value + problem.allowed + problem.fix
    return found


def only(folder: Path, name: str) -> str:
    """Return what the folder's only problem says; it must be with the file `name`."""
    found = problems(folder)
    assert list(found) == [name]
    return found[name].value


@contextmanager
def ordinary_user(*folders: Path) -> Iterator[None]:
    """Act as a user who is not root, for whom permissions count; `folders` let him through."""
    if os.geteuid():
        yield
        return
    modes = {folder: folder.stat().st_mode & 0o7777 for folder in folders}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in modes.items():
            folder.chmod(mode)


# --- what is accepted -------------------------------------------------------------------------------


def test_files_are_sorted_and_described(model: Path) -> None:
    (model / "sub folder").mkdir()
    (model / "sub folder" / "été.txt").write_text("hello")
    weights = read_weights(model)
    assert [file.path for file in weights.files] == [
        "config.json",
        "model.safetensors",
        "sub folder/été.txt",
        "tokenizer.json",
    ]
    assert weights.total_size == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    assert weights.files[2].mtime_ns == (model / "sub folder" / "été.txt").stat().st_mtime_ns
    assert weights.config
    assert weights.config.model_type == "qwen2"
    assert weights.config.dtype == "bfloat16"
    assert weights.parameters == 6


def test_what_a_download_leaves_behind_is_skipped(model: Path) -> None:
    for name in (".cache/huggingface/download/config.json.metadata", ".git/HEAD", "sub/.git/HEAD"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("x")
    for name in (".gitattributes", ".gitignore", "config.json.lock"):
        (model / name).write_text("x")
    assert [file.path for file in read_weights(model).files] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_links_inside_the_folder_are_followed(model: Path) -> None:
    (model / "real").mkdir()
    (model / "model.safetensors").rename(model / "real" / "weights.safetensors")
    (model / "model.safetensors").symlink_to("real/weights.safetensors")
    weights = read_weights(model)
    linked = next(file for file in weights.files if file.path == "model.safetensors")
    assert linked.source == (model / "real" / "weights.safetensors").resolve()
    assert linked.size == linked.source.stat().st_size


def test_a_snapshot_of_the_hub_cache_is_a_folder_of_weights(tmp_path: Path) -> None:
    repository = tmp_path / "models--Qwen--Qwen2.5-0.5B"
    snapshot = write_model(repository / "snapshots" / "0a1b2c")
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(repository / "blobs" / f"{number}")
        path.symlink_to(f"../../blobs/{number}")
    assert len(read_weights(snapshot).files) == 3
    (repository / "other").write_text("x")
    (snapshot / "extra.txt").symlink_to("../../other")
    assert "outside of the folder" in only(snapshot, "extra.txt")


def test_a_link_to_the_folder_itself_is_a_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    assert len(read_weights(tmp_path / "link").files) == 3


@pytest.mark.parametrize("names", [["tokenizer.model"], ["vocab.json", "merges.txt"], ["qwen.tiktoken"]])
def test_other_kinds_of_tokenizer(model: Path, names: list[str]) -> None:
    (model / "tokenizer.json").unlink()
    for name in names:
        (model / name).write_text("x")
    assert read_weights(model).files


# --- the folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("missing", "there is no such folder"),
        ("file", "not a folder"),
        ("empty", "the folder is empty"),
        ("link", "a link that leads nowhere"),
    ],
)
def test_folder_is_refused(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    assert problems(tmp_path / name)["."].value == value


def test_unreadable_folders_and_files_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "closed").mkdir()
    (model / "secret.txt").write_text("x")
    (model / "secret.txt").chmod(0)
    (model / "closed").chmod(0)
    outside = [path for path in tmp_path.parents if path.stat().st_uid == os.geteuid() and path != Path("/")]
    with ordinary_user(tmp_path, *outside):
        found = problems(model)
    assert {name: problem.value for name, problem in found.items()} == {
        "closed": "cannot be read (Permission denied)",
        "secret.txt": "cannot be read (Permission denied)",
    }


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "README.md").write_bytes(b"")
    assert problems(tmp_path).keys() == {
        "pytorch_model.bin",
        "config.json",
        "tokenizer.json",
    }


# --- single files -----------------------------------------------------------------------------------


def test_missing_config(model: Path) -> None:
    (model / "config.json").unlink()
    assert only(model, "config.json") == "there is no such file"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("{broken", "not JSON"),
        ("[1]", "not an object"),
        ("{}", "model_type is None"),
        ('{"model_type": 3}', "model_type is 3"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
    ],
)
def test_unusable_config(model: Path, content: str | bytes, value: str) -> None:
    (model / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    assert value in only(model, "config.json")


def test_missing_safetensors(model: Path) -> None:
    (model / "model.safetensors").rename(model / "weights.gguf")
    assert only(model, "*.safetensors") == "there is no such file"


def test_missing_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert only(model, "tokenizer.json") == "there is no tokenizer"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "x.pth", "x.ckpt", "x.pkl", "sub/X.PT"])
def test_pickle_is_refused_with_the_reason(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"x")
    assert "can run any code" in problems(model)[name].value


def test_pickle_is_taken_where_it_is_allowed(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    weights = read_weights(model, allow_pickle=True)
    assert [file.path for file in weights.files] == ["config.json", "pytorch_model.bin", "tokenizer.json"]
    assert weights.parameters == 0, "nobody looks into it"


@pytest.mark.parametrize("name", ["x.safetensors.incomplete", ".cache/huggingface/download/abc.incomplete"])
def test_unfinished_download(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_bytes(b"x")
    assert only(model, name) == "an unfinished download"


@pytest.mark.parametrize("name", ["README.md", "__init__.py", ".gitkeep", "code/py.typed", "code/x.json"])
def test_an_empty_file_is_taken(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).touch()
    [file] = [file for file in read_weights(model).files if file.path == name]
    assert file.size == 0


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json", "x.tiktoken"]
)
def test_a_file_that_a_server_reads_has_content(model: Path, name: str) -> None:
    (model / name).write_bytes(b"")
    assert only(model, name) == "0 bytes"


def test_an_empty_file_is_reported_once(model: Path) -> None:
    for path in model.iterdir():
        path.write_bytes(b"")
    assert {problem.value for problem in problems(model).values()} == {"0 bytes"}


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("/etc/hostname", "outside of the folder"),
        ("../model-2/config.json", "outside of the folder"),
        ("nowhere", "which is not there"),
        ("extra", "which is not there"),
        ("sub", "a link to a folder"),
    ],
)
def test_link(model: Path, target: str, value: str) -> None:
    write_model(model.with_name("model-2"))
    (model / "sub").mkdir()
    (model / "extra").symlink_to(target)
    assert value in only(model, "extra")


def test_pipes_and_sockets(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(model / "pipe")
    monkeypatch.chdir(model)  # a socket's whole path may not be longer than about 100 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert {problem.value for problem in problems(model).values()} == {"a device, pipe or socket"}


@pytest.mark.parametrize("name", ["new\nline", "tab\tname", "escape\x1b[2J", "line\u2028end", b"latin-\xe9"])
def test_names_that_cannot_be_shown(model: Path, name: str | bytes) -> None:
    Path(os.fsdecode(os.fsencode(model) + b"/" + os.fsencode(name))).write_text("x")
    [problem] = problems(model).values()
    assert "control character" in problem.value
    assert problem.key.isprintable()


def test_name_that_deletes_in_a_layer(model: Path) -> None:
    (model / ".wh.config.json").write_text("x")
    assert "deletes a file" in only(model, ".wh.config.json")


@pytest.mark.parametrize(
    ("one", "other"),
    [("README.md", "readme.MD"), ("Sub/a.txt", "sub/b.txt"), ("caf\u00e9.txt", "cafe\u0301.txt")],
)
def test_names_that_differ_in_case_only(model: Path, one: str, other: str) -> None:
    for name in (one, other):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    [problem] = problems(model).values()
    assert "the same name as" in problem.value


# --- shards -----------------------------------------------------------------------------------------


def write_shards(model: Path) -> None:
    """Replace the one safetensors file by two with an index."""
    (model / "model.safetensors").unlink()
    for number, tensor in enumerate("ab", 1):
        save_file({tensor: np.zeros(4, np.float16)}, model / f"model-{number:05}-of-00002.safetensors")
    mapping = {tensor: f"model-{number:05}-of-00002.safetensors" for number, tensor in enumerate("ab", 1)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


def test_shards(model: Path) -> None:
    write_shards(model)
    assert read_weights(model).parameters == 8


def test_missing_shard(model: Path) -> None:
    write_shards(model)
    (model / "model-00002-of-00002.safetensors").unlink()
    assert only(model, "model-00002-of-00002.safetensors") == "missing, model.safetensors.index.json names it"


def test_shard_that_the_index_does_not_name(model: Path) -> None:
    write_shards(model)
    save_file({"a": np.zeros(4)}, model / "other.safetensors")
    assert only(model, "other.safetensors") == "not named by model.safetensors.index.json"


def test_shard_of_another_revision(model: Path) -> None:
    write_shards(model)
    save_file({"c": np.zeros(4)}, model / "model-00002-of-00002.safetensors")
    assert "lacks 1 tensors" in only(model, "model-00002-of-00002.safetensors")


def test_shards_without_an_index_are_told_by_their_numbers(model: Path) -> None:
    write_shards(model)
    (model / "model.safetensors.index.json").unlink()
    assert read_weights(model).parameters == 8
    (model / "model-00002-of-00002.safetensors").unlink()
    assert "one of 2 shards" in only(model, "model-00002-of-00002.safetensors")


def edit_index(model: Path, add: dict[str, str]) -> None:
    path = model / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].update(add)
    path.write_text(json.dumps(index))


def set_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    "names",
    [
        {"lm_head.weight": "model-00001-of-00002.safetensors"},
        {"model.layers.0.self_attn.rotary_emb.inv_freq": "model-00002-of-00002.safetensors"},
        {"b": "model-00001-of-00002.safetensors", "a": "model-00002-of-00002.safetensors"},
    ],
    ids=["tied", "computed", "in another shard"],
)
def test_a_stale_index_may_name_what_no_server_needs(model: Path, names: dict[str, str]) -> None:
    write_shards(model)
    edit_index(model, names)
    set_config(model, tie_word_embeddings=True)
    assert len(read_weights(model).files) == 5


@pytest.mark.parametrize(
    "config", [{"tie_word_embeddings": False}, {"text_config": {"tie_word_embeddings": False}}]
)
def test_an_output_layer_that_is_not_tied_has_to_be_there(model: Path, config: dict[str, object]) -> None:
    write_shards(model)
    edit_index(model, {"lm_head.weight": "model-00001-of-00002.safetensors"})
    set_config(model, **config)
    assert "lm_head.weight for one" in only(model, "model-00001-of-00002.safetensors")


def test_an_index_of_a_former_sharding_is_told_with_a_way_out_that_helps(model: Path) -> None:
    write_shards(model)
    former = {tensor: f"model-{number:05}-of-00003.safetensors" for number, tensor in enumerate("ab", 1)}
    edit_index(model, former)
    [problem] = problems(model).values()
    assert problem.key.endswith("model.safetensors.index.json")
    assert "--ignore model.safetensors.index.json" in problem.fix
    assert read_weights(model, ignore=["model.safetensors.index.json"]).parameters == 8


# --- which files are taken --------------------------------------------------------------------------


def test_a_trainers_folder_is_taken_without_its_state(model: Path) -> None:
    state = ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json"]
    state += ["checkpoint-500/model.safetensors", "checkpoint-500/config.json", "checkpoint-500/optimizer.pt"]
    for name in state:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"x")
    weights = read_weights(model)
    assert [file.path for file in weights.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert dict(weights.skipped) == dict.fromkeys(state, "a trainer's state")


def test_a_folder_is_chosen_from_by_patterns(model: Path) -> None:
    for name in ("notes.md", "original/x.txt"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    assert "notes.md" not in {file.path for file in read_weights(model, ignore=["*.md"]).files}
    assert dict(read_weights(model, ignore=["*.md"]).skipped)["notes.md"] == "not among the patterns"
    taken = read_weights(model, allow=["*.json", "*.safetensors", "original/"]).files
    assert [file.path for file in taken] == [
        *("config.json", "model.safetensors", "original/x.txt", "tokenizer.json"),
    ]
    assert only_with(model, allow=["*.safetensors", "tok*"]) == "left out: not among the patterns"


def only_with(model: Path, **options: Any) -> str:
    """Return what the only problem of a choice says."""
    with pytest.raises(InputError) as caught:
        read_weights(model, **options)
    [problem] = caught.value.problems
    return problem.value


def test_two_indexes_are_one_model(model: Path) -> None:
    write_shards(model)
    save_file({"a": np.zeros(4), "b": np.zeros(4)}, model / "consolidated-00001-of-00001.safetensors")
    shard = dict.fromkeys("ab", "consolidated-00001-of-00001.safetensors")
    (model / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": shard}))
    weights = read_weights(model)
    assert [path for path, _ in weights.skipped] == [
        *("consolidated-00001-of-00001.safetensors", "consolidated.safetensors.index.json"),
    ]
    assert len(read_weights(model, allow=["*"]).files) == 7, "whoever names both gets both"


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {"a": 1}}', "nonsense"])
def test_broken_index(model: Path, content: str) -> None:
    write_shards(model)
    (model / "model.safetensors.index.json").write_text(content)
    assert only(model, "model.safetensors.index.json")


# --- headers ----------------------------------------------------------------------------------------


def tensor(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def safetensors_file(header: object, data: int) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + bytes(data)


GOOD = {"a": tensor(0, 4), "b": tensor(4, 10), "__metadata__": {"format": "pt"}}
BROKEN = {
    "too short": (b"1234567", "too short"),
    "cut in the header": (safetensors_file(GOOD, 10)[:40], "the header would end at byte"),
    "length beyond the limit": ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "above 100000000"),
    "length of nonsense": (b"\xff" * 64, "above 100000000"),
    "not JSON": (safetensors_file(b"{'a': 1}", 0), "not JSON"),
    "not UTF-8": (safetensors_file(b'{"\xff": 1}', 0), "not JSON"),
    "not an object": (safetensors_file([], 0), "not a JSON object"),
    "cut in the data": (safetensors_file(GOOD, 9), "the file holds 9: it is cut off"),
    "more than its tensors": (safetensors_file(GOOD, 11), "the tensors end at byte 10"),
    "hole": (safetensors_file({"a": tensor(0, 4), "b": tensor(5, 8)}, 8), "leaves a hole"),
    "hole at the start": (safetensors_file({"a": tensor(1, 4)}, 4), "leaves a hole"),
    "overlap": (safetensors_file({"a": tensor(0, 4), "b": tensor(2, 8)}, 8), "overlaps"),
    "offsets reversed": (safetensors_file({"a": tensor(4, 0, [0])}, 4), "not [begin, end]"),
    "no offsets": (safetensors_file({"a": {"dtype": "U8", "shape": [1]}}, 1), "not [begin, end]"),
    "negative shape": (safetensors_file({"a": tensor(0, 1, [-1, -1])}, 1), "not a list of sizes"),
    "shape of another size": (safetensors_file({"a": tensor(0, 4, [2], "F32")}, 4), "needs 8 bytes"),
    "no type": (safetensors_file({"a": {"shape": [1], "data_offsets": [0, 1]}}, 1), "has no dtype"),
    "an HTML page": (b"<!DOCTYPE html><html><body>Not found</body></html>", "above 100000000"),
    "a pointer of git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "above 100000000",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_header(model: Path, case: str) -> None:
    content, value = BROKEN[case]
    (model / "model.safetensors").write_bytes(content)
    assert value in only(model, "model.safetensors")
    # the format's own reader agrees
    with pytest.raises(SafetensorError), safe_open(model / "model.safetensors", framework="numpy"):
        pass


def test_good_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(GOOD, 10))
    assert read_header(path).tensors == {"a", "b"}
    assert read_header(path).numbers == 10
    save_file({"none": np.zeros((0, 4)), "one": np.ones(()), "half": np.zeros(3, np.float16)}, path)
    assert read_header(path).dtypes == {"F64", "F16"}
    path.write_bytes(safetensors_file({"a": tensor(0, 3, [6], "F4")}, 3))
    assert read_header(path).numbers == 6
    path.write_bytes(safetensors_file({"a": tensor(0, 3, [77], "OF_NEXT_YEAR")}, 3))
    assert read_header(path).dtypes == {"OF_NEXT_YEAR"}


def test_only_the_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    size = 200 * 2**30
    header = json.dumps({"a": tensor(0, size)}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a hole on disk; reading 200 GiB would never end
    assert read_header(path).numbers == size
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + size - 1)
    with pytest.raises(HeaderError, match="cut off"):
        read_header(path)
