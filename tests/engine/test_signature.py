"""Images signed by the real cosign, in the real registry, by a key pair: without it nothing is deployed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local.tools import find_tool
from modelcar.registry import Target
from tests import made_images as made
from tests.conftest import PROJECT
from tests.engine.conftest import Project
from tests.key_pair import PASSWORD, make_key_pair

pytestmark = pytest.mark.extended

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture(scope="session")
def cosign() -> Path:
    return find_tool("cosign", print)


@pytest.fixture
def signed(project: Project, cosign: Path) -> Project:
    """Make key pairs, and let the stack sign by the first."""
    for name in ("cosign", "other"):
        make_key_pair(cosign, project.folder, name)
    project.variables["COSIGN_PASSWORD"] = PASSWORD
    project.configure(signature={"publicKey": "cosign.pub", "key": "cosign.key"})
    return project


def command(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [".venv/bin/python", "-m", "modelcar", *arguments, "--insecure"],
        cwd=PROJECT,
        env=project.platform.pulumi_env(project.folder) | project.variables,
        capture_output=True,
        text=True,
        check=False,
    )


def signatures(project: Project, uri: str) -> int:
    shown = json.loads(command(project, "inspect", uri, "--json").stdout)
    return str(shown).count(BUNDLE)


def served(project: Project) -> str:
    state: dict[str, Any] = json.loads(project.pulumi("stack", "export").stdout)
    [service] = [
        resource
        for resource in state["deployment"]["resources"]
        if resource["type"].endswith(":InferenceService")
    ]
    return json.dumps(service["inputs"])


def test_up_signs_once_and_everybody_can_verify_it(signed: Project, cosign: Path) -> None:
    said = signed.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert "signed " in said
    uri = json.loads(signed.pulumi("stack", "output", "--json").stdout)["storageUri"]
    assert signatures(signed, uri) == 1
    by_hand = ["verify", "--key=cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"]
    reference = uri.removeprefix("oci://")
    subprocess.run(
        [str(cosign), *by_hand, reference], cwd=signed.folder, check=True, capture_output=True, timeout=60
    )
    assert "cyclonedx" in command(signed, "inspect", uri).stdout, "the bill of materials is there beside it"
    verify = ("verify-signature", uri, "--public-key")
    assert command(signed, *verify, f"{signed.folder}/cosign.pub").returncode == 0
    stranger = command(signed, *verify, f"{signed.folder}/other.pub")
    assert stranger.returncode == 1
    assert "no valid signature by" in stranger.stderr

    # Whoever has only the public key can go on deploying what is signed.
    (signed.folder / "cosign.key").unlink()
    del signed.variables["COSIGN_PASSWORD"]
    signed.configure(signature={"publicKey": "cosign.pub"})
    signed.pulumi("up", "--yes", "--expect-no-changes")
    assert signatures(signed, uri) == 1


def test_a_signature_of_dev_is_enough_for_prod(signed: Project, prod: Project) -> None:
    """prod knows dev's public key alone; a signature by another key is neither copied nor enough."""
    signed.up()
    prod.configure(signature={"publicKey": "other.pub"})
    refused = prod.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    assert refused.returncode
    said = refused.stdout + refused.stderr
    assert "no valid signature by" in said
    assert "the image is not signed, and nothing was deployed" in said

    prod.configure(signature={"publicKey": "cosign.pub"})
    said = prod.pulumi("up", "--yes", "--skip-preview", "--color=never").stdout
    assert "its signature is copied from" in said
    uri = json.loads(prod.pulumi("stack", "output", "--json").stdout)["storageUri"]
    assert signatures(prod, uri) == 1
    verify = ("verify-signature", uri, "--public-key")
    assert command(prod, *verify, f"{prod.folder}/cosign.pub").returncode == 0


def test_what_cannot_be_signed_is_not_deployed(signed: Project) -> None:
    first = signed.up()
    signed.change_weights(seed=5)
    signed.configure(signature={"publicKey": "cosign.pub"})
    failed = signed.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    assert failed.returncode
    assert "the image is not signed, and nothing was deployed" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert first["storageUri"] in served(signed), "the former one is served on"

    signed.configure(signature={"publicKey": "other.pub", "key": "cosign.key"})
    failed = signed.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    assert failed.returncode
    assert "signed just now, and yet: no valid signature by" in failed.stdout + failed.stderr
    assert first["storageUri"] in served(signed)

    signed.configure(signature={"publicKey": "cosign.pub", "key": "cosign.key"})
    second = signed.up()
    assert second["storageUri"] != first["storageUri"]
    assert second["storageUri"] in served(signed)


def test_a_preview_needs_neither_cosign_nor_keys(signed: Project) -> None:
    signed.up()
    signed.change_weights(seed=6)
    (signed.folder / "cosign.key").unlink()
    del signed.variables["COSIGN_PASSWORD"]
    assert {step["op"] for step in signed.preview()} == {"update"}


def test_keys_and_passwords_are_in_no_state(signed: Project) -> None:
    signed.up()
    state = signed.pulumi("stack", "export").stdout
    assert PASSWORD not in state
    assert "PRIVATE KEY" not in state


def test_an_adapter_of_its_own_needs_a_signature_too(signed: Project) -> None:
    first = signed.up()["storageUri"]
    registry, _, name = str(signed.platform.settings["registry"]).partition("/")
    image = made.image([made.layer(made.SHELL), made.layer(made.ADAPTER)])
    adapter = image.push(Target(f"{registry}/{name}", "french", insecure=True))
    modules = {"loraModules": [{"name": "french", "image": adapter}]}
    signed.configure(placement="imageVolume", vllm=modules)
    failed = signed.pulumi("up", "--yes", "--skip-preview", "--color=never", check=False)
    assert failed.returncode
    assert f"loraModules[0].image: {adapter} is not served" in failed.stdout + failed.stderr
    assert "french" not in served(signed)

    keys = ("--key", f"{signed.folder}/cosign.key", "--public-key", f"{signed.folder}/cosign.pub")
    done = command(signed, "sign", adapter, *keys)
    assert done.returncode == 0, done.stderr
    assert signed.up()["storageUri"] == first
    assert adapter in served(signed)
