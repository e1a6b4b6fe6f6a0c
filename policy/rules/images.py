"""Images and modelcars are named by digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN
from policy.workloads import containers, pods, storage_uris

_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_EMPTY_DIGEST = (
    "the text is empty or its digest is: pass the build's digest output on, not a copy of its value"
)


def _find(resource: Resource, _config: Config) -> Iterator[Finding]:
    for pod in pods(resource):
        for container in containers(pod):
            if "image" in container.body:  # a model, or a patch, may leave it to others
                yield from _judge(f"{container.path}.image", container.body["image"], scheme="")
    for path, uri in storage_uris(resource):
        if uri == "" or (isinstance(uri, str) and uri.startswith("oci://")):
            yield from _judge(path, uri, scheme="oci://")


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
    statement="every container image and every oci:// storage URI is named by its sha256 digest",
    reason="a tag can be pushed again, so that other weights or another server run than were tested, and "
    "replicas may differ; a digest is the content itself (docs/decisions/0001, README)",
    find=_find,
)
