"""`modelcar:signature`: who signs the images, and whose signature `up` asks for before it serves one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from components.config.fields import MAY_HOLD_SECRETS
from components.config.section import Section
from modelcar.signing import SCHEME, Trust


class SignatureSettings(Section):
    """`modelcar:signature`: who signs images, and whose signature counts: by key, or by identity (keyless).

    public_key: file (relative to the project) or URI of the key that signatures are verified by.
    key: file or URI of the private key. Without it a key management service's public_key signs too, and a
        public key in a file only verifies.
    identity: e-mail address, or a workflow's address, whose signature counts.
    issuer: address of the identity's provider.
    transparency_log: write signatures by a key to Sigstore's public log, and ask for them there. Those by an
        identity always are.
    """

    public_key: str | None = None
    key: Annotated[str | None, MAY_HOLD_SECRETS] = None
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
