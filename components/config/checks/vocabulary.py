"""The vocabulary that vLLM needs for gpt-oss beside the model: openai-harmony downloads it, and a pod cannot.

Measured with openai-harmony 0.0.8, which vLLM 0.23 has: where TIKTOKEN_ENCODINGS_BASE is set, the file is
taken from that folder, has to be this very one, and nothing is downloaded. https://github.com/openai/harmony
"""

from __future__ import annotations

from collections.abc import Iterator

from components.config.command_line import variables
from components.config.known_model import KnownModel
from components.config.model_path import MODEL_PATH, inside
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.errors import Problem

FILE = "o200k_base.tiktoken"
SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
BASE = "TIKTOKEN_ENCODINGS_BASE"
#: Where the library keeps what it downloaded; whoever sets it brings the file.
_CACHE = "TIKTOKEN_RS_CACHE_DIR"
_FOLDER = "encodings"
_LOCK_IT = (
    f"--extra {_FOLDER}/{FILE}=https://openaipublic.blob.core.windows.net/encodings/{FILE}#sha256={SHA256}"
)


def _needed(settings: ModelSpec, model: KnownModel) -> bool:
    return settings.runtime == "vllm" and model.config.get("model_type") == "gpt_oss"


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield a folder of the model that is to have the vocabulary, and has not."""
    base = variables(settings.server_env).get(BASE)
    if base is None or not _needed(settings, model):
        return
    folder = inside(base) if base else ""
    if folder is None:
        return  # the server's image has it
    path = f"{folder}/{FILE}".lstrip("/")
    found = model.files.get(path) if base else None
    if found in {SHA256, ""} or not (found or model.complete):
        return
    value = f"{model.teller} has no {path}" if found is None else f"{path} has sha256 {found}"
    yield problem(
        "serverEnv",
        f"{BASE}: {value}",
        f"a folder with {FILE} (sha256 {SHA256})",
        f"lock the model with {_LOCK_IT}, and name {MODEL_PATH}/{_FOLDER}",
    )


def doubts(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield that the server downloads it, where nobody said where it is."""
    if not _needed(settings, model) or {BASE, _CACHE} & variables(settings.server_env).keys():
        return
    place = next((path for path, sha256 in sorted(model.files.items()) if sha256 == SHA256), None)
    folder = place.rpartition("/")[0] if place else _FOLDER
    lock = "" if place else f"lock the model with {_LOCK_IT}, and "
    named = f"{MODEL_PATH}/{folder}".rstrip("/")
    yield (
        f"vLLM downloads {FILE} for gpt-oss, at its start or at the first chat request, and the pod cannot. "
        f"Unless the server's image has it: {lock}set modelcar:serverEnv {BASE}={named}"
    )
