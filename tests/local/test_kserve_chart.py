"""KServe's own Helm charts, as `kubernetes:helm.sh/v3:Release` installs them on a cluster of a user.

The charts' cluster roles and webhook configurations have the same names as those of the KServe that runs on
the local platform, and no value renames them: installed there, they would send the API server's requests to
a service without pods. So on the platform Helm is only asked for a dry run (which also shows that the chart
needs cert-manager), and the real installation goes into an API server of the test's own, without nodes.
cert-manager's two kinds are put there as bare definitions: nothing issues the webhooks' certificate, and the
controller's image is not pulled, so Helm does not wait.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kubernetes import config

from components.cluster import webhooks
from components.cluster.access import Cluster
from local.tools import Toolbox, collect
from tests.conftest import Platform

CONFIG_MAP = "inferenceservice-config"
TOKEN = "throw-away"

PROGRAM = """
import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.helm.v3 import Release

given = json.loads(Path("given.json").read_text())
cluster = k8s.Provider("cluster", kubeconfig=given["kubeconfig"])
options = pulumi.ResourceOptions(provider=cluster)
crds = Release(
    "crds", name="kserve-crd", namespace="kserve", create_namespace=True,
    chart=given["charts"] + "/kserve-crd", opts=options,
)
kserve = Release(
    "kserve", name="kserve", namespace="kserve", chart=given["charts"] + "/kserve-resources",
    values=given["values"], skip_await=True,
    opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=[crds])),
)
pulumi.export("status", kserve.status)
pulumi.export("names", kserve.resource_names)
"""


def values(*, modelcar: bool) -> dict[str, Any]:
    storage = {
        "enableModelcar": modelcar,
        "uidModelcar": 1011,
        "cpuModelcar": "20m",
        "memoryModelcar": "16Mi",
    }
    limits = {"cpu": "200m", "memory": "400Mi"}
    controller = {
        "deploymentMode": "Standard",
        "gateway": {"disableIngressCreation": True, "disableIstioVirtualHost": True},
        "resources": {"limits": limits, "requests": limits},
    }
    return {"kserve": {"storage": storage, "controller": controller}}


@pytest.fixture(scope="module")
def tools() -> Toolbox:
    return collect(print, extra=("helm",))


@pytest.fixture(scope="module")
def charts(tools: Toolbox) -> Path:
    return tools.kserve / "charts"


@dataclass(frozen=True)
class ApiServer:
    """An API server without nodes, and its database."""

    folder: Path
    tools: Toolbox

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self._run("kubectl", *arguments, text=text)

    def helm(self, *arguments: str) -> str:
        return self._run("helm", *arguments)

    def _run(self, program: str, *arguments: str, text: str | None = None) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        command = [self.tools[program], *arguments]
        result = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def configuration(self, key: str) -> dict[str, Any]:
        """Return one section of KServe's configuration as it is in the cluster."""
        found = json.loads(self.kubectl("-n", "kserve", "get", "configmap", CONFIG_MAP, "-o", "json"))
        section: dict[str, Any] = json.loads(found["data"][key])
        return section


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


def wait_ready(folder: Path, port: int, processes: list[subprocess.Popen[bytes]]) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"https://127.0.0.1:{port}/readyz", headers=headers)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in processes:
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
        try:
            context = ssl.create_default_context(cafile=str(folder / "certs" / "apiserver.crt"))
            urllib.request.urlopen(request, timeout=5, context=context).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    pytest.fail(f"not ready: {(folder / 'log').read_text()[-2000:]}")


@pytest.fixture
def server(tools: Toolbox, tmp_path: Path) -> Iterator[ApiServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "sa.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    client, peer, port = free_ports(3)
    etcd, neighbour = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    commands = [
        [
            *(tools["etcd"], "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync", "--log-level=error"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", neighbour, "--initial-advertise-peer-urls", neighbour),
            *("--initial-cluster", f"default={neighbour}"),
        ],
        [
            *(tools["kube-apiserver"], f"--etcd-servers={etcd}", f"--cert-dir={folder / 'certs'}"),
            *("--bind-address=127.0.0.1", f"--secure-port={port}", "--authorization-mode=RBAC"),
            *(f"--token-auth-file={folder / 'tokens.csv'}", "--service-cluster-ip-range=10.97.0.0/24"),
            *(f"--service-account-key-file={folder / 'sa.key'}", "--service-account-issuer=https://test"),
            *(f"--service-account-signing-key-file={folder / 'sa.key'}",),
        ],
    ]
    with (folder / "log").open("wb") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
    try:
        wait_ready(folder, port, processes)
        authority = base64.b64encode((folder / "certs" / "apiserver.crt").read_bytes()).decode()
        address = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": authority}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": address}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        made = ApiServer(folder, tools)
        made.kubeconfig.write_text(yaml.safe_dump(document))
        made.kubeconfig.chmod(0o600)
        yield made
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def cert_manager_kind(kind: str) -> dict[str, Any]:
    """Return the bare definition of a kind of cert-manager."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


@dataclass(frozen=True)
class Project:
    """The program above, run by the real CLI on the API server of the test."""

    folder: Path
    platform: Platform
    server: ApiServer
    charts: Path

    def give(self, *, modelcar: bool) -> None:
        given = {
            "kubeconfig": self.server.kubeconfig.read_text(),
            "charts": str(self.charts),
            "values": values(modelcar=modelcar),
        }
        (self.folder / "given.json").write_text(json.dumps(given))

    def pulumi(self, *arguments: str) -> str:
        result = subprocess.run(
            ["pulumi", *arguments, "--stack", "test", "--non-interactive"],
            cwd=self.folder,
            env=self.platform.pulumi_env(self.folder),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return result.stdout

    def steps(self) -> dict[str, str]:
        """Return what a preview would do to each release that it would change."""
        shown = json.loads(self.pulumi("preview", "--json"))["steps"]
        changes = {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in shown if step["op"] != "same"}
        return {name: op for name, op in changes.items() if name in ("crds", "kserve")}


@pytest.fixture
def project(platform: Platform, server: ApiServer, charts: Path, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy2(platform.checkout.folder / "pyproject.toml", folder)
    (folder / ".venv").symlink_to(platform.checkout.folder / ".venv")
    runtime = {"name": "python", "options": {"toolchain": "uv", "virtualenv": ".venv"}}
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump({"name": "chart", "runtime": runtime}))
    (folder / "__main__.py").write_text(PROGRAM)
    made = Project(folder, platform, server, charts)
    made.give(modelcar=True)
    made.pulumi("stack", "init")
    return made


# --- what the charts say


def rendered(tools: Toolbox, charts: Path, *, modelcar: bool) -> dict[str, dict[str, Any]]:
    """Return the objects of the chart kserve-resources by kind and name."""
    output = subprocess.run(
        [tools["helm"], "template", "kserve", str(charts / "kserve-resources"), "-n", "kserve", "-f", "-"],
        input=json.dumps(values(modelcar=modelcar)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    documents = [document for document in yaml.safe_load_all(output) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


@pytest.mark.parametrize("modelcar", [True, False])
def test_the_values_reach_kserves_configuration(tools: Toolbox, charts: Path, modelcar: bool) -> None:
    objects = rendered(tools, charts, modelcar=modelcar)
    data = objects[f"ConfigMap/{CONFIG_MAP}"]["data"]
    storage = json.loads(data["storageInitializer"])
    assert storage["enableModelcar"] is modelcar
    assert (storage["uidModelcar"], storage["cpuModelcar"], storage["memoryModelcar"]) == (
        1011,
        "20m",
        "16Mi",
    )
    assert json.loads(data["deploy"]) == {"defaultDeploymentMode": "Standard"}
    ingress = json.loads(data["ingress"])
    assert ingress["disableIngressCreation"] is True
    assert ingress["disableIstioVirtualHost"] is True
    pod = objects["Deployment/kserve-controller-manager"]["spec"]["template"]["spec"]
    manager = next(box for box in pod["containers"] if box["name"] == "manager")
    assert manager["resources"]["limits"] == {"cpu": "200m", "memory": "400Mi"}


def test_the_chart_holds_nothing_that_its_own_webhooks_judge(tools: Toolbox, charts: Path) -> None:
    """Else a first installation fails, as charts did that held runtimes: kserve/kserve#5037."""
    objects = rendered(tools, charts, modelcar=True)
    kinds = {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
    rules = [
        rule
        for name, found in objects.items()
        if name.partition("/")[0] in kinds
        for hook in found["webhooks"]
        for rule in hook["rules"]
    ]
    judged = {resource for rule in rules for resource in rule["resources"]}
    assert {"inferenceservices", "clusterservingruntimes"} <= judged
    assert not {f"{name.partition('/')[0].lower()}s" for name in objects} & judged


def test_the_local_stack_runs_what_the_chart_would_configure(
    platform: Platform, tools: Toolbox, charts: Path
) -> None:
    chart = rendered(tools, charts, modelcar=True)[f"ConfigMap/{CONFIG_MAP}"]["data"]
    live = json.loads(platform.kubectl("-n", "kserve", "get", "configmap", CONFIG_MAP, "-o", "json"))["data"]
    for section, keys in {
        "storageInitializer": ["enableModelcar"],
        "deploy": ["defaultDeploymentMode"],
        "ingress": ["disableIngressCreation", "disableIstioVirtualHost", "enableGatewayApi"],
    }.items():
        ours, theirs = json.loads(live[section]), json.loads(chart[section])
        assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}


def test_the_chart_needs_cert_manager(platform: Platform, tools: Toolbox, charts: Path) -> None:
    """A dry run only: see above. No value takes the certificate out of the chart."""
    result = subprocess.run(
        [
            *(tools["helm"], "upgrade", "--install", "probe", str(charts / "kserve-resources")),
            *("--namespace", "kserve", "--dry-run=server", "--set", "kserve.certManager.enabled=false"),
        ],
        env={**os.environ, "KUBECONFIG": platform.kubeconfig},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode
    assert 'no matches for kind "Certificate" in version "cert-manager.io/v1"' in result.stderr


# --- the real installation


@pytest.mark.extended
def test_a_release_is_installed_changed_refreshed_and_removed(project: Project) -> None:
    server = project.server
    assert project.steps() == {"crds": "create", "kserve": "create"}, "although no kind is known yet"
    server.kubectl(
        *("apply", "-f", "-"), text=yaml.safe_dump_all(map(cert_manager_kind, ("Issuer", "Certificate")))
    )
    project.pulumi("up", "--yes", "--skip-preview")
    outputs = json.loads(project.pulumi("stack", "output", "--json"))
    assert outputs["status"]["status"] == "deployed"
    assert outputs["status"]["version"] == "v0.19.0"
    assert "kserve/kserve-controller-manager" in outputs["names"]["Deployment.apps/apps/v1"]
    assert server.configuration("storageInitializer")["enableModelcar"] is True
    assert "inferenceservices.serving.kserve.io" in server.kubectl("get", "crd", "-o", "name")
    assert project.steps() == {}
    # Without nodes no webhook ever starts: what the first moments after an installation look like.
    make: Any = config.new_client_from_config
    api = make(config_file=str(server.kubeconfig))
    answer = webhooks.ask(Cluster(api, "of the test"))
    assert answer.state == "starting", answer
    assert "failed calling webhook" in answer.said

    project.give(modelcar=False)
    assert project.steps() == {"kserve": "update"}
    project.pulumi("up", "--yes", "--skip-preview")
    assert server.configuration("storageInitializer")["enableModelcar"] is False

    chart = str(project.charts / "kserve-resources")
    by_hand = ("--reuse-values", "--set", "kserve.storage.enableModelcar=true")
    server.helm("upgrade", "kserve", chart, "--namespace", "kserve", *by_hand)
    project.pulumi("refresh", "--yes", "--skip-preview")
    assert project.steps() == {"kserve": "update"}, "what was changed by hand is taken back"
    project.pulumi("up", "--yes", "--skip-preview")
    assert server.configuration("storageInitializer")["enableModelcar"] is False

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert json.loads(server.helm("list", "--all-namespaces", "--all", "--output", "json")) == []
    assert "serving.kserve.io" not in server.kubectl("get", "crd", "-o", "name")
