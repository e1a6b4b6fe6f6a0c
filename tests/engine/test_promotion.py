"""From one stack to another: dev is deployed, the hub is gone, and prod serves the same image."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from local.debian import debian_parts
from local.tool_list import tools_folder
from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
from modelcar.push import layers_there
from modelcar.registry import Target
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT
from tests.engine.conftest import Project
from tests.engine.test_digest import uploaded
from tests.engine.test_fetch_on_builder import here, lock_from_hub
from tests.hub_server import Hub, serve

BASE = read_base("amd64")
#: Bytes of the weights that are copied.
SIZE = 128 * 2**20
#: Runs a command, and prints the most memory that it had, in KiB.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


@pytest.fixture
def hub(project: Project) -> Iterator[Hub]:
    """A hub with the project's model, which nobody has seen before; the project is locked from it."""
    project.change_weights(seed=int(uuid.uuid4().hex[:6], 16))
    files = {path.name: path.read_bytes() for path in project.weights.iterdir()}
    with serve({"o/model": files}, address=here(project.platform)) as running:
        elsewhere, name = project.folder / "elsewhere", str(project.config["model"])
        lock_from_hub(elsewhere, name, running.url, large_file=1_000_000)
        shutil.copy(lock_path(elsewhere, name), lock_path(project.folder, name))
        shutil.rmtree(project.layout)
        # Only the embedded platform's own settings may name a hub in the clear.
        project.variables["HF_ENDPOINT"] = running.url
        yield running


def test_prod_serves_what_dev_has_when_the_hub_is_gone(project: Project, prod: Project, hub: Hub) -> None:
    name = str(project.config["model"])
    # dev was never deployed.
    refused = prod.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    assert refused.returncode
    said = refused.stdout + refused.stderr
    assert "modelcar:promoteFrom: organization/" in said
    assert "Traceback" not in said
    assert not any(kind.endswith((":InferenceService", ":Image")) for kind in prod.resources())

    dev = project.up()
    assert hub.requests, "dev fetched it"
    shutil.rmtree(project.layout)
    hub.requests.clear()

    mirror = dev["storageUri"].removeprefix("oci://").partition("@")[0]
    shown = prod.pulumi("preview", "--color=never").stdout
    assert f"mounted from {mirror}, or copied" in shown
    said = prod.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert f"mounted from {mirror}: model.safetensors" in said
    assert hub.requests == [], "nobody asked the hub"

    outputs = json.loads(prod.pulumi("stack", "output", "--json").stdout)
    assert outputs["modelDigest"] == dev["modelDigest"], "what was tested is what is served"
    assert outputs["storageUri"] != dev["storageUri"]
    image = modelcar_image(read_lock(lock_path(prod.folder, name)), BASE)
    layers = {layer.digest for layer in image.layers}
    of_prod = replace(project.platform, settings={"registry": prod.config["registry"]})
    assert uploaded(project.platform, name) >= layers
    assert not uploaded(of_prod, name) & layers, "no layer was sent again"
    assert "attached" in inspect(outputs["storageUri"]), "the bill of materials is there as well"


def inspect(uri: str) -> str:
    command = [".venv/bin/python", "-m", "modelcar", "inspect", uri, "--insecure"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


@contextmanager
def another_registry(folder: Path) -> Iterator[str]:
    """Run a second real registry; yield its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(folder / "store")}}
    document = {"version": 0.1, "storage": storage, "http": {"addr": host}}
    folder.mkdir()
    (folder / "config.yml").write_text(yaml.safe_dump(document))
    program = debian_parts(tools_folder() / "debian", print)["docker-registry"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [str(program), "serve", str(folder / "config.yml")], stdout=log, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    httpx.get(f"http://{host}/v2/")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield host
        finally:
            process.terminate()
            process.wait(20)


def test_layers_go_from_one_real_registry_to_another(tmp_path: Path) -> None:
    """`push --from` and `fetch --from`: no weights on this machine, and little memory for a large layer."""
    make_tiny_model(tmp_path / "weights")
    tensor = np.zeros(SIZE // 4, np.float32)
    save_file({"t": tensor}, tmp_path / "weights/model.safetensors")
    del tensor
    description = locking.Description(folder="weights")
    resolved = locking.resolve(description, tmp_path)
    lock, _ = locking.lock_model("large", description, resolved, tmp_path)
    layout = locking.layout_path(tmp_path, "large")

    def run(*arguments: str) -> tuple[str, int]:
        """Return what a command says, and the most memory that it had, in bytes."""
        command = [".venv/bin/python", "-m", "modelcar", "--project", str(tmp_path), *arguments]
        measured = [sys.executable, "-c", MEASURED, *command]
        done = subprocess.run(measured, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said, _, most = done.stdout.rstrip().rpartition("\n")
        return said + done.stderr, int(most) * 1024

    run("fetch", "large")
    with another_registry(tmp_path / "one") as dev, another_registry(tmp_path / "two") as prod:
        _, beforehand = run("push", "large", f"{dev}/dev/large", "--insecure")
        shutil.rmtree(layout)
        shutil.rmtree(tmp_path / "weights")
        sources = ("--from", f"{dev}/dev/large", "--from-insecure")
        said, memory = run("push", "large", f"{prod}/prod/large", "--insecure", *sources)
        assert said.count(f"copied from {dev}/dev/large") == len(lock.layers) + 1
        assert ", 0 B sent; the registry has every layer of sha256:" in said
        assert memory < beforehand + SIZE / 4, "a layer is not held in memory"
        assert not layout.exists(), "nor on the disk"
        image = modelcar_image(lock, BASE)
        there = layers_there(image, Target(f"{prod}/prod", "large", insecure=True))
        assert there == {layer.digest for layer in image.layers}

        # Within one registry nothing is sent: the real one mounts.
        said, _ = run("push", "large", f"{dev}/prod/large", "--insecure", *sources)
        assert said.count(f"mounted from {dev}/dev/large") == len(image.layers)

        said, _ = run("fetch", "large", *sources)
        assert said.count(f"fetched from {dev}/dev/large") == len(lock.layers)
    assert "2 of 2 layers are as the lock says" in run("verify", "large")[0]
