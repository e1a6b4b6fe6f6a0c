"""Signatures of images that are there already: asked for before anything refers to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pulumi

from components.config.signature import SignatureSettings
from components.engine.threads import in_thread
from modelcar import signing


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
