"""The claims of docs/security.md that take a real API server, kubelet, registry and engine to be shown."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcar.manifest import sha256_digest
from tests.engine.conftest import Project

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: Values that no one else has: wherever one turns up, a secret has.
CANARIES = {
    "registry": "canary-registry-3f1c9a",
    "docker": "canary-docker-7be204",
    "hub": "canary-hub-91d5e0",
    "cosign": "canary-cosign-5a6b7c",
    "kubeconfig": "canary-kubeconfig-2d80ce",
    "variable": "canary-variable-e41f07",
    "argument": "canary-argument-b6390d",
}
#: What the server is told, which whoever may read the pod can read too.
OF_PODS = {"variable", "argument"}
IN_THE_CLUSTER = "the cluster, but for Secrets"
IN_THE_POD = "environment in the pod"


def pod_of(project: Project) -> dict[str, Any]:
    text = project.platform.kubectl("-n", project.namespace, "get", "pods", "-o", "json")
    [pod] = json.loads(text)["items"]
    found: dict[str, Any] = pod
    return found


def inside(project: Project, script: str) -> str:
    name = pod_of(project)["metadata"]["name"]
    where = ("-n", project.namespace, "exec", name, "-c", "kserve-container", "--")
    return project.platform.kubectl(*where, "sh", "-c", script, check=False)


def warnings(project: Project, standard: str) -> list[str]:
    """Return what the API server says of the namespace's pods, were the standard enforced."""
    label = f"pod-security.kubernetes.io/enforce={standard}"
    result = subprocess.run(
        ["kubectl", "label", "--dry-run=server", "--overwrite", "namespace", project.namespace, label],
        env={**project.platform.checkout.environment, **project.platform.shell},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in result.stderr.splitlines() if line.startswith("Warning:")]


def test_what_a_served_pod_may_do(project: Project) -> None:
    """`baseline` as it is; `restricted` but for two fields of the containers that KServe injects."""
    project.up()
    assert warnings(project, "baseline") == []

    found = warnings(project, "restricted")
    assert len(found) == 2, found  # the namespace's line, and one for the pod
    fields = set(re.findall(r"([A-Za-z]+) (?:!= |\()", found[1].partition(":")[2].partition(":")[2]))
    said = found[1]
    for field in ("allowPrivilegeEscalation != false", "unrestricted capabilities"):
        assert field in said, said
    for closed in ("runAsNonRoot", "seccompProfile", "hostPath", "privileged"):
        assert closed not in said, (closed, said, fields)

    # Ours is restricted by itself; the injected ones have no more than what the pod says for all.
    pod = pod_of(project)
    [own] = [c for c in pod["spec"]["containers"] if c["name"] == "kserve-container"]
    assert own["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert own["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        assert not container.get("securityContext", {}).get("privileged")

    # And from inside: no token, no write, no privilege to gain, not root.
    assert "No such file" in inside(project, "ls /var/run/secrets/kubernetes.io")
    assert "Read-only file system" in inside(project, "touch /etc/x")
    assert "Read-only file system" in inside(
        project, "touch /mnt/models/config.json"
    ) or "Permission denied" in (inside(project, "touch /mnt/models/config.json"))
    assert inside(project, "id -u").strip() == "1010"
    status = inside(project, "cat /proc/self/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)


def test_an_image_swapped_under_the_tag_is_not_picked_up(project: Project) -> None:
    outputs = project.up()
    before = pod_of(project)
    host, _, rest = outputs["storageUri"].removeprefix("oci://").partition("/")
    name, _, digest = rest.partition("@")
    content = httpx.get(f"http://{host}/v2/{name}/manifests/{digest}", headers={"Accept": MANIFEST}).content
    other = json.loads(content)
    other["annotations"] = {"org.opencontainers.image.title": "somebody else's"}
    swapped = json.dumps(other).encode()
    tags = httpx.get(f"http://{host}/v2/{name}/tags/list").json()["tags"]
    assert tags
    for tag in tags:
        answer = httpx.put(
            f"http://{host}/v2/{name}/manifests/{tag}", content=swapped, headers={"Content-Type": MANIFEST}
        )
        assert answer.status_code == 201
        assert answer.headers["Docker-Content-Digest"] == sha256_digest(swapped)

    for arguments in (("preview",), ("up", "--yes", "--skip-preview"), ("up", "--yes", "--refresh")):
        said = project.pulumi(*arguments, check=False)
        assert sha256_digest(swapped) not in said.stdout + said.stderr
    assert (
        json.loads(project.pulumi("stack", "output", "--json").stdout)["storageUri"] == outputs["storageUri"]
    )
    after = pod_of(project)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    # A pod that is made anew pulls the same bytes.
    project.platform.kubectl("-n", project.namespace, "delete", "pod", before["metadata"]["name"], "--wait")
    project.platform.kubectl(
        *("-n", project.namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    )
    images = [
        c["image"]
        for c in [*pod_of(project)["spec"]["initContainers"], *pod_of(project)["spec"]["containers"]]
    ]
    assert all("@sha256:" in image for image in images)
    assert f"{host}/{name}@{digest}" in images


@pytest.fixture
def planted(project: Project, tmp_path: Path) -> Project:
    """Put a secret into every place that the program reads one from."""
    docker = tmp_path / "docker"
    docker.mkdir()
    host = project.platform.settings["registry"].partition("/")[0]
    auth = base64.b64encode(f"robot:{CANARIES['docker']}".encode()).decode()
    (docker / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    project.variables |= {
        "DOCKER_CONFIG": str(docker),
        "HF_TOKEN": CANARIES["hub"],
        "COSIGN_PASSWORD": CANARIES["cosign"],
        "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
    }
    project.pulumi("stack", "rm", "--yes", "--force")
    project.configure(registryUsername="robot")
    project.pulumi("stack", "init", "--secrets-provider", "passphrase")
    kubeconfig = Path(project.platform.shell["KUBECONFIG"]).read_text()
    for key, value in (
        ("registryPassword", CANARIES["registry"]),
        ("kubeconfig", f"{kubeconfig}\n# {CANARIES['kubeconfig']}\n"),
        ("serverEnv[0]", f"VLLM_API_KEY={CANARIES['variable']}"),
        ("serverArgs[0]", f"api-key={CANARIES['argument']}"),
    ):
        project.pulumi("config", "set", "--secret", "--path", f"modelcar:{key}", value)
    return project


def spellings(secret: str) -> list[bytes]:
    """Return a secret as it is, and in base64 at each offset that it can have there."""
    found = [secret.encode()]
    for before in (b"", b"x", b"xx"):
        encoded = base64.b64encode(before + secret.encode())
        found.append(encoded[4 if before else 0 : len(encoded) - 4])
    return found


def test_planted_secrets_turn_up_nowhere(planted: Project) -> None:
    project = planted
    said = [
        project.pulumi(*arguments, check=False)
        for arguments in (
            ("preview", "--diff"),
            ("up", "--yes", "--skip-preview"),
            ("preview", "--json"),
            ("up", "--yes", "--skip-preview", "--verbose=3", "--logtostderr"),
            ("stack", "output", "--json"),
            ("stack", "export"),
        )
    ]
    assert [result.returncode for result in said] == [0] * len(said), said[1].stdout + said[1].stderr
    places = {
        f"said by pulumi {' '.join(map(str, result.args[1:3]))}": (result.stdout + result.stderr).encode()
        for result in said
    }
    # All that is written beside the program: state, history, locks of models, layouts, the stack's file.
    for path in project.folder.rglob("*"):
        if path.is_file() and not any(part in {".venv", "components"} for part in path.parts):
            places[str(path)] = path.read_bytes()
    for name, content in registry_contents(project):
        places[name] = content
    text = project.platform.kubectl(
        "-n", project.namespace, "get", "all,cm,sa,isvc,servingruntime", "-o", "json"
    )
    places[IN_THE_CLUSTER] = text.encode()
    pod = pod_of(project)["metadata"]["name"]
    for container in ("kserve-container", "modelcar", "modelcar-init"):
        log = project.platform.kubectl("-n", project.namespace, "logs", pod, "-c", container, check=False)
        places[f"log of {container}"] = log.encode()
    places[IN_THE_POD] = inside(project, "env; cat /proc/*/environ 2>/dev/null").encode()

    assert len(places) > 30, "the search has to see something"
    found = [
        f"{name} in {place}"
        for name, secret in CANARIES.items()
        for place, content in places.items()
        if any(spelling in content for spelling in spellings(secret))
        and not (name in OF_PODS and place in {IN_THE_CLUSTER, IN_THE_POD})
    ]
    assert found == []
    assert CANARIES["variable"].encode() in places[IN_THE_POD], "the server has it"
    # The search finds what is there: the one place that a pull secret is for.
    secret = project.platform.kubectl("-n", project.namespace, "get", "secrets", "-o", "json")
    data = next(iter(json.loads(secret)["items"][0]["data"].values()))
    auth = json.loads(base64.b64decode(data))["auths"].popitem()[1]["auth"]
    assert CANARIES["registry"] in base64.b64decode(auth).decode()


def test_a_value_that_becomes_a_secret_replaces_nothing_and_restarts_nothing(project: Project) -> None:
    """A stack of before has it in the clear; its new value is nowhere but in the pods."""
    variable, kubeconfig = "VLLM_API_KEY=", Path(project.platform.shell["KUBECONFIG"]).read_text()
    project.configure(serverEnv=[variable + CANARIES["docker"]], kubeconfig=kubeconfig)
    project.up()
    before = pod_of(project)["metadata"]["uid"]
    project.configure(serverEnv=[], kubeconfig=None)
    project.pulumi("config", "set", "--secret", "modelcar:kubeconfig", kubeconfig)
    own = ("config", "set", "--secret", "--path", "modelcar:serverEnv[0]")
    project.pulumi(*own, variable + CANARIES["docker"])
    assert project.preview() == []
    project.up()
    assert pod_of(project)["metadata"]["uid"] == before

    project.pulumi(*own, variable + CANARIES["variable"])
    assert {step["op"] for step in project.preview()} == {"update"}
    project.up()
    state = project.pulumi("stack", "export").stdout
    pods = project.platform.kubectl("-n", project.namespace, "get", "pods", "-o", "json")
    assert CANARIES["variable"] in pods
    assert not [name for name in ("docker", "variable") if CANARIES[name] in state]


def registry_contents(project: Project) -> Iterator[tuple[str, bytes]]:
    """Yield what is in the registry of the project's repository: manifests and blobs, files of layers."""
    outputs = json.loads(project.pulumi("stack", "output", "--json").stdout)
    host, _, rest = outputs["storageUri"].removeprefix("oci://").partition("/")
    name = rest.partition("@")[0]
    for tag in httpx.get(f"http://{host}/v2/{name}/tags/list").json()["tags"]:
        manifest = httpx.get(
            f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": f"{MANIFEST}, */*"}
        )
        yield f"manifest {tag}", manifest.content
        document = manifest.json()
        for blob in [document.get("config"), *document.get("layers", [])]:
            if not blob:
                continue
            content = httpx.get(f"http://{host}/v2/{name}/blobs/{blob['digest']}").content
            yield f"blob {blob['digest']}", content
            if content[257:262] == b"ustar":
                with tarfile.open(fileobj=BytesIO(content)) as archive:
                    for member in archive:
                        file = archive.extractfile(member) if member.isfile() else None
                        yield (
                            f"{member.name} in {blob['digest']}",
                            file.read() if file else os.fsencode(member.name),
                        )
