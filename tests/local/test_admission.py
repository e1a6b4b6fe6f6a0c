"""Kyverno, the real one, lets no pod start with a modelcar that nobody signed, whoever deploys it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.tool_build import download_module
from local.tools import find_tool
from operations.admission import UNSIGNED
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.hostile_pods import ADMITTED, PATCHED, asked, debugged, pod, verdicts, volume, ways_in
from tests.key_pair import PASSWORD, make_key_pair
from tests.local.conftest import Scratch, push_tiny

pytestmark = pytest.mark.extended

NAMESPACE = "kyverno"
#: What its chart tells the container, of names that Kyverno makes and looks up objects by.
VARIABLES = {
    "KYVERNO_NAMESPACE": NAMESPACE,
    "KYVERNO_SERVICEACCOUNT_NAME": "kyverno",
    "KYVERNO_DEPLOYMENT": "kyverno",
    "KYVERNO_POD_NAME": "kyverno",
    "INIT_CONFIG": "kyverno",
    "METRICS_CONFIG": "kyverno-metrics",
}
#: Kyverno 1.19 reads bundles out of a registry without TLS only where its name says that it is a local one
#: (it does not hand --allowInsecureRegistry on to that part). The registry is the proxy that finds it.
OTHER_NAME = "registry.localhost:5000"
OURS = ("-l", "webhook.kyverno.io/managed-by=kyverno")
HOOKS = "validatingwebhookconfigurations,mutatingwebhookconfigurations"


@pytest.fixture
def kyverno(platform: Platform, tmp_path: Path) -> Iterator[Path]:
    """Run Kyverno's admission controller beside the platform, as one outside of a cluster; yield its log."""
    program = find_tool("kyverno", print)
    crds = Path(download_module("kyverno", "github.com/kyverno/kyverno")["Dir"]) / "config" / "crds"
    platform.kubectl("apply", "--server-side", "--recursive", "-f", str(crds))
    platform.kubectl("create", "namespace", NAMESPACE)
    for name in ("kyverno", "kyverno-metrics"):
        platform.kubectl("-n", NAMESPACE, "create", "configmap", name)
    registry, host = platform.registry_host, platform.host
    command = [
        *(str(program), "--kubeconfig", str(platform.settings["kubeconfig"])),
        *(f"--serverIP={host}:9443", f"--webhookServerHost={host}", "--allowInsecureRegistry"),
        *("--caSecretName=kyverno-ca", "--tlsSecretName=kyverno-tls"),
        *("--disableMetrics=true", "--admissionReports=false", "--enableReporting="),
    ]
    log = tmp_path / "kyverno.log"
    with log.open("wb") as target:
        proxy = {"HTTP_PROXY": f"http://{registry}"}
        variables = {**os.environ, **VARIABLES, **proxy}
        running = subprocess.Popen(command, env=variables, stdout=target, stderr=target)
    try:
        yield log
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(20)
        finally:
            running.kill()
            platform.kubectl("delete", HOOKS, *OURS)  # they would refuse pods for want of an answer
            platform.kubectl("delete", "imagevalidatingpolicies", "--all")
            platform.kubectl("delete", "--recursive", "-f", str(crds), "--wait=false")
            platform.kubectl("delete", "namespace", NAMESPACE)


def seen(look: Callable[[], Any], seconds: float, what: str, log: Path) -> Any:
    """Look until there is something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}\n{log.read_text()[-4000:]}")
        time.sleep(0.5)
    return found


@pytest.fixture
def keys(project: Project) -> Iterator[Project]:
    """Make a key pair, and let the stack ask for signatures by it; the registry has its other name there."""
    make_key_pair(find_tool("cosign", print), project.folder, "cosign")
    project.configure(registry=f"{OTHER_NAME}/models", signature={"publicKey": "cosign.pub"})
    project.platform.kubectl("create", "namespace", project.namespace)
    yield project
    project.platform.kubectl("delete", "namespace", project.namespace, "--wait=false")


def run(project: Project, *arguments: str) -> str:
    result = subprocess.run(
        [str(PROJECT / ".venv/bin/python"), "-m", *arguments],
        cwd=project.folder,
        env=project.platform.pulumi_env(project.folder) | {"COSIGN_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, result.stderr
    return result.stdout


def test_what_is_signed_is_admitted_and_nothing_else(
    keys: Project, kyverno: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project, platform = keys, keys.platform
    uris = {
        name: push_tiny(platform, tmp_path_factory.mktemp(name), seed=seed)
        for seed, name in enumerate(("signed", "unsigned"))
    }
    image = uris["signed"].removeprefix("oci://")
    run(project, "modelcar", "sign", image, "--key=cosign.key", "--public-key=cosign.pub", "--insecure")
    other = {
        name: uri.removeprefix("oci://").replace(str(platform.settings["registry"]), f"{OTHER_NAME}/models")
        for name, uri in uris.items()
    }
    server = platform.server_image
    hostile = ways_in(server, other["unsigned"])
    platform.kubectl(
        "-n", project.namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=60s"
    )
    before = {way: asked(platform, project.namespace, document) for way, document in hostile.items()}
    assert all(ADMITTED in said for said in before.values()), before
    policy = run(project, "operations", "--project", str(project.folder), "admission", "--stack", "test")

    name = yaml.safe_load(policy)["metadata"]["name"]

    def applied() -> bool:
        # Kyverno's own webhook judges policies, and is there before it has its certificate.
        return "created" in platform.kubectl("apply", "-f", "-", text=policy, check=False)

    def taken() -> bool:
        hooks = platform.kubectl("get", HOOKS, *OURS, "-o", "yaml")
        return f"/ivpol/validate/{name}" in hooks

    seen(applied, 60, "Kyverno refuses the policy", kyverno)
    seen(taken, 120, "Kyverno does not take the policy", kyverno)

    def answers() -> bool:
        return ADMITTED in asked(platform, project.namespace, pod(server))

    seen(answers, 60, "Kyverno's webhook does not answer", kyverno)
    told = {way: asked(platform, project.namespace, document) for way, document in hostile.items()}
    assert {way for way, said in told.items() if UNSIGNED not in said} == set(), told
    assert f"{UNSIGNED} (volumes)" in told["image volume"]
    for way, document in ways_in(server, other["signed"]).items():
        assert ADMITTED in asked(platform, project.namespace, document), way
    # The same registry, by other names; and what a node may have from there already.
    host, _, path = other["unsigned"].partition("/")
    spelt = {
        "capitals": f"{host.upper()}/{path}",
        "a tag beside the digest": other["unsigned"].replace("@", ":v1@"),
    }
    for name, image in spelt.items():
        said = asked(platform, project.namespace, ways_in(server, image)["image volume"])
        assert UNSIGNED in said, (name, said)
    for image in (other["unsigned"].partition("@")[0], "sha256:" + "5" * 64):
        said = asked(platform, project.namespace, ways_in(server, image)["image volume"])
        assert "does not have a digest" in said, said

    # Nor is a container added to a pod that is there; it waits for a node.
    waits = pod(server, nodeSelector={"nowhere": "x"})
    platform.kubectl("-n", project.namespace, "create", "-f", "-", text=json.dumps(waits))
    assert f"{UNSIGNED} (ephemeralContainers)" in debugged(
        platform, project.namespace, "asked", other["unsigned"]
    )
    for image in (other["signed"], server):
        assert PATCHED in debugged(platform, project.namespace, "asked", image)
    platform.kubectl("-n", project.namespace, "delete", "pod", "asked", "--force", "--grace-period=0")

    # Whoever may write there does so with kubectl, past this program.
    here = ("-n", project.namespace)
    scratch = Scratch(platform, project.namespace, "")
    for name in uris:
        storage = {"name": "STORAGE_URI", "value": f"oci://{other[name]}"}
        scratch.apply({"containers": [scratch.server(env=[storage])]}, name=name)
        # As a volume, in which KServe 0.19 serves a modelcar without knowing of it.
        mounted = {"name": "weights", "mountPath": "/mnt/models", "subPath": "models"}
        box = scratch.server(volumeMounts=[mounted])
        scratch.apply({"containers": [box], "volumes": [volume(other[name])]}, name=f"mounted-{name}")

    def decided() -> dict[str, str]:
        found = verdicts(platform.kubectl(*here, "get", "replicasets", "-o", "json"))
        return found if len(found) == 2 * len(uris) else {}

    told = seen(decided, 120, "nothing was decided", kyverno)
    assert told["signed"] == "", "and its server's image, which nobody signed, is another matter"
    assert f"{UNSIGNED} (containers)" in told["unsigned"]
    assert f"{UNSIGNED} (volumes)" in told["mounted-unsigned"]
    items = json.loads(platform.kubectl(*here, "get", "pods", "-o", "json"))["items"]
    pods = {item["metadata"]["name"].partition("-predictor")[0]: item for item in items}
    assert sorted(pods) == ["mounted-signed", "signed"]
    assert {"modelcar"} < {box["name"] for box in pods["signed"]["spec"]["containers"]}
