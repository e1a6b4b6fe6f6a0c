"""The base of every modelcar: one layer with BusyBox, which has the programs that KServe runs from the image.

KServe's init container and sidecar need `sh`, `ln`, `sleep` and `ls`. The program is Debian's static BusyBox,
pinned in base.lock by digest, so that the layer has one digest everywhere and no image has to be pulled.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import struct
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelcar import strict_yaml
from modelcar.errors import refuse
from modelcar.layer_format import END_OF_TAR, FOLDER_MODE, tar_header, tar_padding
from modelcar.manifest import LAYER_TYPES, ImageLayer, make_image, sha256_digest
from modelcar.oci_layout import Layout, LayoutStore, open_store, replace_file, require_space
from modelcar.version import DISTRIBUTION

BASE_LOCK = Path(__file__).parent / "base.lock"

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

#: Architectures that base.lock has: those of Google's GPU machines.
LOCKED_ARCHITECTURES = ("amd64", "arm64")

#: Bytes. A static BusyBox has one or two MiB.
LARGEST_BUSYBOX = 64 * 2**20


@dataclass(frozen=True)
class BaseLayer:
    """The layer of the programs. size: bytes."""

    digest: str
    size: int
    files: tuple[str, ...] = ("bin/busybox",)


@dataclass(frozen=True)
class Base:
    """What base.lock says for one architecture.

    program: sha256 of BusyBox. package: sha256 of the Debian package. urls: where the package is.
    """

    architecture: str
    release: str
    program: str
    package: str
    urls: tuple[str, ...]
    layer: BaseLayer


def read_base(architecture: str) -> Base:
    """Return the base for a processor (OCI name, such as amd64).

    Raises:
        InputError: base.lock has none for it.
    """
    document = strict_yaml.read(BASE_LOCK, "the file as committed", "git checkout modelcar/base.lock")
    entries = document["architectures"]
    if architecture not in entries:
        raise refuse(
            "architecture",
            architecture,
            allowed=" or ".join(sorted(entries)),
            fix="choose one of these; `python -m modelcar base` writes base.lock for others",
        )
    entry = entries[architecture]
    return Base(
        architecture,
        document["release"],
        entry["program"],
        entry["package"],
        tuple(entry["urls"]),
        BaseLayer(entry["layer"]["digest"], entry["layer"]["size"]),
    )


def add_base_layer(store: LayoutStore, base: Base) -> None:
    """Put the base's layer into a layout, unless it is there.

    Raises:
        InputError: BusyBox is neither on this machine nor to be downloaded.
    """
    if store.has(base.layer.digest, base.layer.size):
        return
    content = busybox_layer(pinned_program(base))
    if sha256_digest(content) != base.layer.digest:
        raise refuse(
            str(BASE_LOCK),
            f"the layer of {base.architecture} comes out as {sha256_digest(content)}",
            allowed=base.layer.digest,
            fix="run `python -m modelcar base`, and commit base.lock: every image's digest changes",
        )
    store.add(base.layer.digest, content)


def busybox_layer(program: bytes) -> bytes:
    """Return the layer with this BusyBox: /bin/busybox with its links, and /tmp."""
    return b"".join(_entries(program))


def lock_base(release: str) -> bytes:
    """Return the text of base.lock for a release of Debian's busybox-static, from its packages.

    Args:
        release: as Debian writes it, such as 1:1.35.0-4+deb12u1+b1.

    Raises:
        InputError: a package cannot be downloaded, or holds no static BusyBox.
    """
    lines = [
        "# The programs beside the weights: Debian's busybox-static (GPL-2.0), by digest.",
        "# Written by `python -m modelcar base RELEASE`. A change here changes the digest of every image.",
        "version: 1",
        f"release: {release}",
        "architectures:",
    ]
    for architecture in LOCKED_ARCHITECTURES:
        name = f"busybox-static_{release.split(':')[-1]}_{architecture}.deb"
        url = f"https://deb.debian.org/debian/pool/main/b/busybox/{name}"
        package = _download([url])
        program = program_of(package)
        layer = busybox_layer(program)
        # Debian's archive of all that ever was names files by SHA-1; what is taken is checked by SHA-256.
        archived = hashlib.sha1(package, usedforsecurity=False).hexdigest()
        lines += [
            f"  {architecture}:",
            f"    program: {hashlib.sha256(program).hexdigest()}",
            f"    package: {hashlib.sha256(package).hexdigest()}",
            "    urls:",
            f"      - {url}",
            f"      - https://snapshot.debian.org/file/{archived}",
            f"    layer: {{digest: {sha256_digest(layer)}, size: {len(layer)}}}",
        ]
    return ("\n".join(lines) + "\n").encode()


def program_of(package: bytes) -> bytes:
    """Return bin/busybox out of a Debian package (deb(5): an ar archive with data.tar.xz).

    Raises:
        InputError: it is no such package.
    """
    position = 8
    with suppress(ValueError, EOFError, tarfile.TarError, lzma.LZMAError):  # damaged
        while package.startswith(b"!<arch>\n") and position + 60 <= len(package):
            header = package[position : position + 60]
            size = int(header[48:58])
            start = position + 60
            if header.startswith(b"data.tar"):
                with tarfile.open(fileobj=io.BytesIO(package[start : start + size])) as data:
                    for name in ("./bin/busybox", "./usr/bin/busybox"):
                        if name in data.getnames() and (file := data.extractfile(name)):
                            return file.read()
            position = start + size + size % 2
    raise refuse(
        "busybox-static",
        "no Debian package with bin/busybox",
        allowed="the package that base.lock names",
        fix="try again later, or from another network",
    )


def pinned_program(base: Base) -> bytes:
    """Return the pinned BusyBox: from this machine where it has the very same, else from its package.

    Raises:
        InputError: it is not on this machine, and the package cannot be downloaded.
    """
    cache = _cache()
    kept = cache / "base" / base.program
    for path in (kept, cache / "tools/debian/bin/busybox", Path("/bin/busybox"), Path("/usr/bin/busybox")):
        try:
            program = path.read_bytes() if path.stat().st_size <= LARGEST_BUSYBOX else b""
        except OSError:
            continue
        if hashlib.sha256(program).hexdigest() == base.program:
            return program
    program = program_of(_download(base.urls, base.package))
    with suppress(OSError):  # it was kept for the next model only
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, program)
    return program


def _cache() -> Path:
    """Return the folder that downloads are kept in: the checkout's, or the user's of an installed package."""
    if named := os.environ.get("MODELCAR_CACHE"):
        return Path(named)
    around = BASE_LOCK.parent.parent
    if (around / "pyproject.toml").is_file():
        return around / ".cache"
    caches = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", ""), ".cache")
    return Path(caches) / DISTRIBUTION


def _download(urls: Iterable[str], sha256: str | None = None) -> bytes:
    """Return a small file from the first of these addresses that has it, with this digest."""
    import httpx  # not for every preview: it takes a third of a second to load

    from modelcar.connections import client  # as above

    failures = []
    with client(follow_redirects=True, timeout=30) as web:
        for url in urls:
            try:
                response = web.get(url).raise_for_status()
            except httpx.HTTPError as error:
                failures.append(f"{url}: {error}")
                continue
            if sha256 in {None, hashlib.sha256(response.content).hexdigest()}:
                return response.content
            failures.append(f"{url}: other content than base.lock says")
    raise refuse(
        "the base's package",
        "; ".join(failures),
        allowed=f"sha256 {sha256}" if sha256 else "a package that can be downloaded",
        fix="connect to the internet once, or install the same release of Debian's busybox-static",
    )


def write_base_layout(busybox: Path, destination: Path) -> Layout:
    """Write an image of a BusyBox alone as an OCI layout.

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
        content = busybox_layer(program)
        digest = sha256_digest(content)
        store.add(digest, content)
        layer = ImageLayer(digest, len(content), digest, LAYER_TYPES["none"], "modelcar: bin/busybox")
        config = {"Env": ["PATH=/bin"], "Cmd": list(KEEP_RUNNING), "WorkingDir": "/"}
        return store.publish(make_image([layer], architecture, config))


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
