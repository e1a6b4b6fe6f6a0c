"""`modelcar:kernels` beside the server's own settings."""

from __future__ import annotations

from collections.abc import Iterator

from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.errors import Problem


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield what of the setting does not go with others."""
    if settings.kernels != "require":
        return
    if settings.runtime == "custom":
        fix = "remove it: only vLLM's kernels are known"
        yield problem("kernels", "require, and runtime is custom", "use or off there", fix)
    elif _never_compiles(settings):
        value = "require, and --enforce-eager keeps the server from compiling any"
        yield problem("kernels", value, "use or off there", "take enforceEager out, or set kernels to use")


def _never_compiles(settings: ModelSpec) -> bool:
    typed = settings.vllm and settings.vllm.enforce_eager
    said = any(argument.replace("_", "-") == "--enforce-eager" for argument in settings.server_args)
    return bool(typed) or said or "TORCH_COMPILE_DISABLE=1" in settings.server_env
