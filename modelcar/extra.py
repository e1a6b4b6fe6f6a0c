"""Files that a hub's model gets beside its own: those of a folder beside its lock, and those named by URL.

They are locked, packed and fetched like the model's own, such as a vocabulary that a server would download.
A file that has to change one of the repository's takes its place: the repository's is left out (--ignore).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelcar import hub
from modelcar.choosing import PICKLE_SUFFIXES
from modelcar.errors import InputError, Problem, refuse
from modelcar.lock import LAYOUTS, ExtraFile, Lock, LockedFile, extra_folder
from modelcar.lock_reader import fault_of_url
from modelcar.packing import CHANGED
from modelcar.paths import fault_of_name, printable
from modelcar.sources import BUFFER, FolderFiles
from modelcar.weights import WeightFile, Weights, needs_content, read_weights

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ALLOWED = (
    "PATH=URL#sha256=DIGEST; PATH below the model's folder, URL https:// or http://, 64 hexadecimal digits"
)
#: Seconds without a byte after which a download is tried again.
TIMEOUT = 60.0


@dataclass(frozen=True)
class Extra:
    """A file by URL (`model.yaml`: extra). path: in the model. sha256: 64 hexadecimal digits."""

    path: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Gathered:
    """Such files, on this machine.

    files: the source of their bytes. origins: what the lock says of them.
    skipped: (path, why) of files in the folder that are left out.
    """

    files: FolderFiles
    origins: tuple[ExtraFile, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def parse_option(text: str) -> Extra:
    """Return the file that `--extra` names.

    Raises:
        InputError: it names none.
    """
    path, _, rest = text.partition("=")
    url, _, sha256 = rest.partition("#sha256=")
    if fault := _fault(path, url, sha256):
        # A URL may hold a password: it is not shown.
        raise refuse(f"--extra {printable(path)[:60]}", fault, allowed=_ALLOWED, fix="correct it")
    return Extra(path, url, sha256)


def parse_entries(file: Path, entries: Any) -> Iterator[Extra | Problem]:
    """Yield the files that a description names, or what is wrong with an entry."""
    fix = "correct it, or name the file again: python -m modelcar lock NAME --hub … --extra …"
    allowed = "a list of files, each with path, url and sha256"
    if not isinstance(entries, list):
        yield Problem(f"{file}: extra", repr(entries)[:80], allowed, fix)
        return
    for number, entry in enumerate(entries):
        key = f"{file}: extra[{number}]"
        if not isinstance(entry, dict) or entry.keys() != {"path", "url", "sha256"}:
            yield Problem(key, "not a mapping of path, url and sha256", allowed, fix)
            continue
        found = Extra(str(entry["path"]), str(entry["url"]), str(entry["sha256"]))
        fault = _fault(found.path, found.url, found.sha256)
        yield Problem(key, fault, _ALLOWED, fix) if fault else found


def _fault(path: str, url: str, sha256: str) -> str | None:
    if not path or (fault := fault_of_name(path)):
        return fault[0] if path and fault else "names no file"
    if fault_text := fault_of_url(url):
        return fault_text
    return None if _SHA256.fullmatch(sha256) else "has no SHA-256"


def gather(named: Sequence[Extra], folder: Path, project: Path, *, allow_pickle: bool) -> Gathered | None:
    """Bring the files together; None where there are none. Downloads those that are not here yet.

    Args:
        named: by URL.
        folder: `extra` beside the lock, which need not be there.
        project: folder that downloads are kept below.
        allow_pickle: take pickled weights too.

    Raises:
        InputError: a file is unfit, cannot be downloaded, or is another one than its digest says.
    """
    own = _of_folder(folder, allow_pickle=allow_pickle)
    paths = [file.path for file in own.files] if own else []
    problems = []
    for extra in named:
        key = f"extra: {printable(extra.path)}"
        if extra.path in paths:
            problems.append(
                Problem(key, f"twice, also as {folder / extra.path}", "each path once", "take one out")
            )
        if extra.path.lower().endswith(PICKLE_SUFFIXES) and not allow_pickle:
            fix = "leave it out, or say --allow-pickle if you trust its author"
            problems.append(Problem(key, "pickled weights: loading runs code", "other files", fix))
        paths.append(extra.path)
    if problems:
        raise InputError(problems)
    if not paths:
        return None
    files = [*(own.files if own else ()), *(_download(extra, project) for extra in named)]
    origins = {**{file.path: None for file in (own.files if own else ())}, **{e.path: e.url for e in named}}
    return Gathered(
        _source(folder, files, {extra.path: extra.sha256 for extra in named}),
        tuple(ExtraFile(path, origins[path]) for path in sorted(origins)),
        tuple((f"extra/{path}", why) for path, why in own.skipped) if own else (),
    )


def bring(lock: Lock, wanted: Collection[LockedFile], project: Path) -> FolderFiles:
    """Bring the extra files that a lock names, for those of its layers that are to be packed.

    Raises:
        InputError: one is not there, cannot be downloaded, or is another one than was locked.
    """
    folder = extra_folder(lock, project)
    urls = {extra.path: extra.url for extra in lock.extra}
    paths = {file.path for file in wanted if urls[file.path] is None}
    own = _of_folder(folder, only=paths, allow_pickle=True) if paths else None
    there = {file.path: file for file in own.files} if own else {}
    problems, files = [], []
    for file in wanted:
        url = urls[file.path]
        found = _download(Extra(file.path, url, file.sha256), project) if url else there.get(file.path)
        if found is None or found.size != file.size:
            value = f"{found.size} bytes" if found else "there is no such file"
            said = f"{file.size} bytes, as the lock says"
            place = found.source if found and url else folder / printable(file.path)
            problems.append(Problem(str(place), value, said, CHANGED))
        else:
            files.append(found)
    if problems:
        raise InputError(problems)
    return _source(folder, files, {file.path: file.sha256 for file in wanted})


def _of_folder(folder: Path, *, only: Collection[str] | None = None, allow_pickle: bool) -> Weights | None:
    if not folder.is_dir() or not any(path.is_symlink() or path.is_file() for path in folder.rglob("*")):
        return None
    return read_weights(folder, only=only, allow_pickle=allow_pickle, layout="any", may_be_empty=True)


def _source(folder: Path, files: Sequence[WeightFile], known: Mapping[str, str]) -> FolderFiles:
    ordered = tuple(sorted(files, key=lambda file: file.path))
    found = FolderFiles(Weights(folder, ordered, sum(file.size for file in ordered), None, 0), known)
    found.outlast_clock_tick()
    return found


def _download(extra: Extra, project: Path) -> WeightFile:
    """Return a file out of the cache, after bringing it there; what differs from its digest is not kept.

    One that is there is read again: it is not synced to disk, so a power cut may have cut it.
    """
    cache = project / LAYOUTS / "extra"
    place = cache / extra.sha256
    if not place.is_file() or _sha256(place) != extra.sha256:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as file:
            part = Path(file.name)
        try:
            found = _read(extra, part)
            if found != extra.sha256:
                raise refuse(
                    f"extra: {printable(extra.path)}",
                    f"sha256 {found} at {extra.url}",
                    allowed=extra.sha256,
                    fix="correct the URL or the digest; if both are right, somebody changed the file there",
                )
            part.chmod(0o644)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    made = WeightFile.of(extra.path, place, place.stat())
    if made.size == 0 and needs_content(extra.path):
        raise refuse(
            f"extra: {printable(extra.path)}", "0 bytes", allowed="a file with content", fix="take it out"
        )
    return made


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(extra: Extra, part: Path) -> str:
    """Download a file and return its digest; a cut is tried again from the start."""
    import httpx

    from modelcar.connections import client

    waits = iter(hub.WAITS)
    while True:
        hasher = hashlib.sha256()
        try:
            with (
                part.open("wb") as file,
                client(follow_redirects=True, timeout=TIMEOUT) as web,
                web.stream("GET", extra.url, headers={"Accept-Encoding": "identity"}) as answer,
            ):
                answer.raise_for_status()
                for data in answer.iter_bytes(BUFFER):
                    hasher.update(data)
                    file.write(data)
            return hasher.hexdigest()
        except httpx.HTTPError as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            wait = next(waits, None) if not status or status == 429 or status >= 500 else None
            if wait is None:
                value = f"answers {status}" if status else f"cannot be reached, or broke off: {error}"
                raise refuse(
                    f"extra: {printable(extra.path)}",
                    f"{extra.url} {value}",
                    allowed="an address that this machine can read",
                    fix="check the address and the network, or put the file into the lock's folder extra",
                ) from None
            time.sleep(wait)
