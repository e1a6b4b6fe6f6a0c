"""Look at a folder of weights before anything is built from it. Reads names, sizes and headers, never data.

What may be in the folder is what a download from a model hub leaves there, or one's own files of the same
layout. Links are followed where they lead to a file inside the folder. One kind may lead out of it: a
snapshot in the hub's cache (`…/snapshots/REVISION`) links to `…/blobs` beside it, so that such a
snapshot can be named as it is. A link to a folder is refused: it may run in a circle.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelcar import layouts
from modelcar.choosing import PICKLE_SUFFIXES, SKIPPED_FOLDERS, left_out, none_chosen, unnamed
from modelcar.errors import InputError, Problem
from modelcar.paths import fault_of_name, printable, same_but_for_case
from modelcar.safetensors_header import MAX_HEADER, Header, HeaderError, read_header

UNFINISHED_SUFFIXES = (".incomplete", ".part", ".aria2", ".crdownload")

#: Bytes. Larger than any config.json or index seen, small enough to parse at once.
MAX_JSON = 64 * 2**20

#: Tensors that vLLM passes over, as it computes them: its models/llama.py and gpt2.py.
NOT_LOADED = (
    *("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"),
    *(".attn.bias", ".attn.masked_bias"),
)


@dataclass(frozen=True)
class WeightFile:
    """One file of the model.

    path: relative to the folder, with `/`.
    source: the file itself, links followed.
    size: bytes. mtime_ns, ctime_ns: nanoseconds since 1970. inode: which file of the disk it is.
    offset: bytes of `source` before the file's content, where it lies in a layer.
    """

    path: str
    source: Path
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    offset: int = 0

    @classmethod
    def of(cls, path: str, source: Path, status: os.stat_result) -> WeightFile:
        """Make one from what the file system says of it."""
        return cls(
            path,
            source,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
        )


@dataclass(frozen=True)
class ModelConfig:
    """What the configuration says. `dtype` is a name such as bfloat16, None where it says none."""

    model_type: str
    architectures: tuple[str, ...]
    dtype: str | None


@dataclass(frozen=True)
class Weights:
    """A folder of weights that is fit to be packed. `files` are sorted by path; sizes are in bytes.

    config: None where there is none, which only the layout `any` has.
    skipped: (path, why) of files that are left out.
    doubts: what a user should know of the layout.
    """

    folder: Path
    files: tuple[WeightFile, ...]
    total_size: int
    config: ModelConfig | None
    parameters: int
    skipped: tuple[tuple[str, str], ...] = ()
    doubts: tuple[str, ...] = ()


def needs_content(path: str) -> bool:
    """Tell whether a file of 0 bytes cannot be right: weights, and what a server reads beside them.

    Any other file may be empty, such as `__init__.py` and `.gitkeep`.
    """
    if path.lower().endswith((".safetensors", *PICKLE_SUFFIXES)):
        return True
    return "/" not in path and (path.endswith(".json") or layouts.is_tokenizer(path))


def read_weights(
    folder: Path,
    *,
    allow: Sequence[str] = (),
    ignore: Sequence[str] = (),
    only: Collection[str] | None = None,
    allow_pickle: bool = False,
    layout: str = "auto",
    may_be_empty: bool = False,
) -> Weights:
    """Check a folder of weights and return what is in it.

    Takes milliseconds whatever the model's size: of large files only the header is read.

    Args:
        folder: with the model's files.
        allow, ignore: patterns of files to take and to leave out, as `choosing.left_out` has them.
        only: paths of the files to take, as a lock names them, in place of a choice.
        allow_pickle: take pickled weights too, which can run any code when they are loaded.
        layout: one of `layouts.LAYOUTS`.
        may_be_empty: whether all files may be left out.

    Raises:
        InputError: with everything that is wrong with the folder.
    """
    folder = folder.absolute()
    _check_folder(folder)
    reader = _Reader(folder, allow_pickle, layout)
    reader.read(allow, ignore, only)
    if only is None and not may_be_empty and not reader.files and not reader.problems:
        raise none_chosen(str(folder), sorted(reader.skipped), "folder")
    return reader.result()


def check_packed(
    files: Mapping[str, WeightFile], shown: Path, *, allow_pickle: bool = False, layout: str = "auto"
) -> Weights:
    """Check weights that lie in layers, as `read_weights` does those in a folder.

    Args:
        files: by path in the model, each with the layer and offset that it lies at.
        shown: stands for the folder in messages.
        allow_pickle, layout: as in `read_weights`.

    Raises:
        InputError: with everything that is wrong with them.
    """
    reader = _Reader(shown, allow_pickle, layout)
    reader.files.update(files)
    reader.check()
    return reader.result()


def _content(file: WeightFile) -> bytes:
    with file.source.open("rb") as source:
        source.seek(file.offset)
        return source.read(file.size)


def _check_folder(folder: Path) -> None:
    allowed = "a folder with config.json, *.safetensors and a tokenizer"
    fix = "name the folder that has the files (modelcar/data/README.md), or lock a repository of a hub"
    value = None
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            value = "not a folder"
        elif not any(folder.iterdir()):
            value = "the folder is empty"
    except FileNotFoundError:
        value = "a link that leads nowhere" if folder.is_symlink() else "there is no such folder"
    except OSError as error:
        value, fix = f"cannot be read ({error.strerror})", "make it readable for this user"
    except ValueError as error:  # a NUL
        value = f"no path ({error})"
    if value:
        raise InputError([Problem(str(folder), value, allowed, fix)])


class _Reader:
    """Collects files and problems; one use each."""

    def __init__(self, folder: Path, allow_pickle: bool, layout: str) -> None:
        self.folder = folder
        self.allow_pickle = allow_pickle
        self.layout = layout
        self.files: dict[str, WeightFile] = {}
        self.skipped: dict[str, str] = {}
        self.headers: dict[str, Header] = {}
        self.config: ModelConfig | None = None
        self.tied = True
        self.problems: list[Problem] = []
        self._roots = [folder.resolve()]
        if self._roots[0].parent.name == "snapshots":
            self._roots.append(self._roots[0].parent.parent / "blobs")

    def read(self, allow: Sequence[str], ignore: Sequence[str], only: Collection[str] | None) -> None:
        entries = dict(self._walk(self.folder, ""))
        if only is None:
            self.skipped.update(left_out(entries, allow, ignore))
        else:
            self.skipped.update((path, "not in the lock") for path in entries if path not in only)
        for path, entry in entries.items():
            if path not in self.skipped:
                self._take(path, entry)
        self.check()

    def check(self) -> None:
        self._check_case()
        self._check_config()
        self._check_safetensors()
        self._check_layout()

    def result(self) -> Weights:
        if self.problems:
            raise InputError(self.problems)
        files = tuple(sorted(self.files.values(), key=lambda file: file.path))
        parameters = sum(header.numbers for header in self.headers.values())
        total = sum(file.size for file in files)
        skipped = tuple(sorted(self.skipped.items()))
        doubts = layouts.doubts(self.files, self.layout)
        return Weights(self.folder, files, total, self.config, parameters, skipped, doubts)

    def _problem(self, path: str, value: str, allowed: str, fix: str) -> None:
        self.problems.append(Problem(str(self.folder / printable(path)), value, allowed, fix))

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            self._problem(
                prefix.rstrip("/"),
                f"cannot be read ({error.strerror})",
                "folders that this user can read",
                "change its permissions or owner",
            )
            return
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name in SKIPPED_FOLDERS:
                    self.skipped[path + "/"] = "no part of the model"
                    self._check_unfinished(Path(entry.path), path)
                else:
                    yield from self._walk(Path(entry.path), path + "/")
            else:
                yield path, entry

    def _check_unfinished(self, skipped: Path, path: str) -> None:
        """The hub's client keeps the parts of an unfinished download in .cache."""
        for found in sorted(skipped.rglob("*.incomplete")):
            self._unfinished(f"{path}/{found.relative_to(skipped).as_posix()}")

    def _unfinished(self, path: str) -> None:
        self._problem(
            path,
            "an unfinished download",
            "a complete download",
            "run the download again (it resumes); if it says that all is there, remove this file",
        )

    def _take(self, path: str, entry: os.DirEntry[str]) -> None:
        """Take one file in, or say why not."""
        name = entry.name
        if fault := fault_of_name(path):
            self._problem(path, *fault)
        elif name.endswith(UNFINISHED_SUFFIXES):
            self._unfinished(path)
        elif name.lower().endswith(PICKLE_SUFFIXES) and not self.allow_pickle:
            self._problem(
                path,
                "pickled weights: loading them can run any code that their author put in",
                "weights in safetensors",
                "leave it out (--ignore), convert it, or say --allow-pickle if you trust it",
            )
        else:
            self._take_file(path, Path(entry.path), entry.is_symlink())

    def _take_file(self, path: str, full: Path, is_link: bool) -> None:
        source = full
        if is_link:
            try:
                source = full.resolve(strict=True)
            except (OSError, RuntimeError):  # RuntimeError: a circle of links, until Python 3.13
                self._problem(path, f"a link to {full.readlink()}, which is not there", "files", "remove it")
                return
            if not any(source.is_relative_to(root) for root in self._roots):
                self._problem(
                    path,
                    f"a link to {source}, outside of the folder",
                    "files, and links to files inside the folder (a snapshot of the hub's cache may "
                    "link to its blobs)",
                    "put the file itself there",
                )
                return
        try:
            status = source.stat()
            if stat.S_ISREG(status.st_mode):
                os.close(os.open(source, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self._problem(
                path,
                f"cannot be read ({error.strerror})",
                "files that this user can read",
                "change its permissions or owner",
            )
            return
        if not stat.S_ISREG(status.st_mode):
            kind = "a link to a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            self._problem(path, kind, "files, and links to files", "put the files themselves there")
        elif status.st_size == 0 and needs_content(path):
            self._problem(
                path, "0 bytes", "a file with content", "download it again, or leave it out (--ignore)"
            )
        else:
            self.files[path] = WeightFile.of(path, source, status)

    def _check_case(self) -> None:
        """Two names that differ in case only become one on file systems that ignore case."""
        for path, other in same_but_for_case(self.files):
            self._problem(
                path,
                f"the same name as {other} but for case or the way accents are written",
                "names that stay different where case is ignored",
                "rename or remove one of the two",
            )

    def _json_object(self, path: str) -> dict[str, Any] | None:
        """Return a JSON object, or None after adding the problem."""
        file, value = self.files[path], ""
        if file.size > MAX_JSON:
            value = f"{file.size} bytes"
        else:
            try:
                document = json.loads(_content(file).decode())  # as Transformers reads it: UTF-8 alone
                if isinstance(document, dict):
                    return document
                value = "valid JSON, but not an object"
            except OSError as error:
                value = f"cannot be read ({error.strerror})"
            except (ValueError, RecursionError) as error:
                value = f"not JSON ({error})"
        self._problem(path, value, f"a JSON object of at most {MAX_JSON} bytes", "download it again")
        return None

    def _check_config(self) -> None:
        path = layouts.config_of(self.files)
        config = self._json_object(path) if path else None
        if path is None or config is None:
            return
        if path == layouts.PARAMS:
            self.config = ModelConfig("mistral", (), None)
            return
        model_type = config.get("model_type")
        if not isinstance(model_type, str) or not model_type:
            if self.layout == "auto":
                self._problem(
                    path,
                    f"model_type is {model_type!r}",
                    f"the model's {path}, with its model_type",
                    "download it again, or point at the folder that holds the model",
                )
            return
        text = config.get("text_config")
        said = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        # Not said where it is the class's default, which is mostly true: save_pretrained writes the others.
        self.tied = (config.get("tie_word_embeddings") if said is None else said) is not False
        named = config.get("architectures")
        architectures = tuple(str(name) for name in named) if isinstance(named, list) else ()
        dtype = config.get("dtype", config.get("torch_dtype"))  # renamed in transformers 5
        self.config = ModelConfig(model_type, architectures, dtype if isinstance(dtype, str) else None)

    def _check_safetensors(self) -> None:
        paths = [path for path in self.files if path.endswith(".safetensors")]
        for path in paths:
            try:
                file = self.files[path]
                self.headers[path] = read_header(file.source, offset=file.offset, size=file.size)
            except (HeaderError, OSError) as error:
                self._problem(
                    path,
                    f"broken: {error}",
                    f"a whole safetensors file, its header at most {MAX_HEADER} bytes",
                    "download it again: it is cut off or damaged",
                )
        indexes = [path for path in self.files if path.endswith(".safetensors.index.json")]
        for folder in sorted({str(PurePosixPath(path).parent) for path in indexes}):
            self._check_indexes([path for path in indexes if str(PurePosixPath(path).parent) == folder])

    def _check_indexes(self, indexes: list[str]) -> None:
        """Check the indexes of one folder: every shard is named by one of them."""
        maps = {path: found for path in indexes if (found := self._weight_map(path)) is not None}
        for path, tensors in maps.items():
            self._check_index(path, tensors)
        named = {shard for tensors in maps.values() for shard in tensors}
        if len(maps) < len(indexes) or any(map(self._is_reported, indexes)):
            return
        for extra in unnamed(self.headers, named, str(PurePosixPath(indexes[0]).parent)):
            self._problem(
                extra,
                f"not named by {' or '.join(indexes)}",
                "the shards of the index and no other safetensors",
                "leave it out (--ignore): a server would not load it; or take the index that names it",
            )

    def _weight_map(self, path: str) -> dict[str, list[str]] | None:
        """Return the tensors of each shard of an index, or None after adding the problem."""
        index = self._json_object(path)
        if index is None:
            return None
        mapping = index.get("weight_map")
        if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
            self._problem(
                path, "no weight_map of tensors to files", "the index as downloaded", "download it again"
            )
            return None
        tensors: dict[str, list[str]] = {}
        for tensor, shard in mapping.items():
            tensors.setdefault(str(PurePosixPath(path).parent / shard), []).append(tensor)
        return tensors

    def _check_index(self, path: str, tensors: Mapping[str, list[str]]) -> None:
        """Check that the shards of an index are there, with what a server needs of them.

        A server reads which files an index names, and finds the tensors in them by itself: one may stand in
        another shard than the index says.
        """
        parent = PurePosixPath(path).parent
        there = set[str]()
        for shard, header in self.headers.items():
            if PurePosixPath(shard).parent == parent:
                there |= header.tensors
        lost = sorted(shard for shard in tensors if shard not in self.files)
        needed = {name for names in tensors.values() for name in names if self._is_needed(name)}
        if lost and needed <= there and not any(map(self._is_reported, lost)):
            self._problem(
                path,
                f"a stale index: it names {lost[0]}, which is not there, but every tensor is in other files",
                "an index that names the files that are there, or none",
                f"leave it out (--ignore {path}): a server then loads all safetensors of the folder",
            )
            return
        for shard in lost:
            if not self._is_reported(shard):
                found = f"left out ({self.skipped[shard]})" if shard in self.skipped else "missing"
                self._problem(
                    shard, f"{found}, {path} names it", "every shard of the index", "download it again"
                )
        for shard, names in sorted(tensors.items()):
            absent = sorted((set(names) & needed) - there)
            if shard in self.headers and absent:
                self._problem(
                    shard,
                    f"lacks {len(absent)} tensors that {path} places there, {absent[0]} for one",
                    "shards that hold every tensor that a server needs",
                    "download the model again into an empty folder; if its repository is so, take another "
                    "revision or lock a folder that save_pretrained wrote",
                )

    def _is_needed(self, tensor: str) -> bool:
        """Tell whether a server needs a tensor that an index names."""
        if tensor.endswith("lm_head.weight") and self.tied:
            return False
        return not tensor.endswith(NOT_LOADED)

    def _check_layout(self) -> None:
        # A file that was refused is not also missing.
        prefix = f"{self.folder}/"
        refused = {problem.key.removeprefix(prefix) for problem in self.problems}
        for path, value, allowed, fix in layouts.faults({*self.files, *refused}, self.skipped, self.layout):
            self._problem(path, value, allowed, fix)

    def _is_reported(self, path: str) -> bool:
        """Tell whether the file is there but was refused: then it is not also missing."""
        key = str(self.folder / path)
        return any(problem.key == key for problem in self.problems)
