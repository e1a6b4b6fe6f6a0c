"""`python -m modelcar`: what a person sees."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelcar import locking
from modelcar.__main__ import main
from modelcar.cli.parser import parser
from modelcar.lock_reader import read_lock
from tests import registry_server


@pytest.fixture
def model(tmp_path: Path) -> Path:
    assert main(["tiny", str(tmp_path / "tiny")]) == 0
    return tmp_path / "tiny"


def test_check_shows_files_and_their_total(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["check", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == sorted(path.name for path in model.iterdir())
    assert any(line.split() == ["model.safetensors", "3.9", "MiB"] for line in lines)
    assert lines[-2].split() == ["in", "all", "3.9", "MiB", "7", "files"]
    assert lines[-1] == "Qwen2ForCausalLM, 1,026,176 parameters, float32"


def test_check_names_every_problem_without_a_traceback(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "generation_config.json").write_text("")
    command = [sys.executable, "-m", "modelcar", "check", str(model)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("2 problems with the input:\n")
    assert str(model / "config.json") in result.stderr
    assert str(model / "generation_config.json") in result.stderr
    assert "Traceback" not in result.stderr


def run(project: Path, *arguments: str) -> int:
    return main(["--project", str(project), *arguments])


def test_from_a_folder_to_a_digest_that_anybody_can_tell(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "tiny", "--folder", str(model), "--license", "MIT") == 0
    locked = capsys.readouterr().out.splitlines()
    digest = json.loads((tmp_path / "modelcar/data/tiny.oci/index.json").read_text())["manifests"][0][
        "digest"
    ]
    assert locked[-1] == digest
    assert any("7 files, 3.9 MiB, license MIT" in line for line in locked)
    shutil.rmtree(tmp_path / "modelcar/data")
    assert run(tmp_path, "digest", "tiny") == 0
    assert capsys.readouterr().out == f"{digest}\n"
    assert run(tmp_path, "digest", "tiny", "--architecture", "arm64") == 0
    assert digest not in capsys.readouterr().out
    assert run(tmp_path, "fetch", "tiny") == 0
    fetched = capsys.readouterr().out.splitlines()
    assert fetched[0].startswith("3.9 MiB fetched in ")
    assert fetched[1] == f"oci-layout://{tmp_path}/modelcar/data/tiny.oci@{digest}"
    assert run(tmp_path, "fetch", "tiny") == 0
    again = capsys.readouterr().out.splitlines()
    assert again[0] == "3.9 MiB were there and were not read: python -m modelcar verify tiny reads them"
    assert again[1] == fetched[1]
    assert run(tmp_path, "verify", "tiny") == 0
    assert capsys.readouterr().out == "1 of 1 layers are as the lock says\n"


def test_a_trainers_folder_is_locked_without_its_state_and_fetched_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("training_args.bin", "optimizer.pt", "checkpoint-500/model.safetensors", "draft.txt"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"x")
    assert run(tmp_path, "lock", "tiny", "--folder", str(model), "--ignore", "draft*") == 0
    said = capsys.readouterr()
    assert "7 files, " in said.out
    assert said.err.splitlines()[:4] == [
        "left out: checkpoint-500/model.safetensors (a trainer's state)",
        "left out: draft.txt (not among the patterns)",
        "left out: optimizer.pt (a trainer's state)",
        "left out: training_args.bin (a trainer's state)",
    ]
    shutil.rmtree(tmp_path / "modelcar/data")
    assert run(tmp_path, "fetch", "tiny") == 0
    assert run(tmp_path, "lock", "tiny") == 0, "the patterns are kept in model.yaml"


def test_a_second_lock_needs_no_options_and_tells_what_changed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "tiny", "--folder", str(model), "--license", "MIT") == 0
    old = tmp_path / "old.lock"
    shutil.copy(tmp_path / "modelcar/models/tiny/model.lock", old)
    (model / "NOTICE").write_text("x")
    capsys.readouterr()
    assert run(tmp_path, "lock", "tiny") == 0
    out = capsys.readouterr().out
    assert "+ NOTICE  1 B" in out
    assert "license MIT" in out
    assert run(tmp_path, "diff", str(old), "tiny") == 1
    assert "+ NOTICE  1 B" in capsys.readouterr().out
    assert run(tmp_path, "diff", "tiny", "tiny") == 0
    assert capsys.readouterr().out == "no difference\n"


def test_a_hub_that_does_not_answer_is_no_problem_with_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "m", "--hub", "acme/m", "--endpoint", "http://127.0.0.1:1") == 1
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "with the input" not in said


def description_of(project: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((project / "modelcar/models/tiny/model.yaml").read_text())
    return found


def test_what_is_left_out_by_another_lock_is_left_out_besides(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages say `--ignore X`: a file that was left out before, perhaps a private one, stays out."""
    for name in ("notes.txt", "draft.txt"):
        (model / name).write_text("x")
    assert (
        run(tmp_path, "lock", "tiny", "--folder", str(model), "--ignore", "notes*", "--license", "MIT") == 0
    )
    assert run(tmp_path, "lock", "tiny", "--ignore", "draft*") == 0
    assert run(tmp_path, "lock", "tiny", "--ignore", "draft*", "--license", "Apache-2.0") == 0
    assert "no longer say" not in capsys.readouterr().err
    locked = read_lock(tmp_path / "modelcar/models/tiny/model.lock")
    assert not {"notes.txt", "draft.txt"} & {file.path for file in locked.files}
    said = description_of(tmp_path)
    assert (said["ignore"], said["license"]) == (["notes*", "draft*"], "Apache-2.0")


def test_a_source_starts_anew_and_what_is_no_longer_said_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "notes.txt").write_text("x")
    said = ["--ignore", "notes*", "--ignore", "draft*", "--license", "MIT", "--layout", "any"]
    assert run(tmp_path, "lock", "tiny", "--folder", str(model), *said) == 0
    assert "no longer say" not in capsys.readouterr().err
    again = ["--folder", str(model), "--ignore", "draft*", "--layout", "auto"]
    assert run(tmp_path, "lock", "tiny", *again) == 0
    path = tmp_path / "modelcar/models/tiny/model.yaml"
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        f"warning: {path} will no longer say ignore: notes*",
        f"warning: {path} will no longer say license: MIT",
        "--hub and --folder start anew: say these again, or leave --hub and --folder out to keep all",
    ]
    assert description_of(tmp_path) == {"folder": str(model.relative_to(tmp_path)), "ignore": ["draft*"]}
    path.write_text("ignore: {")
    assert run(tmp_path, "lock", "tiny", "--folder", str(model)) == 0
    assert f"warning: {path} cannot be read: nothing of it will be kept" in capsys.readouterr().err


@pytest.mark.parametrize("choice", [["--allow", "nothing*"], ["--ignore", "*"]])
def test_a_choice_that_takes_no_file_is_told_before_anything_is_packed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: list[str]
) -> None:
    for command in (["check", str(model)], ["lock", "tiny", "--folder", str(model)]):
        assert run(tmp_path, *command, "--layout", "any", *choice) == 2
        told = capsys.readouterr().err
        assert f"{model}: none of its files is chosen; it has config.json, generation_config.json, " in told
        assert "fix: change --allow and --ignore, or name another folder" in told
    assert not (tmp_path / "modelcar").exists()


def test_a_lock_that_would_be_too_large_to_read_is_not_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        (model / f"{'n' * 100}{number}").write_text("")
    monkeypatch.setattr("modelcar.strict_yaml.MAX_FILE", 1500)
    assert run(tmp_path, "lock", "tiny", "--folder", str(model)) == 2
    told = capsys.readouterr().err
    assert "model.lock: 17 files make a lock of " in told
    assert "allowed: at most 1500 bytes" in told
    assert not (tmp_path / "modelcar/models/tiny/model.lock").exists()


def test_the_build_context_is_the_programs_own_folder(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A project whose program is installed has no Dockerfile, but gigabytes of weights in `modelcar/data`."""
    assert run(tmp_path, "lock", "tiny", "--folder", str(model)) == 0
    capsys.readouterr()
    assert run(tmp_path, "options", "tiny", "h.io/models/tiny") == 0
    context = Path(capsys.readouterr().out.splitlines()[-1])
    assert context.is_absolute()
    assert (context / "Dockerfile").is_file()
    assert (context / ".dockerignore").is_file()


def test_an_option_that_needs_another_one_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "tiny", "--folder", str(model)) == 0
    capsys.readouterr()
    assert run(tmp_path, "fetch", "tiny", "--from-insecure", "--endpoint", "https://hub.example") == 0
    told = capsys.readouterr().err
    assert "note: --from-insecure has no effect without --from" in told
    assert "--endpoint has" not in told
    with registry_server.serve() as server:
        place = f"{server.host}/models/tiny"
        assert run(tmp_path, "push", "tiny", place, "--insecure", "--endpoint", "https://hub.example") == 0
    assert "note: --endpoint has no effect without --builder" in capsys.readouterr().err


def test_verify_fails_where_the_disk_changed_something(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "tiny", "--folder", str(model)) == 0
    blobs = tmp_path / "modelcar/data/tiny.oci/blobs/sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(10_000)
        file.write(b"x")
    capsys.readouterr()
    assert run(tmp_path, "verify", "tiny") == 1
    said = capsys.readouterr()
    assert said.out == "0 of 1 layers are as the lock says\n"
    assert "config.json, generation_config.json, merges.txt …" in said.err


@pytest.fixture
def layered(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a locked model of two layers: its weights, and the small files."""
    lock_model = locking.lock_model
    monkeypatch.setattr(locking, "lock_model", functools.partial(lock_model, large_file=10**6))
    assert run(tmp_path, "lock", "tiny", "--folder", str(model)) == 0
    return tmp_path


@pytest.mark.parametrize("damage", ["flip", "shorter", "longer", "missing"])
@pytest.mark.parametrize(
    ("layer", "named"),
    [(0, "(layer of model.safetensors)"), (1, "config.json, generation_config.json, merges.txt …")],
    ids=["weights", "small files"],
)
def test_verify_names_the_files_of_a_damaged_layer_and_fetch_repairs_it(
    layered: Path, damage: str, layer: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = read_lock(layered / "modelcar/models/tiny/model.lock")
    blob = layered / "modelcar/data/tiny.oci/blobs/sha256" / locked.layers[layer].digest[7:]
    content = bytearray(blob.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
    elif damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes(content[:-512] if damage == "shorter" else content + bytes(512))
    capsys.readouterr()
    assert run(layered, "verify", "tiny") == 1
    said = capsys.readouterr()
    assert said.out == "1 of 2 layers are as the lock says\n"
    assert str(blob) in said.err
    assert named in said.err
    assert "fix: " in said.err
    if damage == "flip":
        blob.unlink()  # as the fix says
    assert run(layered, "fetch", "tiny") == 0
    assert run(layered, "verify", "tiny") == 0
    assert capsys.readouterr().out.endswith("2 of 2 layers are as the lock says\n")


def test_a_model_that_was_not_fetched_is_not_verified(
    layered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(layered / "modelcar/data")
    capsys.readouterr()
    assert run(layered, "verify", "tiny") == 2
    assert "tiny: not fetched" in capsys.readouterr().err
    assert not (layered / "modelcar/data").exists(), "looking makes nothing"


def test_a_license_that_no_lock_can_have_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "tiny", "--folder", "nowhere", "--license", "MIT\n") == 2
    assert "license: 'MIT\\n'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fetch", "verify", "digest"])
@pytest.mark.parametrize("old", ["totalSize: ", "digest: sha256:", "size: ", "sha256: ", "path: "])
def test_a_lock_edited_by_hand_is_refused_and_the_image_stays(
    layered: Path, command: str, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, index = layered / "modelcar/models/tiny/model.lock", layered / "modelcar/data/tiny.oci/index.json"
    before = index.read_bytes(), index.stat().st_mtime_ns
    path.write_text(path.read_text().replace(old, f"{old}9", 1))
    capsys.readouterr()
    assert run(layered, command, "tiny") == 2
    said = capsys.readouterr()
    assert said.out == ""
    for word in ("problem", str(path), "allowed: ", "fix: write it again: python -m modelcar lock tiny"):
        assert word in said.err
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before


def test_a_lock_that_fails_keeps_the_former_one(
    layered: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = layered / "modelcar/models/tiny/model.lock"
    description = lock.with_name("model.yaml")
    before = lock.read_bytes(), description.read_bytes()
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert run(layered, "lock", "tiny", "--license", "MIT") == 2
    assert "cut off or damaged" in capsys.readouterr().err
    assert (lock.read_bytes(), description.read_bytes()) == before


def test_bad_input_and_machine_errors_have_their_own_exit_codes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "lock", "x", "--folder", str(tmp_path / "missing")) == 2
    assert run(tmp_path, "lock", "x", "--folder", str(model), "--revision", "v1") == 2
    assert run(tmp_path, "lock", "x") == 2
    assert run(tmp_path, "fetch", "x") == 2
    assert main(["tiny", str(tmp_path / "x"), "--seed", "-1"]) == 2
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file", "lock", "x", "--folder", str(model)) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    with pytest.raises(SystemExit) as caught:
        main(["chekc", str(model)])
    assert caught.value.code == 2


@pytest.mark.parametrize("option", ["--hub", "--folder"])
@pytest.mark.parametrize("value", ["", " "])
def test_a_source_from_an_unset_shell_variable_is_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "modelcar/models/m").mkdir(parents=True)
    (tmp_path / "modelcar/models/m/model.yaml").write_text("folder: weights\n")
    assert run(tmp_path, "lock", "m", option, value) == 2
    told = capsys.readouterr().err
    assert f"{option}: empty" in told
    assert "shell variable" in told


COMMANDS = [["lock", "m"], ["fetch", "m"], ["push", "m", "h.io/m"]]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://mirror.example", "https://mirror.example"),
        ("https://mirror.example/hub//", "https://mirror.example/hub"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    ],
)
def test_an_endpoint_is_taken_as_paths_are_put_behind_it(command: list[str], given: str, taken: str) -> None:
    options = parser("modelcar", Path()).parse_args([*command, "--endpoint", given])
    assert options.endpoint == taken


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("mirror.example", "not the address of a hub"),
        ("http://mirror.example", "allowed: https://HOST"),
        ("https://me:s3cret@mirror.example", "holds credentials"),
        ("https://[", "not the address of a hub"),
        ("", "not the address of a hub"),
    ],
)
def test_what_is_no_endpoint_is_refused_as_the_setting_is(
    command: list[str], given: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--endpoint", given])
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert "argument --endpoint: " in told
    assert why in told
    assert "s3cret" not in told
