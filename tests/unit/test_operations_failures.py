"""Lines of servers that ended, as their sources print them, and what is told of each."""

from __future__ import annotations

import pytest

from components.cluster.failures import KNOWN, cause
from components.manifests.kernels import NEEDED

#: What stands before a line in a pod's log: vllm/utils/system_utils.py, vllm/logger.py.
ENGINE = "(EngineCore pid=84) ERROR 11-28 16:47:56 [core.py:1195] "
WORKER = "(Worker_TP1 pid=97) ERROR 11-28 16:47:56 [multiproc_executor.py:985] "

#: (line, part of the reason, part of the fix)
LINES = [
    (
        ENGINE + "KeyError: 'getpwuid(): uid not found: 1010'",
        "user 1010, which the server runs as, has no name in the image",
        "pulumi up: the program sets USER and LOGNAME",
    ),
    (
        ENGINE
        + "ValueError: Free memory on device cuda:0 (10.21/79.11 GiB) on startup is less than desired GPU "
        "memory utilization (0.92, 72.78 GiB). Decrease GPU memory utilization or reduce GPU memory used by "
        "other processes.",
        "10.21 of 79.11 GiB are free on cuda:0",
        "or lower modelcar:vllm.gpuMemoryUtilization to 0.11",
    ),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update "
        "your GPU "
        "driver by downloading and installing a new version from the URL: "
        "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to install "
        "a PyTorch "
        "version that has been compiled with your version of the CUDA driver.",
        "it serves CUDA 12.8; vLLM 0.23.0's image is built for CUDA 13, which takes driver 580 or newer",
        "modelcar:google.nodes.driver LATEST",
    ),
    (
        "torch.AcceleratorError: CUDA error: CUDA driver version is insufficient for CUDA runtime version",
        "the node's driver is too old",
        "take nodes with a newer driver",
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions "
        "before calling "
        "NumCudaDevices() that might have already set an error? Error 804: forward compatibility was "
        "attempted "
        "on non supported HW",
        "cuda-compat",
        "take nodes with a newer driver",
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions "
        "before calling "
        "NumCudaDevices() that might have already set an error? Error 803: system has unsupported "
        "display driver "
        "/ cuda driver combination",
        "is not of the node's own driver",
        "let /usr/local/nvidia/lib64 come first in LD_LIBRARY_PATH",
    ),
    (
        "vllm.third_party.pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch",
        "of two versions",
        "start the node again",
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions "
        "before calling "
        "NumCudaDevices() that might have already set an error? Error 802: system not yet initialized",
        "fabric manager does not run",
        "start nvidia-fabricmanager",
    ),
    (
        ENGINE
        + "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "has no code for this card",
        "compute capability",
    ),
    (
        ENGINE
        + "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your "
        "Tesla T4 GPU has compute capability 7.5. You can use float16 instead by explicitly setting the "
        "`dtype` "
        "flag in CLI, for example: --dtype=half.",
        "the card (Tesla T4) cannot compute in bfloat16",
        "modelcar:vllm.dtype half",
    ),
    (
        "(APIServer pid=1)   Value error, World size (2) is larger than the number of available GPUs (1) "
        "in this "
        "node. If this is intentional and you are using:",
        "the server is to use 2 GPUs, and its pod sees 1",
        "set modelcar:gpuCount to 2",
    ),
    (
        WORKER + "AssertionError: local_world_size (2) must be less than or equal to the number of visible "
        "devices (1).",
        "more GPUs than its pod sees",
        "modelcar:gpuCount",
    ),
    (
        WORKER + "AssertionError: DP adjusted local rank 1 is out of bounds. ",
        "more GPUs than its pod sees",
        "modelcar:gpuCount",
    ),
    (
        WORKER
        + "Error while creating shared memory segment /dev/shm/nccl-cjY8K5 (size 10617216), error: No space "
        "left on device (28)",
        "/dev/shm is too small for the GPUs",
        "raise modelcar:sharedMemory",
    ),
    (
        "vm:97:97 [0] misc/shmutils.cc:88 NCCL WARN Error: failed to extend /dev/shm/nccl-UbzKZ9 to "
        "33030532 bytes, "
        "error: No space left on device (28)",
        "/dev/shm is too small for the GPUs",
        "raise modelcar:sharedMemory",
    ),
    (
        WORKER + "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "mostly /dev/shm is too small",
        "NCCL_DEBUG=WARN in modelcar:serverEnv makes it say why",
    ),
    (
        WORKER + "RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "(NCCL): unhandled cuda error",
        "NCCL_DEBUG=WARN",
    ),
    (
        ENGINE
        + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "
        "when initializing the engine (this flag also controls CPU memory reservation on the CPU "
        "backend, despite "
        "its name).",
        "leave no room on the card for its KV cache",
        "modelcar:gpuCount",
    ),
    (
        ENGINE
        + "ValueError: To serve at least one request with the model's max seq len (131072), (7.0 GiB KV "
        "cache "
        "is needed, which is larger than the available KV cache memory (5.12 GiB). Based on the "
        "available memory, "
        "the estimated maximum model length is 95856. Try increasing `gpu_memory_utilization` (which "
        "also controls "
        "CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine.",
        "one request of 131072 tokens takes 7.0 GiB of KV cache, and the card has 5.12 GiB for it",
        "lower modelcar:vllm.maxModelLen to at most 95856",
    ),
    (
        ENGINE
        + "ValueError: To serve at least one request with the model's max seq len (64), (7.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (0.01 GiB). Try increasing",
        "one request of 64 tokens takes 7.0 GiB",
        "(not even a short request fits)",
    ),
    (
        ENGINE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total "
        "capacity "
        "of 14.57 GiB of which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. Including "
        "non-PyTorch "
        "memory, this process has 966.00 MiB memory in use.",
        "does not suffice: 1.95 GiB more could not be had, where another process holds 12.02 GiB",
        "end what else is on the card",
    ),
    (
        ENGINE
        + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 260.00 MiB. GPU 0 has a total "
        "capacity of 79.11 GiB of which 118.88 MiB is free. Including non-PyTorch memory, this process "
        "has 78.98 "
        "GiB memory in use.",
        "does not suffice: 260.00 MiB more could not be had",
        "lower modelcar:vllm.maxModelLen",
    ),
    (
        ENGINE
        + "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free "
        "memory",
        "the card's memory does not suffice",
        "modelcar:gpuCount",
    ),
    (
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
        "no NVIDIA driver in its pod",
        "/usr/local/nvidia/lib64",
    ),
    (
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU "
        "and installed "
        "a driver from http://www.nvidia.com/Download/index.aspx",
        "no NVIDIA driver in its pod",
        "modelcar:gpuCount",
    ),
    (ENGINE + "RuntimeError: No CUDA GPUs are available", "no GPU in its pod", "CUDA_VISIBLE_DEVICES"),
    (
        "RuntimeError: Failed to infer device type, please set the environment variable "
        "`VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.",
        "no GPU in its pod",
        "modelcar:gpuCount",
    ),
    (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
        "{'EngineCore': -7}",
        "/dev/shm is full",
        "raise modelcar:sharedMemory",
    ),
    (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
        "{'EngineCore': -9}",
        "the engine was killed",
        "raise modelcar:memory",
    ),
    (
        "api_server.py: error: unrecognized arguments: --shutdown-timeout=300",
        "a vLLM before 0.18",
        "set modelcar:termination.drainSeconds to 0",
    ),
    (
        ENGINE + "ImportError: Please install vllm[fastsafetensors] for fastsafetensors support",
        "the server's image lacks an optional package of vLLM: fastsafetensors",
        "remove what asks for it (modelcar:vllm.loadFormat",
    ),
    (
        "kernels: not used: h100 is for another server image\n" + NEEDED,
        "no compiled kernels fit this pod: not used: h100 is for another server image",
        "once it serves, make kernels",
    ),
    (
        WORKER + "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/.cache/vllm/"
        "torch_compile_cache/torch_aot_compile/d021dd670123456789/rank_0_0/model'",
        "none has the key d021dd670123…",
        "set modelcar:kernels to use",
    ),
    (
        "/mnt/models is empty: this node mounts no image volumes",
        "the node's container runtime left the image volume empty",
        "placement to servingRuntime",
    ),
]


@pytest.mark.parametrize(("line", "reason", "fix"), LINES, ids=[line[-60:] for line, _, _ in LINES])
def test_a_known_line_has_a_reason_and_a_fix(line: str, reason: str, fix: str) -> None:
    found = cause(f"INFO loading\n{line}\nRuntimeError: Engine core initialization failed.\n")
    assert found
    assert reason in found.reason
    assert fix in found.fix


def test_each_line_of_the_table_is_among_these() -> None:
    unseen = [known.reason for known in KNOWN if not any(known.pattern.search(line) for line, _, _ in LINES)]
    assert not unseen


@pytest.mark.parametrize(
    "line",
    [
        # vllm/v1/worker/gpu_worker.py: advice of a server that starts well
        "INFO 11-28 16:48:30 [gpu_worker.py:703] Free memory on device (78.61/79.11 GiB) on startup. "
        "Desired GPU "
        "memory utilization is (0.92, 72.78 GiB). Actual usage is 0.93 GiB for weight",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
        "{'EngineCore': 1}",
        "",
    ],
)
def test_what_is_not_known_is_not_guessed(line: str) -> None:
    assert cause(line) is None


def test_the_cause_is_told_not_what_follows_from_it() -> None:
    """PyTorch only warns of the driver; what ends the server is that vLLM then finds no card."""
    warned = "UserWarning: CUDA initialization: " + LINES[2][0].removeprefix("RuntimeError: ")
    ended = "RuntimeError: No CUDA GPUs are available"
    for text in (f"{warned}\n{ended}", f"{ended}\n{warned}"):
        found = cause(text)
        assert found
        assert "CUDA 12.8" in found.reason


def test_a_card_that_is_full_gets_no_share_to_try() -> None:
    line = LINES[1][0].replace("10.21/", "0.31/")
    found = cause(line)
    assert found
    assert found.fix == "end what holds the card (`nvidia-smi` on the node)"
