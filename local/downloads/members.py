"""One program out of an archive, and whether it is one for this machine. Nothing else is unpacked."""

from __future__ import annotations

import platform
import shutil
import struct
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from local.downloads.web import DownloadError

#: Bytes of a program at most: an archive may hold much more than its own size.
MOST = 2 * 2**30
#: Values of e_machine (the System V ABI's ELF header) by what the kernel calls the processor.
_MACHINES = {"x86_64": 62, "aarch64": 183}
_PT_INTERP = 3


def take(archive: Path, member: str, target: Path) -> None:
    """Write a program out of a tar.gz.

    Raises:
        DownloadError: the archive has no such file, holds names that lead out of it, or is damaged.
        OSError: it cannot be written.
    """
    with archive.open("rb") as packed:
        if not take_from(packed, member, target):
            raise DownloadError(f"the archive has no file {member}")


def take_from(packed: IO[bytes], member: str, target: Path) -> bool:
    """Write a program out of a stream that is a tar.gz; return whether it was there.

    Raises:
        DownloadError, OSError: as `take`.
    """
    found = False
    try:
        with tarfile.open(fileobj=packed, mode="r|gz") as tar:
            for info in tar:
                path = PurePosixPath(info.name)
                if path.is_absolute() or ".." in path.parts:
                    raise DownloadError(f"the archive holds {info.name!r}, which leads out of it")
                if path != PurePosixPath(member):
                    continue
                content = tar.extractfile(info) if info.isreg() else None
                if content is None:
                    raise DownloadError(f"{member} is no plain file in the archive")
                if info.size > MOST:
                    raise DownloadError(f"{member} has {info.size} bytes")
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file, 2**20)
                found = True
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DownloadError(f"the archive is damaged ({error})") from None
    return found


def require_program(path: Path) -> None:
    """Look whether this machine can start a program: its processor, and the loader that it names.

    A program of glibc's does not start where there is another C library.

    Raises:
        DownloadError: it cannot, or this is no program.
    """
    content = path.open("rb")
    with content:
        head = content.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            raise DownloadError("what came is no 64-bit Linux program")
        (machine,) = struct.unpack_from("<H", head, 18)
        if machine != _MACHINES.get(platform.machine()):
            raise DownloadError(f"what came is not for {platform.machine()} (ELF machine {machine})")
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            content.seek(table + index * size)
            entry = content.read(56)
            if len(entry) == 56 and struct.unpack_from("<I", entry)[0] == _PT_INTERP:
                offset, length = struct.unpack_from("<Q", entry, 8)[0], struct.unpack_from("<Q", entry, 32)[0]
                content.seek(offset)
                loader = content.read(min(length, 4096)).rstrip(b"\0").decode(errors="replace")
                if not Path(loader).exists():
                    raise DownloadError(f"it needs {loader}, which is not on this machine")
