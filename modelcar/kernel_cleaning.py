"""What of a server's caches are kernels: the rest differs by run, is one machine's, or a dump to read.

By names alone: nothing of the caches is ever loaded here. Names as vLLM 0.23, torch 2.11, Triton 3.6 and
FlashInfer write them. What stays can still differ between two compilations, as torch writes times and random
names into its pickles (`forward_time_taken_ns`, `__compiled_fn_1_UUID`): the same caches give the same layer,
two compilations do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from modelcar.kernels import PARTS

#: Folders of VLLM_CACHE_ROOT that hold what was compiled or found out; others are of one machine (peer access
#: of its cards), or downloads.
VLLM_FOLDERS = (
    "torch_compile_cache",
    "torch_aot_compile",
    "modelinfos",
    "flashinfer_autotune_cache",
    "deep_gemm",
)

#: torch's file locks; Python's bytecode, which holds times; headers that a C++ compiler made for itself.
_FOLDERS = frozenset({"locks", "__pycache__", "precompiled_headers"})
_SUFFIXES = (".lock", ".log", ".pyc", ".gch")
#: Written and never read again (vllm/compilation/backends.py). The first holds the server's variables, and so
#: perhaps a key (VLLM_API_KEY): it never leaves the pod's caches.
_DUMPS = frozenset({"cache_key_factors.json", "computation_graph.py", "transformed_code.py"})
#: vLLM: model.PID.tmp; Triton: tmp.pid_PID_UUID; torch: .PID.TID.tmp, and tmp… of Python's tempfile.
_TEMPORARY = re.compile(r".*\.tmp|.*\.tmp\..*|tmp\.pid_.*|tmp[a-z0-9_]{8}|\..*\.tmp")
_COMPILED = re.compile(r"vllm/torch_compile_cache/(torch_aot_compile/[0-9a-f]+)/(rank_\d+_\d+)/model")
_AOT = re.compile(r"vllm/torch_compile_cache/(torch_aot_compile/[0-9a-f]+)/.+")


def is_temporary(path: str) -> bool:
    """Tell whether a file is one that is still being written, or was when its writer ended."""
    return any(_TEMPORARY.fullmatch(part) for part in PurePosixPath(path).parts[1:])


def is_needless(path: str) -> bool:
    """Tell whether a file is none that a server reads again."""
    pure = PurePosixPath(path)
    if pure.parts[:1] not in {(part,) for part in PARTS}:
        return True
    other = pure.parts[0] == "vllm" and (len(pure.parts) < 3 or pure.parts[1] not in VLLM_FOLDERS)
    named = pure.name in _DUMPS or pure.name.endswith(_SUFFIXES)
    return other or named or bool(_FOLDERS & set(pure.parts[:-1])) or is_temporary(path)


def compiled(paths: Iterable[str]) -> dict[str, int]:
    """Return the ranks that each compiled model is there for, by its folder; 0 where one is unfinished."""
    ranks: dict[str, int] = {}
    for path in paths:
        if found := _AOT.fullmatch(path):
            ranks.setdefault(found[1], 0)
        if found := _COMPILED.fullmatch(path):
            ranks[found[1]] += 1
    return ranks


def clean(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what of the caches travels, by path; the first part of each is one of kernels.PARTS."""
    kept = {path: content for path, content in files.items() if not is_needless(path)}
    unfinished = [folder for folder, ranks in compiled(kept).items() if not ranks]
    prefixes = tuple(f"vllm/torch_compile_cache/{folder}/" for folder in unfinished)
    return {path: kept[path] for path in sorted(kept) if not (prefixes and path.startswith(prefixes))}


def is_code(path: str) -> bool:
    """Tell whether a file is what a compiler made, and not only what was found out of a class."""
    return not path.startswith("vllm/modelinfos/")
