"""Images and modelcars are named by digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN
from policy.workloads import images, storage_uris

_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_EMPTY_DIGEST = (
    "the text is empty or its digest is: pass the build's digest output on, not a copy of its value"
)


#: Of modelcars, image volumes (`oci+native://`, KServe 0.20) and artifacts (`oci+fetch://`, 0.21).
_SCHEME = re.compile(r"oci(\+[a-z]+)?://", re.IGNORECASE)


def _find(resource: Resource, _config: Config) -> Iterator[Finding]:
    for path, image in images(resource):
        yield from _judge(path, image, scheme="")
    for path, uri in storage_uris(resource):
        scheme = _SCHEME.match(uri) if isinstance(uri, str) else None
        if uri == "" or scheme:
            yield from _judge(path, uri, scheme=scheme[0] if scheme else "oci://")


def _judge(path: str, name: Any, scheme: str) -> Iterator[Finding]:
    if name is UNKNOWN or name is None:
        return
    text = str(name)
    plain = text.removeprefix(scheme)
    if _PINNED.fullmatch(plain):
        return
    repository, _, digest = plain.partition("@")
    if not repository or ("@" in plain and digest.removeprefix("sha256:") == ""):
        fix = _EMPTY_DIGEST
    else:
        fix = f"write {scheme}{repository}@sha256:…; `make pin IMAGE={repository}` prints the digest"
    yield Finding(path, text or "'' (empty)", fix)


PINNED_IMAGES = Rule(
    name="pinned-images",
    statement="every image and every oci:// storage URI is named by its sha256 digest",
    reason="a tag can be pushed again, so that other weights or another server run than were tested, and "
    "replicas may differ; a digest is the content itself (docs/decisions/0001, README)",
    find=_find,
    judges_specs=True,
)
