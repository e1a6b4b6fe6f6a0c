"""Signatures of images: made and verified by cosign (https://docs.sigstore.dev), attached in the registry.

An image's digest covers its layers, and the annotation with the digest of its lock, so one signature covers
the weights, where they are from, their licence, and the bill of materials, which follows from the lock.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelcar import workflow_identity
from modelcar.errors import refuse
from modelcar.evidence import Artifact, attach
from modelcar.registry import Registry, parse

#: Tells how a key is named that is no file: a key management service, an environment variable, …
SCHEME = "://"
#: Exit status of `cosign verify` for an image that nobody signed.
_UNSIGNED = 10
#: Seconds. A registry, a key management service and Sigstore's servers answer in between.
TIMEOUT = 300.0

#: How cosign 3 attaches a signature, and how it and Kyverno find it (its pkg/oci/remote/write.go,
#: WriteAttestationNewBundleFormat).
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE_TYPE = "dev.sigstore.bundle.predicateType"
_BUNDLE = {
    "dev.sigstore.bundle.content": "dsse-envelope",
    _PREDICATE_TYPE: "https://sigstore.dev/cosign/sign/v1",
}
_BUNDLE_KIND = re.compile(r"application/vnd\.dev\.sigstore\.bundle\.v[0-9]+\.[0-9]+\+json")
_PREDICATE = re.compile(r"https?://[!-~]{1,500}")

#: No transparency log, no authority for certificates: what signing by a key needs of Sigstore's servers.
_NO_SERVERS = {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}
_NO_ROOTS = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


@dataclass(frozen=True)
class Trust:
    """Whose signature counts: a key's, or that of an identity that a provider vouched for (keyless).

    public_key: path of a file (PEM), or a URI as cosign takes them (`gcpkms://…`, `awskms://…`, `k8s://…`).
    identity: e-mail address, or address of a workflow. issuer: address of the identity's provider.
    transparency_log: the signature has to be in the public log (Rekor); always so for an identity.
    """

    public_key: str | None = None
    identity: str | None = None
    issuer: str | None = None
    transparency_log: bool = False

    @property
    def shown(self) -> str:
        """What a person calls it."""
        return self.public_key or f"{self.identity} ({self.issuer})"


def ensure_signed(
    reference: str,
    trust: Trust,
    key: str | None = None,
    *,
    beside: Sequence[Artifact] = (),
    insecure: bool = False,
    bring: Callable[[], bool] | None = None,
) -> bool:
    """Verify an image's signature; sign it where it has none of this trust. Return whether it was signed now.

    Args:
        reference: HOST/PATH@sha256:…, in the registry already.
        trust: whose signature counts.
        key: that signs, as `public_key` is named; None to verify only. A trust by identity has none: the
            machine's own identity signs (a workflow's token, or SIGSTORE_ID_TOKEN).
        beside: what is attached together with a signature that is made now.
        insecure: the registry speaks plain HTTP.
        bring: is asked for a signature from elsewhere before one is made; returns whether it brought one.

    Raises:
        InputError: there is no such signature, and none that counts can be made.
    """
    fault = verify(reference, trust, insecure=insecure)
    if fault is not None and bring and bring():
        fault = verify(reference, trust, insecure=insecure)
    if fault is None:
        return False
    if key is None and trust.public_key:
        log = " --transparency-log" if trust.transparency_log else ""
        command = f"python -m modelcar sign {reference} --key … --public-key {trust.public_key}{log}"
        raise refuse(
            reference,
            fault,
            allowed=f"an image that is signed by {trust.shown}",
            fix=f"let whoever has the private key sign it: {command}",
        )
    # The public log keeps a signature for good, and this one would count for nobody.
    own = workflow_identity.of_this_job() if trust.identity and key is None else None
    if own is not None and own != trust.identity:
        raise refuse(
            reference,
            f"{fault}, and this workflow would sign as {own}",
            allowed=f"an image that is signed by {trust.shown}",
            fix="let that workflow deploy the image first, and name where to: modelcar:promoteFrom or "
            "modelcar:mirrors, which its signature is copied from; or sign by a key (docs/supply-chain.md)",
        )
    sign(reference, key, transparency_log=trust.transparency_log, beside=beside, insecure=insecure)
    fault = verify(reference, trust, insecure=insecure)
    if fault is not None:
        raise refuse(
            reference,
            f"signed just now, and yet: {fault}",
            allowed=f"a signature by {trust.shown}",
            fix="name the key or identity that signs: a private key and its own public key, or this run's "
            "identity",
        )
    return True


def verify(reference: str, trust: Trust, *, insecure: bool = False) -> str | None:
    """Return why an image's signature does not count, None where it does.

    Args:
        reference: HOST/PATH@sha256:….
        trust: whose signature counts.
        insecure: the registry speaks plain HTTP.

    Raises:
        InputError: there is no cosign.
    """
    result = _cosign("verify", ["--output=json", *_asked(trust)], reference, insecure=insecure)
    if result.returncode == 0:
        return None
    if result.returncode == _UNSIGNED:
        return "no signature"
    return f"no valid signature by {trust.shown}: {_said(result)}"


def bundle_of(content: bytes, digest: str, trust: Trust) -> Artifact | None:
    """Return a signature of an image as it is attached; None where it does not count.

    `verify` asks whether one of all that are attached counts. This asks of one, wherever it is from: nothing
    of the manifest that it came by gets into what is returned.

    Args:
        content: a Sigstore bundle, or anything else.
        digest: of the image that it has to be a signature of.
        trust: whose signature counts.

    Raises:
        InputError: there is no cosign.
    """
    try:
        bundle = json.loads(content)
        kind = str(bundle["mediaType"])
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
        predicate = str(statement["predicateType"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not _BUNDLE_KIND.fullmatch(kind) or not _PREDICATE.fullmatch(predicate):
        return None
    wanted = [f"--digest={digest.removeprefix('sha256:')}", "--digestAlg=sha256", f"--type={predicate}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle.sigstore.json")
        path.write_bytes(content)
        result = _cosign(
            "verify-blob-attestation", [*_asked(trust), f"--bundle={path}", *wanted], None, insecure=False
        )
    if result.returncode:
        return None
    return Artifact(kind, content, annotations={**_BUNDLE, _PREDICATE_TYPE: predicate})


def _asked(trust: Trust) -> list[str]:
    """Return cosign's options for whose signature counts."""
    if trust.public_key:
        ignored = [] if trust.transparency_log else ["--insecure-ignore-tlog=true"]
        return [f"--key={trust.public_key}", *ignored]
    return [f"--certificate-identity={trust.identity}", f"--certificate-oidc-issuer={trust.issuer}"]


def sign(
    reference: str,
    key: str | None,
    *,
    transparency_log: bool = False,
    beside: Sequence[Artifact] = (),
    insecure: bool = False,
) -> None:
    """Sign an image, and attach the signature to it.

    cosign makes the signature, and does not attach it: where a registry has no API for referrers it would
    write the list of what is attached by itself, and where tags do not move nothing else gets into that list.

    Args:
        reference: HOST/PATH@sha256:…: a tag may point to another image by the time that it is signed.
        key: path of a private key, or its URI; None for this machine's identity, which goes to Sigstore's
            public log.
        transparency_log: write the signature to the public log; its entries cannot be taken back.
        beside: what is attached together with it.
        insecure: the registry speaks plain HTTP.

    Raises:
        InputError: the image or cosign is not there, it cannot use the key, or the registry refuses.
    """
    if "@sha256:" not in reference:
        raise refuse(
            "image", reference, allowed="HOST/PATH@sha256:…", fix="copy it from the stack's output storageUri"
        )
    _require_password(key)
    with Registry(parse(reference, insecure=insecure)[0], write=True) as registry:
        image = registry.manifest(reference.partition("@")[2])
        if image is None:
            raise refuse(
                reference,
                "the registry does not have it",
                allowed="an image that was pushed",
                fix="copy it from the stack's output storageUri",
            )
        bundle = _signature(reference, key, transparency_log=transparency_log, insecure=insecure)
        attach(registry, image, [*beside, Artifact(BUNDLE_TYPE, bundle, annotations=_BUNDLE)])


def require(key: str | None) -> None:
    """Look whether there is what signing takes, before anything is made that is to be signed.

    Args:
        key: path of a private key, or its URI; None for this machine's identity.

    Raises:
        InputError: cosign is not there, or no password for the key.
    """
    _require_password(key)
    _program()


def sign_file(path: Path, key: str | None) -> bytes:
    """Sign a file, and return the signature: a bundle that `cosign verify-blob --bundle` takes.

    Args:
        path: of the file.
        key: path of a private key, or its URI; None for this machine's identity, which goes to Sigstore's
            public log.

    Raises:
        InputError: cosign is not there, or cannot use the key.
    """
    _require_password(key)
    options = ["--yes", *([f"--key={key}"] if key else [])]
    with _servers(used=not key) as servers, tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle.json")
        result = _cosign("sign-blob", [*options, f"--bundle={bundle}", *servers], str(path), insecure=False)
        if result.returncode == 0:
            return bundle.read_bytes()
    raise refuse(
        str(path),
        f"cosign cannot sign it: {_said(result)}",
        allowed="a key that this machine may sign with" if key else "an identity, as a workflow has one",
        fix="check key, password and rights; see also `cosign sign-blob --help`",
    )


def _require_password(key: str | None) -> None:
    if key and SCHEME not in key and "COSIGN_PASSWORD" not in os.environ:
        raise refuse(
            "COSIGN_PASSWORD",
            "not set",
            allowed=f"the password of {key}; empty where it has none",
            fix="export COSIGN_PASSWORD=…, or keep the key in a key management service (gcpkms://…)",
        )


def _signature(reference: str, key: str | None, *, transparency_log: bool, insecure: bool) -> bytes:
    options = ["--yes", "--upload=false", *([f"--key={key}"] if key else [])]
    with (
        _servers(used=transparency_log or not key) as servers,
        tempfile.NamedTemporaryFile(suffix=".sigstore.json") as bundle,
    ):
        result = _cosign(
            "sign", [*options, f"--bundle={bundle.name}", *servers], reference, insecure=insecure
        )
        content = Path(bundle.name).read_bytes()
    if result.returncode:
        raise refuse(
            reference,
            f"cosign cannot sign it: {_said(result)}",
            allowed="a key that this machine may sign with"
            if key
            else "an identity, in a workflow or by SIGSTORE_ID_TOKEN",
            fix="check key, password and rights; see also `cosign sign --help`",
        )
    return content


@contextmanager
def _servers(*, used: bool) -> Iterator[Sequence[str]]:
    """Yield cosign's options for the servers that it needs; without a log it needs none, and asks none."""
    if used:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        options = []
        for option, content in (("signing-config", _NO_SERVERS), ("trusted-root", _NO_ROOTS)):
            path = Path(folder, f"{option}.json")
            path.write_text(json.dumps(content))
            options.append(f"--{option}={path}")
        yield options


def _cosign(
    command: str, options: Sequence[str], reference: str | None, *, insecure: bool
) -> subprocess.CompletedProcess[str]:
    program = _program()
    plain = ["--allow-http-registry"] if insecure else []
    try:
        return subprocess.run(
            [program, command, *options, *plain, *([reference.removeprefix("oci://")] if reference else [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise refuse(
            reference or "bundle",
            f"cosign {command} has not ended after {TIMEOUT:.0f} s",
            allowed="an answer of the registry, and of the servers that hold key or log",
            fix="check the network",
        ) from None


def _program() -> str:
    program = shutil.which("cosign")
    if not program:
        raise refuse(
            "cosign",
            "not on PATH",
            allowed="cosign 3 (https://docs.sigstore.dev/cosign/system_config/installation/)",
            fix="install it; or in a checkout of this project, which downloads or builds it: "
            'PATH="$(dirname $(python -m local.tools cosign)):$PATH"',
        )
    return program


def _said(result: subprocess.CompletedProcess[str]) -> str:
    """Return cosign's own last words; it says them twice."""
    lines = [line for line in result.stderr.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit status {result.returncode}"
    return last.removeprefix("error during command execution: ").removeprefix("Error: ")
