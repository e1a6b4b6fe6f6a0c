"""The programs that the local stack runs: found on PATH, or built once from registry packages.

A program of the user's own is preferred where its version does not matter to what is tested (the
Pulumi CLI, its plugins, buildx, Debian's parts). Kubernetes and KServe are always the pinned ones.

`python -m local.tools NAME` finds or builds one program and prints its path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, PROJECT, cache_root, state_root
from modelcar.errors import InputError, refuse

PULUMI_VERSION = "3.259.0"
KUBERNETES_PLUGIN_VERSION = "4.34.2"
GCP_PLUGIN_VERSION = "10.2.0"
DOCKER_BUILD_VERSION = "0.0.22"
HELM_VERSION = "3.22.0"
ACTIONLINT_VERSION = "1.7.12"

#: What the Go module cache and build cache grow to on a first build, measured: 5.5 GiB and 4 GiB.
BUILD_DISK_BYTES = 10 * 2**30

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Tool:
    """A program built with `go build` from a module pinned under local/tools/."""

    name: str
    version: str
    module: str
    package: str
    ldflags: str = ""
    on_path: tuple[str, ...] = ()


_K8S = "k8s.io/component-base/version"
_K8S_FLAGS = f"-X {_K8S}.gitVersion=v{KUBERNETES_VERSION} -X {_K8S}.gitMajor=1 -X {_K8S}.gitMinor=34"

TOOLS = (
    Tool(
        "pulumi",
        PULUMI_VERSION,
        "pulumi",
        "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{PULUMI_VERSION}",
        on_path=("pulumi",),
    ),
    Tool(
        "pulumi-resource-docker-build",
        DOCKER_BUILD_VERSION,
        "docker-build",
        "github.com/pulumi/pulumi-docker-build/provider/cmd/pulumi-resource-docker-build",
        f"-X github.com/pulumi/pulumi-docker-build/provider.Version={DOCKER_BUILD_VERSION}",
        on_path=("pulumi-resource-docker-build",),
    ),
    Tool("buildkitd", "0.31.0", "docker-build", "github.com/moby/buildkit/cmd/buildkitd"),
    Tool("buildx", "0.35.0", "docker-build", "github.com/docker/buildx/cmd/buildx"),
    *(
        Tool(name, KUBERNETES_VERSION, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _K8S_FLAGS, path)
        for name, path in (
            ("kube-apiserver", ()),
            ("kube-controller-manager", ()),
            ("kube-scheduler", ()),
            ("kubelet", ()),
            ("kubectl", ("kubectl",)),
        )
    ),
    Tool("kserve-manager", KSERVE_VERSION, "kserve", "github.com/kserve/kserve/cmd/manager"),
    Tool(
        "helm",
        HELM_VERSION,
        "helm",
        "helm.sh/helm/v3/cmd/helm",
        f"-X helm.sh/helm/v3/internal/version.version=v{HELM_VERSION}",
        on_path=("helm",),
    ),
    Tool(
        "actionlint",
        ACTIONLINT_VERSION,
        "actionlint",
        "github.com/rhysd/actionlint/cmd/actionlint",
        f"-X github.com/rhysd/actionlint.version={ACTIONLINT_VERSION}",
        on_path=("actionlint",),
    ),
)

#: Not part of the local stack: collected only when asked for by name.
ON_REQUEST = ("helm", "actionlint")


@dataclass(frozen=True)
class DebianPart:
    """A program from a Debian package. `program` is looked up on PATH and in the folders of Debian."""

    program: str
    package: str


DEBIAN_PARTS = (
    DebianPart("etcd", "etcd-server"),
    DebianPart("docker-registry", "docker-registry"),
    DebianPart("containerd", "containerd"),
    DebianPart("containerd-shim-runc-v2", "containerd"),
    DebianPart("runc", "runc"),
    DebianPart("bridge", "containernetworking-plugins"),
    DebianPart("busybox", "busybox-static"),
    DebianPart("ip", "iproute2"),
    DebianPart("unshare", "util-linux"),
)


@dataclass(frozen=True)
class Toolbox:
    """Where each program is, and the PATH under which Pulumi finds its plugins.

    embedded: for the embedded platform; False where cluster, registry and builder are the user's own.
    """

    programs: dict[str, Path]
    path: str
    kserve: Path
    standins: tuple[str, ...] = field(default=())
    embedded: bool = True

    def __getitem__(self, name: str) -> str:
        """Return the path of a program."""
        return str(self.programs[name])


#: What is needed where the cluster, the registry and the builder are the user's own.
CLIENT_TOOLS = ("pulumi", "pulumi-resource-docker-build", "buildx", "kubectl")


def collect(
    progress: Progress,
    *,
    embedded: bool = True,
    extra: tuple[str, ...] = (),
    plugins: tuple[str, ...] = ("kubernetes",),
) -> Toolbox:
    """Find or build every program, with a line of progress for each that took time.

    Args:
        progress: takes the lines.
        embedded: also what the embedded platform runs; False where the user has a cluster and a registry.
        extra: names out of ON_REQUEST, to be collected too.
        plugins: names out of PLUGINS, which the stack needs; docker-build always is there.

    Raises:
        InputError: parts are missing and cannot be installed, Go is missing, or the disk is too full.
    """
    if embedded:
        _require_linux_root()
    debian = _debian_parts(progress) if embedded else {}
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=embedded, extra=extra)]
    built = {tool.name: _find_or_build(tool, progress) for tool in wanted}
    kserve = _kserve_manifests(progress) if embedded else tools_folder()
    standins = _missing_plugins(built["pulumi"], plugins)
    folders = [built["pulumi"].parent, tools_folder() / "bin"]
    # Last on PATH: an official program always wins over its stand-in.
    standin_folder = _standin_folder(standins)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), str(standin_folder)])
    return Toolbox({**debian, **built}, path, kserve, standins, embedded)


def _is_wanted(name: str, *, embedded: bool, extra: tuple[str, ...]) -> bool:
    if name in ON_REQUEST:
        return name in extra
    return embedded or name in CLIENT_TOOLS


def find_tool(name: str, progress: Progress) -> Path:
    """Find or build one program of TOOLS.

    Raises:
        InputError: there is none of this name, Go is missing, the disk is too full or the build failed.
    """
    for tool in TOOLS:
        if tool.name == name:
            return _find_or_build(tool, progress)
    raise refuse(
        "tool",
        name,
        allowed=", ".join(sorted(tool.name for tool in TOOLS)),
        fix="name one of these",
    )


def kserve_charts(progress: Progress) -> Path:
    """Return the folder of KServe's own Helm charts, one folder each (`kserve-crd`, `kserve-resources`, …).

    Raises:
        InputError: they are not in the cache, and KServe's Go module cannot be downloaded.
    """
    return _kserve_manifests(progress) / "charts"


def tools_folder() -> Path:
    """Return the folder that built and unpacked programs are kept in."""
    return cache_root() / "tools"


def _require_linux_root() -> None:
    """The platform needs namespaces and a kubelet: Linux and root."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise refuse(
            "user",
            f"{sys.platform}, uid {os.geteuid()}",
            allowed="root on Linux: the embedded platform runs a real kubelet in namespaces of its own",
            fix="run `sudo make up`; or point the stack at a cluster and registry that you have: "
            "`pulumi config set modelcar:kubeContext …` and `modelcar:registry …` (docs/local-stack.md)",
        )


# --- Debian packages -------------------------------------------------------------------------------


def _debian_parts(progress: Progress) -> dict[str, Path]:
    """Find Debian's parts; unpack missing ones into the cache, so that no system service is started."""
    root = tools_folder() / "debian"
    found = {part.program: _find_debian(part.program, root) for part in DEBIAN_PARTS}
    missing = sorted({part.package for part in DEBIAN_PARTS if found[part.program] is None})
    if missing:
        started = time.monotonic()
        _unpack_debian(missing, root)
        found = {part.program: _find_debian(part.program, root) for part in DEBIAN_PARTS}
        progress(f"Debian parts ({', '.join(missing)}) unpacked in {time.monotonic() - started:.0f} s")
    still_missing = sorted({part.package for part in DEBIAN_PARTS if found[part.program] is None})
    if still_missing:
        raise _cannot_install(still_missing, "not in the packages that were unpacked")
    programs = {name: path for name, path in found.items() if path is not None}
    _require_shared_libraries(programs)
    return programs


def _find_debian(program: str, root: Path) -> Path | None:
    folders = ["usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/cni"]
    if program == "bridge":  # a CNI plug-in; iproute2 has a program of the same name
        candidates = [Path("/usr/lib/cni/bridge"), Path("/opt/cni/bin/bridge"), root / "usr/lib/cni/bridge"]
        return next((path for path in candidates if path.exists()), None)
    if program == "busybox":
        candidates = [root / "bin/busybox", root / "usr/bin/busybox", Path("/bin/busybox")]
        return next((path for path in candidates if path.exists() and _is_static(path)), None)
    on_path = shutil.which(program)
    if on_path:
        return Path(on_path)
    local = [root / folder / program for folder in folders]
    system = [Path("/") / folder / program for folder in folders]
    return next((path for path in [*local, *system] if path.exists()), None)


def _is_static(path: Path) -> bool:
    """A static program has no interpreter segment (PT_INTERP), which names the dynamic loader."""
    with path.open("rb") as file:
        return b"/ld-linux" not in file.read(4096) and b"/ld-musl" not in path.read_bytes()[:4096]


def _unpack_debian(packages: list[str], root: Path) -> None:
    if os.environ.get("MODELCAR_NO_INSTALL"):
        raise _cannot_install(packages, "MODELCAR_NO_INSTALL is set")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise _cannot_install(packages, "this machine has no apt-get")
    root.mkdir(parents=True, exist_ok=True)
    downloads = root / "packages"
    downloads.mkdir(exist_ok=True)
    _own_by_sandbox_user(downloads)
    fetch = ["apt-get", "download", *packages]
    result = subprocess.run(fetch, cwd=downloads, capture_output=True, text=True, check=False)
    if result.returncode:
        update = subprocess.run(["apt-get", "update"], capture_output=True, text=True, check=False)
        result = subprocess.run(fetch, cwd=downloads, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr or update.stderr).strip().splitlines()
            raise _cannot_install(packages, reason[-1] if reason else "apt-get download failed")
    for archive in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
    shutil.rmtree(downloads)


def _own_by_sandbox_user(folder: Path) -> None:
    """apt downloads as the user _apt where it can; without this it only warns."""
    try:
        shutil.chown(folder, "_apt")
    except (LookupError, PermissionError):
        return


def _require_shared_libraries(programs: dict[str, Path]) -> None:
    """An unpacked package brings no libraries: name those that the machine lacks."""
    runc = programs["runc"]
    result = subprocess.run([str(runc), "--version"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise _cannot_install(["libseccomp2"], f"{runc} does not start: {result.stderr.strip()}")


def _cannot_install(packages: list[str], reason: str) -> InputError:
    return refuse(
        "Debian packages " + ", ".join(packages),
        f"missing ({reason})",
        allowed="these programs on PATH: " + ", ".join(part.program for part in DEBIAN_PARTS),
        fix=f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {' '.join(packages)}",
    )


# --- Go modules ------------------------------------------------------------------------------------


def _find_or_build(tool: Tool, progress: Progress) -> Path:
    for name in tool.on_path:
        found = _which(name)
        if found:
            return found
    target = tools_folder() / "bin" / tool.name
    stamp = tools_folder() / "stamps" / tool.name
    wanted = _fingerprint(tool)
    if target.exists() and stamp.exists() and stamp.read_text() == wanted:
        return target
    _require_go(tool)
    _require_disk()
    progress(f"building {tool.name} {tool.version} from its Go module …")
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    command += ["-ldflags", f"-s -w {tool.ldflags}".strip(), "-o", str(target), tool.package]
    result = subprocess.run(
        command,
        cwd=_module_folder(tool.module),
        env={**os.environ, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise refuse(
            f"go build {tool.package}",
            f"exit status {result.returncode}\n{tail}",
            allowed="a build from the pinned modules",
            fix="check that a Go module proxy is reachable (`go env GOPROXY`), then run the command again",
        )
    stamp.write_text(wanted)
    progress(f"built {tool.name} {tool.version} in {time.monotonic() - started:.0f} s")
    return target


def _which(name: str) -> Path | None:
    """Look on PATH, but not at what we built ourselves: that is checked against its pins."""
    found = shutil.which(name)
    if not found:
        return None
    ours = tools_folder() / "bin"
    return None if Path(found).parent == ours else Path(found)


def _module_folder(module: str) -> Path:
    return PROJECT / "local" / "tools" / module


def _fingerprint(tool: Tool) -> str:
    """Everything that a build depends on, so that a changed pin rebuilds and nothing else does."""
    digest = hashlib.sha256(f"{tool}".encode())
    for file in ("go.mod", "go.sum"):
        digest.update((_module_folder(tool.module) / file).read_bytes())
    return digest.hexdigest()


def _require_go(tool: Tool) -> None:
    if shutil.which("go"):
        return
    raise refuse(
        "go",
        f"not on PATH, needed to build {tool.name} {tool.version}",
        allowed="Go 1.26 or newer",
        fix="install Go from https://go.dev/dl/ (or your distribution), then run the command again",
    )


def _require_disk() -> None:
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < BUILD_DISK_BYTES:
        raise refuse(
            f"free disk at {folder}",
            f"{free / 2**30:.1f} GiB",
            allowed=f"{BUILD_DISK_BYTES / 2**30:.0f} GiB for the first build of the tools",
            fix="free some disk, or set MODELCAR_CACHE to a folder on a larger one",
        )


#: What is kept of KServe's module: its manifests, and its Helm charts.
KSERVE_PARTS = ("config", "charts")


def _kserve_manifests(progress: Progress) -> Path:
    """Return KServe's own CRDs, webhooks, configuration and charts, kept beside the tools."""
    target = tools_folder() / f"kserve-{KSERVE_VERSION}"
    missing = [part for part in KSERVE_PARTS if not (target / part).exists()]
    if not missing:
        return target
    module = _kserve_module()
    target.mkdir(parents=True, exist_ok=True)
    for part in missing:
        # Of this process alone, so that two runs cannot disturb each other.
        staging = target.with_name(f"{target.name}.{part}.{os.getpid()}.part")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(module / part, staging, copy_function=shutil.copyfile)
        try:
            staging.rename(target / part)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if not (target / part).exists():
                raise
    progress(f"KServe {KSERVE_VERSION} {' and '.join(missing)} ready")
    return target


def _kserve_module() -> Path:
    """Download KServe's Go module, unless it is in the module cache, and return its folder."""
    _require_go(next(tool for tool in TOOLS if tool.module == "kserve"))
    result = subprocess.run(
        ["go", "mod", "download", "-json", f"github.com/kserve/kserve@v{KSERVE_VERSION}"],
        cwd=_module_folder("kserve"),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise refuse(
            f"Go module github.com/kserve/kserve@v{KSERVE_VERSION}",
            result.stderr.strip() or result.stdout.strip(),
            allowed="a download from a Go module proxy",
            fix="check that a Go module proxy is reachable (`go env GOPROXY`), then run the command again",
        )
    return Path(json.loads(result.stdout)["Dir"])


# --- Pulumi's plugins ------------------------------------------------------------------------------


#: Official plugins that a stand-in can serve for: name → version.
PLUGINS = {"kubernetes": KUBERNETES_PLUGIN_VERSION, "gcp": GCP_PLUGIN_VERSION}
#: Comes with the Pulumi CLI.
LANGUAGE_HOST = "pulumi-language-python"


def _missing_plugins(pulumi: Path, plugins: Iterable[str] = ("kubernetes",)) -> tuple[str, ...]:
    """Say which official programs are missing and cannot be had, so that a stand-in has to serve."""
    has_host = _which(LANGUAGE_HOST) or (pulumi.parent / LANGUAGE_HOST).exists()
    missing = [] if has_host else [LANGUAGE_HOST]
    for name in plugins:
        program = f"pulumi-resource-{name}"
        if not _which(program) and not _plugin(name, PLUGINS[name], pulumi):
            missing.append(program)
    return tuple(missing)


def _plugin(name: str, version: str, pulumi: Path) -> bool:
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    if (home / "plugins" / f"resource-{name}-v{version}").is_dir():
        return True
    try:
        socket.getaddrinfo("get.pulumi.com", 443)
    except OSError:
        return False  # no way to Pulumi's downloads from here
    result = subprocess.run(
        [str(pulumi), "plugin", "install", "resource", name, version],
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        capture_output=True,
        check=False,
    )
    return result.returncode == 0


def _standin_folder(standins: Iterable[str]) -> Path:
    """A folder of this checkout's that holds only the stand-ins that are needed."""
    folder = state_root() / "standins"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(standins)
    for link in folder.iterdir():
        if link.name not in wanted:
            link.unlink()
    for name in wanted:
        link = folder / name
        source = PROJECT / "standins" / "bin" / name
        if link.is_symlink() and link.readlink() == source:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Find or build one program; print its path, and what it took on standard error."""
    parser = argparse.ArgumentParser(prog="python -m local.tools", description=main.__doc__)
    parser.add_argument("name", help=", ".join(sorted(tool.name for tool in TOOLS)))
    try:
        found = find_tool(parser.parse_args(arguments).name, lambda line: print(line, file=sys.stderr))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
