"""Mirrors: repositories that may have a model's layers already, on this registry or another one.

What a mirror sends is checked by size and SHA-256 against the lock, so it needs no more trust than a network.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from modelcar.errors import InputError, refuse
from modelcar.mirror_names import ALLOWED, fault_of_mirror
from modelcar.paths import printable
from modelcar.registry import Target, connect
from modelcar.registry_http import NotARegistryError, RegistryClient, has_blob
from modelcar.side_by_side import Work

#: Blobs that a mirror is asked for at a time.
JOBS = 4
#: Seconds without an answer, or without a byte of one, after which a mirror counts as gone.
STALL = 30.0
#: Seconds that a mirror may ask to wait in all (Retry-After); there are other sources.
PATIENCE = 60.0
#: Seconds before each further try of a mirror that is in trouble; one that brings bytes starts anew.
WAITS = (1.0, 2.0, 4.0)


class Blob(Protocol):
    """A layer, of an image or of a lock."""

    @property
    def digest(self) -> str:
        """`sha256:…` of the blob."""

    @property
    def size(self) -> int:
        """Bytes of the blob."""


@dataclass(frozen=True)
class Plan:
    """What mirrors have.

    having: by digest, the mirrors that have the layer, in the order of the settings.
    faults: why a mirror cannot be asked, by its name.
    """

    having: Mapping[str, tuple[Target, ...]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


def mirror_targets(
    names: Iterable[str], target: Target | None = None, *, insecure: bool = False
) -> tuple[Target, ...]:
    """Return mirrors as repositories; one that is the target itself is left out.

    Args:
        names: HOST[:PORT]/PATH of each.
        target: where layers go; a mirror on the same host is spoken to as that is.
        insecure: speak plain HTTP to the others.

    Raises:
        InputError: a name is none of a repository.
    """
    found = []
    for name in dict.fromkeys(names):
        if fault := fault_of_mirror(name):
            raise refuse(f"mirror {name}", fault[0], allowed=ALLOWED, fix=fault[1])
        registry, _, repository = name.rpartition("/")
        mirror = Target(registry, repository, insecure)
        if target is not None and mirror.host == target.host:
            mirror = Target(registry, repository, target.insecure)
            if mirror.repository == target.repository:
                continue
        found.append(mirror)
    return tuple(found)


def name_of(target: Target) -> str:
    """Return a repository's name, as settings and messages have it."""
    return f"{target.host}/{target.repository}"


def reader(mirror: Target, timeout: float | None = None) -> RegistryClient:
    """Return a client that reads a mirror, with docker's credentials for it.

    Args:
        mirror: the repository.
        timeout: of a request, in seconds, for who would rather go on without an answer.

    Raises:
        InputError: docker's certificates for the registry cannot be read.
    """
    return connect(mirror, timeout=timeout or httpx.Timeout(10, read=STALL), patience=timeout or PATIENCE)


def look(layers: Sequence[Blob], mirrors: Sequence[Target], timeout: float | None = None) -> Plan:
    """Ask mirrors which of these layers they have. Reads none of them.

    A mirror that fails is asked no more, and is no error: there are other sources.

    Args:
        layers: that are wanted.
        mirrors: in the order in which they are to be used.
        timeout: as in `reader`.
    """
    having: dict[str, tuple[Target, ...]] = {layer.digest: () for layer in layers}
    faults: dict[str, str] = {}
    for mirror in mirrors if layers else ():
        try:
            there = _has(mirror, layers, timeout)
        except (httpx.HTTPError, InputError) as error:
            faults[name_of(mirror)] = said(error)
            continue
        for digest in there:
            having[digest] += (mirror,)
    return Plan(having, faults)


def _has(mirror: Target, layers: Sequence[Blob], timeout: float | None) -> list[str]:
    """Return the digests of the layers that a mirror has.

    Raises:
        httpx.HTTPError: it refuses, cannot be reached, or is no registry.
    """
    first, *others = layers
    with reader(mirror, timeout) as client:

        def there(layer: Blob) -> bool:
            waits = iter(() if timeout else WAITS)
            while True:
                try:
                    return has_blob(client, mirror.url, layer.digest, layer.size)
                except httpx.HTTPError as error:
                    wait = next(waits, None) if _is_transient(error) else None
                    if wait is None:
                        raise
                    time.sleep(wait)

        # One by itself first: a mirror that is gone is waited for once.
        found = [there(first), *Work(JOBS).all(there, others)]
    return [layer.digest for layer, has in zip(layers, found, strict=True) if has]


def _is_transient(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return not isinstance(error, (httpx.ConnectError, httpx.TimeoutException))


def said(error: Exception) -> str:
    """Return in a few words why a registry did not do what it was asked for."""
    if isinstance(error, InputError):
        return "; ".join(f"{problem.key}: {problem.value}" for problem in error.problems)
    if isinstance(error, NotARegistryError):
        return printable(str(error))
    if isinstance(error, httpx.HTTPStatusError):
        text = str(error)  # a credential helper's fault is in it (NoLoginError)
        return printable(text) if text.startswith("the registry") else f"answers {error.response.status_code}"
    if isinstance(error, httpx.TimeoutException):
        return "does not answer in time"
    return f"cannot be reached ({printable(str(error)) or type(error).__name__})"
