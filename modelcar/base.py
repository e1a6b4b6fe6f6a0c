"""A minimal base image from a static BusyBox, for stacks that reach no public registry.

KServe runs `sh`, `ln`, `ls` and `sleep` from the modelcar and passes its command as container *args*: the
image needs those programs, and no ENTRYPOINT.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

from modelcar.errors import refuse
from modelcar.oci_layout import (
    END_OF_TAR,
    FOLDER_MODE,
    Layout,
    open_store,
    require_space,
    tar_header,
    tar_padding,
)

#: Programs of the image, links to BusyBox: what KServe needs, and what one looks around with.
_APPLETS = (
    "awk base64 cat chmod cp cut date dd df dirname du echo env expr false find grep head hostname httpd "
    "id kill ln ls md5sum mkdir mount mv nc nslookup od printf ps pwd readlink realpath rm rmdir sed seq "
    "sh sha256sum sleep sort stat tail tar tee test timeout touch tr true tty uname uniq wc wget whoami "
    "xargs"
)
APPLETS = tuple(_APPLETS.split())

#: What the image does by itself: nothing, for ever. As a pod's first process it also collects orphans.
KEEP_RUNNING = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")

#: ELF machine numbers (ELF specification, e_machine) and what the OCI image specification calls them.
ARCHITECTURES = {62: "amd64", 183: "arm64", 40: "arm", 243: "riscv64", 22: "s390x", 21: "ppc64le"}
_PROGRAM_INTERPRETER = 3

#: Bytes. A static BusyBox has one or two MiB.
LARGEST_BUSYBOX = 64 * 2**20


def write_base_layout(busybox: Path, destination: Path) -> Layout:
    """Write the base image as an OCI layout: /bin/busybox with its links, and /tmp.

    Its default command runs on, so that it also serves as a pod's sandbox image.

    Args:
        busybox: a static BusyBox; the image is for the processor that it is built for.
        destination: folder of the layout.

    Raises:
        InputError: the program is missing, not static, or no BusyBox; or too little disk.
    """
    program, architecture = _static_busybox(busybox)
    with open_store(destination) as store:
        require_space(store.path, len(program) + 2**20, "the base image")
        chunks = list(_entries(program))
        layer = store.add_layer(chunks, ["bin/busybox"])
        config = {"Cmd": list(KEEP_RUNNING), "Env": ["PATH=/bin"], "WorkingDir": "/"}
        return store.publish([layer], architecture, config)


def _entries(program: bytes) -> Iterator[bytes]:
    yield tar_header("bin", FOLDER_MODE, kind=tarfile.DIRTYPE)
    yield tar_header("bin/busybox", 0o755, size=len(program))
    yield program
    yield tar_padding(len(program))
    for applet in APPLETS:
        yield tar_header(f"bin/{applet}", 0o777, kind=tarfile.SYMTYPE, link="busybox")
    yield tar_header("tmp", 0o1777, kind=tarfile.DIRTYPE)
    yield END_OF_TAR


def _static_busybox(path: Path) -> tuple[bytes, str]:
    """Return the program and the architecture it is built for."""
    found = None
    program = b""
    try:
        size = path.stat().st_size
        if size > LARGEST_BUSYBOX:
            found = f"{size} bytes"
        else:
            program = path.read_bytes()
    except OSError as error:
        found = error.strerror or str(error)
    architecture = None
    if found is None:
        architecture, found = _elf(program)
    if found is None and b"BusyBox" not in program:
        found = "a static program, but not BusyBox"
    if found is not None or architecture is None:
        raise refuse(
            str(path),
            found or "no program",
            allowed="a statically linked BusyBox (an ELF program without an interpreter)",
            fix="install the Debian package busybox-static, or name another static BusyBox",
        )
    return program, architecture


def _elf(program: bytes) -> tuple[str | None, str | None]:
    """Return the architecture of a static ELF program, or what is wrong with it."""
    if len(program) < 64 or not program.startswith(b"\x7fELF"):
        return None, "not an ELF program"
    wide, order = program[4] == 2, "<" if program[5] == 1 else ">"
    try:
        (machine,) = struct.unpack_from(order + "H", program, 18)
        (table,) = struct.unpack_from(order + ("Q" if wide else "I"), program, 32 if wide else 28)
        entry_size, entries = struct.unpack_from(order + "HH", program, 54 if wide else 42)
        kinds = [struct.unpack_from(order + "I", program, table + i * entry_size)[0] for i in range(entries)]
    except struct.error:
        return None, "a damaged ELF program"
    if _PROGRAM_INTERPRETER in kinds:
        return None, "dynamically linked: it needs libraries that the image does not have"
    if machine not in ARCHITECTURES:
        return None, f"built for an unknown processor (ELF machine {machine})"
    return ARCHITECTURES[machine], None
