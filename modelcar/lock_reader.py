"""Reading a lock: everything in it is checked before anything is done with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from modelcar import kernels as compiled
from modelcar import strict_yaml
from modelcar.errors import InputError, Problem
from modelcar.layer_format import layer_size
from modelcar.lock import (
    VERSION,
    ExtraFile,
    FolderSource,
    HubSource,
    Lock,
    LockedFile,
    LockedLayer,
    document_of,
    write_lock,
)
from modelcar.paths import fault_of_name, printable, same_but_for_case

COMPRESSIONS = ("none", "zstd")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_license(value: object) -> bool:
    """Tell whether a lock can have this licence; None is one that nobody said."""
    return value is None or (isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable())


def read_lock(path: Path) -> Lock:
    """Read a lock and check all that can be checked without the weights.

    Raises:
        InputError: with everything that is wrong with it; a missing file too.
    """
    fix = f"write it again: python -m modelcar lock {path.parent.name}"
    document = strict_yaml.read(path, "a lock that `python -m modelcar lock` wrote", fix)
    reader = _Reader(path, fix)
    lock = reader.lock(document)
    if lock is None or reader.problems:
        raise InputError(reader.problems)
    return lock


def check_lock(lock: Lock, path: Path) -> bytes:
    """Check a lock before it is written, as `read_lock` will; return it as its file has it.

    Raises:
        InputError: with everything that it would be refused for.
    """
    reader = _Reader(path, "leave the file out (--ignore), or rename it")
    reader.lock(document_of(lock))
    content = write_lock(lock)
    if len(content) > strict_yaml.MAX_FILE:
        found = f"{len(lock.files)} files make a lock of {len(content)} bytes"
        reader.problem("", found, f"at most {strict_yaml.MAX_FILE} bytes", "leave some out (--ignore)")
    problems = [
        replace(problem, fix="say another --license") if problem.key.endswith(": license") else problem
        for problem in reader.problems
    ]
    if problems:
        raise InputError(problems)
    return content


def fault_of_url(url: object) -> str | None:
    """Return why a file cannot be brought from a URL, without showing it: it may hold a password."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and url == printable(url) else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in {"https", "http"} or not parts.hostname or " " in str(url):
        return "no URL of https:// or http://"
    if parts.username or parts.password:
        return "a URL with a user's name or password, which a lock is no place for"
    return None


class _Reader:
    """Reads one lock and collects what is wrong with it."""

    def __init__(self, path: Path, fix: str) -> None:
        self.path = path
        self.fix = fix
        self.problems: list[Problem] = []

    def problem(self, key: str, value: object, allowed: str, fix: str = "") -> None:
        shown = value if isinstance(value, str) else repr(value)
        key = f"{self.path}: {printable(key)}" if key else str(self.path)
        self.problems.append(Problem(key, printable(shown)[:200], allowed, fix or self.fix))

    def lock(self, document: Any) -> Lock | None:
        if not isinstance(document, dict):
            self.problem("", f"{type(document).__name__}, not a mapping", "a lock")
            return None
        if type(document.get("version")) is not int or document["version"] != VERSION:
            self.problem("version", document.get("version"), str(VERSION), "use the program that wrote it")
            return None
        keys = {"version", "source", "license", "compression", "totalSize", "files", "layers"}
        self._keys("", document, keys | {"extra", "kernels"}, keys)
        source = self._source(document.get("source"))
        license = self._license(document.get("license"))
        compression = document.get("compression")
        if compression not in COMPRESSIONS:
            self.problem("compression", compression, " or ".join(COMPRESSIONS))
        files = tuple(self._files(document.get("files")))
        if not self.problems:
            self._total(document.get("totalSize"), files)
        layers = tuple(self._layers(document.get("layers"), files, compressed=compression != "none"))
        extra = tuple(self._extra(document["extra"], files, source)) if "extra" in document else ()
        kernels = self._kernels(document["kernels"]) if "kernels" in document else ()
        if self.problems or source is None:
            return None
        folder = self.path.absolute().parent
        return Lock(folder.name, source, license, str(compression), files, layers, extra, kernels, folder)

    def _keys(self, where: str, entry: Mapping[Any, Any], allowed: set[str], needed: set[str]) -> bool:
        unknown, missing = sorted(map(str, entry.keys() - allowed)), sorted(needed - entry.keys())
        if unknown:
            self.problem(where, f"unknown key {unknown[0]}", ", ".join(sorted(allowed)))
        if missing:
            self.problem(where, f"lacks {', '.join(missing)}", ", ".join(sorted(needed)))
        return not unknown and not missing

    def _source(self, entry: Any) -> HubSource | FolderSource | None:
        if isinstance(entry, dict) and entry.keys() == {"folder"}:
            folder = entry["folder"]
            if isinstance(folder, str) and folder and folder == printable(folder):
                return FolderSource(folder)
        elif isinstance(entry, dict) and entry.keys() == {"hub", "revision"}:
            repository, revision = str(entry["hub"]), str(entry["revision"])
            if _REPOSITORY.fullmatch(repository) and _COMMIT.fullmatch(revision):
                return HubSource(repository, revision)
        allowed = "folder: PATH; or hub: OWNER/NAME with revision: COMMIT (40 hexadecimal digits)"
        self.problem("source", entry, allowed)
        return None

    def _license(self, value: Any) -> str | None:
        if not is_license(value):
            self.problem("license", value, "an SPDX identifier, or null")
            return None
        return str(value) if value is not None else None

    def _files(self, entries: Any) -> Iterator[LockedFile]:
        if not isinstance(entries, list) or not entries:
            self.problem("files", entries if not entries else type(entries).__name__, "a list of files")
            return
        paths: list[str] = []
        for number, entry in enumerate(entries):
            file = self._file(f"files[{number}]", entry)
            if file:
                paths.append(file.path)
                yield file
        if paths != sorted(set(paths)):
            self.problem("files", "not sorted by path, or a path twice", "each path once, sorted")
        for path, other in same_but_for_case(paths):
            self.problem("files", f"{path} and {other}", "names that stay different where case is ignored")
        folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
        for path in sorted(folders.intersection(paths)):
            self.problem("files", f"{path} is a file and a folder", "names that are one or the other")

    def _file(self, key: str, entry: Any) -> LockedFile | None:
        if not isinstance(entry, dict):
            self.problem(key, entry, "a mapping with path, size and sha256")
            return None
        names = {"path", "size", "sha256"}
        if not self._keys(key, entry, names, names):
            return None
        path, size, sha256 = entry["path"], entry["size"], entry["sha256"]
        if not isinstance(path, str):
            self.problem(f"{key}.path", path, "a relative path")
            return None
        good = True
        if fault := fault_of_name(path):
            self.problem(f"{key}.path", f"{path!r}: {fault[0]}", fault[1])
            good = False
        elif compiled.is_kernels(path):
            allowed = f"no file below {compiled.FOLDER}: kernels come out of a stack's own pods, as `kernels`"
            self.problem(f"{key}.path", path, allowed)
            good = False
        if type(size) is not int or not 0 <= size < 2**53:
            self.problem(f"{key}.size", size, "bytes, 0 or more")
            good = False
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            self.problem(f"{key}.sha256", sha256, "64 hexadecimal digits")
            good = False
        return LockedFile(path, size, sha256) if good else None

    def _extra(self, entries: Any, files: Sequence[LockedFile], source: object) -> Iterator[ExtraFile]:
        allowed = "paths out of files, each once, sorted, some with a url; of a hub's model"
        paths = {file.path for file in files}
        if not isinstance(entries, list) or not entries or not isinstance(source, HubSource):
            self.problem("extra", entries if isinstance(entries, list) else type(entries).__name__, allowed)
            return
        found: list[str] = []
        for number, entry in enumerate(entries):
            key = f"extra[{number}]"
            if not isinstance(entry, dict) or not self._keys(key, entry, {"path", "url"}, {"path"}):
                self.problem(key, "not a mapping of path and url", allowed)
            elif not isinstance(entry["path"], str) or entry["path"] not in paths:
                self.problem(f"{key}.path", entry["path"], allowed)
            elif "url" in entry and (fault := fault_of_url(entry["url"])):
                self.problem(f"{key}.url", fault, "https://HOST/PATH or http://HOST/PATH")
            else:
                found.append(entry["path"])
                yield ExtraFile(entry["path"], entry.get("url"))
        if found != sorted(set(found)):
            self.problem("extra", "not sorted by path, or a path twice", allowed)

    def _total(self, value: Any, files: Sequence[LockedFile]) -> None:
        total = sum(file.size for file in files)
        if type(value) is not int or value != total:
            self.problem("totalSize", value, f"{total}, the sum of the files' sizes")

    def _layers(
        self, entries: Any, files: Sequence[LockedFile], *, compressed: bool
    ) -> Iterator[LockedLayer]:
        if not isinstance(entries, list) or not entries:
            self.problem("layers", entries if not entries else type(entries).__name__, "a list of layers")
            return
        sizes = {file.path: file.size for file in files}
        placed: list[str] = []
        for number, entry in enumerate(entries):
            layer = self._layer(f"layers[{number}]", entry, sizes, compressed=compressed)
            if layer:
                placed += layer.files
                yield layer
        if not self.problems and sorted(placed) != sorted(sizes):
            times = Counter(placed)
            odd = sorted({path for path in placed if times[path] > 1} or sizes.keys() - set(placed))
            self.problem("layers", f"{odd[0]} is in no layer, or in two", "each file in one layer")

    def _kernels(self, entries: Any) -> tuple[compiled.Kernels, ...]:
        found, wrong = compiled.read_entries(entries)
        for key, value, allowed in wrong:
            self.problem(key, value, allowed, "restore the lock, or save them again: make kernels")
        return found

    def _layer(
        self, key: str, entry: Any, sizes: Mapping[str, int], *, compressed: bool
    ) -> LockedLayer | None:
        if not isinstance(entry, dict):
            self.problem(key, entry, "a mapping with digest, size and files")
            return None
        needed = {"digest", "size", "files"} | ({"diffId"} if compressed else set())
        if not self._keys(key, entry, needed, needed):
            return None
        digest, diff_id = entry["digest"], entry["diffId"] if compressed else entry["digest"]
        for name, value in (("digest", digest), ("diffId", diff_id)):
            if not isinstance(value, str) or not _DIGEST.fullmatch(value):
                self.problem(f"{key}.{name}", value, "sha256: and 64 hexadecimal digits")
                return None
        paths, size = entry["files"], entry["size"]
        known = isinstance(paths, list) and all(isinstance(path, str) and path in sizes for path in paths)
        if not known or not paths:
            self.problem(f"{key}.files", paths, "paths out of files")
            return None
        if type(size) is not int or size <= 0:
            self.problem(f"{key}.size", size, "bytes, more than 0")
            return None
        if not compressed and size != (wanted := layer_size([(path, sizes[path]) for path in paths])):
            self.problem(f"{key}.size", size, f"{wanted}, which follows from its files")
            return None
        return LockedLayer(digest, size, diff_id, tuple(paths))
