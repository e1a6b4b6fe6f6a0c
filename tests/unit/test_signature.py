"""Signatures: wrong settings, and how cosign is asked (tests/engine/test_signature.py has the real one)."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelcar import signing
from modelcar.__main__ import main
from modelcar.errors import InputError
from modelcar.evidence import Artifact
from modelcar.registry import Manifest
from modelcar.sbom import SBOM_TYPE
from modelcar.signing import Trust, ensure_signed
from tests.served import served
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_image_and_service import declare_image
from tests.unit.test_components_settings import load, problems

REFERENCE = "registry.example/models/tiny@sha256:" + "a" * 64
KMS = "gcpkms://projects/p/locations/eu/keyRings/r/cryptoKeys/k/versions/1"
WORKFLOW = "https://github.com/o/r/.github/workflows/deploy.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"


# --- settings ---------------------------------------------------------------------------------------


def test_keys_are_found_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text(PUBLIC)
    found = load(tmp_path, signature={"publicKey": "cosign.pub", "key": "env://KEY"}).signature
    assert found is not None
    assert found.found_from(tmp_path).trust == Trust(str(tmp_path / "cosign.pub"))
    assert found.found_from(tmp_path).signing_key == "env://KEY"


@pytest.mark.parametrize(
    ("signature", "key"),
    [
        ({"publicKey": "cosign.pub"}, None),
        ({"publicKey": "cosign.pub", "key": "cosign.key"}, "cosign.key"),
        ({"publicKey": KMS}, KMS),
        ({"identity": WORKFLOW, "issuer": ISSUER}, None),
    ],
)
def test_what_signs(tmp_path: Path, signature: dict[str, str], key: str | None) -> None:
    (tmp_path / "cosign.pub").write_text(PUBLIC)
    found = load(tmp_path, signature=signature).signature
    assert found is not None
    assert found.signing_key == key


@pytest.mark.parametrize(
    ("signature", "key", "says"),
    [
        ({}, "signature", "neither publicKey nor identity"),
        ({"publicKey": KMS, "identity": "a@b.c", "issuer": ISSUER}, "signature", "both publicKey and"),
        ({"identity": "a@b.c"}, "signature.issuer", "not set, beside identity"),
        ({"publicKey": KMS, "issuer": ISSUER}, "signature.identity", "not set, beside issuer"),
        ({"identity": "a@b.c", "issuer": "http://x"}, "signature.issuer", "http://x"),
        ({"identity": "a@b.c", "issuer": ISSUER, "key": KMS}, "signature.key", "beside identity"),
        ({"publicKey": KMS, "transparancyLog": True}, "signature.transparancyLog", "unknown key"),
        ({"publicKey": "nowhere.pub"}, "signature.publicKey", "nowhere.pub: No such file"),
        ({"publicKey": "private.key"}, "signature.publicKey", "private.key holds a private key"),
        ({"publicKey": "text"}, "signature.publicKey", "text holds no public key"),
        ({"publicKey": PUBLIC}, "signature.publicKey", "holds a key itself (not shown)"),
        (
            {"publicKey": KMS, "key": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"},
            "signature.key",
            "not shown",
        ),
    ],
)
def test_a_wrong_signature_is_told(tmp_path: Path, signature: dict[str, Any], key: str, says: str) -> None:
    (tmp_path / "private.key").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    (tmp_path / "text").write_text("no key\n")
    [found] = problems(tmp_path, signature=signature)
    assert found.key == f"modelcar:{key}"
    assert says in found.value
    assert "BEGIN" not in str(found)
    assert found.fix


# --- cosign -----------------------------------------------------------------------------------------

STUB = """#!{python}
import json, os, sys
from pathlib import Path
calls = Path({calls!r})
files = dict((a.split("=")[0], json.loads(Path(a.split("=", 1)[1]).read_text())) for a in sys.argv
             if a.startswith(("--signing-config=", "--trusted-root=")))
with calls.open("a") as file:
    file.write(json.dumps([sys.argv[1:], files]) + "\\n")
answers = json.loads(Path({answers!r}).read_text())
code, said = answers[sys.argv[1]].pop(0)
for option in sys.argv:
    if option.startswith("--bundle=") and not code:
        Path(option.partition("=")[2]).write_text("{{}}")
Path({answers!r}).write_text(json.dumps(answers))
for line in ("warning of no weight", "Error: " + said, "error during command execution: " + said):
    print(line, file=sys.stderr)
sys.exit(code)
"""


class Cosign:
    """A cosign that answers as it is told to, and notes how it was asked."""

    def __init__(self, folder: Path) -> None:
        self._calls, self._answers = folder / "calls", folder / "answers"
        program = folder / "bin" / "cosign"
        program.parent.mkdir()
        program.write_text(
            STUB.format(python=sys.executable, calls=str(self._calls), answers=str(self._answers))
        )
        program.chmod(0o755)

    def answer(self, verify: list[tuple[int, str]], sign: list[tuple[int, str]] | None = None) -> None:
        self._answers.write_text(json.dumps({"verify": verify, "sign": sign or []}))

    def calls(self) -> list[list[str]]:
        return [json.loads(line)[0] for line in self._calls.read_text().splitlines()]

    def files(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._calls.read_text().splitlines()[-1])[1]
        return found


class StubRegistry:
    """A registry that has every image; what is attached there is another test's."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.attached: list[str] = []

    def __enter__(self) -> StubRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.attached in ([], [signing.BUNDLE_TYPE])

    def manifest(self, digest: str) -> Manifest:
        return Manifest(digest, "application/vnd.oci.image.manifest.v1+json", b"{}")


def attached(registry: StubRegistry, _: Manifest, artifacts: Sequence[Artifact]) -> list[str]:
    registry.attached += [artifact.type for artifact in artifacts if artifact.type != SBOM_TYPE]
    return []


@pytest.fixture
def cosign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cosign:
    monkeypatch.setattr(signing, "Registry", StubRegistry)
    monkeypatch.setattr(signing, "attach", attached)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
    return Cosign(tmp_path)


UNSIGNED = (10, "no signatures found")
OTHER = (1, "no matching attestations")
FINE = (0, "")


def test_a_signature_that_counts_is_not_made_again(cosign: Cosign) -> None:
    cosign.answer([FINE])
    assert not ensure_signed(f"oci://{REFERENCE}", Trust(KMS), KMS)
    assert cosign.calls() == [
        ["verify", "--output=json", f"--key={KMS}", "--insecure-ignore-tlog=true", REFERENCE]
    ]


@pytest.mark.parametrize("before", [UNSIGNED, OTHER])
def test_an_image_without_our_signature_is_signed_and_verified(
    cosign: Cosign, before: tuple[int, str]
) -> None:
    cosign.answer([before, FINE], [FINE])
    assert ensure_signed(REFERENCE, Trust(KMS), KMS, insecure=True)
    first, sign, last = cosign.calls()
    assert first == last
    assert [first[0], sign[0]] == ["verify", "sign"]
    assert "--allow-http-registry" in sign


def test_signing_by_a_key_asks_no_server_of_sigstore(cosign: Cosign) -> None:
    cosign.answer([], [FINE])
    signing.sign(REFERENCE, KMS)
    [call] = cosign.calls()
    assert [option.split("=")[0] for option in call] == [
        "sign",
        "--yes",
        "--upload",
        "--key",
        "--bundle",
        "--signing-config",
        "--trusted-root",
        REFERENCE,
    ]


def test_the_public_log_is_used_where_it_is_asked_for(cosign: Cosign) -> None:
    cosign.answer([UNSIGNED, FINE], [FINE])
    assert ensure_signed(REFERENCE, Trust(KMS, transparency_log=True), KMS)
    verify, sign, _ = cosign.calls()
    assert not any("tlog" in option for option in verify)
    assert sign[:4] == ["sign", "--yes", "--upload=false", f"--key={KMS}"]
    assert len(sign[4:]) == 2, "the bundle's file, and the image"
    assert sign[-1] == REFERENCE


def test_an_identity_signs_without_a_key(cosign: Cosign) -> None:
    cosign.answer([UNSIGNED, FINE], [FINE])
    assert ensure_signed(REFERENCE, Trust(identity=WORKFLOW, issuer=ISSUER))
    verify, sign, _ = cosign.calls()
    assert verify[2:-1] == [f"--certificate-identity={WORKFLOW}", f"--certificate-oidc-issuer={ISSUER}"]
    assert sign[:3] == ["sign", "--yes", "--upload=false"]
    assert len(sign[3:]) == 2, "the bundle's file, and the image"
    assert sign[-1] == REFERENCE


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """This is a job of a workflow, whose token names what is given."""
    token = ""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == "Bearer asks" and self.path.endswith(
                "&audience=sigstore"
            )
            self.send_response(200 if allowed else 403)
            self.end_headers()
            self.wfile.write(json.dumps({"value": token}).encode())

    def says(workflow: str) -> None:
        nonlocal token
        claims = base64.urlsafe_b64encode(json.dumps({"job_workflow_ref": workflow}).encode()).decode()
        token = f"head.{claims.rstrip('=')}.signature"

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"http://127.0.0.1:{server.server_address[1]}/?v=1")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "asks")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    with served(server):
        yield says


def test_a_workflow_signs_nothing_that_would_not_count(cosign: Cosign, job: Callable[[str], None]) -> None:
    """A release deploys prod by another identity each time, and the public log forgets nothing."""
    job("o/r/.github/workflows/release.yml@refs/tags/v0.4.0")
    cosign.answer([UNSIGNED])
    told = (
        r"(?s)no signature, and this workflow would sign as \S*/release\.yml@refs/tags/v0\.4\.0.*promoteFrom"
    )
    with pytest.raises(InputError, match=told):
        ensure_signed(REFERENCE, Trust(identity=WORKFLOW, issuer=ISSUER))
    assert [call[0] for call in cosign.calls()] == ["verify"]
    # The signature of the workflow that counts is brought from where that one deployed the image.
    cosign.answer([UNSIGNED, FINE])
    assert not ensure_signed(REFERENCE, Trust(identity=WORKFLOW, issuer=ISSUER), bring=lambda: True)


@pytest.mark.parametrize("said", [WORKFLOW.removeprefix("https://github.com/"), None])
def test_a_workflow_signs_as_itself(
    said: str | None, cosign: Cosign, job: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its own identity cannot be told."""
    if said:
        job(said)
        monkeypatch.setenv("GITHUB_WORKFLOW_REF", "o/caller/.github/workflows/a.yml@refs/heads/main")
    cosign.answer([UNSIGNED, FINE], [FINE])
    assert ensure_signed(REFERENCE, Trust(identity=WORKFLOW, issuer=ISSUER))


def test_without_a_private_key_an_unsigned_image_is_refused(
    cosign: Cosign, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosign.answer([UNSIGNED])
    with pytest.raises(InputError, match=r"(?s)no signature.*signed by cosign\.pub") as caught:
        ensure_signed(REFERENCE, Trust("cosign.pub"))
    assert len(cosign.calls()) == 1
    [line] = re.findall(r"fix: .*: python -m modelcar (sign .*)", str(caught.value))
    cosign.answer([UNSIGNED, FINE], [FINE])
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    assert main(line.split()) == 0, "the fix, by whoever has the key"


def test_cosigns_own_words_are_told_once(cosign: Cosign) -> None:
    cosign.answer([UNSIGNED], [(1, "reading key: permission denied")])
    with pytest.raises(InputError) as caught:
        ensure_signed(REFERENCE, Trust(KMS), KMS)
    assert str(caught.value).count("permission denied") == 1
    assert "warning of no weight" not in str(caught.value)


def test_a_signature_by_a_key_that_does_not_count_is_told(cosign: Cosign) -> None:
    cosign.answer([UNSIGNED, OTHER], [FINE])
    with pytest.raises(InputError, match=r"signed just now, and yet: no valid signature by other\.pub"):
        ensure_signed(REFERENCE, Trust("other.pub"), KMS)


def test_a_key_in_a_file_needs_its_password(cosign: Cosign, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="COSIGN_PASSWORD"):
        signing.sign(REFERENCE, "cosign.key")
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    cosign.answer([], [FINE])
    signing.sign(REFERENCE, "cosign.key")


def test_only_a_digest_is_signed(cosign: Cosign) -> None:
    with pytest.raises(InputError, match="HOST/PATH@sha256"):
        signing.sign("registry.example/models/tiny:latest", KMS)


def test_cosign_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"(?s)not on PATH.*python -m local\.tools cosign"):
        signing.verify(REFERENCE, Trust(KMS))


def test_cosign_that_does_not_end_is_told(cosign: Cosign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "TIMEOUT", 0.0)
    with pytest.raises(InputError, match="has not ended"):
        signing.verify(REFERENCE, Trust(KMS))


def test_commands(cosign: Cosign, capsys: pytest.CaptureFixture[str]) -> None:
    cosign.answer([UNSIGNED, FINE, FINE, OTHER], [FINE])
    assert main(["sign", REFERENCE, "--key", KMS]) == 0
    assert capsys.readouterr().out == f"signed: {REFERENCE} ({KMS})\n"
    assert main(["verify-signature", REFERENCE, "--identity", "a@b.c", "--issuer", ISSUER]) == 0
    assert "is signed by a@b.c" in capsys.readouterr().out
    assert main(["verify-signature", REFERENCE, "--public-key", "x.pub"]) == 1
    assert "no valid signature by x.pub" in capsys.readouterr().err
    assert main(["verify-signature", REFERENCE]) == 2
    assert main(["verify-signature", REFERENCE, "--identity", "a@b.c"]) == 2
    assert main(["sign", REFERENCE, "--key", "cosign.key"]) == 2


# --- the component ----------------------------------------------------------------------------------


def test_a_preview_does_not_ask_cosign(cosign: Cosign, tmp_path: Path) -> None:
    settings = load(signature={"publicKey": KMS}).signature
    assert declare_image(Engine(preview=True), signature=settings, project=tmp_path)["digest"]


def test_up_hands_the_digest_on_only_when_it_is_signed(cosign: Cosign, tmp_path: Path) -> None:
    settings = load(signature={"publicKey": KMS}).signature
    cosign.answer([UNSIGNED, FINE], [FINE])
    assert declare_image(Engine(preview=False), signature=settings)["digest"]
    cosign.answer([UNSIGNED], [(1, "denied")])
    with pytest.raises(Exception, match="not signed, and nothing was deployed"):
        declare_image(Engine(preview=False), signature=settings)
