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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local import kubernetes_provider
from local.debian import debian_parts
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, PROJECT, cache_root
from local.netfilter import netfilter
from local.plugins import KUBERNETES_PLUGIN, find_plugins, plugin_folder
from modelcar.errors import InputError, refuse

PULUMI_VERSION = "3.274.1"
PULUMI_YAML_VERSION = "1.25.0"
DOCKER_BUILD_VERSION = "0.0.22"
BUILDKIT_VERSION = "0.31.0"
HELM_VERSION = "3.22.0"
D2_VERSION = "0.7.2"
ACTIONLINT_VERSION = "1.7.12"
COSIGN_VERSION = "3.1.3"
GOVULNCHECK_VERSION = "1.9.0"
KUBE_ROUTER_VERSION = "2.1.0"
KANIKO_VERSION = "1.24.0"
KYVERNO_VERSION = "1.19.1"
COREDNS_VERSION = "1.15.0"
ARGOCD_VERSION = "3.2.2"
KEDA_VERSION = "2.21.0"
KNATIVE_VERSION = "0.48.1"
#: Programs of Knative Serving.
KNATIVE = ("activator", "autoscaler", "controller", "webhook", "queue")
#: An older KServe, which the smoke test is tried against.
OLDER_KSERVE_VERSION = "0.16.0"
OLDER_KSERVE = "kserve-manager-older"

#: What the newest of the programs asks for in its go.mod (Pulumi's CLI).
OLDEST_GO = (1, 26, 6)

#: Lets the kubelet advertise this machine's GPUs.
DEVICE_PLUGIN = "modelcar-device-plugin"

#: What the Go module cache and build cache grow to on a first build, measured: 5.5 GiB and 4 GiB.
BUILD_DISK_BYTES = 10 * 2**30

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Tool:
    """A program built with `go build` from a module pinned under local/tools/.

    package: a path that starts with `./` is a package of this project, beside the pins.
    """

    name: str
    version: str
    module: str
    package: str
    ldflags: str = ""
    on_path: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where it is kept, below the folder of the tools."""
        return "bin"

    @property
    def target(self) -> Path:
        """What is built."""
        return tools_folder() / self.folder / self.name


@dataclass(frozen=True)
class Plugin(Tool):
    """A plugin of Pulumi's own, for where the official one cannot be had; else it must not be on PATH.

    Pulumi takes a plugin on PATH before one that it installed itself.
    """

    @property
    def folder(self) -> str:
        """A folder that never is on PATH."""
        return "plugins"


_K8S = "k8s.io/component-base/version"
_K8S_FLAGS = f"-X {_K8S}.gitVersion=v{KUBERNETES_VERSION} -X {_K8S}.gitMajor=1 -X {_K8S}.gitMinor=34"

_ARGOCD_FLAGS = f"-X github.com/argoproj/argo-cd/v3/common.version={ARGOCD_VERSION}"
_KEDA_FLAGS = f"-X github.com/kedacore/keda/v2/version.Version={KEDA_VERSION}"

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
    Plugin(
        KUBERNETES_PLUGIN,
        kubernetes_provider.VERSION,
        "kubernetes-provider",
        "./",
        f"-X {kubernetes_provider.MODULE}/pkg/version.Version={kubernetes_provider.VERSION}",
        on_path=(KUBERNETES_PLUGIN,),
    ),
    Tool("buildkitd", BUILDKIT_VERSION, "docker-build", "github.com/moby/buildkit/cmd/buildkitd"),
    Tool("buildctl", BUILDKIT_VERSION, "docker-build", "github.com/moby/buildkit/cmd/buildctl"),
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
    # Of the kubelet's own module graph, so that both speak the same device plugin API.
    Tool(DEVICE_PLUGIN, KUBERNETES_VERSION, "kubernetes", "./device-plugin"),
    Tool("kserve-manager", KSERVE_VERSION, "kserve", "github.com/kserve/kserve/cmd/manager"),
    Tool(OLDER_KSERVE, OLDER_KSERVE_VERSION, "kserve-0.16", "github.com/kserve/kserve/cmd/manager"),
    Tool(
        "kube-router",
        KUBE_ROUTER_VERSION,
        "kube-router",
        "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
    ),
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
    Tool(
        "cosign",
        COSIGN_VERSION,
        "cosign",
        "github.com/sigstore/cosign/v3/cmd/cosign",
        f"-X sigs.k8s.io/release-utils/version.gitVersion=v{COSIGN_VERSION}",
        on_path=("cosign",),
    ),
    Tool(
        "govulncheck",
        GOVULNCHECK_VERSION,
        "govulncheck",
        "golang.org/x/vuln/cmd/govulncheck",
        on_path=("govulncheck",),
    ),
    # Runs the examples of other languages: nothing else here is written in YAML.
    Tool(
        "pulumi-language-yaml",
        PULUMI_YAML_VERSION,
        "pulumi-yaml",
        "github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml",
        f"-X github.com/pulumi/pulumi-yaml/pkg/version.Version={PULUMI_YAML_VERSION}",
        on_path=("pulumi-language-yaml",),
    ),
    # Writes SDKs of the package's provider, which tests compile.
    Tool("pulumi-sdks", PULUMI_VERSION, "pulumi-sdks", "./generate"),
    Tool("d2", D2_VERSION, "d2", "oss.terrastruct.com/d2"),
    Tool(
        "kaniko",
        KANIKO_VERSION,
        "kaniko",
        "github.com/GoogleContainerTools/kaniko/cmd/executor",
        f"-X github.com/GoogleContainerTools/kaniko/pkg/version.version=v{KANIKO_VERSION}",
    ),
    Tool(
        "kyverno",
        KYVERNO_VERSION,
        "kyverno",
        "github.com/kyverno/kyverno/cmd/kyverno",
        f"-X github.com/kyverno/kyverno/pkg/version.BuildVersion=v{KYVERNO_VERSION}",
    ),
    # Of addons of the platform (local/addons.py).
    Tool("kube-proxy", KUBERNETES_VERSION, "kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", _K8S_FLAGS),
    Tool("coredns", COREDNS_VERSION, "coredns", "./coredns"),
    *(
        Tool(name, KEDA_VERSION, "keda", f"github.com/kedacore/keda/v2/cmd/{part}", _KEDA_FLAGS)
        for name, part in (
            ("keda", "operator"),
            ("keda-adapter", "adapter"),
            ("keda-admission-webhooks", "webhooks"),
        )
    ),
    *(
        Tool(f"knative-{name}", KNATIVE_VERSION, "knative", f"knative.dev/serving/cmd/{name}")
        for name in KNATIVE
    ),
    Tool("argocd", ARGOCD_VERSION, "argocd", "github.com/argoproj/argo-cd/v3/cmd", _ARGOCD_FLAGS),
)

#: Not part of the local stack: collected only when asked for by name.
ON_REQUEST = (
    "helm",
    "actionlint",
    "cosign",
    "buildctl",
    "kaniko",
    "kyverno",
    "d2",
    "govulncheck",
    "pulumi-language-yaml",
    "pulumi-sdks",
    OLDER_KSERVE,
    DEVICE_PLUGIN,
    "kube-proxy",
    "coredns",
    "keda",
    "keda-adapter",
    "keda-admission-webhooks",
    *(f"knative-{name}" for name in KNATIVE),
    "argocd",
)


@dataclass(frozen=True)
class Toolbox:
    """Where each program is, and the PATH under which Pulumi finds its plugins.

    netfilter: folder of iptables and ipset; None where they do not work, or are not needed.
    embedded: for the embedded platform; False where cluster, registry and builder are the user's own.
    registry_front: a program that stands before the registry, without its last two arguments, which are the
        addresses that it listens on and passes on to; empty: clients reach the registry itself.
    built_plugins: Pulumi's own plugins that were built here, because the official ones cannot be had.
    downloads_plugins: whether Pulumi could download a plugin that a stack needs and that is not here.
    """

    programs: dict[str, Path]
    path: str
    kserve: Path
    netfilter: Path | None = None
    standins: tuple[str, ...] = field(default=())
    embedded: bool = True
    registry_front: tuple[str, ...] = ()
    built_plugins: tuple[str, ...] = ()
    downloads_plugins: bool = True

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
    debian = debian_parts(tools_folder() / "debian", progress) if embedded else {}
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=embedded, extra=extra)]
    built = {tool.name: _find_or_build(tool, progress) for tool in wanted if not isinstance(tool, Plugin)}
    kserve = _kserve_manifests(progress, KSERVE_VERSION) if embedded else tools_folder()
    found = find_plugins(built["pulumi"], _which, plugins)
    missing = set(found.missing)
    own = {
        tool.name: _build(tool, progress)
        for tool in TOOLS
        if isinstance(tool, Plugin) and tool.name in missing
    }
    standins = tuple(name for name in found.missing if name not in own)
    folders = [built["pulumi"].parent, tools_folder() / "bin"]
    # Last on PATH: an official program always wins over ours.
    own_path = os.environ.get("PATH", "")
    path = os.pathsep.join([*map(str, folders), own_path, str(plugin_folder(standins, own))])
    filters = netfilter(tools_folder() / "netfilter", progress) if embedded else None
    return Toolbox(
        {**debian, **built, **own},
        path,
        kserve,
        filters,
        standins,
        embedded,
        built_plugins=tuple(own),
        downloads_plugins=found.downloads,
    )


def with_older_kserve(tools: Toolbox, progress: Progress) -> Toolbox:
    """Return the same tools, with the older KServe, which they were collected with (OLDER_KSERVE)."""
    programs = {**tools.programs, "kserve-manager": tools.programs[OLDER_KSERVE]}
    return replace(tools, programs=programs, kserve=_kserve_manifests(progress, OLDER_KSERVE_VERSION))


def _is_wanted(name: str, *, embedded: bool, extra: tuple[str, ...]) -> bool:
    if name in ON_REQUEST:
        return name in extra
    return embedded or name in CLIENT_TOOLS


def signing_tools(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names out of ON_REQUEST that a stack with these settings needs to sign images."""
    return ("cosign",) if settings.get("signature") else ()


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


def build_all(progress: Progress, extra: tuple[str, ...] = ()) -> dict[str, Path]:
    """Build what the embedded platform runs, whatever is on PATH, for a machine that has none of it.

    Args:
        progress: takes a line for each that took time.
        extra: names out of ON_REQUEST, to be built too.

    Raises:
        InputError: Go is missing, the disk is too full or a build failed.
    """
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=True, extra=extra)]
    return {tool.name: _build(tool, progress) for tool in wanted}


def fingerprints(extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return, for each program that the embedded platform builds, all that its build depends on."""
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=True, extra=extra)]
    return {tool.name: _fingerprint(tool) for tool in wanted}


def mark_as_built(built: Mapping[str, str]) -> None:
    """Let programs that came from elsewhere count as built: they are of these fingerprints."""
    folder = tools_folder() / "stamps"
    folder.mkdir(parents=True, exist_ok=True)
    for name, fingerprint in built.items():
        (folder / name).write_text(fingerprint)


def kserve_manifests(progress: Progress) -> Path:
    """Return the folder of KServe's own CRDs, webhooks, configuration and charts.

    Raises:
        InputError: they are not in the cache, and KServe's Go module cannot be downloaded.
    """
    return _kserve_manifests(progress, KSERVE_VERSION)


def kserve_charts(progress: Progress) -> Path:
    """Return the folder of KServe's own Helm charts, one folder each (`kserve-crd`, `kserve-resources`, …).

    Raises:
        InputError: they are not in the cache, and KServe's Go module cannot be downloaded.
    """
    return _kserve_manifests(progress, KSERVE_VERSION) / "charts"


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


# --- Go modules ------------------------------------------------------------------------------------


def _find_or_build(tool: Tool, progress: Progress) -> Path:
    on_path = (found for name in tool.on_path if (found := _which(name)))
    return next(on_path, None) or _build(tool, progress)


def _build(tool: Tool, progress: Progress) -> Path:
    target = tool.target
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
    # Without DWARF, which the linker would leave out: a fifth less to compute.
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-dwarf=false"]
    command += ["-ldflags", f"-s -w {tool.ldflags}".strip(), "-o", str(target)]
    with tempfile.TemporaryDirectory(prefix="modelcar-build-") as scratch:
        result = subprocess.run(
            [*command, *_overlay(tool, Path(scratch)), tool.package],
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


def _overlay(tool: Tool, folder: Path) -> list[str]:
    """Write the files that a tool embeds to a folder; return what `go build` needs to be told of them."""
    if tool.name != KUBERNETES_PLUGIN:
        return []
    module = Path(download_module(tool.module, kubernetes_provider.MODULE)["Dir"])
    files = kubernetes_provider.embedded_files(module, tool.version)
    return ["-overlay", str(kubernetes_provider.overlay(_module_folder(tool.module), files, folder))]


def _which(name: str) -> Path | None:
    """Look on PATH, but not at ours: what we built is checked against its pins, and a stand-in is none."""
    found = shutil.which(name)
    if not found:
        return None
    path = Path(found)
    built = path.parent == tools_folder() / "bin" or path.resolve().parts[-3:-1] == ("tools", "plugins")
    # Also another checkout's: a shell may have its environment.
    standin = path.resolve().parts[-3:-1] == ("standins", "bin")
    return None if built or standin else path


def _module_folder(module: str) -> Path:
    return PROJECT / "local" / "tools" / module


def _fingerprint(tool: Tool) -> str:
    """Everything that a build depends on, so that a changed pin rebuilds and nothing else does."""
    digest = hashlib.sha256(f"{tool}".encode())
    folder = _module_folder(tool.module)
    for file in ("go.mod", "go.sum"):
        digest.update((folder / file).read_bytes())
    if tool.package.startswith("./"):
        package = folder / tool.package
        for source in sorted([*package.rglob("*.go"), *package.rglob("go.mod")]):
            if not source.name.endswith("_test.go"):
                digest.update(f"{source.name}\0".encode() + source.read_bytes())
    if isinstance(tool, Plugin):
        digest.update(Path(kubernetes_provider.__file__).read_bytes())
    return digest.hexdigest()


def _require_go(tool: Tool) -> None:
    if shutil.which("go"):
        return
    raise refuse(
        "go",
        f"not on PATH, needed to build {tool.name} {tool.version}",
        allowed=f"Go {'.'.join(map(str, OLDEST_GO))} or newer",
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


def _kserve_manifests(progress: Progress, version: str) -> Path:
    """Return KServe's own CRDs, webhooks, configuration and charts, kept beside the tools."""
    target = tools_folder() / f"kserve-{version}"
    missing = [part for part in KSERVE_PARTS if not (target / part).exists()]
    if not missing:
        return target
    module = _kserve_module(version)
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
    progress(f"KServe {version} {' and '.join(missing)} ready")
    return target


def _kserve_module(version: str) -> Path:
    """Download KServe's Go module, unless it is in the module cache, and return its folder."""
    tool = next(tool for tool in TOOLS if tool.module.startswith("kserve") and tool.version == version)
    _require_go(tool)
    return Path(download_module(tool.module, f"github.com/kserve/kserve@v{version}")["Dir"])


def download_module(pins: str, module: str) -> dict[str, Any]:
    """Download a Go module, unless it is in the module cache; return what Go says of it (Dir, Version, …).

    Args:
        pins: folder below local/tools/ whose go.mod and go.sum it is held to.
        module: its path, with `@VERSION` where go.mod does not say which.

    Raises:
        InputError: it cannot be downloaded.
    """
    result = subprocess.run(
        ["go", "mod", "download", "-json", module],
        cwd=_module_folder(pins),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise refuse(
            f"Go module {module}",
            result.stderr.strip() or result.stdout.strip(),
            allowed="a download from a Go module proxy",
            fix="check that a Go module proxy is reachable (`go env GOPROXY`), then run the command again",
        )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


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
