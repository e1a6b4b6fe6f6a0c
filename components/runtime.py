"""The model server's arguments, typed and checked: `modelcar:runtime`, `modelcar:vllm`.

vLLM starts minutes after a node was asked for, so what it would refuse at its start is refused here. The
rules are its own (vLLM 0.23, `vllm serve --help` and `vllm/config`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from components import adapters, context_length, hub_names, termination, vocabulary
from components.checks import problem
from components.command_line import said
from components.context_length import ContextLength
from components.fields import matches
from components.google.settings import Section
from components.known_model import KnownModel
from components.model_path import MODEL_PATH as MODEL_PATH
from components.vllm_values import CacheType, Rank
from modelcar.errors import Problem

if TYPE_CHECKING:
    from components.settings import Settings

#: What the program says itself to vLLM; said again in serverArgs, it would differ from what the outputs tell.
_OWN = {
    "--model": "nothing: the model is at /mnt/models, whatever it is",
    "--served-model-name": "modelcar:servedModelName",
    "--port": "modelcar:serverPort",
}
_PARALLEL = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")

_RANKS = "model-rank-*-part-*.safetensors"
_SHARDED = "save the model so (vLLM's examples/save_sharded_state.py), and lock that folder"

RelativePath = Annotated[
    str,
    matches(
        re.compile(r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9_][A-Za-z0-9._/-]*(?<!/)"),
        "not a folder of the model",
        "a path below the model's folder, without . and ..",
        "for example adapters/french",
    ),
]
ServedName = Annotated[
    str,
    matches(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"),
        "not a name to ask the server for",
        "letters, digits and . _ / -, at most 128",
        "shorten it",
    ),
]


#: Loaders of vLLM 0.23 (model_executor/model_loader) that read what a model's image holds. Others read other
#: files (pt, npcache, gguf, tensorizer), none (dummy), or other machines (modelexpress).
LoadFormat = Literal[
    "auto",
    "hf",
    "safetensors",
    "fastsafetensors",
    "instanttensor",
    "runai_streamer",
    "runai_streamer_sharded",
    "sharded_state",
    "mistral",
    "bitsandbytes",
]
#: Files at the top of a model that a loader takes, and how to have them. All others take *.safetensors.
_LOADED = {
    "mistral": ("consolidated*.safetensors", "lock them: --allow 'consolidated*' --allow '*.json' …"),
    "sharded_state": (_RANKS, _SHARDED),
    "runai_streamer_sharded": (_RANKS, _SHARDED),
}
_ANY = ("*.safetensors", "lock the model's safetensors")


class LoraModule(Section):
    """A LoRA adapter that is served beside the model.

    name: that clients ask the server for.
    path: of its folder in the model's image: lock model and adapters together.
    image: refused; said here so that the refusal can say why.
    """

    name: ServedName
    path: RelativePath | None = None
    image: str | None = None


class VllmSettings(Section):
    """`modelcar:vllm`: arguments of vLLM; each is left to vLLM where it is not set.

    tensor_parallel_size: GPUs that share each layer; gpuCount where neither this nor another split is set.
    pipeline_parallel_size: groups of GPUs that share the layers.
    max_model_len: tokens of prompt and answer together, also as 32k (32000) or 32K (32768); auto is what fits
        into memory.
    dtype: of weights and activations.
    gpu_memory_utilization: share of a GPU's memory that the server takes.
    max_num_seqs: requests that are computed together.
    quantization: method, as vLLM names it.
    kv_cache_dtype: of the cache of keys and values.
    load_format: how the weights are read. Some take a package that the server's image has to hold:
        fastsafetensors, instanttensor, runai_streamer (and _sharded), bitsandbytes.
    enforce_eager: no CUDA graphs; starts faster and answers slower.
    enable_prefix_caching: keep what prompts have in common.
    lora_modules: adapters in the model's image.
    max_lora_rank: the largest rank among them.
    """

    tensor_parallel_size: int | None = Field(None, ge=1, le=16)
    pipeline_parallel_size: int | None = Field(None, ge=1, le=16)
    max_model_len: ContextLength | None = None
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = None
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_num_seqs: int | None = Field(None, ge=1, le=65536)
    quantization: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    kv_cache_dtype: CacheType | None = None
    load_format: LoadFormat | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool | None = None
    lora_modules: tuple[LoraModule, ...] = ()
    max_lora_rank: Rank | None = None


#: Settings that are one argument with a value.
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


def server_arguments(settings: Settings) -> list[str]:
    """Return all arguments of the server; vLLM is told where and by which name, another server is not."""
    if settings.runtime == "custom":
        return list(settings.server_args)
    own = ["--model", MODEL_PATH, "--served-model-name", settings.model_name]
    own += ["--port", str(settings.server_port)]
    own += termination.arguments(settings)
    return [*own, *vllm_arguments(settings), *settings.server_args]


def vllm_arguments(settings: Settings) -> list[str]:
    """Return what `modelcar:vllm` and the number of GPUs come to."""
    typed = settings.vllm or VllmSettings.model_validate({})
    values = {name: getattr(typed, name) for name in _VALUES}
    if settings.gpu_count > 1 and not typed.pipeline_parallel_size and not _parallel(settings.server_args):
        values["tensor_parallel_size"] = typed.tensor_parallel_size or settings.gpu_count
    found = [f"{flag(name)}={value}" for name, value in values.items() if value is not None]
    found += ["--enforce-eager"] if typed.enforce_eager else []
    if typed.enable_prefix_caching is not None:
        found.append(f"--{'' if typed.enable_prefix_caching else 'no-'}enable-prefix-caching")
    if typed.lora_modules:
        modules = [f"{module.name}={MODEL_PATH}/{module.path}" for module in typed.lora_modules]
        found += ["--enable-lora", f"--max-loras={len(modules)}", "--lora-modules", *modules]
    return found


def _parallel(arguments: tuple[str, ...]) -> dict[str, int]:
    found = {name: value for name, value in said(arguments).items() if name in _PARALLEL}
    return {name: int(value) for name, value in found.items() if value and value.isdecimal()}


def problems(settings: Settings) -> Iterator[Problem]:
    """Yield what vLLM would refuse at its start, as far as settings alone tell."""
    if settings.runtime == "custom":
        if settings.vllm:
            fix = "say the server's own arguments in serverArgs, or leave modelcar:runtime out"
            yield problem("vllm", "set, and runtime is custom", "runtime vllm", fix)
        return
    own = said(settings.server_args)
    for name in sorted(own.keys() & _OWN.keys()):
        value = f"{name}, which the program says itself"
        yield problem("serverArgs", value, "other arguments", f"remove it, and set {_OWN[name]}")
    typed = settings.vllm
    if typed:
        set_too = {flag(name) for name in typed.model_fields_set}
        for name in sorted(own.keys() & set_too):
            value = f"{name}, which modelcar:vllm sets too"
            yield problem("serverArgs", value, "each argument once", "remove one of the two")
        yield from _adapters(typed)
    yield from context_length.problems(settings)
    yield from adapters.problems(settings)
    yield from hub_names.problems(settings)
    yield from _split(settings)


def _split(settings: Settings) -> Iterator[Problem]:
    typed = settings.vllm or VllmSettings.model_validate({})
    parts = _parallel(settings.server_args)
    own = {"--tensor-parallel-size": typed.tensor_parallel_size}
    own["--pipeline-parallel-size"] = typed.pipeline_parallel_size
    parts |= {name: value for name, value in own.items() if value is not None}
    if not parts or not settings.gpu_count:
        return
    product = 1
    for value in parts.values():
        product *= value
    if product != settings.gpu_count:
        shown = " * ".join(f"{name.removeprefix('--')} {value}" for name, value in sorted(parts.items()))
        more = (
            "would not start" if product > settings.gpu_count else "would leave GPUs idle that are paid for"
        )
        yield problem(
            "vllm.tensorParallelSize",
            f"{shown}, with modelcar:gpuCount {settings.gpu_count}: it {more}",
            f"a product of {settings.gpu_count}",
            f"remove it ({settings.gpu_count} is used then), or set gpuCount to {product}",
        )


def _adapters(typed: VllmSettings) -> Iterator[Problem]:
    names = [module.name for module in typed.lora_modules]
    for number, module in enumerate(typed.lora_modules):
        key = f"vllm.loraModules[{number}]"
        if module.image:
            # Measured: docs/decisions/0001-storage-uri-placement.md.
            yield problem(
                f"{key}.image",
                f"{module.image}: KServe 0.19 mounts one OCI image in a pod, and that is the model",
                "an adapter in the model's own image",
                "put it into a folder of the model, lock both together, and name the folder: path",
            )
        elif not module.path:
            fix = "name its folder in the model's image: path"
            yield problem(f"{key}.path", "not set", "a folder of the model, as adapters/french", fix)
        if names.index(module.name) != number:
            yield problem(f"{key}.name", f"{module.name}, twice", "a name of its own", "rename one")
    if typed.max_lora_rank and not typed.lora_modules:
        yield problem("vllm.maxLoraRank", "set without loraModules", "both, or neither", "remove it")


def unfit(settings: Settings, model: KnownModel) -> Iterator[Problem]:
    """Yield what does not fit the model itself."""
    if settings.runtime != "vllm":
        return
    yield from _unreadable(settings, model)
    yield from _unloadable(settings, model)
    yield from context_length.unfit(settings, model)
    text = context_length.text_part(context_length.effective_config(settings, model.config))
    heads = text.get("num_attention_heads")
    size = _parallel(tuple(vllm_arguments(settings)) + settings.server_args).get("--tensor-parallel-size", 1)
    if isinstance(heads, int) and heads % size:
        fitting = [str(n) for n in range(1, settings.gpu_count + 1) if heads % n == 0]
        yield problem(
            "vllm.tensorParallelSize",
            f"{size}, which does not divide the model's {heads} attention heads: vLLM would not start",
            f"{' or '.join(fitting)} of {settings.gpu_count} GPUs",
            "set gpuCount so, or split by pipelineParallelSize",
        )
    yield from adapters.unfit(settings, model)
    yield from hub_names.unfit(settings, model)
    yield from vocabulary.unfit(settings, model)


def _unreadable(settings: Settings, model: KnownModel) -> Iterator[Problem]:
    """A lock of any layout may hold what vLLM does not find by itself."""
    elsewhere = {"--hf-config-path", "--config-format"} & said(settings.server_args).keys()
    if model.files and not model.has_config and not elsewhere:
        yield problem(
            "model",
            f"{model.teller} has no config.json: vLLM would not start",
            "config.json at the top, or Mistral's params.json beside consolidated*.safetensors",
            "lock a model that vLLM reads; say --hf-config-path in serverArgs; or serve it by another server "
            "(modelcar:runtime custom)",
        )


def _unloadable(settings: Settings, model: KnownModel) -> Iterator[Problem]:
    """Yield the loader that would find nothing in the model's image."""
    loader = settings.vllm.load_format if settings.vllm else None
    if loader in {None, "auto", "hf"} or not model.complete:
        return
    pattern, fix = _LOADED.get(str(loader), _ANY)
    if not any("/" not in path and fnmatchcase(path, pattern) for path in model.files):
        value = f"{loader}, which reads {pattern}: {model.teller} has none"
        safe = any(path.endswith(".safetensors") for path in model.files)
        fitting = "auto, safetensors" if safe else "auto"
        yield problem("vllm.loadFormat", value, f"{fitting}, or such files", f"remove it, or {fix}")


def doubts(settings: Settings, model: KnownModel) -> Iterator[str]:
    """Yield what a reviewer should know of the server's arguments and the model, and what stops nothing."""
    if settings.runtime == "vllm":
        yield from context_length.doubts(settings, model)
        yield from adapters.doubts(settings, model)
        yield from hub_names.doubts(settings, model)
        yield from vocabulary.doubts(settings, model)
