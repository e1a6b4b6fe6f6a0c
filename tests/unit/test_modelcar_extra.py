"""Files that a hub's model lacks, of a folder beside its lock or by URL and SHA-256: locked like others."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.config.known_model import KnownModel
from modelcar import builder_push, fetching, hub, locking
from modelcar.__main__ import main
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.lock import ExtraFile, Lock, changed_files, write_lock
from modelcar.lock_diff import describe, diff
from modelcar.lock_reader import read_lock
from modelcar.sbom import sbom
from tests.hub_server import COMMIT, Hub, serve
from tests.unit.test_modelcar_weights import write_model

REPOSITORY = "openai/gpt-oss"
VOCABULARY = b"IQ== 0\n" * 1000
SHA256 = hashlib.sha256(VOCABULARY).hexdigest()
PATH = "encodings/o200k_base.tiktoken"
KEPT = Path("modelcar/models/m")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "WAITS", (0.0, 0.0))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    folder = write_model(tmp_path / "source")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with serve({REPOSITORY: files, "elsewhere/files": {"vocabulary": VOCABULARY}}) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    found = tmp_path / "project"
    found.mkdir()
    return found


def url_of(server: Hub, path: str = "vocabulary") -> str:
    return f"{server.url}/elsewhere/files/resolve/{COMMIT}/{path}"


def named(server: Hub, **changes: Any) -> locking.Extra:
    return locking.Extra(**{"path": PATH, "url": url_of(server), "sha256": SHA256, **changes})


def put(project: Path, path: str = PATH, content: bytes = VOCABULARY) -> Path:
    file = project / KEPT / "extra" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def lock(project: Path, server: Hub, *extra: locking.Extra, **options: Any) -> Lock:
    description = locking.Description(hub=REPOSITORY, extra=extra, **options)
    resolved = locking.resolve(description, project, endpoint=server.url, name="m")
    made, _ = locking.lock_model("m", description, resolved, project)
    return made


def fetched(lock_: Lock, project: Path, server: Hub) -> Path:
    """Fetch a model onto a machine that has nothing of it."""
    shutil.rmtree(project / "modelcar/data", ignore_errors=True)
    layout = locking.layout_path(project, "m")
    fetching.fetch(lock_, read_base("amd64"), project, layout, endpoint=server.url)
    assert not fetching.verify(lock_, layout)
    return layout


def test_a_file_by_url_is_locked_and_fetched(project: Path, server: Hub) -> None:
    made = lock(project, server, named(server))
    assert {file.path: file.sha256 for file in made.files}[PATH] == SHA256
    assert made.extra == (ExtraFile(PATH, url_of(server)),)
    read = read_lock(project / KEPT / "model.lock")
    assert (read, read.digest) == (made, made.digest)
    fetched(read, project, server)


def test_a_file_of_the_folder_is_locked_and_fetched(project: Path, server: Hub) -> None:
    file = put(project)
    made = lock(project, server)
    assert made.extra == (ExtraFile(PATH, None),)
    fetched(read_lock(project / KEPT / "model.lock"), project, server)
    assert changed_files(read_lock(project / KEPT / "model.lock"), project) == ()
    file.write_bytes(VOCABULARY[:-7] + b"IQ== 1\n")
    with pytest.raises(InputError, match="as the lock says"):
        fetched(made, project, server)
    file.write_bytes(b"shorter")
    with pytest.raises(InputError, match="as the lock says"):
        fetched(made, project, server)
    assert changed_files(made, project) == (PATH,)
    file.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        fetched(made, project, server)


def test_a_file_that_is_new_in_the_folder_is_told(project: Path, server: Hub) -> None:
    made = lock(project, server)
    put(project, "new.txt")
    assert changed_files(made, project) == ("new.txt",)


def test_the_origin_of_a_file_does_not_change_what_is_in_the_image(project: Path, server: Hub) -> None:
    by_url = lock(project, server, named(server))
    put(project)
    by_folder = lock(project, server)
    assert by_url.layers == by_folder.layers
    assert any("extra" in line for line in describe(diff(by_url, by_folder)))


def test_a_lock_without_such_files_reads_and_writes_as_before(project: Path, server: Hub) -> None:
    made = lock(project, server)
    assert b"extra" not in write_lock(made)
    assert made.extra == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "0" * 64}, f"sha256 {SHA256}"),
        ({"url": "{missing}"}, "404"),
        ({"url": "http://127.0.0.1:1/x"}, "cannot be reached"),
    ],
    ids=str,
)
def test_a_url_that_does_not_give_the_file_is_refused(
    project: Path, server: Hub, change: dict[str, str], says: str
) -> None:
    change = {key: value.replace("{missing}", url_of(server, "missing")) for key, value in change.items()}
    with pytest.raises(InputError) as caught:
        lock(project, server, named(server, **change))
    assert says in str(caught.value)
    assert not list((project / "modelcar/data").rglob("*.part"))


@pytest.mark.parametrize(
    "damage", [VOCABULARY[:-1], b"", b"x" + VOCABULARY[1:]], ids=["cut", "empty", "flipped"]
)
def test_a_kept_download_that_a_power_cut_damaged_is_downloaded_anew(
    project: Path, server: Hub, damage: bytes
) -> None:
    made = lock(project, server, named(server))
    kept = project / "modelcar/data/extra" / SHA256
    kept.write_bytes(damage)
    assert lock(project, server, named(server)) == made
    kept.write_bytes(damage)
    shutil.rmtree(locking.layout_path(project, "m"))
    layout = locking.layout_path(project, "m")
    fetching.fetch(made, read_base("amd64"), project, layout, endpoint=server.url)
    assert not fetching.verify(made, layout)
    assert kept.read_bytes() == VOCABULARY


def test_a_file_that_the_repository_has_too_needs_a_choice(project: Path, server: Hub) -> None:
    put(project, "tokenizer.json", b'{"own": 1}')
    with pytest.raises(InputError, match=r"tokenizer\.json(?s:.*)--ignore tokenizer\.json"):
        lock(project, server)
    made = lock(project, server, ignore=("tokenizer.json",))
    assert {file.path: file.size for file in made.files}["tokenizer.json"] == 10
    fetched(made, project, server)


def test_a_file_that_is_named_twice_is_refused(project: Path, server: Hub) -> None:
    put(project)
    with pytest.raises(InputError, match="twice"):
        lock(project, server, named(server))


def test_what_the_repository_lacks_can_be_such_a_file(project: Path, server: Hub) -> None:
    models = dict(server.models)
    server.models = {
        **models,
        REPOSITORY: {k: v for k, v in models[REPOSITORY].items() if k != "tokenizer.json"},
    }
    with pytest.raises(InputError, match="there is no tokenizer"):
        lock(project, server)
    put(project, "tokenizer.json", b"{}")
    assert lock(project, server).extra == (ExtraFile("tokenizer.json", None),)


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [("evil.bin", b"x", "pickled weights"), ("vocab.txt", b"", "0 bytes"), ("x.part", b"x", "unfinished")],
)
def test_such_files_are_held_to_the_same_rules(
    project: Path, server: Hub, path: str, content: bytes, says: str
) -> None:
    put(project, path, content)
    with pytest.raises(InputError, match=says):
        lock(project, server)


def test_a_folder_takes_no_such_files(project: Path, tmp_path: Path) -> None:
    write_model(project / "weights")
    put(project)
    with pytest.raises(InputError, match="put it into the folder"):
        locking.resolve(locking.Description(folder="weights"), project, name="m")


def test_a_preview_knows_their_digests(project: Path, server: Hub) -> None:
    put(project, "adapters/fr/adapter_config.json", b'{"r": 8}')
    put(
        project,
        "adapters/fr/adapter_model.safetensors",
        (project.parent / "source/model.safetensors").read_bytes(),
    )
    made = lock(project, server)
    known = KnownModel.of(made, project / KEPT)
    assert known.kept["adapters/fr/adapter_config.json"] == {"r": 8}


def test_a_builder_brings_those_that_have_a_url(project: Path, server: Hub) -> None:
    made = lock(project, server, named(server))
    assert builder_push.fault_for_builder(made) is None
    lines = builder_push.dockerfile(made, made.layers, server.url).splitlines()
    [line] = [line for line in lines if "o200k_base" in line]
    assert f'--checksum=sha256:{SHA256} ["{url_of(server)}", "/models/{PATH}"]' in line
    put(project, "x.txt")
    fault = builder_push.fault_for_builder(lock(project, server))
    assert fault
    assert "extra/x.txt" in fault[0]


def test_the_bill_of_materials_says_where_a_file_is_from(project: Path, server: Hub) -> None:
    document = json.loads(sbom(lock(project, server, named(server))))
    [entry] = [part for part in document["components"] if part["name"] == PATH]
    assert entry["externalReferences"] == [{"type": "distribution", "url": url_of(server)}]


def test_the_command_line_keeps_what_was_named(
    project: Path, server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--project", str(project), "lock", "m"]
    source = ["--hub", REPOSITORY, "--endpoint", server.url]
    assert main([*call, *source, "--extra", f"{PATH}={url_of(server)}#sha256={SHA256}"]) == 0
    first = (project / KEPT / "model.lock").read_bytes()
    assert main([*call, "--endpoint", server.url]) == 0
    assert (project / KEPT / "model.lock").read_bytes() == first
    assert locking.read_description(project / KEPT / "model.yaml").extra == (named(server),)
    capsys.readouterr()


def test_an_endpoint_may_end_in_a_slash(
    project: Path, server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths behind it began with two, and the hub's 404 was told as terms or a token that is missing."""
    call = ["--project", str(project), "lock", "m", "--hub", REPOSITORY, "--endpoint", f"{server.url}/"]
    assert main(call) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "x",
        f"x=ftp://h/f#sha256={SHA256}",
        "x=https://h/f",
        "x=https://h/f#sha256=12",
        f"../x=https://h/f#sha256={SHA256}",
        f"x=https://u:p@h/f#sha256={SHA256}",
    ],
)
def test_what_names_no_file_is_refused(project: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--project", str(project), "lock", "m", "--hub", "a/b", "--extra", text]) == 2
    said = capsys.readouterr().err
    assert "--extra" in said
    assert "u:p" not in said


@pytest.mark.parametrize(
    "entries",
    [
        "x",
        ["x"],
        [{"path": "x", "url": "https://h/f"}],
        [{"path": "../x", "url": "https://h/f", "sha256": "0" * 64}],
        [{"path": "x", "url": "h", "sha256": "0" * 64}],
        [{"path": "x", "url": "https://h/f", "sha256": "0" * 64, "more": 1}],
    ],
    ids=str,
)
def test_a_description_with_wrong_entries_is_refused(tmp_path: Path, entries: object) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(json.dumps({"hub": "a/b", "extra": entries}))
    with pytest.raises(InputError, match=r"model\.yaml: extra"):
        locking.read_description(path)


@pytest.mark.parametrize(
    "entries",
    [
        "x",
        [],
        [{"path": "none"}],
        [{"path": ["config.json"]}],
        [{"path": "config.json", "url": 1}],
        [{"path": "config.json", "url": "file:///etc/passwd"}],
        [{"path": "config.json"}, {"path": "config.json"}],
        [{"path": "config.json", "sha256": "x"}],
    ],
    ids=str,
)
def test_a_lock_with_wrong_entries_is_refused(project: Path, server: Hub, entries: object) -> None:
    lock(project, server)
    path = project / KEPT / "model.lock"
    path.write_bytes(path.read_bytes() + b"extra: " + json.dumps(entries).encode())
    with pytest.raises(InputError, match="extra"):
        read_lock(path)
