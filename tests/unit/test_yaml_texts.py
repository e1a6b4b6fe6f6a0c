"""Texts stay texts, whichever YAML reads them: by the rules of YAML 1.1 and 1.2, and of go-yaml 2."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from components.manifests.gitops import to_yaml
from components.manifests.yaml_texts import TextDumper

#: What is no text where it stands without quotes. https://yaml.org/type/ (1.1), and 1.2.2, 10.3.2
RULES = (
    r"[-+]?(0|[1-9][0-9_]*|0[0-7_]+|0b[0-1_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)",
    # Of 1.1, but with a digit, and one dot: its own rule takes `.` and `1.2.3`, which no reader does.
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?",
    r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*",
    r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    r"~|null|Null|NULL||<<|=",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
)
NO_TEXTS = (
    *(
        "1e5",
        "7e12345",
        "0o14",
        "1_000",
        ".inf",
        "0b1",
        "0x1F",
        "08",
        "1_0e5",
        "12e03",
        "-1E-3",
        "1.e5",
        "0o_7",
    ),
    *(
        "1:30",
        "190:20:30.15",
        "y",
        "N",
        "on",
        "Off",
        "~",
        "null",
        "2020-01-01",
        "2020-1-1",
        "0X1F",
        "0B1",
        "0O17",
    ),
    *("-_1", "+.5", "1_", "=", "<<", ""),
)
TEXTS = (
    "1.2.3",
    "sha256:0a",
    "v1",
    "e5",
    "1e",
    "0o8",
    "_1",
    "1,000",
    "0b2",
    "yes-man",
    "host:80",
    "--x=1e5",
    "nan",
)


def plain(text: str, dumper: type[yaml.SafeDumper] = TextDumper) -> bool:
    """Tell whether a text is written without quotes."""
    return yaml.dump({"a": text}, Dumper=dumper, width=1000) == f"a: {text}\n"


@pytest.mark.parametrize("text", NO_TEXTS)
def test_what_a_reader_takes_for_something_else_is_quoted(text: str) -> None:
    assert not plain(text)
    written = to_yaml({"kind": "A", text or "k": [text]})
    assert f"- '{text}'" in written
    assert yaml.safe_load(written)[text or "k"] == [text]
    assert not text or f"\n'{text}':" in written, "as a key, of a label"


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_else_is(text: str) -> None:
    assert plain(text) is plain(text, yaml.SafeDumper) is True


@given(some.text("0123456789_+-.:eExXoObByYnN", max_size=8))
def test_any_text_of_such_characters(text: str) -> None:
    if any(re.fullmatch(rule, text) for rule in RULES):
        assert not plain(text)
    assert yaml.safe_load(yaml.dump([text], Dumper=TextDumper)) == [text]
    if plain(text, yaml.SafeDumper) and not plain(text):
        assert text[0] in "0123456789+-.yYnN"


def test_long_and_many_lines_are_written_as_before() -> None:
    texts = ["a\nb\n", "x " * 80, "Höflich", "a: b", "#", "'", "- a", "%"]
    for text in texts:
        assert yaml.dump([text], Dumper=TextDumper) == yaml.safe_dump([text])
