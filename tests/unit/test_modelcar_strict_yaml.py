"""YAML that is data: what a small file could do harm with is refused, soon and in words."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelcar import strict_yaml
from modelcar.errors import InputError


def read(folder: Path, text: str | bytes) -> Any:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return strict_yaml.read(path, "what is wanted", "what to do")


def refusal(folder: Path, text: str | bytes) -> str:
    """Return what was found, by the one problem that a text is refused for."""
    with pytest.raises(InputError) as caught:
        read(folder, text)
    [problem] = caught.value.problems
    assert problem.key == str(folder / "x.yaml")
    assert (problem.allowed, problem.fix) == ("what is wanted", "what to do")
    assert problem.value.isprintable()
    return problem.value


def test_plain_data_is_taken(tmp_path: Path) -> None:
    text = "a: 1\nb: [x, {c: null}]\nd: 'no'\ne: true\n"
    assert read(tmp_path, text) == {"a": 1, "b": ["x", {"c": None}], "d": "no", "e": True}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &x 1\n", "an anchor"),
        ("a: &x [1]\nb: *x\n", "an anchor"),
        ("<<: {a: 1}\n", "merge"),
        ("a: [{b: 1, b: 2}]\n", "line 1: the key b twice"),
        ("a: 1\nb:\n  c: 1\n  c: 1\n", "line 3: the key c twice"),
        ("true: 1\n", "a key that is not text"),
        ("? [a]\n: 1\n", "a key that is not text"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
        ("a: 2026-13-45\n", "month"),
        (f"a: {'1' * 5000}\n", "4300 digits"),
        ('"k\\e[2J": 1\n"k\\e[2J": 2\n', r"k\x1b[2J twice"),
        ("\t- a\n", "cannot start any token"),
    ],
)
def test_other_yaml_is_refused(tmp_path: Path, text: str, found: str) -> None:
    assert found in refusal(tmp_path, text)


def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "an anchor" in refusal(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")], ids=["lists", "mappings"])
def test_very_deep_nesting_does_not_end_the_process(tmp_path: Path, opening: str, closing: str) -> None:
    """The parser in C recurses: without a limit this is a segmentation fault, hence the process."""
    path = tmp_path / "x.yaml"
    path.write_text(opening * 200_000 + "x" + closing * 200_000)
    program = (
        "import sys; from pathlib import Path; from modelcar import strict_yaml, errors\n"
        "try: strict_yaml.read(Path(sys.argv[1]), 'a', 'b')\n"
        "except errors.InputError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"more than {strict_yaml.MAX_DEPTH} levels" in result.stdout


def test_the_levels_of_a_lock_are_far_below_the_limit(tmp_path: Path) -> None:
    levels = strict_yaml.MAX_DEPTH
    assert read(tmp_path, "[" * levels + "]" * levels) is not None
    assert "levels" in refusal(tmp_path, "[" * (levels + 1) + "]" * (levels + 1))


def test_many_keys_take_no_longer_than_their_number(tmp_path: Path) -> None:
    """With each key compared to all before it, these would take minutes."""
    started = time.process_time()
    assert len(read(tmp_path, "".join(f"key{number}: 1\n" for number in range(50_000)))) == 50_000
    assert time.process_time() - started < 10


def test_the_largest_file_is_taken_and_a_larger_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_yaml, "MAX_FILE", 100)
    assert read(tmp_path, "#".ljust(95, "x") + "\na: 1") == {"a": 1}
    assert refusal(tmp_path, "#".ljust(96, "x") + "\na: 1") == "more than 100 bytes"


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        strict_yaml.read(tmp_path / "missing", "a", "b")
    with pytest.raises(InputError, match="cannot be read"):
        strict_yaml.read(tmp_path, "a", "b")
