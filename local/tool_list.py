"""The programs that are built here: which, of which version, out of which Go module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local import kubernetes_provider
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, cache_root
from local.plugins import KUBERNETES_PLUGIN

PULUMI_VERSION = "3.274.1"
PULUMI_YAML_VERSION = "1.25.0"
DOCKER_BUILD_VERSION = "0.0.22"
BUILDKIT_VERSION = "0.31.2"
HELM_VERSION = "3.22.0"
D2_VERSION = "0.7.2"
ACTIONLINT_VERSION = "1.7.12"
COSIGN_VERSION = "3.1.3"
GOVULNCHECK_VERSION = "1.9.0"
CONTAINERD_VERSION = "2.4.2"
KUBE_ROUTER_VERSION = "2.1.0"
KANIKO_VERSION = "1.24.0"
KYVERNO_VERSION = "1.19.1"
COREDNS_VERSION = "1.15.0"
ARGOCD_VERSION = "3.2.2"
ARGOCD = "argocd"
#: The last release of version 2, which calls a served model Progressing without the health check of ours.
OLDER_ARGOCD_VERSION = "2.14.21"
OLDER_ARGOCD = "argocd-2.14"
KEDA_VERSION = "2.21.0"
KNATIVE_VERSION = "0.48.1"
#: Programs of Knative Serving.
KNATIVE = ("activator", "autoscaler", "controller", "webhook", "queue")
#: An older KServe, which the smoke test is tried against.
OLDER_KSERVE_VERSION = "0.16.0"
OLDER_KSERVE = "kserve-manager-older"
#: A newer one, which a stack that installs KServe is upgraded to.
NEWER_KSERVE_VERSION = "0.20.0"
NEWER_KSERVE = "kserve-manager-newer"
#: Other container runtimes and another Kubernetes, which image volumes are tried on. Their programs have
#: names of their own here: local/other_versions.py.
OTHER_CONTAINERDS = {"1.7": "1.7.30", "2.1": "2.1.6", "2.2": "2.2.5"}
OLDER_KUBERNETES = ("1.34", "1.34.4")
CONTAINERD_PROGRAMS = ("containerd", "containerd-shim-runc-v2")
KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
#: What KServe's chart needs beside it.
CERT_MANAGER_VERSION = "1.21.2"
CERT_MANAGER = "cert-manager"
KUBE_RBAC_PROXY_VERSION = "0.18.0"

#: Lets the kubelet advertise this machine's GPUs.
DEVICE_PLUGIN = "modelcar-device-plugin"

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


def _version_flags(version: str) -> str:
    major, minor, _ = version.split(".")
    return f"-X {_K8S}.gitVersion=v{version} -X {_K8S}.gitMajor={major} -X {_K8S}.gitMinor={minor}"


_K8S_FLAGS = _version_flags(KUBERNETES_VERSION)
_CONTAINERD = "github.com/containerd/containerd/v2"
_CONTAINERD_FLAGS = f"-X {_CONTAINERD}/version.Version=v{CONTAINERD_VERSION}"
_KEDA_FLAGS = f"-X github.com/kedacore/keda/v2/version.Version={KEDA_VERSION}"


def _argocd_flags(version: str) -> str:
    return f"-X github.com/argoproj/argo-cd/v{version[0]}/common.version={version}"


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
            ("kube-proxy", ()),
        )
    ),
    # Not Debian's: image volumes need 2.1, and their subPath 2.2.
    *(
        Tool(name, CONTAINERD_VERSION, "containerd", f"{_CONTAINERD}/cmd/{name}", _CONTAINERD_FLAGS)
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    # Of the kubelet's own module graph, so that both speak the same device plugin API.
    Tool(DEVICE_PLUGIN, KUBERNETES_VERSION, "kubernetes", "./device-plugin"),
    Tool("kserve-manager", KSERVE_VERSION, "kserve", "github.com/kserve/kserve/cmd/manager"),
    Tool(OLDER_KSERVE, OLDER_KSERVE_VERSION, "kserve-0.16", "github.com/kserve/kserve/cmd/manager"),
    Tool(NEWER_KSERVE, NEWER_KSERVE_VERSION, "kserve-0.20", "github.com/kserve/kserve/cmd/manager"),
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
    *(
        Tool(
            f"{name}-{short}",
            version,
            f"containerd-{short}",
            f"github.com/containerd/containerd{'' if short.startswith('1') else '/v2'}/cmd/{name}",
        )
        for short, version in OTHER_CONTAINERDS.items()
        for name in CONTAINERD_PROGRAMS
    ),
    *(
        Tool(
            f"{name}-{OLDER_KUBERNETES[0]}",
            OLDER_KUBERNETES[1],
            f"kubernetes-{OLDER_KUBERNETES[0]}",
            f"k8s.io/kubernetes/cmd/{name}",
            _version_flags(OLDER_KUBERNETES[1]),
        )
        for name in KUBERNETES_PROGRAMS
    ),
    # Of KServe's own charts, where a test installs them.
    Tool(
        CERT_MANAGER,
        CERT_MANAGER_VERSION,
        "cert-manager",
        "./cert-manager",
        f"-X github.com/cert-manager/cert-manager/pkg/util.AppVersion=v{CERT_MANAGER_VERSION}",
    ),
    Tool(
        "kube-rbac-proxy",
        KUBE_RBAC_PROXY_VERSION,
        "kube-rbac-proxy",
        "github.com/brancz/kube-rbac-proxy/cmd/kube-rbac-proxy",
    ),
    *(
        Tool(
            name,
            version,
            name,
            f"github.com/argoproj/argo-cd/v{version[0]}/cmd",
            _argocd_flags(version),
        )
        for name, version in ((ARGOCD, ARGOCD_VERSION), (OLDER_ARGOCD, OLDER_ARGOCD_VERSION))
    ),
)

#: Not part of the local stack: collected only when asked for by name.
ON_REQUEST = (
    *(f"{name}-{short}" for short in OTHER_CONTAINERDS for name in CONTAINERD_PROGRAMS),
    *(f"{name}-{OLDER_KUBERNETES[0]}" for name in KUBERNETES_PROGRAMS),
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
    NEWER_KSERVE,
    CERT_MANAGER,
    "kube-rbac-proxy",
    DEVICE_PLUGIN,
    "ctr",
    "kube-proxy",
    "coredns",
    "keda",
    "keda-adapter",
    "keda-admission-webhooks",
    *(f"knative-{name}" for name in KNATIVE),
    ARGOCD,
    OLDER_ARGOCD,
)


#: What is needed where the cluster, the registry and the builder are the user's own.
CLIENT_TOOLS = ("pulumi", "pulumi-resource-docker-build", "buildx", "kubectl")


def tools_folder() -> Path:
    """Return the folder that built and unpacked programs are kept in."""
    return cache_root() / "tools"
