"""The predicted digest is the pushed one, by every builder; and no byte is sent that the registry has."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from local.debian import debian_parts
from local.tool_list import tools_folder
from local.tools import find_tool
from modelcar import kernel_store, locking
from modelcar.base import read_base
from modelcar.fetching import fetch
from modelcar.image import modelcar_image
from modelcar.lock import Lock, lock_path, write_lock
from modelcar.lock_reader import read_lock
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import Project
from tests.unit.kernel_entries import entry

MANIFEST = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
BASE = read_base("amd64")
#: Bytes from which a file of these small models has a layer of its own.
LARGE = 50_000


def write_model(folder: Path, seed: int, shards: int) -> Path:
    """Write a model with made-up weights, some odd names, and as many shards."""
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": f"made-up-{seed}"}))
    (folder / "tokenizer.json").write_text("{}")
    mapping = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        size = int(chance.integers(15_000, 60_000))
        save_file({f"t{number}": chance.random(size, np.float32)}, folder / name)
        mapping[f"t{number}"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    odd = random.Random(seed).choice(
        ["a b.txt", "été.txt", "x" * 130 + ".txt", "d/e/f.txt", "<&>.txt", "plain"]
    )
    (folder / odd).parent.mkdir(parents=True, exist_ok=True)
    (folder / odd).write_text("x" * (seed + 1))
    return folder


def lock(project: Path, name: str, **options: str) -> Lock:
    description = locking.Description(folder=f"{name}-files", **options)  # type: ignore[arg-type]
    resolved = locking.resolve(description, project)
    return locking.lock_model(name, description, resolved, project, large_file=LARGE)[0]


def with_kernels(project: Path, locked: Lock) -> Lock:
    """Add kernels to a lock, and bring their layer into the layout."""
    made, content = entry()
    kernel_store.keep(project, content)
    more = dataclasses.replace(locked, kernels=(made,))
    lock_path(project, locked.name).write_bytes(write_lock(more))
    fetch(more, BASE, project, locking.layout_path(project, locked.name))
    return more


def build(
    platform: Platform, project: Path, locked: Lock, builder: str, environment: dict[str, str] | None = None
) -> str:
    """Build and push with buildx, as `python -m modelcar options` says; return the digest."""
    repository = f"{platform.settings['registry']}/{locked.name}"
    command = [".venv/bin/python", "-m", "modelcar", "--project", str(project), "options", locked.name]
    said = subprocess.run(
        [*command, repository, "--insecure"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    *options, _ = said.stdout.splitlines()
    metadata = project / "metadata.json"
    build = ["buildx", "build", "--quiet", "--builder", builder, "--metadata-file", str(metadata)]
    result = subprocess.run(
        [*build, *options, str(PROJECT / "modelcar")],
        env={**platform.checkout.environment, **platform.shell, **(environment or {})},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return str(json.loads(metadata.read_text())["containerimage.digest"])


def uploaded(platform: Platform, repository: str) -> set[str]:
    """Return the digests of all blobs that were ever sent to a repository, by the registry's own log."""
    log = (platform.checkout.folder / ".local/local/logs/registry.log").read_text()
    path = platform.settings["registry"].split("/", 1)[1]
    sent = rf'"PUT /v2/{path}/{repository}/blobs/uploads/\S*digest=(\S+?)(?:&\S*)? HTTP/1.1" 201'
    return {unquote(digest) for digest in re.findall(sent, log)}


@pytest.mark.parametrize("group", range(4))
def test_what_is_pushed_is_what_was_predicted(platform: Platform, tmp_path: Path, group: int) -> None:
    """Five made-up models a group, twenty in all; every fourth compressed, every third with kernels."""
    for seed in range(group * 5, group * 5 + 5):
        name = f"made-up-{seed}"
        write_model(tmp_path / f"{name}-files", seed, shards=1 + seed % 7)
        compression = "zstd" if seed % 4 == 3 else "none"
        locked = lock(tmp_path, name, compression=compression, license="MIT, or <other> & more")
        if seed % 3 == 0:
            locked = with_kernels(tmp_path, locked)
        predicted = modelcar_image(locked, BASE)
        assert build(platform, tmp_path, locked, platform.settings["builder"]) == predicted.digest
        registry = platform.settings["registry"].replace("/", "/v2/", 1)
        found = httpx.get(f"http://{registry}/{name}/manifests/{predicted.digest}", headers=MANIFEST)
        assert found.content == predicted.manifest


@contextmanager
def clean_builder(platform: Platform, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run a BuildKit of its own with an empty store; yield buildx's name for it and the environment."""
    folder.mkdir(parents=True)
    address = f"unix://{folder}/buildkitd.sock"
    environment = {"BUILDX_CONFIG": str(folder / "buildx"), "TMPDIR": str(folder)}
    everything = {**platform.checkout.environment, **platform.shell, **environment}
    buildkitd = find_tool("buildkitd", print)
    runc = debian_parts(tools_folder() / "debian", print)["runc"]
    options = [f"--root={folder}/store", f"--addr={address}", f"--oci-worker-binary={runc}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [buildkitd, *options, "--oci-worker=true", "--containerd-worker=false"],
            env=everything,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while not (folder / "buildkitd.sock").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            create = ["buildx", "create", "--name", "clean", "--driver", "remote", address]
            subprocess.run(create, env=everything, check=True, capture_output=True)
            yield "clean", environment
        finally:
            process.terminate()
            process.wait(30)


def test_clean_builders_in_other_places_give_the_same_digest(platform: Platform, tmp_path: Path) -> None:
    name = f"m{uuid.uuid4().hex[:8]}"
    write_model(tmp_path / f"here/{name}-files", seed=1, shards=3)
    locked = lock(tmp_path / "here", name)
    there = tmp_path / "there" / "deep er"
    shutil.copytree(tmp_path / f"here/{name}-files", there / f"{name}-files", copy_function=shutil.copyfile)
    for path in there.rglob("*"):
        os.utime(path, (10**9, 10**9))
    assert lock(there, name) == locked
    digests = {modelcar_image(locked, BASE).digest}
    for number, place in enumerate((tmp_path / "here", there)):
        with clean_builder(platform, tmp_path / f"builder-{number}") as (builder, environment):
            digests.add(build(platform, place, locked, builder, environment))
    assert len(digests) == 1


def test_a_change_of_one_file_of_eight_uploads_that_one(platform: Platform, tmp_path: Path) -> None:
    name = f"eight{uuid.uuid4().hex[:8]}"
    folder = write_model(tmp_path / f"{name}-files", seed=3, shards=8)
    first = lock(tmp_path, name)
    builder = platform.settings["builder"]
    build(platform, tmp_path, first, builder)
    before = uploaded(platform, name)
    assert before >= {layer.digest for layer in first.layers}

    build(platform, tmp_path, first, builder)
    assert uploaded(platform, name) == before, "nothing changed: nothing is sent"

    shard = folder / "model-00005-of-00008.safetensors"
    save_file({"t5": np.arange(20_000, dtype=np.float32)}, shard)
    second = lock(tmp_path, name)
    build(platform, tmp_path, second, builder)
    image = modelcar_image(second, BASE)
    [changed] = [layer for layer in second.layers if layer.files == (shard.name,)]
    assert uploaded(platform, name) - before == {changed.digest, image.config_digest}


def test_an_up_needs_no_weights_where_nothing_changed(project: Project) -> None:
    outputs = project.up()
    shutil.rmtree(project.layout)
    shutil.rmtree(project.weights)
    assert project.preview() == []
    project.pulumi("up", "--yes", "--expect-no-changes")
    assert project.up() == outputs
    assert not project.layout.exists()


def test_the_bill_of_materials_is_attached_and_can_be_read_without_a_layer(project: Project) -> None:
    uri = project.up()["storageUri"]
    log = project.platform.checkout.folder / ".local/local/logs/registry.log"
    before = len(log.read_text())
    command = [".venv/bin/python", "-m", "modelcar", "--project", str(project.folder)]
    name = project.config["model"]

    def run(*arguments: str) -> str:
        return subprocess.run(
            [*command, *arguments, "--insecure"], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout

    shown = run("inspect", uri)
    assert "attached  application/vnd.cyclonedx+json" in shown
    assert re.search(r"^  [0-9a-f]{64} +3\.9 MiB  model\.safetensors$", shown, re.MULTILINE)
    found = json.loads(run("inspect", uri, "--json"))
    assert found["annotations"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "is what" in run("verify-image", name, uri)
    assert run("attach", name, uri) == run("attach", name, uri), "it is attached once"
    assert run("inspect", uri).count("application/vnd.cyclonedx+json") == 1
    layers = {layer["digest"] for layer in found["layers"]}
    # Other tests use the same registry at the same time.
    asked = "\n".join(line for line in log.read_text()[before:].splitlines() if f"/{name}/" in line)
    assert "GET /v2/" in asked
    assert not any(layer in asked for layer in layers), "no layer is read"


def test_weights_that_are_needed_are_fetched_by_up(project: Project) -> None:
    shutil.rmtree(project.layout)
    said = project.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert "fetching 3.9 MiB" in said
    assert project.layout.exists()


def test_weights_that_the_registry_has_are_not_needed(project: Project) -> None:
    first = project.up()
    shutil.rmtree(project.layout)
    shutil.rmtree(project.weights)
    lock_file = lock_path(project.folder, project.config["model"])
    lock_file.write_text(lock_file.read_text().replace("license: Apache-2.0", "license: MIT"))
    said = project.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert "fetching 0 B" in said
    outputs = json.loads(project.pulumi("stack", "output", "--json").stdout)
    assert outputs["modelDigest"] != first["modelDigest"]


def test_weights_do_not_pass_through_the_builder(project: Project) -> None:
    store = project.platform.checkout.folder / ".local/local/buildkit"
    project.change_weights(seed=int(uuid.uuid4().hex[:6], 16))
    layer = read_lock(lock_path(project.folder, project.config["model"])).layers[0]
    project.up()
    assert layer.digest in uploaded(project.platform, project.config["model"])
    assert not list(store.rglob(layer.digest.removeprefix("sha256:"))), "BuildKit has no copy of them"


@contextmanager
def failing_registry(platform: Platform, limit: int) -> Iterator[str]:
    """Stand between the builder and the registry, and go away for good after so many bytes."""
    host, _, port = platform.settings["registry"].split("/")[0].partition(":")
    here = re.sub(r"\.\d+$", ".1", host)  # this machine's end of the platform's link
    left = [limit]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                left[0] -= len(data)
                if left[0] < 0:
                    listener.close()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server((here, 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"{here}:{listener.getsockname()[1]}"


def test_a_registry_that_dies_in_mid_push_leaves_nothing_to_serve(project: Project) -> None:
    registry = project.platform.settings["registry"]
    with failing_registry(project.platform, limit=1_000_000) as address:
        project.configure(registry=f"{address}/{registry.split('/', 1)[1]}", checkReachable=False)
        failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert failed.returncode
    assert not any(kind.endswith((":InferenceService", ":Image")) for kind in project.resources())
    project.configure(registry=registry, checkReachable=None)
    outputs = project.up()
    name = project.config["model"]
    url = f"http://{registry.replace('/', '/v2/', 1)}/{name}/manifests/{outputs['modelDigest']}"
    assert httpx.get(url, headers=MANIFEST).status_code == 200
