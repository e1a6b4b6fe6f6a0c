"""`modelcar:signature`: who signs the images, and whose signature `up` asks for before it serves one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pulumi

from components.checks import problem
from components.google.settings import Section
from components.threads import in_thread
from modelcar import signing
from modelcar.errors import Problem
from modelcar.signing import SCHEME, Trust

_PUBLIC, _PRIVATE = b"-----BEGIN PUBLIC KEY-----", b"PRIVATE KEY-----"
_KEYS = "a file that `cosign generate-key-pair` makes, or a URI as cosign takes them (gcpkms://…)"


class SignatureSettings(Section):
    """All of `modelcar:signature`; by a key, or by an identity (keyless).

    public_key: file (relative to the project) or URI of the key that signatures are verified by.
    key: file or URI of the private key. Without it a key management service's public_key signs too, and a
        public key in a file only verifies.
    identity: e-mail address, or a workflow's address, whose signature counts.
    issuer: address of the identity's provider.
    transparency_log: write signatures by a key to Sigstore's public log, and ask for them there. Those by an
        identity always are.
    """

    public_key: str | None = None
    key: str | None = None
    identity: str | None = None
    issuer: str | None = None
    transparency_log: bool = False

    @property
    def signing_key(self) -> str | None:
        """What signs: the private key, or the service that has it; None where nothing here does."""
        return self.key or (self.public_key if self.public_key and SCHEME in self.public_key else None)

    @property
    def trust(self) -> Trust:
        """Whose signature counts."""
        return Trust(self.public_key, self.identity, self.issuer, self.transparency_log)

    def found_from(self, project: Path) -> SignatureSettings:
        """Return the same, with the paths of files seen from everywhere."""
        changes = {
            name: str(project / value)
            for name in ("public_key", "key")
            if (value := getattr(self, name)) and SCHEME not in value
        }
        return self.model_copy(update=changes)


def problems(signature: SignatureSettings) -> Iterator[Problem]:
    """Yield what is wrong with the settings taken together."""
    if bool(signature.public_key) == bool(signature.identity):
        found = "both publicKey and identity" if signature.identity else "neither publicKey nor identity"
        yield problem(
            "signature",
            found,
            "one that signatures are verified by",
            "set one of signature.publicKey and signature.identity",
        )
    for name, value in (("publicKey", signature.public_key), ("key", signature.key)):
        if value and ("\n" in value or "-----" in value):
            yield problem(
                f"signature.{name}",
                "holds a key itself (not shown)",
                _KEYS,
                "make another key, in a file, and name that: this one is known to whoever reads the settings",
            )
    if bool(signature.identity) != bool(signature.issuer):
        missing, other = ("issuer", "identity") if signature.identity else ("identity", "issuer")
        yield problem(
            f"signature.{missing}",
            f"not set, beside {other}",
            "an identity, and the provider that vouches for it",
            "for GitHub's workflows the issuer is https://token.actions.githubusercontent.com",
        )
    if signature.issuer and not signature.issuer.startswith("https://"):
        yield problem("signature.issuer", signature.issuer, "https://HOST", "write the provider's address")
    if signature.identity and signature.key:
        yield problem(
            "signature.key",
            "set beside identity, which signs without one",
            "a key, or an identity",
            "remove it, or set publicKey in place of identity",
        )


def problems_of_files(signature: SignatureSettings, project: Path) -> Iterator[Problem]:
    """Yield what is wrong with files of keys; a private key that is not here only matters to who signs."""
    name = signature.public_key
    if name is None or SCHEME in name or "-----" in name:
        return
    key, fix = (
        "signature.publicKey",
        "cosign generate-key-pair makes cosign.key and cosign.pub; commit the latter",
    )
    try:
        content = (project / name).read_bytes()[:4096]
    except OSError as error:
        yield problem(key, f"{name}: {error.strerror}", _KEYS, fix)
        return
    if _PRIVATE in content:
        yield problem(key, f"{name} holds a private key", "a public key", "name the .pub file beside it")
    elif not content.lstrip().startswith(_PUBLIC):
        yield problem(key, f"{name} holds no public key", f"a PEM file: {_KEYS}", fix)


def once_verified(
    digest: str,
    reference: str,
    signature: SignatureSettings | None,
    project: Path,
    refused: Callable[[str], str],
    *,
    insecure: bool,
) -> pulumi.Output[str]:
    """Return a digest once its signature counts: what comes after it never refers to an unsigned image.

    A preview does not ask.

    Args:
        digest: of an image that is there already.
        reference: HOST/PATH@sha256:… of it.
        signature: whose counts; None where nobody asks for one.
        project: the folder that files of keys are relative to.
        refused: returns what to say, by the reason.
        insecure: the registry speaks plain HTTP.

    Raises (inside of the output):
        pulumi.RunError: it has none that counts.
    """
    known = pulumi.Output.from_input(digest)
    if signature is None or pulumi.runtime.is_dry_run():
        return known
    trust = signature.found_from(project).trust

    async def check(found: str) -> str:
        fault = await in_thread(signing.verify, reference, trust, insecure=insecure)
        if fault is not None:
            raise pulumi.RunError(refused(fault))
        return found

    return known.apply(check)
