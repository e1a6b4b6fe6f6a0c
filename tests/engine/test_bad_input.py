"""Bad input by the real CLI: refused with what is allowed and the fix, before anything is built."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelcar.lock import lock_path
from tests.engine.conftest import Project


def edit_lock(project: Project) -> None:
    path = lock_path(project.folder, project.config["model"])
    path.write_text(re.sub(r"totalSize: \d+", "totalSize: 7", path.read_text()))


def no_weights(project: Project) -> None:
    shutil.rmtree(project.layout)
    shutil.rmtree(project.weights)


def one_byte_differs(project: Project) -> None:
    shutil.rmtree(project.layout)
    path = project.weights / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_safetensors(project: Project) -> None:
    shutil.rmtree(project.layout)
    path = project.weights / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def setting(**changes: Any) -> Callable[[Project], None]:
    return lambda project: project.configure(**changes)


CASES: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "no lock": (setting(model="absent"), ["modelcar:model: absent", "fix: python -m modelcar lock absent"]),
    "a lock edited by hand": (edit_lock, ["totalSize: 7", "the sum of the files' sizes", "fix: "]),
    "a setting of 0.1": (setting(weights="x"), ["modelcar:weights: a key of version 0.1", "fix: "]),
    "misspelt key": (
        setting(serviceNam="x"),
        ["modelcar:serviceNam: unknown key", "did you mean modelcar:serviceName?"],
    ),
    "nothing to serve": (
        setting(model=None, serviceName=None, namespace=None),
        [
            "modelcar:model: not set",
            "fix: pulumi config set modelcar:model NAME (`python -m modelcar lock NAME --hub OWNER/NAME`",
            "modelcar:namespace: not set",
            "fix: pulumi config set modelcar:namespace NAME",
        ],
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


#: The weights are looked at when the image is to be made, and not before.
WEIGHTS: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "no weights": (no_weights, ["there is no such folder", "fix: "]),
    "another byte": (one_byte_differs, ["model.safetensors: sha256 ", "as the lock says", "fix: "]),
    "cut off": (cut_safetensors, ["model.safetensors: ", "fix: "]),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_not_what_was_locked_make_no_image(project: Project, case: str) -> None:
    spoil, expected = WEIGHTS[case]
    spoil(project)
    result = project.pulumi("up", "--yes", "--skip-preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    for text in expected:
        assert text in said
    assert "Traceback" not in said
    assert not {kind.split(":")[-1] for kind in project.resources()} & {"Image", "InferenceService"}


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
