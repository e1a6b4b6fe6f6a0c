"""The policy by which a cluster's verifier lets nothing start that nobody signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components import settings as stack
from modelcar.errors import InputError
from operations.admission import policy

KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
REGISTRY = "europe-west4-docker.pkg.dev/my-project/modelcars"


def made(folder: Path, signature: str | None) -> dict[str, Any]:
    (folder / "cosign.pub").write_text(KEY)
    config = {
        "modelcar:model": "qwen",
        "modelcar:registry": REGISTRY,
        "modelcar:serverImage": "docker.io/vllm/vllm-openai@sha256:" + "0" * 64,
    }
    if signature:
        config["modelcar:signature"] = signature
    return policy(stack.load(config, folder), folder, "prod")


def attestor(found: dict[str, Any]) -> dict[str, Any]:
    [only] = found["spec"]["attestors"]
    return dict(only["cosign"])


def test_every_image_of_the_stacks_registry_needs_a_signature_by_its_key(tmp_path: Path) -> None:
    found = made(tmp_path, '{"publicKey": "cosign.pub"}')
    assert found["metadata"]["name"] == "signed-modelcars-prod"
    spec = found["spec"]
    assert spec["matchImageReferences"] == [{"glob": f"{REGISTRY}/*"}]
    assert (spec["failurePolicy"], spec["validationActions"]) == ("Fail", ["Deny"])
    ignored = {"insecureIgnoreTlog": True, "insecureIgnoreSCT": True}
    assert attestor(found) == {"key": {"data": KEY}, "ctlog": ignored}


def test_the_log_is_asked_where_signatures_are_written_to_it(tmp_path: Path) -> None:
    found = made(tmp_path, '{"publicKey": "cosign.pub", "transparencyLog": true}')
    assert not any(attestor(found)["ctlog"].values())


def test_a_key_of_a_key_management_service_stays_there(tmp_path: Path) -> None:
    key = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/versions/1"
    assert attestor(made(tmp_path, f'{{"publicKey": "{key}"}}'))["key"] == {"kms": key}


def test_an_identity_and_who_vouches_for_it(tmp_path: Path) -> None:
    issuer, subject = "https://accounts.google.com", "release@my-project.iam.gserviceaccount.com"
    found = attestor(made(tmp_path, f'{{"identity": "{subject}", "issuer": "{issuer}"}}'))
    assert found == {"keyless": {"identities": [{"issuer": issuer, "subject": subject}]}}


def test_a_stack_that_asks_for_no_signature_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)modelcar:signature: not set.*signature\.publicKey"):
        made(tmp_path, None)
