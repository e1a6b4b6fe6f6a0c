"""A tool out of its maker's release: downloaded, checked, put in its place, stamped with where it is from."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local.downloads import members, sums, web
from local.downloads.catalogue import SOURCE_ONLY, Image, Release, architecture, release_of
from local.downloads.choice import VARIABLE, Mode, mode
from local.downloads.web import DownloadError
from local.tool_list import Progress, Tool
from modelcar.errors import refuse

_MAKERS_FILE, _REGISTRYS, _PINNED = "maker's file", "registry's digest", "pinned here"


@dataclass(frozen=True)
class Origin:
    """Where a program was downloaded from.

    address: of the file, or of the image and its platform.
    sha256: of the file; of an image the digest, without `sha256:`.
    known: how that was known beforehand.
    program: SHA-256 of the program itself.
    """

    address: str
    sha256: str
    known: str
    program: str

    @property
    def host(self) -> str:
        """Return the server's name."""
        return urlsplit(self.address).hostname or self.address.partition("/")[0]

    def stamp(self) -> str:
        """Return the text of the stamp."""
        return json.dumps({"downloaded": asdict(self)}) + "\n"


def read_stamp(text: str) -> Origin | None:
    """Return what a stamp says of a download, None where it is a build's."""
    try:
        found = json.loads(text)["downloaded"]
        return Origin(**{key: str(found[key]) for key in ("address", "sha256", "known", "program")})
    except (ValueError, LookupError, TypeError):
        return None


def has_release(tool: Tool) -> bool:
    """Tell whether a tool's maker publishes something for this machine that can be used."""
    return release_of(tool.name) is not None


def is_current(tool: Tool, stamp: str) -> bool:
    """Tell whether a stamp is that of the release which would be downloaded today."""
    release, origin = release_of(tool.name), read_stamp(stamp)
    if release is None or origin is None:
        return False
    return origin.address == release.address(tool.version, architecture())


def belongs(stamp: str, program: Path) -> bool:
    """Tell whether a stamp is of a download, and of this very program."""
    origin = read_stamp(stamp)
    return origin is not None and program.exists() and _sha256(program) == origin.program


def downloadable(names: list[str]) -> list[str]:
    """Return those of the tools that will be downloaded; this may ask whether the makers can be reached."""
    found = [name for name in names if release_of(name)]
    return found if found and may_download() else []


def may_download() -> bool:
    """Tell whether MODELCAR_TOOLS and the network allow downloads; it may ask whether the makers answer."""
    chosen = mode()
    return chosen is not Mode.SOURCE and not (chosen is Mode.AUTO and web.WEB.unreachable())


def attempt(tool: Tool, stamp: Path, progress: Progress) -> bool:
    """Download a tool where MODELCAR_TOOLS and the network allow it; return whether it is in its place.

    Args:
        tool: which.
        stamp: file that is to say where it came from.
        progress: takes a line: what was downloaded and how it was checked, or why it was not.

    Raises:
        InputError: it has another checksum than its maker says; or only releases are allowed
            (MODELCAR_TOOLS=release) and there is none, or it cannot be downloaded.
    """
    chosen, release = mode(), release_of(tool.name)
    if chosen is Mode.SOURCE:
        return False
    if release is None:
        if chosen is Mode.RELEASE:
            raise _only_releases(tool, SOURCE_ONLY.get(tool.name, f"there is none for {architecture()}"))
        return False
    if chosen is Mode.AUTO and (why := web.WEB.unreachable()):
        web.WEB.say_once(f"makers' releases cannot be reached ({why}): built from source", progress)
        return False
    try:
        origin = _obtain(tool, release, stamp)
    except DownloadError as error:
        if chosen is Mode.RELEASE:
            raise _only_releases(tool, str(error)) from None
        progress(f"{tool.name} {tool.version} is built from source: its release cannot be had ({error})")
        return False
    short = f" sha256:{origin.sha256}" if origin.known == _REGISTRYS else ""
    progress(
        f"{tool.name} {tool.version} downloaded from {origin.host}, checksum verified ({origin.known}{short})"
    )
    return True


def _obtain(tool: Tool, release: Release | Image, stamp: Path) -> Origin:
    target, arch = tool.target, architecture()
    address = release.address(tool.version, arch)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that it comes to its place in one step; whatever happens, it is removed.
        with tempfile.TemporaryDirectory(prefix=f".{tool.name}-", dir=target.parent) as scratch:
            program = Path(scratch) / "program"
            if isinstance(release, Image):
                from local.downloads import image  # needs the project's environment, which a bundle brings

                digest, pinned = image.take(release, tool.version, arch, program, web.WEB)
                sha256, known = digest.removeprefix("sha256:"), _PINNED if pinned else _REGISTRYS
            else:
                sha256, known = _fetch(tool, release, arch, program)
            members.require_program(program)
            program.chmod(0o755)
            origin = Origin(address, sha256, known, _sha256(program))
            stamp.unlink(missing_ok=True)  # it is of what is replaced
            program.replace(target)
            stamp.write_text(origin.stamp())
    except OSError as error:
        raise DownloadError(f"{target.parent}: {error.strerror or error}") from None
    return origin


def _fetch(tool: Tool, release: Release, arch: str, program: Path) -> tuple[str, str]:
    """Download a file, compare its SHA-256, take the program out of it; return the sum and who said it."""
    address, sums_address = release.address(tool.version, arch), release.sums_address(tool.version, arch)
    name = address.rpartition("/")[2]
    expected, known = release.pinned.get(arch), _PINNED
    if expected is None:
        expected, known = sums.sha256_in(web.WEB.text(sums_address), name), _MAKERS_FILE
    if expected is None:
        raise DownloadError(f"{sums_address} has no SHA-256 of {name}")
    member = release.member_of(tool.version, arch)
    file = program.with_name("archive") if member else program
    found = web.WEB.download(address, file)
    if found != expected:
        raise refuse(
            address,
            f"sha256:{found}",
            allowed=f"sha256:{expected} ({known if known == _PINNED else sums_address})",
            fix="run the command again; where it stays so, do not trust what is between this machine and the "
            f"maker: {VARIABLE}={Mode.SOURCE} builds {tool.name} from its pinned source",
        )
    if member:
        members.take(file, member, program)
    return expected, known


def _only_releases(tool: Tool, why: str) -> Exception:
    return refuse(
        f"{VARIABLE}={Mode.RELEASE}",
        f"{tool.name} {tool.version} has no release to take: {why}",
        allowed="programs that are there, or that their makers publish; nothing is compiled",
        fix=f"{VARIABLE}={Mode.AUTO} builds what has no release from source (Go is needed)",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
