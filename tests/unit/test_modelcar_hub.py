"""The hub's client: which files are taken, and that their bytes come whole whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelcar import hub
from modelcar.errors import InputError
from modelcar.weights import read_weights
from tests.hub_server import COMMIT, Hub, serve, sha256_of

REPOSITORY = "Qwen/Qwen2.5-0.5B"
WEIGHTS = random.Random(1).randbytes(2**18)  # no part is like another, so that a wrong one shows
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "README.md": b"# a model",
    "LICENSE": b"Apache",
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(hub, "WAITS", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def server() -> Iterator[Hub]:
    with serve({REPOSITORY: FILES}) as running:
        yield running


def resolve(server: Hub, **options: Any) -> hub.HubModel:
    return hub.resolve(options.pop("repository", REPOSITORY), endpoint=server.url, **options)


def choose(files: dict[str, bytes], **options: Any) -> tuple[list[str], dict[str, str]]:
    """Return the paths that are taken, and why others are not."""
    with serve({REPOSITORY: files}) as server:
        model = resolve(server, **options)
    return [file.path for file in model.files], dict(model.skipped)


def download(server: Hub, path: str = "model.safetensors", start: int = 0) -> bytes:
    received = bytearray()
    size = len(FILES[path])
    hub.download(REPOSITORY, COMMIT, path, received.extend, size=size, start=start, endpoint=server.url)
    return bytes(received)


# --- what is taken


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_revision_is_resolved_to_its_commit(server: Hub, revision: str) -> None:
    model = resolve(server, revision=revision)
    assert (model.revision, model.license) == (COMMIT, "apache-2.0")
    assert [file.path for file in model.files] == sorted(FILES)
    assert {file.path: file.size for file in model.files} == {p: len(c) for p, c in FILES.items()}
    digests = {file.path: file.sha256 for file in model.files}
    assert digests["model.safetensors"] == sha256_of(WEIGHTS)
    assert digests["config.json"] is None, "the hub tells digests of large files only"


def test_a_card_without_license_has_none() -> None:
    with serve({REPOSITORY: FILES}, license=None) as server:
        assert resolve(server).license is None


def test_the_weights_are_taken_once_and_every_other_file_is_accounted_for() -> None:
    duplicates = (
        *("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"),
        *("model.gguf", "onnx/model.onnx", "original/consolidated.00.pth", "rust_model.ot"),
    )
    others = dict.fromkeys((*duplicates, ".gitattributes"), b"x")
    taken, skipped = choose({**FILES, **others})
    assert taken == sorted(FILES)
    assert sorted(skipped) == sorted(others)
    assert all(skipped.values())


def test_consolidated_weights_beside_shards_are_a_duplicate() -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": b"x" for n in (1, 2)}
    small = {"config.json": b"{}", "tokenizer.json": b"{}"}
    taken, skipped = choose({**small, **shards, "consolidated.safetensors": b"x"})
    assert taken == ["config.json", *shards, "tokenizer.json"]
    assert skipped == {"consolidated.safetensors": "the weights a second time"}
    taken, _ = choose({**small, "consolidated.safetensors": b"x"})
    assert "consolidated.safetensors" in taken, "where they are the only ones they are taken"


def test_consolidated_weights_beside_a_single_file_are_a_duplicate() -> None:
    taken, _ = choose({**FILES, "consolidated.safetensors": b"x"})
    assert taken == sorted(FILES)


def test_consolidated_shards_are_taken_where_they_are_the_only_weights() -> None:
    shards = {f"consolidated-0000{n}-of-00002.safetensors": b"x" for n in (1, 2)}
    taken, skipped = choose({"config.json": b"{}", "params.json": b"{}", "tekken.json": b"{}", **shards})
    assert taken == ["config.json", *shards, "params.json", "tekken.json"]
    assert not skipped


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.safetensors": b"x"}, "/config.json: there is no such file"),
        ({**FILES, "Config.json": b"{}"}, "/config.json: the same name as Config.json where case does"),
        ({**FILES, "tokenizer.json": b""}, "/tokenizer.json: 0 bytes"),
        ({**FILES, "x" * 256: b"x"}, "a name of more than 255 bytes"),
        ({**FILES, "é" * 128 + "/x": b"x"}, "a name of more than 255 bytes"),
    ],
)
def test_what_can_be_known_is_refused_before_the_download(files: dict[str, bytes], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        choose(files)


INDEX = "model.safetensors.index.json"


def sharded(count: int, named: int) -> dict[str, bytes]:
    """Return a model of `count` shards whose index names as many as there were once."""
    shards = {f"model-{number:05}-of-{count:05}.safetensors": b"x" for number in range(1, count + 1)}
    mapping = {f"t{n}": f"model-{n:05}-of-{named:05}.safetensors" for n in range(1, named + 1)}
    index = json.dumps({"weight_map": mapping}).encode()
    return {"config.json": b"{}", "tokenizer.json": b"{}", **shards, INDEX: index}


def test_an_index_of_a_former_sharding_is_told_before_the_weights_are_downloaded() -> None:
    with serve({REPOSITORY: sharded(2, 3)}) as server:
        with pytest.raises(InputError, match=r"names 3 files(?s:.*)--ignore model\.safetensors\.index\.json"):
            resolve(server)
        assert server.sent(INDEX) > 0
        assert not any(request.path.endswith(".safetensors") for request in server.requests)
        assert INDEX not in {file.path for file in resolve(server, ignore=[INDEX]).files}
    taken, _ = choose(sharded(2, 2))
    assert len(taken) == 5


def test_an_index_whose_shards_are_left_out_says_so() -> None:
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors for one \(left out: not among"):
        choose(sharded(2, 2), ignore=["model-00002*"])


def test_weights_that_no_index_names_are_told_before_the_weights_are_downloaded() -> None:
    with serve({REPOSITORY: sharded(2, 2) | {"model-other.safetensors": b"x"}}) as server:
        with pytest.raises(InputError, match=r"no index names, model-other(?s:.*)--ignore model-other"):
            resolve(server)
        assert not any(request.path.endswith(".safetensors") for request in server.requests)
        assert len(resolve(server, ignore=["model-other*"]).files) == 5


@pytest.mark.parametrize(
    "content", [b"nonsense", b"{}", b'{"weight_map": [1]}', b'{"weight_map": {"a": {}}}']
)
def test_what_is_no_index_is_told_after_the_download(content: bytes) -> None:
    taken, _ = choose({**sharded(2, 2), INDEX: content})
    assert INDEX in taken


def test_folder_and_hub_choose_alike(tmp_path: Path) -> None:
    names = ["config.json", "tokenizer.json", "model.safetensors", "optimizer.pt", "metal/model.bin"]
    names += [
        "original/consolidated.00.pth",
        "checkpoint-500/model.safetensors",
        "notes.md",
        "code/__init__.py",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"" if name.endswith(".py") else b"{}")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    save_file({"a": np.zeros(4)}, tmp_path / "model.safetensors")
    files = {name: (tmp_path / name).read_bytes() for name in names}
    choices: list[dict[str, Any]] = [{}, {"ignore": ["*.md"]}, {"allow": ["*.json", "model.safetensors"]}]
    for options in choices:
        taken, skipped = choose(files, **options)
        weights = read_weights(tmp_path, **options)
        assert [file.path for file in weights.files] == taken
        assert dict(weights.skipped) == skipped


def test_patterns_choose() -> None:
    taken, skipped = choose({**FILES, "onnx/model.onnx": b"x"}, allow=["*.json", "onnx/*"], layout="any")
    assert taken == ["config.json", "onnx/model.onnx", "tokenizer.json"]
    assert skipped["LICENSE"] == "not among the patterns"
    taken, _ = choose(FILES, ignore=["*.md", "LICENSE"])
    assert taken == ["config.json", "model.safetensors", "tokenizer.json"]


def test_pickles_are_refused_unless_allowed() -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"x", "vocab.txt": b"x"}
    with pytest.raises(InputError, match=r"pytorch_model\.bin: pickled weights(?s:.*)--allow-pickle"):
        choose(files)
    with pytest.raises(InputError, match="pickled weights"):
        choose({**FILES, **files}, allow=["*"])
    assert choose(files, allow_pickle=True)[0] == sorted(files)


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "/etc/passwd", "a\\b.json", "a\nb.json", "a/../../b", "x/.wh.b"]
)
def test_names_that_a_hub_could_do_harm_with_are_refused(path: str) -> None:
    with pytest.raises(InputError) as caught:
        choose({**FILES, path: b"x"})
    assert len(caught.value.problems) == 1
    assert "\n    allowed" in str(caught.value)
    assert "a\nb" not in str(caught.value)


def test_a_file_beyond_the_hubs_limit_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 100_000)
    with pytest.raises(InputError, match=r"model\.safetensors: 0\.0 GB(?s:.*)max_shard_size"):
        choose(FILES)


def test_nothing_chosen_says_what_is_there() -> None:
    with pytest.raises(InputError, match=r"none of its files is chosen; it has config\.json, README\.md"):
        choose(FILES, allow=["*.gguf"])


REFUSED: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "no repository": ({"repository": "no/such"}, {}, "has none, or not for everybody"),
    "no owner": ({"repository": "gpt2"}, {}, "not the name of a repository"),
    "an address": ({"repository": "https://huggingface.co/a/b"}, {}, "not the name of a repository"),
    "wrong token": (
        {},
        {"status": 401, "message": "Invalid credentials in Authorization header"},
        "does not accept the token",
    ),
    "a mirror without codes": ({}, {"status": 404}, "has none, or not for everybody"),
    "not a name": ({"repository": "a b"}, {}, "not the name of a repository"),
    "no revision": ({"revision": "v9"}, {}, "no such revision"),
    "gated": ({}, {"status": 403, "code": "GatedRepo"}, "terms that are not accepted"),
    "private": ({}, {"status": 401, "code": "RepoNotFound"}, "has none, or not for everybody"),
    "no token": ({}, {"status": 401}, "has none, or not for everybody"),
    "too many requests": ({}, {"status": 429, "times": 20}, "asks for fewer requests (429)"),
    "in trouble": ({}, {"status": 503, "times": 20}, "answers 503"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_hub_refuses_is_said_in_words(
    server: Hub, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_user")
    options, fault, expected = REFUSED[case]
    if fault:
        server.fault("", **fault)
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        resolve(server, **options)
    assert "hf_secret" not in str(caught.value)
    assert "fix: " in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(server: Hub, status: int) -> None:
    server.fault("", status=status, times=2, retry_after=7)
    assert resolve(server).revision == COMMIT


def test_a_lookup_waits_as_long_as_the_hub_asks_but_not_for_ever(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    server.fault("", status=429, retry_after=7)
    server.fault("", status=429, retry_after=3600)
    resolve(server)
    assert waits == [7.0, hub.LONGEST_WAIT]


SIBLING = {"rfilename": "config.json", "size": 2}


@pytest.mark.parametrize(
    "document",
    [
        b"<html>log in to this network</html>",
        b"[]",
        json.dumps({"siblings": [SIBLING]}).encode(),
        json.dumps({"id": REPOSITORY, "siblings": [SIBLING]}).encode(),
        json.dumps({"id": REPOSITORY, "sha": "../main", "siblings": [SIBLING]}).encode(),
        json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": [{**SIBLING, "lfs": {"size": 2}}]}).encode(),
    ],
    ids=["html", "list", "no id", "no commit", "not a commit", "no digest"],
)
def test_what_is_no_description_is_refused(server: Hub, document: bytes) -> None:
    server.description = document
    with pytest.raises(InputError, match=r"no model's description(?s:.*)--endpoint"):
        resolve(server)


def test_a_file_without_a_size_is_refused(server: Hub) -> None:
    document = {"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
    server.description = json.dumps(document).encode()
    with pytest.raises(InputError, match=r"config\.json: the hub does not tell its size"):
        resolve(server)


UNFIT = [
    ("http://me:hf_secret@127.0.0.1:9", "holds credentials"),
    ("127.0.0.1:9", "not the address of a hub"),
    ("http://[::1", "not the address of a hub"),
    ("nonsense", "not the address of a hub"),
    ("http://localhost:99999", "not the address of a hub"),
    ("http://192.0.2.1", "not the address of a hub"),  # the token would go there in the clear
]


@pytest.mark.parametrize("by_variable", [False, True], ids=["endpoint", "HF_ENDPOINT"])
@pytest.mark.parametrize(("address", "expected"), UNFIT)
def test_an_unfit_endpoint_is_told_and_not_asked(
    address: str, expected: str, by_variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "huggingface_hub.constants.ENDPOINT", address if by_variable else "https://hub.example"
    )
    endpoint, key = (None, "HF_ENDPOINT") if by_variable else (address, "endpoint")
    with pytest.raises(InputError, match=f"{key}: not shown: {expected}") as caught:
        hub.resolve(REPOSITORY, endpoint=endpoint)
    assert address not in str(caught.value)
    with pytest.raises(InputError, match=f"{key}: not shown: {expected}"):
        hub.download(REPOSITORY, COMMIT, "a", lambda _: None, size=1, endpoint=endpoint)


@pytest.mark.parametrize(
    ("name", "value"), [("HF_HUB_DOWNLOAD_TIMEOUT", "abc"), ("SSL_CERT_FILE", "/there/is/none")]
)
def test_an_unfit_variable_is_named(name: str, value: str) -> None:
    command = "from modelcar import hub; hub.resolve('a/b', endpoint='http://localhost:9')"
    done = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, name: value}, capture_output=True, text=True
    )
    assert f"InputError: {name}: " in done.stderr
    assert value in done.stderr


def test_an_unfit_token_is_not_shown(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret\u00e9")
    with pytest.raises(InputError, match="the token holds a character") as caught:
        resolve(server)
    assert "hf_secret" not in str(caught.value)


def test_a_hub_that_is_not_there_is_told_with_its_address() -> None:
    with serve({}) as gone:
        pass
    with pytest.raises(InputError, match=rf"{gone.url} cannot be reached(?s:.*)--endpoint"):
        resolve(gone)


# --- its bytes


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_file_comes_whole(server: Hub, path: str) -> None:
    assert download(server, path) == FILES[path]


def test_a_download_goes_on_where_it_was(server: Hub) -> None:
    assert download(server, start=100_000) == WEIGHTS[100_000:]
    assert [request.start for request in server.requests] == [100_000]


def test_a_cut_connection_is_taken_up_again(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PIECE", 10_000)  # a cut loses less than a piece
    for _ in range(6):
        server.fault("model.safetensors", cut=30_000)
    assert download(server) == WEIGHTS
    assert server.sent("model.safetensors") <= len(WEIGHTS) + 30_000, "what came is not sent again"


def test_a_server_that_ignores_ranges_harms_nothing(server: Hub) -> None:
    server.fault("model.safetensors", cut=30_000)
    server.fault("model.safetensors", ignore_range=True, times=5)
    assert download(server) == WEIGHTS
    server.fault("model.safetensors", ignore_range=True)
    assert download(server, start=70_000) == WEIGHTS[70_000:]


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("again", [False, True], ids=["then obeyed", "ignored again"])
def test_a_cut_while_known_bytes_are_passed_over_harms_nothing(
    server: Hub, monkeypatch: pytest.MonkeyPatch, reset: bool, again: bool
) -> None:
    """The client's own retry and ours begin at other places; both have to end in the right bytes."""
    monkeypatch.setattr(hub, "PIECE", 10_000)
    server.fault("model.safetensors", ignore_range=True, cut=30_000, reset=reset)
    if again:
        server.fault("model.safetensors", ignore_range=True)
    assert download(server, start=70_000) == WEIGHTS[70_000:]


def test_a_server_that_never_gets_beyond_what_is_known_is_given_up(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PIECE", 10_000)
    server.fault("model.safetensors", ignore_range=True, cut=30_000, times=99)
    with pytest.raises(InputError, match="from the start each time, and breaks off before byte 70000"):
        download(server, start=70_000)
    assert len(server.requests) <= hub.RESTARTS + 1


def test_no_compressed_answer_is_asked_for(server: Hub) -> None:
    download(server, start=100_000)
    assert [request.encoding for request in server.requests] == ["identity"]


def test_a_file_that_is_shorter_than_it_was_is_an_error(server: Hub) -> None:
    received = bytearray()
    with pytest.raises(InputError, match="has fewer bytes of it than were told"):
        hub.download(
            REPOSITORY,
            COMMIT,
            "model.safetensors",
            received.extend,
            size=len(WEIGHTS) + 10,
            endpoint=server.url,
        )
    assert bytes(received) == WEIGHTS


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_the_sink_raises_is_not_taken_for_the_hubs(server: Hub, error: BaseException) -> None:
    def full(_: bytes) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        hub.download(
            REPOSITORY, COMMIT, "config.json", full, size=len(FILES["config.json"]), endpoint=server.url
        )
    assert caught.value is error
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_passes(server: Hub, status: int) -> None:
    server.fault("model.safetensors", status=status, times=2, retry_after=0)
    assert download(server) == WEIGHTS


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 503, "times": 99}, "answers 503"),
        ({"status": 404, "code": "EntryNotFound", "times": 99}, "no such file at this commit"),
        ({"cut": 0, "times": 99}, "broke off"),
        ({"extra": b"more"}, "more bytes come than the file has"),
    ],
    ids=["503", "404", "cut", "too long"],
)
def test_what_never_comes_right_is_given_up(server: Hub, fault: dict[str, Any], expected: str) -> None:
    server.fault("model.safetensors", **fault)
    with pytest.raises(InputError, match=expected):
        download(server)
