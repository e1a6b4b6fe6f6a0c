"""`modelcar:vllm`: typed arguments of the model server, in vLLM's own terms (0.23, `vllm/config`)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from components.config.command_line import number
from components.config.fields import Refused, matches
from components.config.image_place import PinnedReference
from components.config.section import Section
from components.config.vllm_values import CacheType, Rank

#: Tokens. Fewer are a slip; more than 2^31 - 1 no position can have.
SHORTEST, LONGEST = 16, 2**31 - 1
_ALLOWED = f"{SHORTEST} to {LONGEST}, 32k (32000), 32K (32768), or auto (what fits into memory)"
_FIX = "correct it, or leave it out: the model's own length is taken then"


def parsed(value: Any) -> int | Literal["auto"]:
    """Return a length as vLLM understands it; -1 is auto.

    Raises:
        Refused: it is none.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise Refused("not a number of tokens", _ALLOWED, _FIX)
    if text.strip() == "-1" or text.strip().lower() == "auto":
        return "auto"
    try:
        found = number(text)
    except ValueError as error:
        raise Refused(f"not a number of tokens ({error})", _ALLOWED, _FIX) from None
    if not SHORTEST <= found <= LONGEST:
        raise Refused("out of range", _ALLOWED, _FIX)
    return found


ContextLength = Annotated[int | Literal["auto"], BeforeValidator(parsed)]

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


class LoraModule(Section):
    """A LoRA adapter that is served beside the model.

    name: name that clients ask the server for.
    path: path of its folder in the model's image: lock model and adapters together.
    image: an image of its own, HOST/PATH@sha256:…, with placement imageVolume: a modelcar that holds the
        adapter's files alone. It comes and goes without a change of the model's image.
    """

    name: ServedName
    path: RelativePath | None = None
    image: PinnedReference | None = None


class VllmSettings(Section):
    """`modelcar:vllm`: arguments of vLLM; each is left to vLLM where it is not set.

    tensor_parallel_size: GPUs that share each layer; gpuCount where neither this nor another split is set.
    pipeline_parallel_size: groups of GPUs that share the layers.
    max_model_len: tokens of prompt and answer together, also as 32k (32000) or 32K (32768); auto is what fits
        into memory.
    dtype: type of weights and activations.
    gpu_memory_utilization: share of a GPU's memory that the server takes.
    max_num_seqs: requests that are computed together.
    quantization: method, as vLLM names it.
    kv_cache_dtype: type of the cache of keys and values.
    load_format: how the weights are read. Some take a package that the server's image has to hold:
        fastsafetensors, instanttensor, runai_streamer (and _sharded), bitsandbytes.
    enforce_eager: no CUDA graphs; starts faster and answers slower.
    enable_prefix_caching: keep what prompts have in common.
    lora_modules: adapters in the model's image, or in images of their own.
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

    @property
    def adapter_images(self) -> list[tuple[int, str]]:
        """Adapters that are images of their own: place among all adapters, and image."""
        modules = enumerate(self.lora_modules)
        return [(number, module.image) for number, module in modules if module.image]
