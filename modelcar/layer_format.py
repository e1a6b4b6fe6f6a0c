"""The bytes of a layer: they depend on the names and contents of its files only.

They are the ones that BuildKit writes for `COPY --link` and `ADD --link --chmod=a=rX` with
rewrite-timestamp (0.31; Go's archive/tar), so that a layer has one digest, whoever made it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

#: Folder in the image that KServe links the model from.
MODELS = "models"
#: KServe runs the model server as uid 1010: everybody may read, nobody writes.
FILE_MODE = 0o444
FOLDER_MODE = 0o755
#: Bytes. A file of at least this size has a layer of its own, so that changing it uploads it alone.
LARGE_FILE = 16 * 2**20
#: Below what the tightest runtime takes; docs/decisions/0002 has the figures.
MAX_LAYERS = 100

END_OF_TAR = b"\0" * (2 * tarfile.BLOCKSIZE)
#: Places in the old header (POSIX ustar), and what it can hold.
_CHECKSUM = slice(148, 156)
_TYPE = 156
_DEVICE = slice(329, 345)
_PREFIX = slice(345, 500)
_PREFIX_BYTES = 155
_NAME_BYTES = 100
_OLD_SIZES = 8 * 2**30
#: As Go writes it of files and folders; Python leaves it empty.
_NO_DEVICE = b"0000000\0" * 2


def tar_header(
    name: str, mode: int, *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> bytes:
    """Return the header of one tar entry: owner root, time 0.

    What the old header cannot hold (names beyond ASCII, most above 100 bytes, 8 GiB and more) is in a PAX
    header before it, split, named and shortened as Go does.
    """
    name += "/" if kind == tarfile.DIRTYPE else ""
    prefix, suffix = _split(name)
    if suffix and size < _OLD_SIZES:
        return _block(suffix, mode, size, kind, link, prefix)
    records = {}
    if not name.isascii() or len(name) > _NAME_BYTES:
        records["path"] = name
    if size >= _OLD_SIZES:
        records["size"] = str(size)
    content = b"".join(_record(key, value) for key, value in records.items())
    folder, _, file = name.rpartition("/")
    pax = "/".join(part for part in (folder, "PaxHeaders.0", file) if part)
    extended = _block(_ascii(pax)[:_NAME_BYTES].rstrip("/"), 0, len(content), tarfile.XHDTYPE)
    shown = _block(_shortened(name), mode, 0 if "size" in records else size, kind, link)
    return extended + content + tar_padding(len(content)) + shown


def _split(name: str) -> tuple[str, str]:
    """Return a name as the old header has it: prefix and rest; nothing where it has no room for it."""
    if not name.isascii():
        return "", ""
    if len(name) <= _NAME_BYTES:
        return "", name
    prefix, _, _ = name.removesuffix("/")[: _PREFIX_BYTES + 1].rpartition("/")
    suffix = name[len(prefix) + 1 :]
    return (prefix, suffix) if prefix and len(suffix) <= _NAME_BYTES else ("", "")


def _block(name: str, mode: int, size: int, kind: bytes, link: str = "", prefix: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.linkname = mode, size, link
    block = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    block[_TYPE] = kind[0]
    block[_DEVICE] = _NO_DEVICE if kind != tarfile.XHDTYPE else bytes(16)
    block[_PREFIX] = prefix.encode().ljust(_PREFIX_BYTES, b"\0")
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: str, value: str) -> bytes:
    """Return a PAX record; its length counts the digits of the length too."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


def _ascii(name: str) -> str:
    return "".join(character for character in name if character.isascii())


def _shortened(name: str) -> str:
    """Return what stands in the old header of a name that may be too long for it."""
    plain = _ascii(name)
    return plain if len(plain) <= _NAME_BYTES else plain[:_NAME_BYTES].rstrip("/")


def tar_padding(size: int) -> bytes:
    """Return what follows an entry's content of `size` bytes."""
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def layer_parts(files: Iterable[tuple[str, int]]) -> Iterator[bytes | tuple[str, int]]:
    """Yield what a layer consists of: bytes, and between them each file (path, size), whose content it is."""
    files = list(files)
    folders = {PurePosixPath(MODELS)}
    for path, _ in files:
        folders.update(PurePosixPath(MODELS, path).parents)
    headers = {str(folder): tar_header(str(folder), FOLDER_MODE, kind=tarfile.DIRTYPE) for folder in folders}
    del headers["."]
    entries: list[tuple[str, tuple[str, int] | None]] = [(name, None) for name in headers]
    entries += [(f"{MODELS}/{path}", (path, size)) for path, size in files]
    for name, file in sorted(
        entries, key=lambda entry: entry[0].split("/")
    ):  # as a walk of the tree meets them
        if file is None:
            yield headers[name]
        else:
            yield tar_header(name, FILE_MODE, size=file[1])
            yield file
            yield tar_padding(file[1])
    yield END_OF_TAR


def layer_size(files: Iterable[tuple[str, int]]) -> int:
    """Return the bytes of an uncompressed layer of these files (path, size)."""
    return sum(len(part) if isinstance(part, bytes) else part[1] for part in layer_parts(files))


def group_files(
    files: Sequence[tuple[str, int]], *, large_file: int = LARGE_FILE
) -> list[tuple[tuple[str, int], ...]]:
    """Return the files (path, size) of each layer: large ones by path, then all small ones together.

    The small ones change most easily, so they come last: a node unpacks again what lies above a change.
    """
    ordered = sorted(files)
    large = [file for file in ordered if file[1] >= large_file]
    small = tuple(file for file in ordered if file[1] < large_file)
    together = -(-len(large) // (MAX_LAYERS - 1)) or 1  # more than one to a layer for very many shards
    groups = [tuple(large[start : start + together]) for start in range(0, len(large), together)]
    return [*groups, small] if small else groups
