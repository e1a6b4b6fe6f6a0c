"""`modelcar:signature`: settings that do not go together, and the files that they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from components.config.problems import problem
from components.config.signature import SignatureSettings
from modelcar.errors import Problem
from modelcar.signing import SCHEME

_PUBLIC, _PRIVATE = b"-----BEGIN PUBLIC KEY-----", b"PRIVATE KEY-----"
_KEYS = "a file that `cosign generate-key-pair` makes, or a URI as cosign takes them (gcpkms://…)"


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
    except (OSError, ValueError) as error:  # ValueError: no path at all, as with a NUL
        yield problem(key, f"{name}: {getattr(error, 'strerror', error)}", _KEYS, fix)
        return
    if _PRIVATE in content:
        yield problem(key, f"{name} holds a private key", "a public key", "name the .pub file beside it")
    elif not content.lstrip().startswith(_PUBLIC):
        yield problem(key, f"{name} holds no public key", f"a PEM file: {_KEYS}", fix)
