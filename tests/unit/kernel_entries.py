"""Kernels for tests: made-up caches of a server, and entries with their layers."""

from __future__ import annotations

from modelcar.kernels import Kernels, Target, pack
from modelcar.manifest import sha256_digest

SERVER = "sha256:" + "5" * 64
H100 = Target(SERVER, "gpu", "NVIDIA H100 80GB HBM3", "9.0", 1, ("--max-model-len=4096",))
AOT = "vllm/torch_compile_cache/torch_aot_compile/" + "a1" * 32

#: As a server leaves them: what travels, and what does not.
CACHES = {
    f"{AOT}/rank_0_0/model": b"\x80\x04pickled " * 40,
    f"{AOT}/inductor_cache/3q/c3q5.py": b"def call(): ...\n",
    "triton/ABCD/kernel.cubin": b"\x7fELF machine code",
    "vllm/modelinfos/vllm-model_executor-models-qwen2-Qwen2ForCausalLM.json": b"{}",
}


def entry(target: Target = H100, files: dict[str, bytes] | None = None) -> tuple[Kernels, bytes]:
    """Return an entry and its layer."""
    content, diff_id = pack(target, CACHES if files is None else files)
    made = Kernels(target, sha256_digest(content), len(content), diff_id, "0.23.0", "2.11.0+cu130", "580.1.2")
    return made, content
