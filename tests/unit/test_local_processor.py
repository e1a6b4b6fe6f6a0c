"""The processor that images are made for: this machine's, a cluster's, and what the runbook predicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from local import own_cluster, runbook
from local.instance import Instance
from local.processor import architecture
from local.tools import Toolbox


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("amd64", "amd64"), ("sparc", "amd64")],
)
def test_what_systems_call_a_processor(machine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert architecture() == name


@pytest.mark.parametrize(
    ("here", "said", "status", "name"),
    [
        ("arm64", "amd64 amd64", 0, "amd64"),  # a Mac, and a cluster elsewhere
        ("x86_64", "arm64", 0, "arm64"),
        ("arm64", "amd64 arm64", 0, "arm64"),
        ("arm64", "amd64", 1, "arm64"),  # it does not answer
        ("x86_64", "riscv64", 0, "amd64"),
    ],
)
def test_a_cluster_of_ones_own_is_asked_for_its_nodes_processor(
    here: str, said: str, status: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\nprintf '{said}'\nexit {status}\n")
    kubectl.chmod(0o755)
    monkeypatch.setattr("platform.machine", lambda: here)
    monkeypatch.setattr(own_cluster, "pinned", lambda image, _: image)
    instance, tools = Instance("local", 0, tmp_path / "state"), Toolbox({"kubectl": kubectl}, "", Path())
    settings: dict[str, Any] = {"kubeContext": "mine", "registry": "r.example/m", "builder": "b"}
    own_cluster.write_settings(instance, tools, settings, lambda _: None)
    assert json.loads(instance.settings_file.read_text())["architecture"] == name
    assert (tmp_path / "asked").read_text().startswith("--context mine get nodes")
    (tmp_path / "asked").unlink()
    own_cluster.write_settings(instance, tools, settings | {"architecture": "arm64"}, lambda _: None)
    assert "architecture" not in json.loads(instance.settings_file.read_text()), "the stack says it"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(("own", "predicted"), [({}, "arm64"), ({"architecture": "amd64"}, "amd64")])
def test_the_runbook_predicts_what_the_platform_serves(
    own: dict[str, str], predicted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance("local", 0, tmp_path)
    instance.settings_file.write_text(json.dumps({"architecture": "arm64"}))
    monkeypatch.setattr(runbook, "stack_settings", lambda: {"model": "tiny-qwen2", **own})
    asked: list[tuple[str, ...]] = []

    def run(_: object, *command: str) -> str:
        asked.append(command)
        return "sha256:1\n"

    monkeypatch.setattr(runbook._Walk, "_run", run)
    runbook._Walk(instance, Toolbox({}, "", Path())).image()
    digest = ("digest", "tiny-qwen2", "--architecture", predicted)
    assert asked == [(sys.executable, "-m", "modelcar", *digest)]
