"""Bad input by the real CLI: refused with what is allowed and the fix, before anything is built."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Project


def empty_weights(project: Project) -> None:
    shutil.rmtree(project.weights)
    project.weights.mkdir()


def no_config(project: Project) -> None:
    (project.weights / "config.json").unlink()


def no_safetensors(project: Project) -> None:
    (project.weights / "model.safetensors").unlink()


def cut_safetensors(project: Project) -> None:
    path = project.weights / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def setting(**changes: Any) -> Callable[[Project], None]:
    return lambda project: project.configure(**changes)


CASES: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "no folder": (setting(weights="/nowhere/model"), ["/nowhere/model: there is no such folder", "fix: "]),
    "empty folder": (empty_weights, ["the folder is empty", "config.json, *.safetensors and a tokenizer"]),
    "no config.json": (no_config, ["config.json: there is no such file"]),
    "no safetensors": (no_safetensors, ["*.safetensors: there is no such file"]),
    "broken header": (cut_safetensors, ["model.safetensors: broken:", "fix: download it again"]),
    "misspelt key": (
        setting(serviceNam="x"),
        ["modelcar:serviceNam: unknown key", "did you mean modelcar:serviceName?"],
    ),
    # The CLI itself checks what Pulumi.yaml declares, and the program everything.
    "wrong type": (setting(maxReplicas="many"), ["'modelcar:maxReplicas' must be of type 'integer'"]),
    "wrong value": (setting(cpuLimit="plenty"), ["modelcar:cpuLimit: 'plenty'", "quantity", "fix: "]),
    "a tag": (
        setting(serverImage="vllm/vllm-openai:v0.23.0"),
        ["modelcar:serverImage: 'vllm/vllm-openai:v0.23.0'", "by tag", "allowed: IMAGE@sha256:"],
    ),
    "a name that KServe refuses": (
        setting(serviceName="0-llm"),
        ["modelcar:serviceName: '0-llm'", "allowed: "],
    ),
    "a name that Kubernetes refuses": (
        setting(namespace="Models"),
        ["modelcar:namespace: 'Models'", "allowed: "],
    ),
    "a name that the registry refuses": (
        setting(imageName="Qwen"),
        ["modelcar:imageName: 'Qwen'", "allowed: "],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_declares_no_resource(project: Project, case: str) -> None:
    spoil, expected = CASES[case]
    spoil(project)
    result = project.pulumi("up", "--yes", "--skip-preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    for text in expected:
        assert text in said
    assert "Traceback" not in said
    assert set(project.resources()) <= {"pulumi:pulumi:Stack"}


def test_all_mistakes_are_told_at_once(project: Project) -> None:
    project.configure(serviceNam="x", gpuCount=-1, namespace="Models")
    said = project.pulumi("preview", check=False).stdout
    for key in ("serviceNam:", "gpuCount:", "namespace:"):
        assert f"modelcar:{key}" in said


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_unreachable_registry_and_cluster_stop_an_up_but_no_preview(
    project: Project, tmp_path: Path
) -> None:
    port = closed_port()
    text = Path(project.platform.kubeconfig).read_text()
    address = next(line.split("server: ")[1] for line in text.splitlines() if "server: " in line)
    (tmp_path / "kubeconfig").write_text(text.replace(address, f"https://127.0.0.1:{port}"))
    project.configure(registry=f"127.0.0.1:{port}/models", kubeconfig=str(tmp_path / "kubeconfig"))
    result = project.pulumi("up", "--yes", "--skip-preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    assert f"modelcar:registry: 127.0.0.1:{port}/models: 127.0.0.1 cannot be reached" in said
    assert f"the API server https://127.0.0.1:{port} cannot be reached" in said
    assert set(project.resources()) <= {"pulumi:pulumi:Stack"}
    assert project.pulumi("preview").returncode == 0
