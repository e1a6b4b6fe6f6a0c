"""`modelcar:vllm` as arguments of vLLM (0.23, `vllm serve --help`)."""

from __future__ import annotations

import re

from components.config.command_line import said
from components.config.model_path import MODEL_PATH, adapter_path
from components.config.model_spec import ModelSpec
from components.config.vllm import VllmSettings

#: More digits are no number of GPUs; vLLM refuses what is below 1, and `checks.vllm` before it.
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_PARALLEL = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")


#: ModelSpec that are one argument with a value.
_VALUES = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "max_model_len",
    "dtype",
    "gpu_memory_utilization",
    "max_num_seqs",
    "quantization",
    "kv_cache_dtype",
    "load_format",
    "max_lora_rank",
)


def flag(name: str) -> str:
    """Return a setting's argument, as vLLM names it."""
    return f"--{name.replace('_', '-')}"


def vllm_arguments(settings: ModelSpec) -> list[str]:
    """Return what `modelcar:vllm` and the number of GPUs come to."""
    typed = settings.vllm or VllmSettings()
    values = {name: getattr(typed, name) for name in _VALUES}
    if settings.gpu_count > 1 and not typed.pipeline_parallel_size and not parallel(settings.server_args):
        values["tensor_parallel_size"] = typed.tensor_parallel_size or settings.gpu_count
    found = [f"{flag(name)}={value}" for name, value in values.items() if value is not None]
    found += ["--enforce-eager"] if typed.enforce_eager else []
    if typed.enable_prefix_caching is not None:
        found.append(f"--{'' if typed.enable_prefix_caching else 'no-'}enable-prefix-caching")
    if typed.lora_modules:
        modules = [
            f"{module.name}={adapter_path(number) if module.image else f'{MODEL_PATH}/{module.path}'}"
            for number, module in enumerate(typed.lora_modules)
        ]
        found += ["--enable-lora", f"--max-loras={len(modules)}", "--lora-modules", *modules]
    return found


def parallel(arguments: tuple[str, ...]) -> dict[str, int]:
    """Return how arguments split a model over GPUs, by their names."""
    found = {name: value for name, value in said(arguments).items() if name in _PARALLEL}
    return {name: int(value) for name, value in found.items() if value and _NUMBER.fullmatch(value)}
