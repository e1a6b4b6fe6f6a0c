"""Models of a hub that a server would ask for, by its arguments or by the model's own files.

A pod reaches no hub, and is told so (`HF_HUB_OFFLINE=1`): such a name fails at the server's start, minutes
after a node was asked for. The arguments are those of vLLM 0.23 that take a model's name: engine/arg_utils.py
and config/ (model.py, speculative.py, lora.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from components.config.checks.adapters import paths_in_arguments
from components.config.checks.context_length import effective_config
from components.config.command_line import document, options, variables
from components.config.known_model import KnownModel
from components.config.model_path import MODEL_PATH, inside
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.choosing import PICKLE_SUFFIXES
from modelcar.errors import Problem
from modelcar.layouts import CONFIG, PARAMS
from modelcar.model_config import foreign_code

_DRAFT = "--speculative-config"

#: Arguments whose value is a model or a folder, and words that they take too.
_OPTIONS: dict[str, frozenset[str]] = {
    "--tokenizer": frozenset(),
    "--hf-config-path": frozenset(),
    "--spec-model": frozenset({"ngram", "[ngram]", "ngram_gpu", "suffix"}),
    "--generation-config": frozenset({"auto", "vllm"}),
}
#: Those whose folder has to have a configuration.
_WITH_CONFIG = frozenset({"--hf-config-path", "--spec-model"})
_WITH_WEIGHTS = frozenset({"--spec-model"})

#: Where the hub's client looks for what was downloaded before: an image may bring it.
_CACHES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")

#: Names repositories to vLLM's resolver of adapters, which it asks a hub for at a request.
_ADAPTERS_OF_A_HUB = "VLLM_LORA_RESOLVER_HF_REPO_LIST"

#: Models that a configuration names, by its model_type (vLLM 0.23, transformers_utils/configs/ultravox.py).
_IN_CONFIGS = {"ultravox": ("text_model_id", "audio_model_id")}


class _Name(NamedTuple):
    """A model that is asked for. shown: where it is named. config, weights: what its folder has to have."""

    shown: str
    value: str
    config: bool = False
    weights: bool = False


def _in_arguments(settings: ModelSpec) -> Iterator[_Name]:
    arguments = settings.server_args
    for option, values in options(arguments):
        if option in _OPTIONS and values and _is_model(option, values[0]):
            yield _Name(option, values[0], option in _WITH_CONFIG, option in _WITH_WEIGHTS)
    try:
        draft = document(arguments, _DRAFT).get("model")
    except ValueError:
        draft = None  # told by `problems`
    if isinstance(draft, str) and _is_model("--spec-model", draft):
        yield _Name(f"{_DRAFT} model", draft, config=True, weights=True)
    for option, path in paths_in_arguments(arguments):
        if inside(path) is None:  # those inside are looked at as adapters
            yield _Name(option, path)


def _is_model(option: str, value: str) -> bool:
    if option == "--spec-model" and "." in value and "/" not in value:
        return False  # a Python class, which vLLM tells by its dots
    return value not in _OPTIONS[option]


def _is_of_a_hub(value: str) -> bool:
    # A path is the server's image's, or the model's; a URL is not a hub's name.
    return not value.startswith(("/", "~", "./", "../")) and "://" not in value


def _cache(settings: ModelSpec) -> str | None:
    """Return the variable that names a cache, in which the server's image may have a hub's model."""
    there = variables(settings.server_env)
    return next((name for name in _CACHES if name in there), None)


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield names of a hub's models among the arguments."""
    try:
        document(settings.server_args, _DRAFT)
    except ValueError as error:
        allowed = 'a JSON object, as {"model": "/mnt/models/draft", "num_speculative_tokens": 5}'
        yield problem("serverArgs", f"{_DRAFT}: {error}", allowed, "correct it: vLLM would not start")
    if _cache(settings):
        return
    if _ADAPTERS_OF_A_HUB in variables(settings.server_env):
        allowed, fix = "adapters in the model's image", "remove it, and name the adapters: vllm.loraModules"
        yield problem("serverEnv", f"{_ADAPTERS_OF_A_HUB}, and the pod has no hub", allowed, fix)
    for name in _in_arguments(settings):
        if _is_of_a_hub(name.value):
            yield problem(
                "serverArgs",
                f"{name.shown} {name.value}, and the pod has no hub",
                f"a folder of the model's image ({MODEL_PATH}/FOLDER), or a path in the server's",
                "put its files into a folder of the model, lock both together, and name that folder; if the "
                f"server's image has it, name its path, or its cache by serverEnv {_CACHES[0]}",
            )


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield folders that the model does not have, and hub's models that its own files name."""
    for name in _in_arguments(settings):
        yield from _absent("serverArgs", name, model)
    cached = _cache(settings) is not None
    for name in _in_config(settings, model):
        yield from _absent("model", name, model)
        if _is_of_a_hub(name.value) and not cached:
            yield problem(
                "model",
                f"{name.shown} names {name.value}, and the pod has no hub",
                "a model whose parts are all in its image",
                "put those files into a folder of the model, name that folder there, and lock the folder",
            )
    if _loads_code(settings) and not cached:
        yield from _foreign_code(model)


def _absent(key: str, name: _Name, model: KnownModel) -> Iterator[Problem]:
    folder = inside(name.value)
    if not folder or folder in model.files or not model.complete:
        return
    if name.config and not any(f"{folder}/{config}" in model.files for config in (CONFIG, PARAMS)):
        lacks = f"{folder}/{CONFIG} or {folder}/{PARAMS}"
    elif not model.has_folder(folder):
        lacks = folder
    elif name.weights and not _has_weights(folder, model):
        lacks = f"weights in {folder}"
    else:
        return
    yield problem(
        key,
        f"{name.shown} {name.value}: {model.teller} has no {lacks}",
        "a folder of the model with what is needed there",
        "put it there (pickled weights take --allow-pickle), and lock the model again",
    )


def _has_weights(folder: str, model: KnownModel) -> bool:
    weights = (".safetensors", *PICKLE_SUFFIXES)
    return any(path.startswith(f"{folder}/") and path.lower().endswith(weights) for path in model.files)


def _in_config(settings: ModelSpec, model: KnownModel) -> Iterator[_Name]:
    config = model.config
    speculators = config.get("speculators_config")
    verifier = speculators.get("verifier") if isinstance(speculators, dict) else None
    target = verifier.get("name_or_path") if isinstance(verifier, dict) else None
    if isinstance(target, str):  # vLLM serves that one, and this as its draft
        yield _Name(
            "config.json, speculators_config.verifier.name_or_path,", target, config=True, weights=True
        )
    for key in _IN_CONFIGS.get(str(config.get("model_type")), ()):
        value = effective_config(settings, config).get(key)
        if isinstance(value, str):
            yield _Name(f"config.json, {key},", value, config=True, weights=True)


def _loads_code(settings: ModelSpec) -> bool:
    last = False
    for option, _ in options(settings.server_args):
        if option in {"--trust-remote-code", "--no-trust-remote-code"}:
            last = option == "--trust-remote-code"
    return last


def _foreign_code(model: KnownModel) -> Iterator[Problem]:
    for path, config in sorted(model.kept.items()):
        if "/" in path:
            continue
        for reference in foreign_code(config):
            repository, _, name = reference.partition("--")
            file = f"{name.rpartition('.')[0]}.py"
            yield problem(
                "model",
                f"{path} names code of {repository} ({file}), and the pod has no hub",
                "code in the model's own folder",
                f"download {file} of {repository} beside {path}, write {name} in its auto_map, and lock that "
                "folder; or leave --trust-remote-code out, if vLLM knows the model",
            )


def doubts(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield names that only a cache in the server's image could have."""
    cache = _cache(settings)
    if cache is None:
        return
    for name in (*_in_arguments(settings), *_in_config(settings, model)):
        if _is_of_a_hub(name.value):
            yield (
                f"{name.shown} {name.value} is the name of a hub's model: the server starts only if its "
                f"image has it in the cache that serverEnv {cache} names"
            )
