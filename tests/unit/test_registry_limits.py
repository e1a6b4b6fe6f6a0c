"""A registry that sends more than there can be, or sends it compressed, fills no memory."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelcar import registry as module
from modelcar.errors import InputError
from modelcar.manifest import MANIFEST_TYPE, sha256_digest, to_json
from modelcar.registry import Registry, Target
from modelcar.registry_http import MOST_OF_ANSWER, MOST_OF_MANIFEST
from tests import registry_server
from tests.registry_server import Answer

DIGEST = "sha256:" + "0" * 64
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[registry_server.Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with registry_server.serve() as running:
        yield running


def padded(size: int) -> bytes:
    return b'{"schemaVersion": 2' + b" " * size + b"}"


ASKED: dict[str, tuple[Callable[[Registry], object], int]] = {
    "manifest": (lambda registry: registry.manifest("v1"), MOST_OF_MANIFEST),
    "tags": (lambda registry: registry.tagged(), MOST_OF_ANSWER),
    "referrers": (lambda registry: registry.referrers(DIGEST), MOST_OF_ANSWER),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", ASKED)
def test_an_answer_that_is_too_large_or_compressed_is_refused(
    server: registry_server.Registry, what: str, packed: bool
) -> None:
    ask, most = ASKED[what]
    content = gzip.compress(padded(8 * most)) if packed else padded(most)
    headers = {**JSON, "Content-Encoding": "gzip"} if packed else JSON
    server.instead = lambda *_: (200, headers, content)
    target = Target(server.host, "models/x", insecure=True)
    told = "no answer of a registry is so large, or compressed"
    with pytest.raises(InputError, match=told), Registry(target) as registry:
        ask(registry)


def test_a_list_of_many_pages_has_an_end(
    server: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_LISTED", 2**20)
    more = {**JSON, "Link": '</v2/models/x/tags/list?n=1>; rel="next"'}
    server.instead = lambda *_: (200, more, padded(2**18))
    target = Target(server.host, "models/x", insecure=True)
    with pytest.raises(InputError, match="has more than 1 MiB"), Registry(target) as registry:
        registry.tagged()
    assert len(server.requests) == 4


def test_of_a_refusal_the_beginning_is_enough(server: registry_server.Registry) -> None:
    server.instead = lambda *_: (403, {}, bytes(2 * MOST_OF_ANSWER))
    target = Target(server.host, "models/x", insecure=True)
    with pytest.raises(InputError, match="answers 403"), Registry(target) as registry:
        registry.manifest("v1")


def test_a_token_of_any_size_is_refused(server: registry_server.Registry) -> None:
    def instead(_: str, path: str) -> Answer | None:
        return (200, JSON, padded(MOST_OF_ANSWER)) if path.startswith("/token") else None

    server.wants = "Bearer"
    server.instead = instead
    target = Target(server.host, "models/x", insecure=True)
    with pytest.raises(InputError, match="no answer of a registry is so large"), Registry(target) as registry:
        registry.manifest("v1")


def test_a_part_ends_where_it_was_asked_to(server: registry_server.Registry) -> None:
    headers = {"Content-Range": "bytes 0-9/100"}
    server.instead = lambda *_: (206, headers, bytes(2**20))
    with Registry(Target(server.host, "models/x", insecure=True)) as registry:
        assert registry.part(DIGEST, 0, 10) == bytes(10)


def test_a_manifest_as_large_as_allowed_is_read(server: registry_server.Registry) -> None:
    content = to_json({"schemaVersion": 2, "annotations": {"x": "y" * (MOST_OF_MANIFEST - 200)}})
    server.manifests["v1"] = (content, MANIFEST_TYPE)
    with Registry(Target(server.host, "models/x", insecure=True)) as registry:
        found = registry.manifest("v1")
    assert found
    assert found.digest == sha256_digest(content)
