"""`python -m local.support`: writes docs/support.md, which versions tests run, out of the code."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local import kubernetes_provider, tool_list
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, PROJECT
from local.lock import pins
from local.servers.choice import RELEASES
from local.tool_build import OLDEST_GO

PAGE = PROJECT / "docs/support.md"
#: Says which Python CI runs.
WORKFLOW = PROJECT / ".github/workflows/pull-request.yml"
HEAD = "<!-- Written by `make reference`; change the code that it is taken from instead. -->\n\n"
#: Distributions of Pulumi that the package takes a range of, with what a reader calls them.
PULUMI = {
    "pulumi": "Pulumi SDK for Python",
    "pulumi-kubernetes": "Kubernetes provider's SDK",
    "pulumi-docker-build": "docker-build provider's SDK",
    "pulumi-gcp": "Google provider's SDK",
}


def page() -> str:
    """Return docs/support.md."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    lines = [
        "# Tested versions\n",
        "The versions that this repository's tests run. Other versions may work; nothing here shows it.\n",
        "## What a stack runs on\n",
        *_table(("", "tested", "by"), _platform()),
        "## What runs the program\n",
        *_table(("", "tested", "allowed"), _program(project)),
        "The package is also installed and imported with the oldest of each range, and this repository's "
        "program runs with the oldest SDK.\n",
        "## Add-ons and tools\n",
        *_table(("", "tested", "for"), _tools()),
        "## Not tested\n",
        "- Google Kubernetes Engine: its resources are previewed against a stand-in "
        "([Google Cloud](google-cloud.md)).",
        "- GPUs in CI. Single runs: [GPU report](gpu-report.md), [kernels](gpu-kernels.md), "
        "[medians](gpu-medians.md), [7B](gpu-7b.md), [read ahead](gpu-read-ahead.md), "
        "[another machine's kernels](gpu-other-machine.md).",
        "- Clusters of other providers, and other releases of Kubernetes.",
    ]
    return HEAD + "\n".join(lines) + "\n"


def _platform() -> Iterator[tuple[str, str, str]]:
    older = tool_list.OLDER_KSERVE_VERSION
    server = RELEASES["vllm"].version
    yield "Kubernetes", KUBERNETES_VERSION, "every test of a cluster, on the embedded platform"
    yield "KServe", KSERVE_VERSION, "every test of a cluster"
    newer = tool_list.NEWER_KSERVE_VERSION
    yield "KServe, newer", newer, "an upgrade under requests; placements"
    yield "KServe, older", older, "placements"
    yield "containerd", tool_list.CONTAINERD_VERSION, "every test of a cluster"
    others = ", ".join(["1.6 (Debian 12's)", *tool_list.OTHER_CONTAINERDS.values()])
    yield "containerd, others", others, "[placements](image-volumes.md)"
    yield "Kubernetes, older", tool_list.OLDER_KUBERNETES[1], "[placements](image-volumes.md)"
    yield "vLLM", server, "its CPU build, by `make up`; settings are checked for this release"


def _program(project: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", "\n".join(pins()), re.MULTILINE))
    [python] = set(re.findall(r'python-version: "([\d.]+)"', WORKFLOW.read_text()))
    yield "Python", python, f"`{project['requires-python']}`"
    yield "Pulumi CLI", tool_list.PULUMI_VERSION, "its release may differ from the SDK's"
    roots = "\n".join([*project["dependencies"], *project["optional-dependencies"]["google"]])
    ranges = dict(re.findall(r"^([a-z0-9-]+)(.*)$", roots, re.MULTILINE))
    for name, text in PULUMI.items():
        # tests/engine/test_sdk_versions.py runs the program with the oldest SDK too.
        oldest = re.search(r">=([\d.]+)", ranges[name]) if name == "pulumi" else None
        tested = f"{locked[name]}, and {oldest[1]}" if oldest else locked[name]
        yield text, tested, f"`{ranges[name]}`"
    built = "built here where Pulumi's cannot be had"
    yield "Kubernetes provider's plugin", kubernetes_provider.VERSION, built
    yield "docker-build provider's plugin", tool_list.DOCKER_BUILD_VERSION, "the SDK's version"
    yield "Go, to build tools", ".".join(map(str, OLDEST_GO)), "this one or newer"


def _tools() -> Iterator[tuple[str, str, str]]:
    yield "BuildKit", tool_list.BUILDKIT_VERSION, "images"
    yield "kaniko", tool_list.KANIKO_VERSION, "[other builders](builders.md)"
    yield "cosign", tool_list.COSIGN_VERSION, "[signatures](supply-chain.md)"
    yield "Kyverno", tool_list.KYVERNO_VERSION, "[admission](security.md#admission-by-signature)"
    argocd = f"{tool_list.ARGOCD_VERSION}, and {tool_list.OLDER_ARGOCD_VERSION}"
    yield "Argo CD", argocd, "[GitOps](operations/gitops.md)"
    yield "KEDA", tool_list.KEDA_VERSION, "[autoscaling](operations/autoscaling.md)"
    yield "Knative Serving", tool_list.KNATIVE_VERSION, "`deploymentMode: Knative`"
    yield "kube-router", tool_list.KUBE_ROUTER_VERSION, "NetworkPolicies on the embedded platform"
    yield "Helm", tool_list.HELM_VERSION, "KServe's charts"
    yield "cert-manager", tool_list.CERT_MANAGER_VERSION, "KServe's charts, with `kserve.install`"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def main(target: Path = PAGE) -> int:
    """Write the page."""
    target.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
