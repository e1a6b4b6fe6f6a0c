"""A program that a command ran and that fails: its words, no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from local import __main__ as local
from local.failed_command import in_words


def failing(**how: object) -> subprocess.CalledProcessError:
    script = "import sys; print('no network', file=sys.stderr); sys.exit(3)"
    with pytest.raises(subprocess.CalledProcessError) as raised:
        subprocess.run([sys.executable, "-c", script], check=True, **how)  # type: ignore[call-overload]
    return raised.value


def test_a_command_is_told_with_its_end_and_what_it_said() -> None:
    for how in ({"capture_output": True}, {"capture_output": True, "text": True}):
        first, said = in_words(failing(**how)).splitlines()
        assert first.startswith(f"{sys.executable} -c ")
        assert first.endswith(": exit status 3")
        assert said.strip() == "no network"
    assert (
        in_words(subprocess.CalledProcessError(-9, ["uv", "pip", "a b"])) == "uv pip 'a b': ended by signal 9"
    )
    assert in_words(subprocess.CalledProcessError(1, "uv pip")) == "uv pip: exit status 1"
    assert in_words(ValueError("other")) == "other"
    assert in_words(KeyError()) == "KeyError"


def test_only_the_end_of_much_is_told() -> None:
    many = "\n".join(str(number) for number in range(1000))
    assert in_words(subprocess.CalledProcessError(1, "x", stderr=many)).splitlines()[1].strip() == "980"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (subprocess.CalledProcessError(2, ["uv", "venv"]), "error: uv venv: exit status 2"),
        (OSError(28, "No space left on device", "/x"), "error: [Errno 28] No space left on device: '/x'"),
    ],
    ids=["a program", "a full disk"],
)
def test_the_local_commands_end_without_a_traceback(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setitem(local.RUN, "up", fail)
    monkeypatch.setattr(local, "load", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["local", "up"])
    assert local.main() == 1
    assert capsys.readouterr().err.strip() == words
