"""Weights that go from hub to registry by the builder alone: the real BuildKit, and a hub on this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from local.tools import find_tool
from modelcar import locking
from modelcar.base import read_base
from modelcar.builder_push import push_by_builder
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.push import layers_there
from modelcar.registry import Target
from modelcar.tiny_model import make_tiny_model
from tests.conftest import Platform
from tests.engine.conftest import Project
from tests.hub_server import Content, serve

BASE = read_base("amd64")

#: Paths that tar, JSON, Dockerfiles or URLs write in a way of their own; some at the limits of tar's header.
ODD = [
    *("a b.txt", "a,b", "a=b", "-dash", "#hash", "%41", "[ab]*?", "<<EOF", "<&>", "semi;colon", "tilde~"),
    *("it's", 'quo"ted', "$HOME", "${X:-y}", "back`tick", "été", "日本語/東京.txt", "d/e/f"),
    *("x" * 93, "y" * 94, "z" * 200, "d" * 92 + "/f", "e" * 93 + "/" + "e" * 93 + "/f"),
    *("k" * 100 + "/" + "k" * 120, "z/" * 46 + "abc", "é" * 50 + "/" + "日" * 40 + "/x", "d/" * 40 + "é/x"),
]


def here(platform: Platform) -> str:
    """Return this machine's address as the platform sees it."""
    return re.sub(r"\.\d+:.*", ".1", platform.settings["registry"])


def lock_from_hub(project: Path, name: str, url: str, large_file: int) -> Lock:
    description = locking.Description(hub="o/model", allow=("*",))
    resolved = locking.resolve(description, project, endpoint=url)
    return locking.lock_model(name, description, resolved, project, large_file=large_file)[0]


def test_a_builder_makes_the_very_layers_of_the_lock(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**platform.checkout.environment, **platform.shell}.items():
        monkeypatch.setenv(name, value)
    make_tiny_model(tmp_path / "tiny")
    files: dict[str, Content] = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    files |= {path: f"content of {path}".encode() for path in ODD}
    files |= {"__init__.py": b"", "code/.gitkeep": b""}
    chance = np.random.default_rng(uuid.uuid4().int)
    for number in range(3):
        files[f"it's ${number}.safetensors"] = save({f"t{number}": chance.random(100_000, np.float32)})
    name = f"m{uuid.uuid4().hex[:8]}"
    target = Target(platform.settings["registry"], name, insecure=True)
    with serve({"o/model": files}, address=here(platform)) as hub:
        locked = lock_from_hub(tmp_path, name, hub.url, large_file=100_000)
        assert [len(layer.files) for layer in locked.layers[:-1]] == [1] * 4
        assert set(ODD) <= set(locked.layers[-1].files)
        push_by_builder(locked, locked.layers, target, platform.settings["builder"], endpoint=hub.url)
    wanted = {layer.digest for layer in locked.layers}
    assert layers_there(modelcar_image(locked, BASE), target) == wanted


@pytest.fixture
def files(project: Project) -> dict[str, Content]:
    """Return the model's files, with weights that no builder has seen."""
    project.change_weights(seed=int(uuid.uuid4().hex[:6], 16))
    return {path.name: path.read_bytes() for path in project.weights.iterdir()}


def test_up_serves_a_model_whose_weights_never_were_here(project: Project, files: dict[str, Content]) -> None:
    name = project.config["model"]
    with serve({"o/model": files}, address=here(project.platform)) as hub:
        # Written where whoever locked it was.
        elsewhere = project.folder / "elsewhere"
        locked = lock_from_hub(elsewhere, name, hub.url, large_file=1_000_000)
        shutil.copy(elsewhere / "modelcar/models" / name / "model.lock", lock_file(project))
        shutil.rmtree(project.layout)
        # Only the embedded platform's own settings may name a hub in the clear; it stands for a mirror.
        project.configure(fetchOn="builder", builder=project.platform.settings["builder"])
        project.variables["HF_ENDPOINT"] = hub.url
        hub.requests.clear()
        said = project.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
        assert "fetches 3.9 MiB and sends them" in said
        assert [request.path for request in hub.requests].count("model.safetensors") == 1

        outputs = json.loads(project.pulumi("stack", "output", "--json").stdout)
        assert outputs["modelDigest"] == modelcar_image(locked, BASE).digest
        blobs = sum(path.stat().st_size for path in project.layout.rglob("*") if path.is_file())
        assert blobs < 3_000_000, "the programs beside the weights, and no weights"

        # A change of one file brings that file alone.
        hub.requests.clear()
        files["generation_config.json"] = b'{"do_sample": false}'
        lock_from_hub(elsewhere, name, hub.url, large_file=1_000_000)
        shutil.copy(elsewhere / "modelcar/models" / name / "model.lock", lock_file(project))
        hub.requests.clear()
        project.up()
        assert "model.safetensors" not in [request.path for request in hub.requests]


def lock_file(project: Project) -> Path:
    return project.folder / "modelcar/models" / str(project.config["model"]) / "model.lock"


def test_a_hub_that_sends_something_else_leaves_nothing_to_serve(
    project: Project, files: dict[str, Content]
) -> None:
    name = project.config["model"]
    with serve({"o/model": files}, address=here(project.platform)) as hub:
        elsewhere = project.folder / "elsewhere"
        lock_from_hub(elsewhere, name, hub.url, large_file=1_000_000)
        shutil.copy(elsewhere / "modelcar/models" / name / "model.lock", lock_file(project))
        project.configure(fetchOn="builder", builder=project.platform.settings["builder"])
        project.variables["HF_ENDPOINT"] = hub.url
        hub.fault("model.safetensors", flip=100_000, times=10)
        failed = project.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode
    assert "digest mismatch" in said or "checksum" in said, said
    assert "Traceback" not in said
    assert not any(kind.endswith((":InferenceService", ":Image")) for kind in project.resources())


BUILDKIT_IMAGE = """
ARG BASE
FROM ${BASE}
COPY buildkitd buildctl /usr/bin/
# It wants one, and these builds run nothing.
COPY runc /usr/bin/runc
ENV PATH=/usr/bin:/bin
ENTRYPOINT ["buildkitd"]
"""


@pytest.fixture
def builder_in_cluster(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """Run BuildKit in a pod, by buildx's kubernetes driver; yield the builder's name."""
    environment = {**platform.checkout.environment, **platform.shell}
    registry, namespace = platform.settings["registry"].split("/")[0], f"builder-{uuid.uuid4().hex[:8]}"

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)

    context = tmp_path / "buildkit"
    context.mkdir()
    for name in ("buildkitd", "buildctl"):
        shutil.copy(find_tool(name, print), context / name)
    (context / "runc").write_text("#!/bin/sh\nexit 1\n")
    (context / "runc").chmod(0o755)
    (context / "Dockerfile").write_text(BUILDKIT_IMAGE)
    image = f"{registry}/{namespace}:1"
    build = ["buildx", "build", "--builder", platform.settings["builder"], str(context)]
    base = f"BASE={platform.settings['serverImage']}"
    output = f"type=image,name={image},push=true,registry.insecure=true"
    run(*build, "--provenance=false", "--build-arg", base, "--output", output)
    run("kubectl", "create", "namespace", namespace)
    try:
        options = f"namespace={namespace},image={image}"
        create = ["buildx", "create", "--driver", "kubernetes", "--name", namespace]
        run(*create, "--driver-opt", options, "--buildkitd-flags", "--oci-worker=true")
        run("buildx", "inspect", "--bootstrap", namespace)
        yield namespace
    finally:
        run("buildx", "rm", namespace)
        run("kubectl", "delete", "namespace", namespace)


@pytest.mark.extended
def test_a_builder_in_the_cluster_brings_weights_and_image(
    project: Project, files: dict[str, Content], builder_in_cluster: str
) -> None:
    name = project.config["model"]
    with serve({"o/model": files}, address=here(project.platform)) as hub:
        elsewhere = project.folder / "elsewhere"
        locked = lock_from_hub(elsewhere, name, hub.url, large_file=1_000_000)
        shutil.copy(elsewhere / "modelcar/models" / name / "model.lock", lock_file(project))
        project.configure(fetchOn="builder", builder=builder_in_cluster)
        project.variables["HF_ENDPOINT"] = hub.url
        assert project.up()["modelDigest"] == modelcar_image(locked, BASE).digest
        assert "model.safetensors" in [request.path for request in hub.requests]
