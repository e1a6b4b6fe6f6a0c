"""Whether a pod used the kernels of its image: by the start script's line, and by what vLLM logs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from components.manifests.kernels import NONE, OFF, SAID, UNUSED, USED
from operations.server_phases import compile_cache

#: What vLLM's own log says of its compiled model.
TOLD = {
    "hit": "the server loaded its compiled model",
    "part": "the server loaded a part of its compiled model, and compiled the rest",
    "miss": "the server compiled its model anew",
    None: "the server compiled nothing",
}


@dataclass(frozen=True)
class KernelUse:
    """What became of kernels in a pod.

    said: the start script's line, without its beginning; None where the log does not have it.
    cache: hit, part or miss, as vLLM says; None where it compiled nothing.
    reason: why vLLM did not load what was there.
    """

    said: str | None
    cache: str | None
    reason: str = ""

    @property
    def used(self) -> bool:
        """Whether the pod copied kernels for its server."""
        return bool(self.said and self.said.startswith(USED + " "))

    @property
    def missed(self) -> bool:
        """Whether the image has kernels, or was promised to, and the server compiled all the same."""
        of_image = bool(self.said) and not str(self.said).startswith((NONE, OFF))
        return of_image and (self.cache != "hit" or not self.used)


def kernel_use(log: str) -> KernelUse | None:
    """Return what a server's log says of kernels; None where it says nothing, as another server's."""
    said = next((line.partition(SAID)[2] for line in log.splitlines() if SAID in line), None)
    cache, reason = compile_cache(log)
    if said is None and cache is None:
        return None
    return KernelUse(said, cache, reason)


def describe(use: KernelUse) -> str:
    """Return it in words."""
    words = [use.said or "not known: the log has its beginning no more", TOLD[use.cache]]
    if use.reason and use.cache != "hit":
        words.append(f"because: {use.reason}")
    return "; ".join(words)


def fix(use: KernelUse, renew: str) -> str:
    """Return what to do about a miss; renew: the command that saves new ones."""
    if not use.missed:
        return ""
    if use.said and use.said.startswith(UNUSED):
        return f"they are for another server, GPU or place: {renew}"
    return f"arguments, variables or versions differ from those that they were saved with: {renew}"


def document(use: KernelUse | None) -> dict[str, object] | None:
    """Return it for programs."""
    return {**asdict(use), "used": use.used, "missed": use.missed} if use else None
