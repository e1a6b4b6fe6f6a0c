"""Argo CD on the embedded platform: its newest release, and the last of version 2."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from local.debian import debian_script
from local.instance import Instance
from local.plan import DEFINITION
from local.processor import architecture
from local.program_image import push_files, with_libraries
from local.tool_build import download_module
from local.tool_list import ARGOCD, OLDER_ARGOCD, Progress, tools_folder
from local.tools import Toolbox, find_tool


@dataclass(frozen=True)
class Version:
    """addon: its name, which is its tool's too. module: of Go.

    redis: image that its objects name; with its tag where the name alone is a word that labels have too.
    """

    addon: str
    module: str
    redis: str


VERSIONS = (
    Version(ARGOCD, "github.com/argoproj/argo-cd/v3", "public.ecr.aws/docker/library/redis"),
    Version(OLDER_ARGOCD, "github.com/argoproj/argo-cd/v2", "redis:7.2.11-alpine"),
)
#: By these names Argo CD's one program is each of its parts.
_PARTS = ("application-controller", "applicationset-controller", "repo-server")
_REDIS_PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
#: Of this machine: what fetches a repository, over HTTPS too, and whom it trusts.
_GIT = ("/usr/bin/git", "/usr/lib/git-core/git-remote-https")
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def objects(version: Version, _: Instance, __: Toolbox) -> list[dict[str, Any]]:
    """Argo CD without its web server (`core-install.yaml`), as `kubectl -n argocd apply` brings it."""
    module = Path(download_module(version.addon, version.module)["Dir"])
    name = "argocd"
    found = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}]
    for document in yaml.safe_load_all((module / "manifests/core-install.yaml").read_text()):
        if document["kind"] not in {DEFINITION, "ClusterRole", "ClusterRoleBinding"}:
            document["metadata"]["namespace"] = name
        found.append(document)
    return found


def images(version: Version, instance: Instance, tools: Toolbox, say: Progress) -> dict[str, str]:
    """Push Argo CD with git and a shell, as its own image has them, and Debian's redis."""
    parts = {f"/usr/local/bin/argocd-{part}": "argocd" for part in _PARTS}
    files: dict[str, Path | str] = {
        "/usr/local/bin/argocd": find_tool(version.addon, say),
        **parts,
        "/bin/busybox": tools.programs["busybox"],
        **{f"/bin/{name}": "busybox" for name in ("cp", "sh")},
        **with_libraries(map(Path, _GIT)),
        "/usr/lib/git-core/git-remote-http": "git-remote-https",
    }
    if Path(_AUTHORITIES).exists():
        files[_AUTHORITIES] = Path(_AUTHORITIES)
    folder = tools_folder() / "redis"
    debian_script("redis-server", list(_REDIS_PACKAGES), folder)
    root = folder / "debian"
    places = [str(path) for path in root.glob("**/*-linux-gnu")]
    program = root / "usr/bin/redis-server"
    redis = with_libraries([program], ":".join(places))
    push = partial(push_files, registry=instance.registry, architecture=architecture())
    path = "PATH=/usr/local/bin:/usr/bin:/bin"
    return {
        "quay.io/argoproj/argocd": push(
            files,
            name="argocd",
            config={"User": "999", "Env": [path, "HOME=/home/argocd", "ARGOCD_GPG_ENABLED=false"]},
        ),
        version.redis: push(
            redis,
            name="redis",
            config={
                "User": "999:1000",
                "Entrypoint": [str(program)],
                "Env": [f"LD_LIBRARY_PATH={':'.join(places)}"],
            },
        ),
    }
