"""`python -m modelcar`: what a person sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelcar.__main__ import main


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
    (model / "pytorch_model.bin").write_text("x")
    command = [sys.executable, "-m", "modelcar", "check", str(model)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("2 problems with the input:\n")
    assert str(model / "config.json") in result.stderr
    assert str(model / "pytorch_model.bin") in result.stderr
    assert "Traceback" not in result.stderr


def test_layout_prints_the_build_context(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = model.with_name("out")
    outputs = []
    for _ in range(2):
        capsys.readouterr()
        assert main(["layout", str(model), str(out), "--architecture", "arm64"]) == 0
        outputs.append(capsys.readouterr().out.splitlines())
    digest = json.loads((out / "index.json").read_text())["manifests"][0]["digest"]
    assert [lines[-1] for lines in outputs] == [f"oci-layout://{out}@{digest}"] * 2
    assert outputs[1][-2].startswith("0 B of 3.9 MiB written")


def test_bad_input_and_machine_errors_have_their_own_exit_codes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layout", str(tmp_path / "missing"), str(tmp_path / "out")]) == 2
    assert main(["tiny", str(tmp_path / "x"), "--seed", "-1"]) == 2
    (tmp_path / "file").write_text("")
    assert main(["layout", str(model), str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    with pytest.raises(SystemExit) as caught:
        main(["chekc", str(model)])
    assert caught.value.code == 2
