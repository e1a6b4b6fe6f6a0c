"""The files of a tar archive that somebody else wrote: a header may claim any size, and any kind of file."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

#: What reading such an archive may end with; headers of headers go deeper with each.
READ_ERRORS = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError)
#: GNU's sparse files are of other types: a header of a few bytes makes one of any size.
_PLAIN = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})


def is_plain(member: tarfile.TarInfo) -> bool:
    """Tell whether a member is a file whose bytes stand in the archive, one by one."""
    return member.type in _PLAIN and not member.issparse()


def require_sized(member: tarfile.TarInfo) -> None:
    """Refuse a size below zero, by which an archive leads back to where it was read.

    Raises:
        tarfile.ReadError: it has one.
    """
    if member.size < 0:
        raise tarfile.ReadError("a file of less than no bytes")


def plain_files(source: Any, most: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield an archive's files with their content; links, folders and others are passed over.

    Args:
        source: the archive, not compressed. Its `read` gives no more than there is, as those of BytesIO and
            mmap: where it is a file, a header that claims any size makes room for all of that.
        most: bytes of all files together: of the archive itself, which no file of it is larger than.

    Raises:
        tarfile.ReadError: they have more, or a file is a sparse one, or damaged.
    """
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            yield from _plain_files(archive, most)
    except READ_ERRORS as error:
        raise tarfile.ReadError(str(error) or type(error).__name__) from None


def _plain_files(archive: tarfile.TarFile, left: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for member in archive:
        require_sized(member)
        if member.isreg() and not is_plain(member):
            raise tarfile.ReadError("a sparse file, or another kind that this program never writes")
        left -= member.size
        if left < 0:
            raise tarfile.ReadError("files of more bytes than the archive has")
        if is_plain(member) and (file := archive.extractfile(member)):
            yield member, file.read()
