"""checkov on what we put into clusters and registries: rendered objects, the Dockerfile, the workflows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from components.config.models import load_stack
from components.config.settings import Settings
from components.manifests import network, pre_pull, service
from local.audit.findings import Finding
from local.instance import PROJECT, cache_root
from local.locked_environment import locked_environment
from local.tool_list import Progress
from modelcar.progress import working

NAME = "checkov"
FRAMEWORKS = ("kubernetes", "dockerfile", "github_actions")
LOCK = Path(__file__).parent / "checkov.lock"
DIGEST = f"sha256:{'0' * 64}"


def rendered(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield a model's objects as they are in a cluster, with the pod that KServe makes of them.

    checkov knows Kubernetes' own kinds: what stands in an InferenceService is shown to it as a Deployment.
    """
    runtime = service.serving_runtime(settings)
    predictor = service.predictor(settings, f"oci://registry.example/qwen@{DIGEST}", settings.service_name)
    pod: dict[str, Any] = {
        "serviceAccountName": settings.service_name,
        "containers": runtime["containers"],
        "volumes": runtime["volumes"],
        **{
            key: predictor[key]
            for key in ("automountServiceAccountToken", "securityContext")
            if key in predictor
        },
    }
    selector = {network.SERVICE_LABEL: settings.service_name}
    metadata = {"name": settings.service_name, "namespace": settings.namespace, "labels": selector}
    template = {"metadata": {"labels": selector}, "spec": pod}
    spec = {"replicas": 2, "selector": {"matchLabels": selector}, "template": template}
    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    policy = network.egress_policy(settings.service_name, settings.egress)
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": policy,
    }
    pull = pre_pull.daemon_set_spec(settings, f"oci://registry.example/qwen@{DIGEST}", settings.service_name)
    metadata = {**metadata, "name": pre_pull.daemon_set_name(settings)}
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": pre_pull.network_policy(settings),
    }
    yield {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": pull}


def example() -> Settings:
    """Return the settings of the stack `dev`."""
    document: Mapping[str, Any] = yaml.safe_load((PROJECT / "Pulumi.dev.yaml").read_text())["config"]
    config = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in document.items()
        if key.startswith("modelcar:")
    }
    return load_stack({**config, "modelcar:model": "tiny-qwen2"}, PROJECT).models[0]


def scan(progress: Progress, *, fresh: bool = False) -> Iterator[Finding]:
    """Yield what checkov finds; its rules come with its version, so that there are no fresh ones.

    Raises:
        RuntimeError: it did not run.
    """
    del fresh
    # Of its own: its pins are not the project's.
    own = locked_environment(
        cache_root() / NAME, LOCK, lambda: progress(f"installing {NAME} from {LOCK.name} …")
    )
    with TemporaryDirectory() as place:
        folder = Path(place)
        objects = json.loads(json.dumps(list(rendered(example())), default=dict))
        (folder / "model.yaml").write_text(yaml.safe_dump_all(objects))
        shutil.copy(PROJECT / "modelcar" / "Dockerfile", folder)
        shutil.copytree(PROJECT / ".github" / "workflows", folder / ".github" / "workflows")
        command = [
            str(own / "bin" / NAME),
            "--directory",
            str(folder),
            "--framework",
            *FRAMEWORKS,
            "--output",
            "json",
        ]
        command += ["--quiet", "--compact", "--skip-download", "--soft-fail"]
        variables = {**os.environ, "LOG_LEVEL": "ERROR"}
        with working(f"   {NAME}"):
            result = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    try:
        found: list[dict[str, Any]] = json.loads(result.stdout)
        looked_at = {report["check_type"] for report in found}
    except (ValueError, TypeError, KeyError):
        raise RuntimeError(f"checkov: {result.stderr.strip()[-500:] or result.stdout[-500:]}") from None
    if missing := set(FRAMEWORKS) - looked_at:
        raise RuntimeError(f"checkov looked at nothing as {', '.join(sorted(missing))}")
    for report in found:
        for check in report["results"]["failed_checks"]:
            where = check["resource"].removeprefix("/")
            yield Finding(NAME, check["check_id"], where, check["check_name"])
