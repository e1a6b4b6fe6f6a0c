"""`modelcar-kserve completion SHELL`: what is offered to a person who presses Tab, in the shells here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from modelcar.__main__ import main
from modelcar.cli.completion import SHELLS


@pytest.fixture
def scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with the script of each shell."""
    for shell in SHELLS:
        capsys.readouterr()
        assert main(["completion", shell], prog="modelcar-kserve") == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    return tmp_path


def offered(scripts: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in ("modelcar-kserve", *words))
    program = (
        f"source {scripts / 'bash'}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _modelcar_kserve; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert not result.stderr
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("lo",), ["lock"]),
        (("verify",), ["verify", "verify-image", "verify-signature"]),
        (("lock", "my-model", "--fo"), ["--folder"]),
        (("lock", "my-model", "--compression", ""), ["none", "zstd"]),
        (("digest", "my-model", "--architecture", "ar"), ["arm64"]),
        (("lock", "my-model", "--folder", ""), []),  # bash itself offers files
        (("lock", "my-model", "--license", "--"), []),
        (("completion", "z"), ["zsh"]),
    ],
)
def test_bash_offers(scripts: Path, words: tuple[str, ...], wanted: list[str]) -> None:
    assert offered(scripts, *words) == wanted


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_offers(scripts: Path) -> None:
    def fish(line: str) -> list[str]:
        program = f"source {scripts / 'fish'}; complete -C '{line}'"
        result = subprocess.run(["fish", "-c", program], capture_output=True, text=True, check=True)
        assert not result.stderr
        return [offer.partition("\t")[0] for offer in result.stdout.splitlines()]

    assert fish("modelcar-kserve lo") == ["lock"]
    assert fish("modelcar-kserve lock my-model --fo") == ["--folder"]
    assert fish("modelcar-kserve lock my-model --compression ") == ["none", "zstd"]
    assert fish("modelcar-kserve completion z") == ["zsh"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_hands_its_completion_what_each_command_takes(scripts: Path) -> None:
    def zsh(*words: str) -> str:
        line = " ".join(f"'{word}'" for word in ("modelcar-kserve", *words))
        program = (
            "compdef() { :; }; _describe() { print -rl -- $commands; }; _arguments() { print -rl -- $@; }; "
            f"source {scripts / 'zsh'}; words=({line}); CURRENT={len(words) + 1}; _modelcar_kserve"
        )
        result = subprocess.run(["zsh", "-fc", program], capture_output=True, text=True, check=True)
        assert not result.stderr
        return result.stdout

    assert "lock:resolve a model, pack it, and write its lock\n" in zsh("")
    assert "--folder[folder with config.json, safetensors, a tokenizer]:PATH:_files\n" in zsh("lock", "")
    assert ":SHELL:(bash zsh fish)\n" in zsh("completion", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_each_script(scripts: Path, shell: str) -> None:
    text = (scripts / shell).read_text()
    for name in ("lock", "made-up", "verify-signature", "completion"):
        assert name in text
    flags = ("--allow-pickle", "--transparency-log")
    assert all((f"-l {flag[2:]} " if shell == "fish" else flag) in text for flag in flags)
    assert "--project" not in text, "an option that the help does not show"
