"""What the host asks of the platform's API server, which may have crashed a moment ago."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from local import platform
from local.instance import Instance

REFUSED = 'Get "https://198.18.0.2:6443/openapi/v2": dial tcp 198.18.0.2:6443: connect: connection refused'


def answers(monkeypatch: pytest.MonkeyPatch, *stderr: str) -> mock.Mock:
    results = [subprocess.CompletedProcess([], int(bool(text)), "done", text) for text in stderr]
    run = mock.Mock(side_effect=results)
    monkeypatch.setattr("local.platform.subprocess.run", run)
    monkeypatch.setattr("local.platform.time.sleep", lambda _: None)
    return run


def ask(folder: Path, **more: Any) -> str:
    tools: Any = {"kubectl": "kubectl"}
    return platform.kubectl(Instance("x", 0, folder), tools, "apply", **more)


def test_an_api_server_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = answers(monkeypatch, REFUSED, REFUSED, "")
    assert ask(tmp_path, patience=30.0) == "done"
    assert run.call_count == 3


def test_without_patience_it_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = answers(monkeypatch, REFUSED)
    with pytest.raises(platform.PlatformError, match="connection refused"):
        ask(tmp_path)
    assert run.call_count == 1


def test_other_errors_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = answers(monkeypatch, "forbidden")
    with pytest.raises(platform.PlatformError, match="forbidden"):
        ask(tmp_path, patience=30.0)
    assert run.call_count == 1
