"""The model server's arguments, typed and checked: `modelcar:runtime`, `modelcar:vllm`.

vLLM starts minutes after a node was asked for, so what it would refuse at its start is refused here. The
rules are its own (vLLM 0.23, `vllm serve --help` and `vllm/config`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from components.config.checks import adapters, context_length, hub_names, vocabulary
from components.config.command_line import joined, said
from components.config.known_model import KnownModel
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.vllm import VllmSettings
from components.config.vllm_arguments import flag, parallel, vllm_arguments
from modelcar.errors import Problem

#: What the program says itself to vLLM; said again in serverArgs, it would differ from what the outputs tell.
_OWN = {
    "--model": "nothing: the model is at /mnt/models, whatever it is",
    "--served-model-name": "modelcar:servedModelName",
    "--port": "modelcar:serverPort",
}

#: Numbers, and words as auto or bfloat16: shown in a fix.
_PLAIN = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?|auto|true|false|half|bfloat16|float16|float32")

_RANKS = "model-rank-*-part-*.safetensors"
_SHARDED = "save the model so (vLLM's examples/save_sharded_state.py), and lock that folder"
#: Files at the top of a model that a loader takes, and how to have them. All others take *.safetensors.
_LOADED = {
    "mistral": ("consolidated*.safetensors", "lock them: --allow 'consolidated*' --allow '*.json' …"),
    "sharded_state": (_RANKS, _SHARDED),
    "runai_streamer_sharded": (_RANKS, _SHARDED),
}
_ANY = ("*.safetensors", "lock the model's safetensors")


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield what vLLM would refuse at its start, as far as settings alone tell."""
    if settings.runtime == "custom":
        if settings.vllm:
            fix = "say the server's own arguments in serverArgs, or leave modelcar:runtime out"
            yield problem("vllm", "set, and runtime is custom", "runtime vllm", fix)
        return
    if "-c" not in settings.server_command:  # else a script gets them, and does with them what it likes
        yield from _joined(settings.server_args)
    own = said(settings.server_args)
    for name in sorted(own.keys() & _OWN.keys()):
        value = f"{name}, which the program says itself"
        yield problem("serverArgs", value, "other arguments", f"remove it, and set {_OWN[name]}")
    typed = settings.vllm
    if typed:
        set_too = {flag(name) for name in typed.model_fields_set}
        # What is true or false is said either way.
        for name in sorted(one for one in own if {one, f"--{one.removeprefix('--no-')}"} & set_too):
            value = f"{name}, which modelcar:vllm sets too"
            yield problem("serverArgs", value, "each argument once", "remove one of the two")
        yield from _adapters(typed, settings.placement, settings.model_name)
    for name in adapters.names_in_arguments(settings.server_args):
        if name == settings.model_name:
            yield _like_the_model("serverArgs", f"--lora-modules with the name {name}")
    yield from context_length.problems(settings)
    yield from adapters.problems(settings)
    yield from hub_names.problems(settings)
    yield from _split(settings)


def _joined(arguments: tuple[str, ...]) -> Iterator[Problem]:
    for place, name, value in joined(arguments):
        # A value may be a token: only what is plainly none is shown.
        number = value if _PLAIN.fullmatch(value) else "VALUE"
        fix = f"write {name}={number}, or two elements: {json.dumps([name, number])}"
        yield problem(
            f"serverArgs[{place}]",
            f"{name} {'and its value' if value else 'and a space'} in one element: vLLM takes it for no "
            "argument, and ends at its start",
            "an argument and its value in two elements, or with = between them",
            fix if value else f"write {name}",
        )


def _split(settings: ModelSpec) -> Iterator[Problem]:
    typed = settings.vllm or VllmSettings()
    parts = parallel(settings.server_args)
    own = {"--tensor-parallel-size": typed.tensor_parallel_size}
    own["--pipeline-parallel-size"] = typed.pipeline_parallel_size
    parts |= {name: value for name, value in own.items() if value is not None}
    for name, value in parts.items():
        if value < 1:
            yield problem("serverArgs", f"{name} {value}", "1 or more", "correct it, or remove it")
    if not parts or not settings.gpu_count or min(parts.values()) < 1:
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


def _like_the_model(key: str, value: str) -> Problem:
    why = f"{value}, which the model itself has: its answers would come without the adapter"
    return problem(key, why, "a name of its own", "rename the adapter, or set modelcar:servedModelName")


def _adapters(typed: VllmSettings, placement: str, served: str) -> Iterator[Problem]:
    names = [module.name for module in typed.lora_modules]
    for number, module in enumerate(typed.lora_modules):
        key = f"vllm.loraModules[{number}]"
        if module.image and module.path:
            fix = "remove path where the adapter is an image of its own, and image where it is in the model's"
            yield problem(f"{key}.path", f"{module.path}, beside image", "one of the two", fix)
        elif module.image and placement != "imageVolume":
            # Measured: docs/decisions/0001-storage-uri-placement.md.
            yield problem(
                f"{key}.image",
                f"{module.image}, with placement {placement}: KServe 0.19 mounts one OCI image in a pod, and "
                "that is the model",
                "an adapter in the model's own image, or placement imageVolume",
                "set modelcar:placement to imageVolume; or put the adapter into a folder of the model, lock "
                "both together, and name the folder: path",
            )
        elif not module.path and not module.image:
            fix = "name its folder in the model's image (path), or its own image (image)"
            yield problem(f"{key}.path", "not set", "a folder of the model, as adapters/french", fix)
        if module.name == served:
            yield _like_the_model(f"{key}.name", module.name)
        if names.index(module.name) != number:
            yield problem(f"{key}.name", f"{module.name}, twice", "a name of its own", "rename one")
    if typed.max_lora_rank and not typed.lora_modules:
        yield problem("vllm.maxLoraRank", "set without loraModules", "both, or neither", "remove it")


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield what does not fit the model itself."""
    if settings.runtime != "vllm":
        return
    yield from _unreadable(settings, model)
    yield from _unloadable(settings, model)
    yield from context_length.unfit(settings, model)
    text = context_length.text_part(context_length.effective_config(settings, model.config))
    heads = text.get("num_attention_heads")
    size = parallel(tuple(vllm_arguments(settings)) + settings.server_args).get("--tensor-parallel-size", 1)
    if type(heads) is int and heads > 0 and size > 0 and heads % size:
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


def needs_config(settings: ModelSpec) -> bool:
    """Tell whether the server is vLLM, and has to find the model's configuration by itself."""
    elsewhere = {"--hf-config-path", "--config-format"} & said(settings.server_args).keys()
    return settings.runtime == "vllm" and not elsewhere


def _unreadable(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """A lock of any layout may hold what vLLM does not find by itself."""
    if model.files and not model.has_config and needs_config(settings):
        yield problem(
            "model",
            f"{model.teller} has no config.json: vLLM would not start",
            "config.json at the top, or Mistral's params.json beside consolidated*.safetensors",
            "lock a model that vLLM reads; say --hf-config-path in serverArgs; or serve it by another server "
            "(modelcar:runtime custom)",
        )


def _unloadable(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
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


def doubts(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield what a reviewer should know of the server's arguments and the model, and what stops nothing."""
    if settings.runtime == "vllm":
        yield from context_length.doubts(settings, model)
        yield from adapters.doubts(settings, model)
        yield from hub_names.doubts(settings, model)
        yield from vocabulary.doubts(settings, model)
