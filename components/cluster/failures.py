"""Why a GPU server ended, and what to do about it: known lines of its log, in plain words.

The lines are those of vLLM 0.23.0, PyTorch 2.11, CUDA's `cudaGetErrorString`, NCCL 2.28 and CPython; the
source of each stands beside its pattern. docs/troubleshooting.md has the same, by the text of the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from components.manifests.image_volume import EMPTY
from components.manifests.kernels import NEEDED

#: Lines of a log that are searched: a server on several GPUs prints a traceback for each.
SEARCHED = 2000

_DRIVER = "vLLM 0.23.0's image is built for CUDA 13, which takes driver 580 or newer"
_SHARED = "/dev/shm"  # noqa: S108 - what the pod has there is told, nothing is made
_NEWER = (
    "take nodes with a newer driver (on GKE modelcar:google.nodes.driver LATEST, or a newer cluster), or an "
    "image that is built for the CUDA of this one: `nvidia-smi` on the node tells it"
)

_REQUIRED = (
    "set modelcar:kernels to use, and pulumi up; once it serves, make kernels (in a checkout of modelcar); "
    "then set require again"
)


@dataclass(frozen=True)
class Cause:
    """Why a server ended. reason: in words, with its own figures. fix: what to do.

    final: no other start of the same pod can end otherwise, whatever becomes of its node meanwhile.
    """

    reason: str
    fix: str
    final: bool = False


@dataclass(frozen=True)
class Known:
    """A line that is known.

    pattern: of the line; its groups fill `reason` and `fix`.
    more: what else fills them, computed from the groups; a group that did not match is empty there.
    final: as of `Cause`.
    """

    pattern: re.Pattern[str]
    reason: str
    fix: str
    more: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {}
    final: bool = False


def cause(text: str, table: Sequence[Known] | None = None) -> Cause | None:
    """Return why a server ended, by its log; None where no line is known.

    Where several lines are, the first one of the table counts: what stands higher there is the cause of what
    stands lower, or tells more.

    Args:
        text: the log.
        table: of the lines; those of servers where None.
    """
    for row in KNOWN if table is None else table:
        if found := row.pattern.search(text):
            groups = {name: value or "" for name, value in found.groupdict().items()}
            values = {**groups, **row.more(groups)}
            return Cause(row.reason.format_map(values), row.fix.format_map(values), row.final)
    return None


def _share(groups: Mapping[str, str]) -> Mapping[str, str]:
    """Return the share of the card that is free, a little less for what the server itself holds by then."""
    free, total = float(groups["free"]), float(groups["total"])
    share = math.floor(free / total * 100 - 1) / 100 if total else 0.0
    lower = f", or lower modelcar:vllm.gpuMemoryUtilization to {share:.2f}" if share >= 0.05 else ""
    return {"lower": lower}


def _cuda(groups: Mapping[str, str]) -> Mapping[str, str]:
    """Return a CUDA version as people write it: 12080 is 12.8."""
    number = int(groups["version"])
    return {"cuda": f"{number // 1000}.{number % 1000 // 10}"}


def _length(groups: Mapping[str, str]) -> Mapping[str, str]:
    estimate = groups["estimate"]
    return {"at_most": f"to at most {estimate}" if estimate else "(not even a short request fits)"}


def _memory(groups: Mapping[str, str]) -> Mapping[str, str]:
    asked, other = groups["asked"], groups["other"]
    return {
        "asked": f": {asked} more could not be had" if asked else "",
        "other": f", where another process holds {other}" if other else "",
        "end": "end what else is on the card (`nvidia-smi` on the node); else " if other else "",
    }


def known(
    pattern: str,
    reason: str,
    fix: str,
    more: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {},
    *,
    final: bool = False,
) -> Known:
    """Return a line that is known, by its pattern's text."""
    return Known(re.compile(pattern), reason, fix, more, final)


KNOWN: tuple[Known, ...] = (
    # this program's own start script (components/manifests/image_volume.py)
    known(
        re.escape(EMPTY),
        "the node's container runtime left the image volume empty",
        "set modelcar:placement to servingRuntime, or to auto, which tests the cluster; image volumes need "
        "containerd 2.1 or newer on the node (kubectl get nodes -o wide)",
    ),
    # argparse, of vLLM before 0.18 (vllm/engine/arg_utils.py)
    known(
        r"unrecognized arguments: [^\n]*--shutdown-timeout",
        "the server is a vLLM before 0.18, which does not know --shutdown-timeout",
        "set modelcar:termination.drainSeconds to 0, or take a newer image",
        final=True,
    ),
    # CPython, Modules/pwdmodule.c, of torch/_inductor/runtime/cache_dir_utils.py
    known(
        r"getpwuid\(\): uid not found: (?P<uid>\d+)",
        "user {uid}, which the server runs as, has no name in the image, and PyTorch asks for one",
        "pulumi up: the program sets USER and LOGNAME in the server's environment; in a manifest of your own "
        "add them to env",
        final=True,
    ),
    # vllm/v1/worker/utils.py, request_memory
    known(
        r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup "
        r"is less than desired GPU memory utilization \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "the card is filled by something else: {free} of {total} GiB are free on {device} when the server "
        "starts, and it is to take {wanted} GiB ({share} of the card)",
        "end what holds the card (`nvidia-smi` on the node){lower}",
        _share,
    ),
    # torch, c10/cuda/CUDAFunctions.cpp
    known(
        r"The NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)",
        f"the node's driver is too old for the server's image: it serves CUDA {{cuda}}; {_DRIVER}",
        _NEWER,
        _cuda,
        final=True,
    ),
    # cudaErrorInsufficientDriver, 35
    known(
        r"CUDA driver version is insufficient for CUDA runtime version",
        f"the node's driver is too old for the server's image; {_DRIVER}",
        _NEWER,
        final=True,
    ),
    # cudaErrorCompatNotSupportedOnDevice, 804
    known(
        r"forward compatibility was attempted on non supported HW",
        "the image brings CUDA's compatibility package (cuda-compat) to a node whose driver is too old, and "
        f"this card does not take it; {_DRIVER}",
        _NEWER,
        final=True,
    ),
    # cudaErrorSystemDriverMismatch, 803
    known(
        r"system has unsupported display driver / cuda driver combination",
        "the libcuda.so.1 that the server loads is not of the node's own driver",
        "let /usr/local/nvidia/lib64 come first in LD_LIBRARY_PATH, before the image's cuda-compat; where "
        "the node's driver was changed while it ran, start the node again",
    ),
    # NVML_ERROR_LIB_RM_VERSION_MISMATCH
    known(
        r"Driver/library version mismatch",
        "the node's kernel driver and its libraries are of two versions",
        "start the node again, or replace it: its driver was changed while it ran",
    ),
    # cudaErrorSystemNotReady, 802
    known(
        r"Error 802: system not yet initialized",
        "the node's cards are not ready: NVIDIA's fabric manager does not run there",
        "start nvidia-fabricmanager on the node, of its driver's version, or take another node",
    ),
    # cudaErrorNoKernelImageForDevice, 209
    known(
        r"no kernel image is available for execution on the device",
        "the server's image has no code for this card",
        "take an image that is built for the card's compute capability, or another card",
        final=True,
    ),
    # vllm/platforms/cuda.py, check_if_supports_dtype
    known(
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. "
        r"Your (?P<card>.+?) GPU ",
        "the card ({card}) cannot compute in bfloat16, which the model is in",
        "set modelcar:vllm.dtype half, or take a card of compute capability 8.0 or newer",
        final=True,
    ),
    # vllm/config/parallel.py
    known(
        r"World size \((?P<asked>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "the server is to use {asked} GPUs, and its pod sees {there}",
        "set modelcar:gpuCount to {asked}, or lower modelcar:vllm.tensorParallelSize (times "
        "pipelineParallelSize) to {there}",
        final=True,
    ),
    # vllm/v1/worker/gpu_worker.py, init_device
    known(
        r"local_world_size \((?P<asked>\d+)\) must be less than or equal to the number of visible devices "
        r"\((?P<there>\d+)\)|DP adjusted local rank (?P<rank>\d+) is out of bounds",
        "the server is to use more GPUs than its pod sees",
        "set modelcar:gpuCount to tensorParallelSize times pipelineParallelSize, or leave those out",
        final=True,
    ),
    # nccl, src/misc/shmutils.cc
    known(
        r"(?:Error while (?:creating|attaching to) shared memory segment|failed to extend) /dev/shm/nccl-"
        r"|Error: failed to create shared memory file /dev/shm/nccl-",
        f"{_SHARED} is too small for the GPUs to talk to each other (NCCL)",
        "raise modelcar:sharedMemory (it counts as the pod's memory: raise modelcar:memory with it)",
        final=True,
    ),
    # vllm/distributed/device_communicators/pynccl_wrapper.py: all that NCCL says without NCCL_DEBUG
    known(
        r"NCCL error: unhandled system error",
        f"the GPUs cannot talk to each other (NCCL), which does not say why; mostly {_SHARED} is too small",
        "raise modelcar:sharedMemory, and modelcar:memory with it; if that is not it, NCCL_DEBUG=WARN in "
        "modelcar:serverEnv makes it say why",
    ),
    # vllm/v1/core/kv_cache_utils.py
    known(
        r"No available memory for the cache blocks",
        "the model's weights leave no room on the card for its KV cache",
        "take more GPUs (modelcar:gpuCount) or a larger card, a quantized model, or raise "
        "modelcar:vllm.gpuMemoryUtilization",
        final=True,
    ),
    # vllm/v1/core/kv_cache_utils.py
    known(
        r"max seq len \((?P<length>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, which is larger "
        r"than the available KV cache memory \((?P<there>[\d.]+) GiB\)"
        r"(?:.{0,60}the estimated maximum model length is (?P<estimate>\d+))?",
        "one request of {length} tokens takes {needed} GiB of KV cache, and the card has {there} GiB for it",
        "lower modelcar:vllm.maxModelLen {at_most}, raise modelcar:vllm.gpuMemoryUtilization, or take more "
        "GPUs (modelcar:gpuCount)",
        _length,
        final=True,
    ),
    # torch, c10/cuda/CUDACachingAllocator.cpp; vllm/v1/worker/gpu_model_runner.py; cudaErrorMemoryAllocation
    known(
        r"CUDA out of memory(?:\. Tried to allocate (?P<asked>[\d.]+ [KMG]?i?B))?"
        r"(?:[^\n]{0,160}?Process \d+ has (?P<other>[\d.]+ [KMG]?i?B) memory in use)?"
        r"|Failed to load model - not enough GPU memory|CUDA error: out of memory",
        "the card's memory does not suffice{asked}{other}",
        "{end}lower modelcar:vllm.maxModelLen or modelcar:vllm.gpuMemoryUtilization; where the weights alone "
        "do not fit, take more GPUs (modelcar:gpuCount), a larger card or a quantized model",
        _memory,
    ),
    # as above; below what may stand behind it
    known(
        r"NCCL error: (?P<error>[^\n]{1,60}?)(?: \(run with|\n|$)",
        "the GPUs cannot talk to each other (NCCL): {error}",
        "set NCCL_DEBUG=WARN in modelcar:serverEnv, and NCCL says why",
    ),
    # torch, c10/cuda/CUDAFunctions.cpp; ld.so; NVML
    known(
        r"Found no NVIDIA driver on your system|libcuda\.so\.1: cannot open shared object file"
        r"|libnvidia-ml\.so\.1: cannot open shared object file|NVMLError_(?:LibraryNotFound|DriverNotLoaded)",
        "the server finds no NVIDIA driver in its pod",
        "see that the pod asks for a GPU (modelcar:gpuCount), and that the node's device plugin brings the "
        "driver: /usr/local/nvidia/lib64 in the pod, and in the image's LD_LIBRARY_PATH",
    ),
    # torch, c10/cuda/CUDAFunctions.cpp; cudaErrorNoDevice, 100; vllm/config/device.py
    known(
        r"No CUDA GPUs are available|no CUDA-capable device is detected|Failed to infer device type",
        "the server finds no GPU in its pod",
        "see that the pod asks for one (modelcar:gpuCount), that modelcar:serverEnv sets no "
        "CUDA_VISIBLE_DEVICES, and that the driver is in the pod: /usr/local/nvidia and /dev/nvidia0",
    ),
    # vllm/v1/engine/utils.py: exit codes of the engine's processes, negative for signals. SIGBUS, SIGKILL
    known(
        r"Failed core proc\(s\): \{[^}]*: -7\b|Fatal Python error: Bus error",
        f"the engine was ended by a bus error: {_SHARED} is full",
        "raise modelcar:sharedMemory (it counts as the pod's memory: raise modelcar:memory with it)",
    ),
    known(
        r"Failed core proc\(s\): \{[^}]*: -9\b",
        "the engine was killed, as the kernel does where the pod's memory is at its limit",
        "raise modelcar:memory",
    ),
    # vllm/utils/import_utils.py, of a loader (modelcar:vllm.loadFormat) and of other parts that are optional
    known(
        r"Please install vllm\[(?P<extra>[\w-]+)\] for",
        "the server's image lacks an optional package of vLLM: {extra}",
        "remove what asks for it (modelcar:vllm.loadFormat, or serverArgs), or take an image that has "
        "vllm[{extra}]",
        final=True,
    ),
    # components/manifests/kernels.py, the start script with modelcar:kernels require
    known(
        r"kernels: (?P<why>not used: .*|the image has none)\n(?:.*\n)?.*" + re.escape(NEEDED),
        "modelcar:kernels is require, and no compiled kernels fit this pod: {why}",
        _REQUIRED,
        final=True,
    ),
    # vllm/compilation/decorators.py, with VLLM_FORCE_AOT_LOAD: it opens the compiled model, or ends
    known(
        r"FileNotFoundError: .*torch_aot_compile/(?P<key>[0-9a-f]{12})[0-9a-f]*/rank_\d+_\d+/model",
        "modelcar:kernels is require, and the image's kernels are for other arguments or variables of the "
        "server: none has the key {key}…",
        _REQUIRED,
        final=True,
    ),
)
