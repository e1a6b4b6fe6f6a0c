"""Archives whose headers lie: a few bytes claim a file of any size, or lead back to where they stand."""

from __future__ import annotations

import base64
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from components.cluster.access import ClusterError
from modelcar import kernel_store
from modelcar.errors import InputError
from modelcar.layer_head import PIECE, read_head
from modelcar.manifest import LAYER_TYPES, sha256_digest
from modelcar.registry import Registry, Target
from modelcar.tar_members import plain_files
from operations.kernel_reading import _unpacked
from tests import registry_server

HUGE = 2**50


def header(name: str, kind: bytes, size: int, pax: dict[str, str] | None = None) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    member.pax_headers = pax or {}
    return member.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)


def sparse() -> bytes:
    """GNU's old format, and a file of 8 GB."""
    block = bytearray(header("vllm/x", tarfile.GNUTYPE_SPARSE, 0))
    block[483:495] = b"77777777777\0"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block[:512]):06o}\0 ".encode()
    return bytes(block)


ARCHIVES = {
    "a sparse file": sparse(),
    "a sparse file by an extended header": header(
        "vllm/x", tarfile.REGTYPE, 0, {"GNU.sparse.size": str(HUGE), "GNU.sparse.map": f"0,{HUGE}"}
    ),
    "a file of any size": header("vllm/x", tarfile.REGTYPE, HUGE),
    "a size in an extended header": header("vllm/x", tarfile.REGTYPE, 0, {"size": str(HUGE)}),
    "an extended header of any size": header("vllm/x", tarfile.XHDTYPE, HUGE),
    "a long name of any size": header("vllm/x", tarfile.GNUTYPE_LONGNAME, HUGE),
    "a size below zero": header("vllm/x", tarfile.REGTYPE, -512),
    "a file of another kind below zero": header("vllm/x", b"Z", -512),
    "headers of headers": header("vllm/x", tarfile.XHDTYPE, 0) * 5000,
}


@pytest.fixture(params=ARCHIVES)
def archive(request: pytest.FixtureRequest) -> bytes:
    content = ARCHIVES[request.param]
    return content + bytes(max(1024, 2 * PIECE - len(content)))


def test_a_pod_s_archive_is_refused(archive: bytes) -> None:
    data = base64.b64encode(zlib.compress(archive)).decode()
    with pytest.raises(ClusterError, match="the caches came damaged"):
        _unpacked(data)


def test_a_file_that_holds_kernels_is_refused(archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kernels.tar"
    path.write_bytes(archive)
    with pytest.raises(InputError, match="cannot be used"):
        kernel_store.read_archive(path)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[registry_server.Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with registry_server.serve() as server:
        yield server


@pytest.mark.parametrize("kind", ["none", "zstd"])
def test_a_layer_of_an_image_of_others_ends_no_preview(
    registry: registry_server.Registry, archive: bytes, kind: str
) -> None:
    content = archive if kind == "none" else zstandard.compress(archive)
    digest = sha256_digest(content)
    registry.blobs[digest] = content
    layer = {"mediaType": LAYER_TYPES[kind], "digest": digest, "size": len(content)}
    with Registry(Target(registry.host, "models/x", insecure=True)) as client:
        head = read_head(client, layer)
    assert len(head.files) <= 1


def test_plain_files_are_read_and_others_passed_over() -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as written:
        for name, kind, size in (("a", tarfile.DIRTYPE, 0), ("a/b", tarfile.REGTYPE, 3)):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, size
            written.addfile(member, io.BytesIO(b"abc") if size else None)
    content.seek(0)
    found = {member.name: data for member, data in plain_files(content, len(content.getvalue()))}
    assert found == {"a/b": b"abc"}
