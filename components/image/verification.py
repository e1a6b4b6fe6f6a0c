"""Signatures of images that are there already: asked for before anything refers to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pulumi

from components.config.signature import SignatureSettings
from components.engine.threads import in_thread
from modelcar import signing


def once_verified(
    value: pulumi.Input[str],
    images: Sequence[tuple[str, bool]],
    signature: SignatureSettings | None,
    project: Path,
    refused: Callable[[Mapping[int, str]], str],
) -> pulumi.Output[str]:
    """Return a value once the images' signatures count: what comes after it never refers to an unsigned one.

    A preview does not ask.

    Args:
        value: a digest, or whatever refers to the images.
        images: HOST/PATH@sha256:… of each, and whether its registry speaks plain HTTP.
        signature: whose counts; None where nobody asks for one.
        project: the folder that files of keys are relative to.
        refused: returns what to say, by the reasons: each by its image's place in `images`.

    Raises (inside of the output):
        pulumi.RunError: one has none that counts.
    """
    known = pulumi.Output.from_input(value)
    if signature is None or not images or pulumi.runtime.is_dry_run():
        return known
    trust = signature.found_from(project).trust

    async def check(found: str) -> str:
        faults = {}
        for number, (reference, insecure) in enumerate(images):
            fault = await in_thread(signing.verify, reference, trust, insecure=insecure)
            if fault is not None:
                faults[number] = fault
        if faults:
            raise pulumi.RunError(refused(faults))
        return found

    return known.apply(check)
