"""All arguments of a model server."""

from __future__ import annotations

from components.config.model_path import MODEL_PATH
from components.config.model_spec import ModelSpec
from components.config.vllm_arguments import vllm_arguments
from components.manifests import termination


def server_arguments(settings: ModelSpec) -> list[str]:
    """Return all arguments of the server; vLLM is told where and by which name, another server is not."""
    if settings.runtime == "custom":
        return list(settings.server_args)
    own = ["--model", MODEL_PATH, "--served-model-name", settings.model_name]
    own += ["--port", str(settings.server_port)]
    own += termination.arguments(settings)
    return [*own, *vllm_arguments(settings), *settings.server_args]
