"""What the makers of the tools publish: addresses, checksum files and where the program is in an archive.

Each entry names where its rule is from. A maker's checksum file is taken over HTTPS. A checksum that is known
here goes into `pinned`, and no file is asked for then.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from local.plugins import KUBERNETES_PLUGIN
from local.processor import ARCHITECTURES
from local.tool_list import (
    ARGOCD,
    CERT_MANAGER,
    CONTAINERD_PROGRAMS,
    DEVICE_PLUGIN,
    KNATIVE,
    KUBERNETES_PROGRAMS,
    NEWER_KSERVE,
    OLDER_ARGOCD,
    OLDER_KSERVE,
    OLDER_KUBERNETES,
    OTHER_CONTAINERDS,
)

#: For makers that call the processors as Go does.
_AS_GO = {"amd64": "amd64", "arm64": "arm64"}


@dataclass(frozen=True)
class Release:
    """A file that a maker publishes. Addresses hold {version} and {arch}.

    url: of the file.
    sums: of the file that holds its SHA-256; see `sums.sha256_in` for the formats.
    member: path of the program in it, where it is a tar.gz; empty: the file is the program.
    names: what the maker calls this project's processors (amd64, arm64); others have no release.
    pinned: SHA-256 by processor, where it is known here.
    """

    url: str
    sums: str
    member: str = ""
    names: Mapping[str, str] = field(default_factory=lambda: _AS_GO)
    pinned: Mapping[str, str] = field(default_factory=dict)

    def address(self, version: str, arch: str) -> str:
        """Return where a version's file for a processor is."""
        return self.url.format(version=version, arch=self.names[arch])

    def sums_address(self, version: str, arch: str) -> str:
        """Return where its checksum is."""
        return self.sums.format(version=version, arch=self.names[arch])

    def member_of(self, version: str, arch: str) -> str:
        """Return the path of the program in the archive."""
        return self.member.format(version=version, arch=self.names[arch])

    def fits(self, arch: str) -> bool:
        """Tell whether there is one for a processor."""
        return arch in self.names


@dataclass(frozen=True)
class Image:
    """A program in an image of a registry: its layers are held to the manifest's digests.

    reference: with {version}. member: path of the program in the image.
    pinned: digest of the image, or of its index, by version; else the registry's, over HTTPS.
    """

    reference: str
    member: str
    pinned: Mapping[str, str] = field(default_factory=dict)

    def address(self, version: str, arch: str) -> str:
        """Return which image, for which processor."""
        return f"{self.reference.format(version=version)} linux/{arch}"

    def fits(self, arch: str) -> bool:
        """Tell whether there is one for a processor; KServe publishes both."""
        return arch in _AS_GO


_GITHUB = "https://github.com"


def _github(repository: str, file: str, sums: str, member: str = "", **names: str) -> Release:
    """Return a release on GitHub, whose tag is `v{version}`."""
    folder = f"{_GITHUB}/{repository}/releases/download/v{{version}}"
    return Release(f"{folder}/{file}", f"{folder}/{sums}", member, names or _AS_GO)


#: "Install kubectl on Linux" (kubernetes.io): dl.k8s.io/release/vX/bin/linux/ARCH/NAME, and NAME.sha256,
#: which holds the sum alone.
_KUBERNETES = "https://dl.k8s.io/release/v{version}/bin/linux/{arch}/"
_KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "kube-proxy",
)

#: Its Dockerfile: the program is /manager. Its publishing workflow: amd64 and arm64, the tag is `v{version}`.
_KSERVE = Image("docker.io/kserve/kserve-controller:v{version}", "manager")

#: BuildKit publishes no checksum file, but the provenance of each archive: an in-toto statement that BuildKit
#: itself writes, with the SHA-256 of what it has exported as subject (its exporter/local/fs.go; the file's
#: name: its workflow buildkit.yml; the archive's layout: its Dockerfile, stage `releaser`).
_BUILDKIT = ("moby/buildkit", "buildkit-v{version}.linux-{arch}.tar.gz")
_BUILDKIT_SUMS = "buildkit-v{version}.linux-{arch}.provenance.json"

#: Its releases: archives of programs that need no library, each with a file beside it that holds its sum
#: (containerd's docs/getting-started.md and workflow release.yml).
_CONTAINERD = ("containerd/containerd", "containerd-static-{version}-linux-{arch}.tar.gz")
_CONTAINERD_SUMS = "containerd-static-{version}-linux-{arch}.tar.gz.sha256sum"

#: Programs of other versions, which tests alone run, by those that the platform runs.
_OTHERS = {
    **{f"{name}-{short}": name for name in CONTAINERD_PROGRAMS for short in OTHER_CONTAINERDS},
    **{f"{name}-{OLDER_KUBERNETES[0]}": name for name in KUBERNETES_PROGRAMS},
    OLDER_ARGOCD: ARGOCD,
}

_PLATFORM: Mapping[str, Release | Image] = {
    **{name: Release(_KUBERNETES + name, f"{_KUBERNETES}{name}.sha256") for name in _KUBERNETES_PROGRAMS},
    **{
        name: _github(*_CONTAINERD, _CONTAINERD_SUMS, f"bin/{name}") for name in (*CONTAINERD_PROGRAMS, "ctr")
    },
    # Pulumi's workflow sign.yml writes the checksums, of files that get.pulumi.com has too; its installer
    # names amd64 x64. The archive's folder is `pulumi`.
    "pulumi": Release(
        "https://get.pulumi.com/releases/sdk/pulumi-v{version}-linux-{arch}.tar.gz",
        f"{_GITHUB}/pulumi/pulumi/releases/download/v{{version}}/pulumi-{{version}}-checksums.txt",
        "pulumi/pulumi",
        {"amd64": "x64", "arm64": "arm64"},
    ),
    # Its .goreleaser.yml uploads archives to get.pulumi.com, and to GitHub with GoReleaser's default checksum
    # file: PROJECT_VERSION_checksums.txt.
    "pulumi-resource-docker-build": Release(
        "https://get.pulumi.com/releases/plugins/pulumi-resource-docker-build-v{version}-linux-{arch}.tar.gz",
        f"{_GITHUB}/pulumi/pulumi-docker-build/releases/download/v{{version}}/"
        "pulumi-docker-build_{version}_checksums.txt",
        "pulumi-resource-docker-build",
    ),
    # Its .goreleaser.yml.
    "pulumi-language-yaml": _github(
        "pulumi/pulumi-yaml",
        "pulumi-language-yaml-v{version}-linux-{arch}.tar.gz",
        "pulumi-yaml-{version}-checksums.txt",
        "pulumi-language-yaml",
    ),
    "buildkitd": _github(*_BUILDKIT, _BUILDKIT_SUMS, "bin/buildkitd"),
    "buildctl": _github(*_BUILDKIT, _BUILDKIT_SUMS, "bin/buildctl"),
    # Its workflow build.yml: `sha256sum -b buildx-*`.
    "buildx": _github("docker/buildx", "buildx-v{version}.linux-{arch}", "checksums.txt"),
    "kserve-manager": _KSERVE,
    # Its .goreleaser.yml at v2.1.0, which leaves the checksum file's name at GoReleaser's default. Versions
    # after 2.9 have checksums.txt.
    "kube-router": _github(
        "cloudnativelabs/kube-router",
        "kube-router_{version}_linux_{arch}.tar.gz",
        "kube-router_{version}_checksums.txt",
        "kube-router",
    ),
    # Its scripts/get-helm-3; the file holds the sum alone.
    "helm": Release(
        "https://get.helm.sh/helm-v{version}-linux-{arch}.tar.gz",
        "https://get.helm.sh/helm-v{version}-linux-{arch}.tar.gz.sha256",
        "linux-{arch}/helm",
    ),
    # Each by its .goreleaser.yml.
    "actionlint": _github(
        "rhysd/actionlint",
        "actionlint_{version}_linux_{arch}.tar.gz",
        "actionlint_{version}_checksums.txt",
        "actionlint",
    ),
    "cosign": _github("sigstore/cosign", "cosign-linux-{arch}", "cosign_checksums.txt"),
    # Of `./cmd`, which is all of Argo CD's programs in one, by the name that it is started under.
    ARGOCD: _github("argoproj/argo-cd", "argocd-linux-{arch}", "cli_checksums.txt"),
}

RELEASES: Mapping[str, Release | Image] = {
    **_PLATFORM,
    **{other: _PLATFORM[name] for other, name in _OTHERS.items()},
    OLDER_KSERVE: _KSERVE,
    NEWER_KSERVE: _KSERVE,
}
#: What the platform or a command runs.
NAMED = frozenset(_PLATFORM)

_OURS = "it is a program of this project"
_IMAGES = "its makers publish it in images only"

#: Tools without a release that can be used, and why.
SOURCE_ONLY: Mapping[str, str] = {
    KUBERNETES_PLUGIN: "Pulumi downloads the official plugin itself, and this one is for where it cannot",
    DEVICE_PLUGIN: _OURS,
    "pulumi-sdks": _OURS,
    "coredns": f"{_OURS}, with few of CoreDNS's plugins",
    "govulncheck": "its makers publish no programs",
    "d2": "its makers publish no checksums",
    "kaniko": _IMAGES,
    "kyverno": f"{_IMAGES}; its releases have the command line alone",
    "kube-rbac-proxy": _IMAGES,
    CERT_MANAGER: f"{_OURS}, of cert-manager's packages",
    **dict.fromkeys(("keda", "keda-adapter", "keda-admission-webhooks"), _IMAGES),
    **{f"knative-{name}": _IMAGES for name in KNATIVE},
}


def architecture() -> str:
    """Return what Go calls this machine's processor; what the kernel does where that is unknown."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def release_of(name: str) -> Release | Image | None:
    """Return what a tool's maker publishes for this machine, None where that is nothing to be used."""
    found = RELEASES.get(name) if sys.platform == "linux" else None  # each of them is for Linux
    return found if found and found.fits(architecture()) else None
