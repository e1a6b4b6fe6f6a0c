"""Names of files: which ones an image may have, and how they are shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.cluster import kubeconfig
from modelcar.docker_certificates import tls_of
from modelcar.errors import Problem
from modelcar.home import in_home
from modelcar.paths import fault_of_name, printable, same_but_for_case


def test_a_user_without_a_home_has_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert in_home("~/.kube/config") == Path("/home/me/.kube/config")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 1_999_999_999)
    for path in ("~/.kube/config", "~nobody-of-this-name/x", "/a", "a"):
        assert in_home(path) == Path(path)
    assert tls_of("registry.example")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert kubeconfig.read(None) is None
    assert kubeconfig.read(None, default="~nobody-of-this-name/x") is None


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "with space",
        " a ",
        "été/東京.txt",
        "x" * 200,
        "a/b/c",
        "...",
        "..a",
        ".hidden",
        "a.wh.b",
        "~",
        "-rf",
    ],
)
def test_good_names(path: str) -> None:
    assert fault_of_name(path) is None
    assert printable(path) == path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        *((path, "control character") for path in ("a\nb", "a\rb", "\x00", "\x1b[2J", "a\x7f", "\x85")),
        *((path, "control character") for path in ("a\u2028b", "a\u2029b", "\udce9")),
        *((path, "not shown as it is") for path in ("exe.\u202egpj", "a\u2066b")),
        *((path, "leads out") for path in ("/a", "..", "../a", "a/../b", "a/..", "a/./b", "a//b", "a/", "")),
        *((path, "deletes a file") for path in (".wh.a", "a/.wh.b", ".wh..wh..opq", ".wh.a/b")),
    ],
)
def test_bad_names_are_told_with_what_is_allowed_and_the_fix(path: str, found: str) -> None:
    fault = fault_of_name(path)
    assert fault is not None
    assert found in fault[0]
    assert all(fault)
    assert printable(path).isprintable()


def test_names_that_become_one() -> None:
    assert list(same_but_for_case(["a", "b", "c/a", "c/b"])) == []
    assert list(same_but_for_case(["README", "readme"])) == [("readme", "README")]
    assert list(same_but_for_case(["A/x", "a/y"])) == [("a", "A")]
    assert list(same_but_for_case(["caf\u00e9", "cafe\u0301"])) == [("caf\u00e9", "cafe\u0301")]
    assert list(same_but_for_case(["stra\u00dfe", "STRASSE"])) == [("stra\u00dfe", "STRASSE")]
    three = list(same_but_for_case(["aa", "aA", "Aa"]))
    assert len(three) == 2, "each of three is named"


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\u202egpj.exe", "\ud800", "\u2028"])
def test_what_is_printed_does_not_act_on_a_terminal(text: str) -> None:
    problem = Problem(f"modelcar:{text}", f"{text}\nsecond line", f"not {text}", f"remove {text}")
    shown = str(problem)
    assert text[0] not in shown
    assert "\nsecond line" in shown, "lines stay lines"
    assert shown.isascii()
