"""Each way from weights on disk to a digest in a registry, as a function that is timed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.machine import BUILDER, Machine
from local.debian import debian_script
from local.instance import cache_root
from modelcar import locking
from modelcar.base import read_base
from modelcar.build_options import export_options
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.oci_layout import context_of
from modelcar.registry_http import has_blob, upload_place

PROJECT = Path(__file__).absolute().parent.parent
#: What a Pulumi program needs of the project; modelcar/ itself is copied, as layouts come to lie in it.
PARTS = ("components", "local", "operations", ".venv", "pyproject.toml")
BASE = read_base("amd64")
BUILDAH_PACKAGES = ["buildah", "libgpgme11", "libassuan0", "libdevmapper1.02.1", "libsubid4"]


@dataclass
class Task:
    """What all ways start from: a folder of weights, and for ours its lock and its layers.

    The seconds of the lock are noted by themselves; the report adds them to ours.
    """

    machine: Machine
    folder: Path
    name: str
    lock: Lock
    project: Path
    peers: Path

    @property
    def layout(self) -> Path:
        """The fetched layers."""
        return locking.layout_path(self.project, self.name)

    @property
    def repository(self) -> str:
        """Where this way pushes."""
        return f"{self.machine.registry}/{self.name}"


def floor(task: Task) -> None:
    """Hash every file and copy it once: what no way can do without."""
    target = task.machine.folder / "floor"
    target.mkdir(exist_ok=True)
    for path in sorted(task.folder.iterdir()):
        task.machine.run("sha256sum", path)
        shutil.copyfile(path, target / path.name)


def _buildx(task: Task, options: str) -> None:
    dockerfile = task.machine.folder / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /models/\n")
    name = f"type=image,push=true,registry.insecure=true,name={task.repository}:latest{options}"
    command = [
        "buildx",
        "build",
        "--quiet",
        "--builder",
        BUILDER,
        "--file",
        str(dockerfile),
        "--output",
        name,
    ]
    task.machine.run(*command, task.folder)


def buildx_default(task: Task) -> None:
    """As everybody's Dockerfile does it: one layer, gzip."""
    _buildx(task, "")


def buildx_uncompressed(task: Task) -> None:
    """The same without compression."""
    _buildx(task, ",compression=uncompressed")


def buildx_zstd(task: Task) -> None:
    """The same with zstd."""
    _buildx(task, ",compression=zstd,oci-mediatypes=true")


def buildah_script() -> Path:
    """Return what runs buildah; its packages are downloaded on first use, which is none of its time."""
    return debian_script("buildah", BUILDAH_PACKAGES, cache_root() / "builders" / "buildah")


def buildah(task: Task) -> None:
    """buildah, as everybody's Containerfile does it: one layer, gzip when it is pushed."""
    folder = task.machine.folder / "buildah"
    folder.mkdir(exist_ok=True)
    (folder / "Containerfile").write_text("FROM scratch\nCOPY . /models/\n")
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    script = buildah_script()
    store = (f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=overlay")
    policy = f"--signature-policy={folder}/policy.json"
    build = ("build", policy, "--isolation=chroot", "--layers", f"--file={folder}/Containerfile", "--tag=m")
    task.machine.run(script, *store, *build, task.folder)
    push = ("push", policy, "--tls-verify=false", "localhost/m:latest")
    task.machine.run(script, *store, *push, f"docker://{task.repository}:latest")


def oras(task: Task) -> None:
    """`oras push` (oras-py): files as blobs. No node can run it; it is the fastest push there is."""
    code = (
        "import sys, pathlib, oras.client\n"
        "files = [str(p) for p in sorted(pathlib.Path(sys.argv[2]).iterdir())]\n"
        "oras.client.OrasClient(insecure=True).push(\n"
        "    target=sys.argv[1], files=files, disable_path_validation=True)\n"
    )
    task.machine.run(task.peers / "bin/python", "-c", code, f"{task.repository}:latest", task.folder)


def olot(task: Task) -> None:
    """olot adds the files to a layout as layers, and skopeo copies it to the registry."""
    layout = task.machine.folder / "olot"
    if not layout.exists():
        _empty_layout(layout)
    files = [str(path) for path in sorted(task.folder.iterdir())]
    task.machine.run(task.peers / "bin/olot", layout, *files)
    command = [str(task.peers / "skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
    task.machine.run(*command, f"oci:{layout}:latest", f"docker://{task.repository}:latest")


def _empty_layout(folder: Path) -> None:
    """A layout of the base alone, as olot wants one to begin with."""
    from modelcar.base import busybox_layer
    from modelcar.manifest import LAYER_TYPES, ImageLayer, make_image, sha256_digest
    from modelcar.oci_layout import open_store

    content = busybox_layer(Path("/bin/true").read_bytes())
    digest = sha256_digest(content)
    with open_store(folder) as store:
        store.add(digest, content)
        layer = ImageLayer(digest, len(content), digest, LAYER_TYPES["none"], "modelcar: base")
        store.publish(make_image([layer], "amd64", {"Env": ["PATH=/bin"]}))
    index = json.loads((folder / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index["manifests"][0]["platform"] = {"architecture": "amd64", "os": "linux"}
    (folder / "index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "ingest")


def layout_context(task: Task) -> None:
    """Ours by buildx alone: the fetched layout as a named context."""
    image = modelcar_image(task.lock, BASE)
    task.machine.run(
        *("buildx", "build", "--quiet", "--provenance=false", "--builder", BUILDER),
        *("--build-arg", "SOURCE_DATE_EPOCH=0"),
        *("--build-context", f"weights={context_of(task.layout, image.digest)}"),
        *("--output", f"{export_options(image, insecure=True)},name={task.repository}:latest"),
        PROJECT / "modelcar",
    )


def remote_context(task: Task) -> None:
    """Layers pushed straight from the layout, two at a time; BuildKit then finds them in the registry."""
    image = modelcar_image(task.lock, BASE)
    base = f"http://{task.machine.registry}/v2/{task.name}"
    blobs = [*(layer.digest for layer in image.layers), image.config_digest]

    def push(digest: str) -> None:
        with httpx.Client(timeout=600, trust_env=False) as client:
            path = task.layout / "blobs" / digest.replace(":", "/")
            if has_blob(client, base, digest, path.stat().st_size):
                return
            target = upload_place(client, base, digest)
            with path.open("rb") as blob:
                headers = {"Content-Length": str(path.stat().st_size)}
                content = iter(lambda: blob.read(2**20), b"")
                client.put(target, content=content, headers=headers).raise_for_status()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(push, blobs))
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    place = f"{base}/manifests/{image.digest}"
    httpx.put(place, content=image.manifest, headers=headers, trust_env=False).raise_for_status()
    dockerfile = task.machine.folder / "Dockerfile.remote"
    dockerfile.write_text(f"FROM {task.repository}@{image.digest}\n")
    task.machine.run(
        *("buildx", "build", "--quiet", "--provenance=false", "--builder", BUILDER, "--file", dockerfile),
        *("--build-arg", "SOURCE_DATE_EPOCH=0"),
        *("--output", f"{export_options(image, insecure=True)},name={task.repository}:latest"),
        PROJECT / "modelcar",
    )


PROGRAM = """
from pathlib import Path
from components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar.base import read_base
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
PROJECT = Path(__file__).absolute().parent
lock = read_lock(lock_path(PROJECT, "{name}"))
ModelcarImage("m", ModelcarImageArgs(lock=lock, base=read_base("amd64"), registry="{registry}/pulumi",
                                     name="{name}", builder="bench", insecure=True, project=PROJECT))
"""


def make_program(project: Path, machine: Machine, name: str) -> None:
    """Write a Pulumi project with this one image, and one with nothing at all."""
    for part in PARTS:
        if not (project / part).exists():
            (project / part).symlink_to(PROJECT / part)
    for folder, program in (
        (project, PROGRAM.format(name=name, registry=machine.registry)),
        (bare(project), ""),
    ):
        folder.mkdir(exist_ok=True)
        (folder / "__main__.py").write_text(program)
        (folder / "Pulumi.yaml").write_text(
            f"name: bench-{folder.name}\n"
            "runtime: {name: python, options: {toolchain: uv, virtualenv: .venv}}\n"
        )
        if not (folder / ".venv").exists():
            (folder / ".venv").symlink_to(PROJECT / ".venv")
        machine.run("pulumi", "stack", "init", "bench", "--non-interactive", cwd=folder)


def bare(project: Path) -> Path:
    """Folder of the program that declares nothing: what Pulumi costs by itself."""
    return project / "bare"


def pulumi(folder: Path, machine: Machine, *arguments: str) -> None:
    """Run Pulumi on a benchmark's stack."""
    machine.run("pulumi", *arguments, "--stack", "bench", "--non-interactive", cwd=folder)


def pulumi_up(task: Task) -> None:
    """Ours as it is used: `pulumi up` through the docker-build provider."""
    pulumi(task.project, task.machine, "up", "--yes", "--skip-preview")


WAYS: dict[str, Callable[[Task], None]] = {
    "floor": floor,
    "layout context": layout_context,
    "remote context": remote_context,
    "oras": oras,
    "olot + skopeo": olot,
    "buildx uncompressed": buildx_uncompressed,
    "buildx zstd": buildx_zstd,
    "buildah": buildah,
    "buildx default": buildx_default,
    "pulumi up": pulumi_up,  # last: it changes a file
}
#: Ways that run the peers' own packages.
OF_PEERS = frozenset({"oras", "olot + skopeo"})
#: Ways that run buildah.
OF_BUILDAH = frozenset({"buildah"})
