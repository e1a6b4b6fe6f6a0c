"""`maxModelLen`: how it is written, and what a model takes (vLLM 0.23, config/model.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from components.config.command_line import document, said, variables
from components.config.fields import Refused
from components.config.known_model import KnownModel
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.vllm import parsed
from modelcar.errors import Problem

OPTION = "--max-model-len"
OVERRIDES = "--hf-overrides"
#: Lets vLLM take more than the model was made for.
ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"

#: Where a configuration says how long it goes (vLLM 0.23, transformers_utils/model_arch_config_convertor.py).
_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
#: These say their length with the scaling already done.
_DONE = frozenset({"su", "longrope", "llama3"})


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield what is wrong with a length or an override among the server's own arguments."""
    text = said(settings.server_args).get(OPTION)
    if text is not None:
        try:
            parsed(text)
        except Refused as error:
            shown = text if len(text) <= 40 else f"of {len(text)} characters"  # cut, a secret would show
            yield problem("serverArgs", f"{OPTION} {shown}: {error.why}", error.allowed, error.fix)
    try:
        document(settings.server_args, OVERRIDES)
    except ValueError as error:
        yield problem(
            "serverArgs",
            f"{OVERRIDES}: {error}",
            'a JSON object, as {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}',
            "correct it: vLLM would not start",
        )


def effective_config(settings: ModelSpec, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a model's configuration with what `--hf-overrides` changes of it."""
    try:
        changes = document(settings.server_args, OVERRIDES)
    except ValueError:
        return config
    return {
        **config,
        **{key: _changed(config, key, value) for key, value in changes.items()},
        **_rope(changes),
    }


def _changed(config: Mapping[str, Any], key: str, value: Any) -> Any:
    """A part that is a configuration itself is changed; anything else is replaced."""
    there = config.get(key)
    if not (key.endswith("_config") and isinstance(there, dict) and isinstance(value, dict)):
        return value
    return {**there, **{name: _changed(there, name, part) for name, part in value.items()}, **_rope(value)}


def _rope(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Both names mean the same; the new one is what counts."""
    return {"rope_parameters": changes["rope_scaling"]} if "rope_scaling" in changes else {}


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of a model's language part."""
    text = config.get("text_config")
    return text if isinstance(text, dict) and text else config


def wanted(settings: ModelSpec) -> tuple[str, int] | None:
    """Return the key and the tokens that a stack asks for; None where it leaves them to vLLM."""
    length: int | str | None = settings.vllm.max_model_len if settings.vllm else None
    if length is not None:
        return ("vllm.maxModelLen", length) if isinstance(length, int) else None
    text = said(settings.server_args).get(OPTION)
    length = parsed(text) if text is not None else None
    return ("serverArgs", length) if isinstance(length, int) else None


def _beyond(settings: ModelSpec, model: KnownModel) -> tuple[str, int, int] | None:
    """Return key, tokens and the longest, where more is asked for than the model was made for."""
    asked = wanted(settings)
    limits = longest(text_part(effective_config(settings, model.config)))
    if asked is None or limits is None or asked[1] <= max(limits):
        return None
    return (*asked, max(limits))


def _allowed(settings: ModelSpec) -> bool:
    return variables(settings.server_env).get(ALLOW_LONG, "").strip().lower() in {"1", "true"}


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield a length that vLLM would refuse for this model."""
    found = _beyond(settings, model)
    if found is None or _allowed(settings):
        return
    key, tokens, most = found
    shown = f"{OPTION} {tokens}" if key == "serverArgs" else str(tokens)
    overrides = json.dumps(_stretched(model.config, -(-tokens // most)))
    yield problem(
        key,
        f"{shown}, more than the model was made for: vLLM would not start",
        f"at most {most} (the model's configuration)",
        f"set it to {most}; or, if the model's card says so, stretch it in serverArgs: {OVERRIDES} "
        f"'{overrides}'; or, at your own risk, serverEnv {ALLOW_LONG}=1",
    )


def _stretched(config: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """Return overrides that stretch a model by YaRN; they replace all that it says of RoPE."""
    text = text_part(config)
    rope = text.get("rope_parameters")
    theta = text.get("rope_theta", rope.get("rope_theta") if isinstance(rope, dict) else None)
    changes = {"rope_parameters": {"rope_type": "yarn", "factor": float(factor)}}
    if isinstance(theta, int | float):
        changes["rope_parameters"]["rope_theta"] = theta
    return {"text_config": changes} if text is not config else changes


def doubts(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield what a reviewer should know of a length beyond the model's."""
    found = _beyond(settings, model)
    if found and _allowed(settings):
        key, tokens, most = found
        yield (
            f"modelcar:{key}: {tokens} tokens, and the model was made for {most}; {ALLOW_LONG} lets vLLM "
            f"take it. Beyond {most} its answers may be wrong, or its server may end"
        )


def longest(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the limits that vLLM holds a length to, of which one is enough; None where it knows none."""
    said_lengths = [length for key in _LENGTHS if (length := _length(config.get(key)))]
    if not said_lengths:
        return None
    own = _length(config.get("model_max_length"))
    derived = own or min(said_lengths)
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if isinstance(rope, dict) and rope and "gemma3" not in str(config.get("model_type", "")):
        nested = all(isinstance(part, dict) for part in rope.values())
        factor: float = 1
        for part in rope.values() if nested else [rope]:
            kind = str(part.get("rope_type", part.get("type", "default")))
            if kind in _DONE:
                continue
            factor = _factor(part.get("factor", factor))
            if kind == "yarn" and (original := _length(part.get("original_max_position_embeddings"))):
                derived = original
        try:
            derived = int(derived * factor)
        except OverflowError:  # no number of tokens
            return (own,) if own else None
    return tuple(length for length in (derived, own) if length) or None


def _length(value: Any) -> int | None:
    """Return a number of tokens; None for what is none."""
    return value if type(value) is int and value > 0 else None


def _factor(value: Any) -> float:
    """Return how far a model is stretched; what is no number above zero stretches nothing."""
    try:
        return value if type(value) in {int, float} and value > 0 and isfinite(value) else 1
    except OverflowError:
        return 1
