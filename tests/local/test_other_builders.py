"""The same layout and Dockerfile by other tools than BuildKit: what they push, and that a pod serves it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.debian import debian_parts, debian_script
from local.instance import cache_root
from local.tool_list import tools_folder
from local.tools import find_tool
from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.manifest import Image
from modelcar.registry import Manifest, Registry, Target
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT, Platform
from tests.local.conftest import Scratch, assert_modelcar

#: Debian's packages of each program, with the libraries that not every machine has.
LIBRARIES = ["libgpgme11", "libassuan0", "libdevmapper1.02.1", "libsubid4"]
PACKAGES = {
    "skopeo": ["skopeo", *LIBRARIES],
    "buildah": ["buildah", *LIBRARIES],
    "podman": ["podman", "conmon", "libyajl2", *LIBRARIES],
}


@dataclass(frozen=True)
class Tools:
    """The model's layout, and tools with a store and settings of the test's own."""

    platform: Platform
    folder: Path
    layout: Path
    lock: Lock
    image: Image

    def run(self, name: str, *arguments: str) -> str:
        """Run skopeo, buildah or podman."""
        packages = cache_root() / "builders" / name
        script = debian_script(name, PACKAGES[name], packages)
        store = [f"--root={self.folder}/root", f"--runroot={self.folder}/run", "--storage-driver=vfs"]
        if name == "podman":
            conmon = shutil.which("conmon") or str(packages / "debian/usr/bin/conmon")
            runc = debian_parts(tools_folder() / "debian", print)["runc"]
            store += [f"--conmon={conmon}", f"--runtime={runc}", "--cgroup-manager=cgroupfs"]
        # The machine's own settings may name mirrors, or policies that refuse.
        settings = {"CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf")}
        result = subprocess.run(
            [str(script), *([] if name == "skopeo" else store), *arguments],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    @property
    def policy(self) -> str:
        """A file that asks for no signatures."""
        return str(self.folder / "policy.json")

    def pushed(self, name: str, tag: str = "1") -> Manifest:
        """Return what a repository has."""
        with Registry(Target(self.platform.settings["registry"], name, insecure=True)) as registry:
            found = registry.manifest(tag)
        assert found
        return found

    def build(self, name: str) -> str:
        """Build with buildah or podman; return what it calls the image, the digest of its configuration."""
        said = self.run(
            *(name, "build", f"--signature-policy={self.policy}", "--isolation=chroot", "--format=oci"),
            *("--timestamp=0", f"--build-arg=WEIGHTS=oci:{self.layout}", f"--tag={name}-built"),
            str(PROJECT / "modelcar"),
        )
        return said.split()[-1]


@pytest.fixture(scope="module")
def tools(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    folder = tmp_path_factory.mktemp("builders")
    (folder / "registries.conf").write_text("")
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    make_tiny_model(folder / "weights", seed=11)
    description = locking.Description(folder="weights", license="MIT, or <other>")
    lock, _ = locking.lock_model("m", description, locking.resolve(description, folder), folder)
    return Tools(
        platform, folder, locking.layout_path(folder, "m"), lock, modelcar_image(lock, read_base("amd64"))
    )


@pytest.fixture
def repository() -> str:
    return f"by-other-tools-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def serve(platform: Platform) -> Iterator[Scratch]:
    namespace = f"builders-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", namespace)
    yield Scratch(platform, namespace, "")
    platform.kubectl("delete", "namespace", namespace, "--wait=false")


def assert_served(scratch: Scratch, tools: Tools, repository: str, digest: str) -> None:
    """A pod gets the model from this image, byte for byte."""
    uri = f"oci://{tools.platform.settings['registry']}/{repository}@{digest}"
    served = Scratch(scratch.platform, scratch.namespace, uri)
    served.apply({"containers": [served.server(env=[{"name": "STORAGE_URI", "value": uri}])]})
    pod = served.served_pod()
    assert_modelcar(pod, served)
    said = scratch.platform.kubectl(
        *("-n", scratch.namespace, "exec", pod["metadata"]["name"], "-c", "kserve-container"),
        *("--", "sh", "-c", "cd /mnt/models/ && sha256sum *"),
    )
    found = {line.split()[1]: line.split()[0] for line in said.splitlines()}
    assert found == {file.path: file.sha256 for file in tools.lock.files}


def blobs(manifest: Manifest) -> list[str]:
    return [layer["digest"] for layer in manifest.document["layers"]]


def test_skopeo_copies_the_predicted_image(tools: Tools, repository: str) -> None:
    destination = f"docker://{tools.platform.settings['registry']}/{repository}:1"
    insecure = ("--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false")
    tools.run("skopeo", *insecure, f"oci:{tools.layout}", destination)
    assert tools.pushed(repository).content == tools.image.manifest


@pytest.mark.extended
@pytest.mark.parametrize("builder", ["buildah", "podman"])
def test_buildah_and_podman_build_the_predicted_image(tools: Tools, repository: str, builder: str) -> None:
    assert f"sha256:{tools.build(builder)}" == tools.image.config_digest
    # By way of a folder: a push takes a compressed copy of a layer where this machine remembers one.
    saved = tools.folder / f"saved-{builder}"
    name = f"localhost/{builder}-built:latest"
    push = ("push", f"--signature-policy={tools.policy}", "--disable-compression")
    tools.run("buildah", *push, name, f"dir:{saved}")
    destination = f"docker://{tools.platform.settings['registry']}/{repository}:1"
    copy = ("--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false")
    tools.run("skopeo", *copy, f"dir:{saved}", destination)
    assert tools.pushed(repository).digest == tools.image.digest


@pytest.mark.extended
def test_what_buildah_pushes_itself_is_served(tools: Tools, repository: str, serve: Scratch) -> None:
    tools.build("buildah")
    destination = f"docker://{tools.platform.settings['registry']}/{repository}:1"
    push = ("push", f"--signature-policy={tools.policy}", "--tls-verify=false")
    tools.run("buildah", *push, "localhost/buildah-built:latest", destination)
    pushed = tools.pushed(repository)
    # Whether it compresses layers depends on what it remembers of this registry; what is in them does not.
    assert pushed.document["config"]["digest"] == tools.image.config_digest
    assert_served(serve, tools, repository, pushed.digest)


@pytest.mark.extended
def test_kaniko_pushes_the_same_layers_and_is_served(
    tools: Tools, repository: str, serve: Scratch, tmp_path: Path
) -> None:
    registry = tools.platform.settings["registry"]
    insecure = ("--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false")
    tools.run("skopeo", *insecure, f"oci:{tools.layout}", f"docker://{registry}/{repository}:weights")
    # It takes the folder that it runs in for the image's: a root of its own keeps it from this machine's.
    for folder in ("context", "proc", "tmp", "etc"):
        (tmp_path / folder).mkdir()
    shutil.copy(find_tool("kaniko", print), tmp_path / "kaniko-executor")
    shutil.copy(PROJECT / "modelcar/Dockerfile", tmp_path / "context")
    execute = [
        *("/kaniko-executor", "--force", "--context=dir:///context", "--insecure", "--insecure-pull"),
        f"--build-arg=WEIGHTS={registry}/{repository}@{tools.image.digest}",
        f"--destination={registry}/{repository}:1",
    ]
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    result = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(tmp_path), *execute],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    pushed = tools.pushed(repository)
    assert pushed.digest != tools.image.digest
    assert blobs(pushed) == blobs(tools.pushed(repository, "weights"))
    assert pushed.document["annotations"] == tools.image.annotations
    with Registry(Target(registry, repository, insecure=True)) as opened:
        config: dict[str, Any] = json.loads(opened.blob(pushed.document["config"]["digest"]))
    planned = json.loads(tools.image.config)
    assert config.pop("created") > planned.pop("created"), "it notes the time of the build"
    assert config == planned
    assert_served(serve, tools, repository, pushed.digest)
