"""Layers by a builder: what it is told and says (tests/engine/test_fetch_on_builder.py has a real one)."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelcar import builder_push
from modelcar.__main__ import main
from modelcar.builder_push import dockerfile, fault_for_builder, push_by_builder
from modelcar.errors import InputError
from modelcar.layer_format import layer_size
from modelcar.lock import ExtraFile, FolderSource, Lock, LockedFile, LockedLayer, lock_path, write_lock
from modelcar.registry import Target
from tests.registry_server import serve
from tests.unit.test_components_image_and_service import LOCK
from tests.unit.test_components_settings import load, problems

URL = "https://huggingface.co/Qwen/Qwen2.5-0.5B/resolve/" + "c" * 40
NAMES = ["ARG DOLLAR='$'", """ARG APOSTROPHE="'\"""", """ARG QUOTE='"\'"""]
TARGET = Target("registry.example/models", "tiny")


def lock_of(*paths: str, **changes: Any) -> Lock:
    files = tuple(LockedFile(path, 1, f"{number:064}") for number, path in enumerate(paths))
    layer = LockedLayer("sha256:" + "7" * 64, 3072, "sha256:" + "7" * 64, paths)
    return replace(LOCK, **{"files": files, "layers": (layer,), **changes})


def test_a_layer_of_one_file_is_one_download() -> None:
    assert dockerfile(LOCK, LOCK.layers[:1]).splitlines() == [
        "FROM scratch",
        *NAMES,
        f"ADD --link --chmod=a=rX --checksum=sha256:{'2' * 64} "
        f'["{URL}/model.safetensors", "/models/model.safetensors"]',
    ]


def test_files_of_a_layer_together_are_a_stage() -> None:
    locked = lock_of("a", "d/b")
    first, second = (f"ADD --link --chmod=a=rX --checksum=sha256:{number:064}" for number in range(2))
    assert dockerfile(locked, locked.layers, "http://localhost:1/hub").splitlines() == [
        "FROM scratch AS layer0",
        *NAMES,
        f'{first} ["{URL.replace("https://huggingface.co", "http://localhost:1/hub")}/a", "/models/a"]',
        f'{second} ["{URL.replace("https://huggingface.co", "http://localhost:1/hub")}/d/b", "/models/d/b"]',
        "FROM scratch",
        *NAMES,
        "COPY --link --from=layer0 / /",
    ]


def test_only_layers_that_are_asked_for_are_brought() -> None:
    assert "model.safetensors" not in dockerfile(LOCK, LOCK.layers[1:])


def test_no_name_gets_out_of_its_line() -> None:
    locked = lock_of('a"]\nRUN x', "${b}'")
    lines = dockerfile(locked, locked.layers).splitlines()
    assert not any(line.startswith("RUN") for line in lines)
    assert '"/models/${DOLLAR}{b}${APOSTROPHE}"' in lines[5]


@pytest.mark.parametrize(
    ("locked", "says"),
    [
        (lock_of("a", source=FolderSource("weights")), "from the folder weights"),
        (lock_of("a", compression="zstd"), "has zstd layers"),
        (lock_of("a "), "ends with a space"),
    ],
)
def test_what_a_builder_cannot_bring_is_told_before_it_is_asked(locked: Lock, says: str) -> None:
    fault = fault_for_builder(locked)
    assert fault is not None
    assert says in fault[0]
    with pytest.raises(InputError, match=says):
        push_by_builder(locked, locked.layers, TARGET, "b")


def test_a_url_is_not_expanded() -> None:
    """BuildKit takes quotes and variables out of the words of ADD."""
    url = "https://host.example/drives('x')/items/$value?a=$(b)"
    file = LockedFile("vocab.json", 3, "a" * 64)
    layer = LockedLayer("sha256:" + "b" * 64, 2048, "sha256:" + "b" * 64, ("vocab.json",))
    extra = (ExtraFile("vocab.json", url),)
    lock = replace(LOCK, files=(file,), layers=(layer,), extra=extra)
    [line] = [line for line in dockerfile(lock, [layer]).splitlines() if line.startswith("ADD ")]
    [word, _] = json.loads(line[line.index("[") :])
    assert not set(word.replace("${", "")) & set("$'\"")
    for name, character in (("DOLLAR", "$"), ("APOSTROPHE", "'")):
        word = word.replace(f"${{{name}}}", character)
    assert word == url


def test_the_stack_needs_a_builder_with_a_name() -> None:
    [found] = problems(fetchOn="builder")
    assert found.key == "modelcar:fetchOn"
    assert load(fetchOn="builder", builder="in-cluster").fetch_on == "builder"
    assert problems(fetchOn="laptop")[0].key == "modelcar:fetchOn"


# --- buildx -----------------------------------------------------------------------------------------

STUB = """#!{python}
import json, os, sys
from pathlib import Path
seen = {{"arguments": sys.argv[1:], "dockerfile": sys.stdin.read(),
         "token": os.environ.get("MODELCAR_HUB_TOKEN")}}
Path({seen!r}).write_text(json.dumps(seen))
for line in Path({says!r}).read_text().splitlines():
    print(line, file=sys.stderr)
sys.exit(int(Path({code!r}).read_text()))
"""


class Buildx:
    """A buildx that notes what it is told, and says what it is to say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "bin" / "buildx"
        program.parent.mkdir()
        paths = {name: str(folder / name) for name in ("seen", "says", "code")}
        program.write_text(STUB.format(python=sys.executable, **paths))
        program.chmod(0o755)
        self.answer()

    def answer(self, *lines: str, code: int = 0) -> None:
        (self._folder / "says").write_text("\n".join(lines))
        (self._folder / "code").write_text(str(code))

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / "seen").read_text())
        return found


@pytest.fixture
def buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buildx:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return Buildx(tmp_path)


def test_layers_are_pushed_by_digest_and_not_compressed(buildx: Buildx) -> None:
    push_by_builder(LOCK, LOCK.layers, TARGET, "in-cluster")
    arguments = buildx.seen["arguments"]
    assert arguments[0] == "build"
    assert "--builder=in-cluster" in arguments
    [output] = [argument for argument in arguments if argument.startswith("--output=")]
    assert "name=registry.example/models/tiny," in output
    assert {"push-by-digest=true", "compression=uncompressed", "rewrite-timestamp=true"} < set(
        output.split(",")
    )
    assert "insecure" not in output
    assert buildx.seen["dockerfile"] == dockerfile(LOCK, LOCK.layers)


def test_a_token_goes_by_name_and_to_the_hubs_host_alone(
    buildx: Buildx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    push_by_builder(LOCK, LOCK.layers, TARGET, "b", endpoint="https://mirror.example:8443/hub")
    arguments = buildx.seen["arguments"]
    assert "--secret=id=HTTP_AUTH_TOKEN_mirror.example,env=MODELCAR_HUB_TOKEN" in arguments
    assert "hf_secret" not in " ".join(arguments) + buildx.seen["dockerfile"]
    assert buildx.seen["token"] == "hf_secret"


def test_no_token_goes_to_a_hub_in_the_clear(buildx: Buildx, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT may name one; a builder is elsewhere, whatever this machine's own addresses are."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.2:9")
    push_by_builder(LOCK, LOCK.layers, TARGET, "b")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(InputError, match=r"HF_ENDPOINT: not shown: not the address of a hub"):
        push_by_builder(LOCK, LOCK.layers, TARGET, "b")


def test_a_failed_build_is_told_in_the_builders_words(buildx: Buildx) -> None:
    buildx.answer(
        json.dumps({"vertexes": [{"digest": "1", "name": "[1/1] ADD x", "error": "…"}]}),
        "ERROR: failed to solve: digest mismatch sha256:1: sha256:2",
        code=1,
    )
    with pytest.raises(InputError, match="builder b: failed to solve: digest mismatch") as caught:
        push_by_builder(LOCK, LOCK.layers, TARGET, "b")
    assert "HF_TOKEN" in str(caught.value)


def test_what_the_builder_does_is_told(buildx: Buildx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_push, "INTERVAL", 0.0)
    done = {"digest": "1", "name": "[1/2] ADD --link x", "completed": "2026-01-01T00:00:00Z"}
    buildx.answer(
        json.dumps({"vertexes": [{**done, "completed": None}]}),
        json.dumps({"vertexes": [done]}),
        json.dumps({"vertexes": [done, {**done, "digest": "2"}], "statuses": None}),
        json.dumps({"vertexes": [{"digest": "3", "name": "exporting to image"}]}),
    )
    told: list[str] = []
    push_by_builder(LOCK, LOCK.layers, TARGET, "b", note=told.append)
    assert told == [
        "0 of 2 files downloaded",
        "1 of 2 files downloaded",
        "2 of 2 files downloaded",
        "pushing",
    ]


def test_without_buildx_docker_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="neither buildx nor docker"):
        push_by_builder(LOCK, LOCK.layers, TARGET, "b")
    (tmp_path / "docker").write_text("#!/bin/sh\n[ \"$1 $2\" = 'buildx build' ]")
    (tmp_path / "docker").chmod(0o755)
    push_by_builder(LOCK, LOCK.layers, TARGET, "b")


def test_push_by_a_builder_is_checked_against_the_registry(
    buildx: Buildx, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_path(tmp_path, LOCK.name)
    path.parent.mkdir(parents=True)
    sizes = {file.path: file.size for file in LOCK.files}
    layers = tuple(
        replace(layer, size=layer_size([(name, sizes[name]) for name in layer.files]))
        for layer in LOCK.layers
    )
    path.write_bytes(write_lock(replace(LOCK, layers=layers)))
    with serve() as registry:
        command = ["--project", str(tmp_path), "push", "tiny", f"{registry.host}/models/tiny", "--insecure"]
        assert main([*command, "--builder", "b"]) == 1
        assert "b made other layers than the lock says" in capsys.readouterr().err

        registry.there[layers[0].digest] = layers[0].size
        assert main([*command, "--builder", "b"]) == 1
        assert "model.safetensors" not in buildx.seen["dockerfile"], "it is there already"

        registry.there[layers[1].digest] = layers[1].size
        assert main([*command, "--builder", "b"]) == 0
        assert "has every layer of weights of sha256:" in capsys.readouterr().out
