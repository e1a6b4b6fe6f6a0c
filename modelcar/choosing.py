"""Which files of a repository or a folder make the model. Looks at their paths only, before anything is read.

A hub's repository and a folder are chosen from alike, so a download and its source give the same image.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from modelcar.errors import InputError, refuse
from modelcar.kernels import is_kernels
from modelcar.paths import printable

#: What a download leaves behind that is no part of the model.
SKIPPED_FOLDERS = frozenset({".cache", ".git", ".huggingface"})
SKIPPED_FILES = frozenset({".gitattributes", ".gitignore", ".DS_Store"})
SKIPPED_SUFFIXES = (".lock",)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

#: The same weights for other programs; left out where there are safetensors.
OTHER_FORMATS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".tflite", ".ot", ".mlmodel", ".nemo")
OTHER_FOLDERS = frozenset({"onnx", "openvino", "coreml", "original", "metal", "gguf", "flax", "tf"})
_INDEXES_OF_OTHERS = (".bin.index.json", ".h5.index.json", ".msgpack.index.json")

#: What the trainers of transformers, accelerate and DeepSpeed write beside a model, to go on from there.
_TRAINER_FILES = re.compile(
    r"(training_args|optimizer(_\d+)?|scheduler|scaler)\.(bin|pt)|rng_state(_\d+)?\.pth|random_states_\d+\.pkl"
    r"|trainer_state\.json|zero_to_fp32\.py|events\.out\.tfevents\..*"
)
_TRAINER_FOLDERS = re.compile(r"checkpoint-\d+|global_step\d+")

#: The index that vLLM reads: of the safetensors at the top it loads those that this names, or else all.
INDEX = "model.safetensors.index.json"
_INDEX_SUFFIX = ".safetensors.index.json"
_MODEL = re.compile(r"model(-.+)?\.safetensors")
_SHARD = re.compile(r"model-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")

#: The model in another precision, as Transformers names it (`save_pretrained(variant="fp16")`: the file, its
#: shards and `model.safetensors.index.fp16.json`), and training's moving average.
_VARIANT = r"(?:(?:b?float|b?fp|bf|u?int)\d+\w*|\d+bit|(?:non_|no_)?ema)"
_SECOND = re.compile(
    rf"model\.{_VARIANT}(?:-\d{{5}}-of-\d{{5}})?\.safetensors(?:\.index\.json)?"
    rf"|model\.safetensors\.index\.{_VARIANT}\.json"
)

TWICE = "the weights a second time"
FORMAT = "the weights in another format"
PATTERNS = "not among the patterns"
#: Whatever the patterns say: a pod's server would run it.
KERNELS = "compiled code, which only a stack's own pods may give"


def left_out(paths: Collection[str], allow: Sequence[str] = (), ignore: Sequence[str] = ()) -> dict[str, str]:
    """Return why files are no part of the model, by path; those that are not named are.

    Args:
        paths: of all files, relative to the repository or folder, with `/`.
        allow: patterns of the files to take (`*` also matches `/`); whoever names some gets what they match.
        ignore: patterns of files to leave out.
    """
    found = {
        path: PATTERNS for path in paths if _matches(path, ignore) or (allow and not _matches(path, allow))
    }
    found |= {path: KERNELS for path in paths if is_kernels(path)}
    if allow:
        return found
    wanted = [path for path in paths if path not in found]
    twice = _second_weights({path for path in wanted if "/" not in path})
    # The weights have to be at the top: those of other programs, in folders, replace nothing.
    safetensors = any("/" not in path and path.endswith(".safetensors") for path in wanted)
    alone = _only_weights(set(wanted))
    for path in wanted:
        why = _needless(path, safetensors=safetensors) or (TWICE if path in twice else None)
        if why == FORMAT and path in alone:
            continue
        if why:
            found[path] = why
    return found


def none_chosen(where: str, paths: Sequence[str], kind: str) -> InputError:
    """Return the error for a choice that takes no file. kind: of the source, folder or repository."""
    there = ", ".join(map(printable, paths[:10])) or "no file"
    return refuse(
        where,
        f"none of its files is chosen; it has {there}",
        allowed=f"a {kind} with config.json, safetensors and a tokenizer",
        fix=f"change --allow and --ignore, or name another {kind}",
    )


def unnamed(paths: Iterable[str], named: Collection[str], folder: str) -> list[str]:
    """Return the safetensors of a folder that no index names, and a server would not load.

    Those called `consolidated…` are read by name, in Mistral's own format, and here only if somebody named
    them.

    Args:
        paths: of all files.
        named: paths that the folder's indexes name.
        folder: of them; `.` is the top.
    """
    pure = [PurePosixPath(path) for path in sorted(set(paths) - set(named)) if path.endswith(".safetensors")]
    return [str(one) for one in pure if str(one.parent) == folder and not one.name.startswith("consolidated")]


def _only_weights(paths: set[str]) -> set[str]:
    """Return the pickled weights in folders that have no others: an adapter's, a draft's, a part's."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    return {
        f"{folder}/{name}"
        for folder, names in folders.items()
        if folder and names & {"config.json", "adapter_config.json"}
        if not any(name.endswith(".safetensors") for name in names)
        if not OTHER_FOLDERS & set(folder.lower().split("/"))
        for name in names
        if name.lower().endswith(PICKLE_SUFFIXES)
    }


def _matches(path: str, patterns: Iterable[str]) -> bool:
    """Tell whether a path matches a pattern, as the hub's client has it: a folder with / is all below it."""
    return any(fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns)


def _needless(path: str, *, safetensors: bool) -> str | None:
    pure = PurePosixPath(path)
    name, folders = pure.name.lower(), pure.parts[:-1]
    if pure.name in SKIPPED_FILES or SKIPPED_FOLDERS & set(folders) or name.endswith(SKIPPED_SUFFIXES):
        return "no part of the model"
    if _TRAINER_FILES.fullmatch(name) or any(map(_TRAINER_FOLDERS.fullmatch, folders)):
        return "a trainer's state"
    if not safetensors:
        return None
    if name.endswith((*PICKLE_SUFFIXES, *OTHER_FORMATS, *_INDEXES_OF_OTHERS)):
        return FORMAT
    if OTHER_FOLDERS & {part.lower() for part in folders}:
        return "the model for other programs"
    return None


def _second_weights(top: set[str]) -> set[str]:
    """Return the safetensors and indexes at the top that repeat others: vLLM loads `model*`."""
    named = {path for path in top if _MODEL.fullmatch(path)}
    if not named:
        return set()
    # Mistral's repositories have the weights under both names.
    found = {path for path in top if path.startswith("consolidated") or _SECOND.fullmatch(path)}
    # A variant by any other name that has an index of its own.
    for stem in (path.removesuffix(_INDEX_SUFFIX) for path in top if path.endswith(_INDEX_SUFFIX)):
        if INDEX in top and stem != "model":
            shard = re.compile(re.escape(stem) + r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
            found |= {path for path in top if shard.fullmatch(path)}
    shards = [match for path in named if (match := _SHARD.fullmatch(path))]
    if "model.safetensors" in named and shards and INDEX in top:
        count = int(shards[0]["count"])
        if {int(shard["number"]) for shard in shards} == set(range(1, count + 1)):
            found.add("model.safetensors")
    elif {path for path in top if path.endswith(".safetensors")} - found == {"model.safetensors"}:
        found |= {INDEX} & top
    return found
