"""Compiled kernels in a pod: the setting `modelcar:kernels`, and what the start script does with them.

The image of a model may hold what a server compiled (`modelcar/kernels.py`). Before the server starts, a pod
copies what fits it to where the server looks. The image itself says what each entry is good for, so a runtime
that several models share works like any other; the program only tells the pod which server it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from components.config.model_spec import ModelSpec
from components.config.secrets import Secrets
from components.manifests.server_arguments import server_arguments
from modelcar.kernels import FITS, FOLDER, TIMED, TIMES
from modelcar.manifest import to_json

#: Variables of the server: what `modelcar:kernels` says, and which server this is.
MODE, SERVER = "MODELCAR_KERNELS", "MODELCAR_SERVER_ID"
#: vLLM 0.23 (envs.py, compilation/decorators.py): a start fails where a compiled model cannot be loaded.
FORCE = "VLLM_FORCE_AOT_LOAD"

#: What each line of the start script about them begins with, and how it goes on.
SAID = "kernels: "
USED, UNUSED, NONE, OFF = "used", "not used", "the image has none", "off"

#: Where device plugins put the driver, beside PATH; as in operations/gpu.py.
_DRIVER = "/usr/local/nvidia"

#: `modelcar_place` prints what the pod has, as `Target.place` does: cards that are alike, else the processor.
#: Only what a POSIX shell and BusyBox have. sha256sum is in coreutils and in BusyBox.
PLACE = f"""
modelcar_place() {{
  cards= name= cap=
  for smi in nvidia-smi {_DRIVER}/bin/nvidia-smi /usr/bin/nvidia-smi ''; do
    if [ "$smi" ] && command -v "$smi" >/dev/null 2>&1; then break; fi
  done
  if [ "$smi" ]; then
    cards=$(LD_LIBRARY_PATH="{_DRIVER}/lib64${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}" "$smi" \\
      --query-gpu=compute_cap,name --format=csv,noheader 2>/dev/null) || cards=
  fi
  if [ "$cards" ]; then
    IFS='
'
    set -- $cards
    unset IFS
    for card in "$@"; do if [ "$card" != "$1" ]; then echo "gpu 0.0 x$# of several kinds"; return 0; fi; done
    echo "gpu ${{1%%,*}} x$# ${{1#*, }}"
    return 0
  fi
  for node in /dev/nvidia[0-9]; do
    if [ -c "$node" ]; then echo "gpu 0.0 x0 without nvidia-smi"; return 0; fi
  done
  while IFS= read -r line; do
    key=${{line%%:*}} value=${{line#*:}}
    case $key in
      'model name'*|'CPU part'*) name=${{name:-$value}} ;;
      flags*|Features*) cap=${{cap:-$value}} ;;
    esac
    if [ "$name" ] && [ "$cap" ]; then break; fi
  done < /proc/cpuinfo
  set -- $name
  echo "cpu $(printf '%s\n' "$cap" | sha256sum | cut -c 1-12) x1 ${{*:-processor}}"
}}
"""

#: `modelcar_kernels FOLDER` copies what fits; it says one line, and fails where nothing was copied.
COPY = f"""
modelcar_kernels() {{
  if [ "${{{MODE}:-use}}" = off ]; then echo '{SAID}{OFF}'; return 1; fi
  here= why= used= any=
  for fits in "$1"/*/{FITS}; do
    if ! [ -r "$fits" ]; then continue; fi
    any=1 entry=${{fits%/{FITS}}} server= device=
    while read -r key value; do
      case $key in server) server=$value ;; device) device=$value ;; esac
    done < "$fits"
    name=${{entry##*/}}
    if [ "$server" != "${{{SERVER}:-}}" ]; then why="$why; $name is for another server image"; continue; fi
    here=${{here:-$(modelcar_place)}}
    if [ "$device" != "$here" ]; then why="$why; $name is for $device, and this is $here"; continue; fi
    if said=$(modelcar_copy "$entry" 2>&1); then used="$used $name"
    else why="$why; $name cannot be copied: $(printf '%s' "$said" | head -n 1)"; fi
  done
  if [ "$used" ]; then echo "{SAID}{USED}$used"; return 0; fi
  if [ "$any" ]; then echo "{SAID}{UNUSED}: ${{why#; }}"; else echo '{SAID}{NONE}'; fi
  return 1
}}
modelcar_copy() {{
  for part in vllm triton torchinductor flashinfer; do
    if ! [ -d "$1/$part" ]; then continue; fi
    case $part in
      vllm) to=${{VLLM_CACHE_ROOT:-$HOME/.cache/vllm}} ;;
      triton) to=${{TRITON_CACHE_DIR:-$HOME/.triton/cache}} ;;
      torchinductor) to=${{TORCHINDUCTOR_CACHE_DIR:-$HOME/.cache/torchinductor}} ;;
      flashinfer) to=${{FLASHINFER_WORKSPACE_BASE:-$HOME}}/.cache/flashinfer ;;
    esac
    mkdir -p "$to" && cp -Rf "$1/$part/." "$to/" && chmod -R u+w "$to" || return 1
    if [ "$part" = {TIMED} ] && [ -r "$1/{TIMES}" ]; then
      while read -r seconds path; do touch -d "@$seconds" "$to/${{path#*/}}" || return 1; done < "$1/{TIMES}"
    fi
  done
}}
"""

#: What a start that needs them says before it ends.
NEEDED = f"{SAID}modelcar:kernels is require, and none is used: this server does not start"


def script(folder: str) -> str:
    """Return the part of the start script that copies kernels; folder: of the model, as the pod sees it."""
    need = f"""if [ "${{{MODE}:-use}}" = require ]; then echo '{NEEDED}'; exit 1; fi"""
    return f"{PLACE}{COPY}modelcar_kernels {folder}/{FOLDER} || {need}\n"


def server_of(settings: ModelSpec) -> str:
    """Return which server a model's pods run, as kernels name it: its image's digest.

    A server that is mounted from its machine is named by its command and folders instead.
    """
    digest = settings.server_image.rpartition("@")[2]
    if not settings.server_host_paths:
        return digest
    told = [digest, settings.server_command, settings.server_host_paths]
    return f"local:{hashlib.sha256(to_json(told)).hexdigest()[:16]}"


#: Arguments of vLLM 0.23 that are in none of its keys, so that kernels are good for any value of them: what
#: the HTTP server does, and what `ignored_factors` and `compute_hash` of vllm/config leave out.
_NOT_IN_KEYS = (
    *("--model", "--served-model-name", "--port", "--host", "--api-key", "--root-path", "--uds"),
    "--shutdown-timeout",
    *("--allowed-", "--allow-", "--ssl-", "--uvicorn-", "--log-", "--disable-log-", "--enable-log-"),
    *("--chat-template", "--response-role", "--tool-", "--enable-auto-tool-choice", "--reasoning-parser"),
    *(
        "--return-tokens-as-token-ids",
        "--middleware",
        "--disable-fastapi-docs",
        "--enable-request-id",
    ),
    *("--max-log-len", "--enable-prompt-tokens-details", "--enable-server-load-tracking", "--lora-modules"),
    *("--gpu-memory-utilization", "--num-gpu-blocks-override", "--enable-prefix-caching", "--seed"),
    *("--no-enable-prefix-caching", "--load-format", "--safetensors-load-strategy", "--model-loader-extra-"),
    *("--tokenizer", "--hf-token", "--download-dir", "--disable-uvicorn-", "--exclude-log-", "--h11-"),
)
_IN_KEYS = ("VLLM_", "TORCH", "TRITON_", "INDUCTOR_")
#: Of those what vLLM 0.23 leaves out of them (vllm/envs.py, compile_factors).
_IN_NO_KEY = (
    *("VLLM_WORKER_MULTIPROC_METHOD", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"),
    *("VLLM_MEDIA_", "VLLM_ASSETS_CACHE", "VLLM_IMAGE_FETCH_TIMEOUT", "VLLM_VIDEO_", "VLLM_MAX_AUDIO_"),
    *("VLLM_PORT", "VLLM_HOST_IP", "VLLM_RPC_BASE_PATH", "VLLM_DP_MASTER_", "VLLM_NIXL_SIDE_CHANNEL_HOST"),
    *("VLLM_USAGE_", "VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "VLLM_SERVER_DEV_MODE"),
    *("VLLM_LOG_STATS_INTERVAL", "VLLM_DEBUG_LOG_", "VLLM_DEBUG_DUMP_PATH", "VLLM_RINGBUFFER_WARNING_"),
    *("VLLM_HTTP_TIMEOUT_", "VLLM_ENGINE_ITERATION_TIMEOUT_S", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"),
    *("VLLM_KEEP_ALIVE_", "VLLM_CPU_", "VLLM_USE_MODELSCOPE", "VLLM_MODEL_REDIRECT_PATH"),
)
_NOT_SHOWN = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CACHE_ROOT", "CACHE_DIR", "LOGGING", "FORCE_AOT_LOAD")


def arguments_of(settings: ModelSpec) -> tuple[str, ...]:
    """Return the server's arguments and variables that kernels depend on.

    Those whose name says that they are secret are not among them; of others `written` hides the value.
    """
    found: list[str] = []
    keep = False
    for argument in server_arguments(settings):
        if argument.startswith("-"):
            keep = not argument.replace("_", "-").startswith(_NOT_IN_KEYS)
        if keep:
            found.append(argument)
    variables = [
        entry
        for entry in settings.server_env
        if entry.startswith(_IN_KEYS)
        and not entry.startswith(_IN_NO_KEY)
        and not any(part in entry.partition("=")[0] for part in _NOT_SHOWN)
    ]
    return (*found, *sorted(variables))


def written(arguments: Sequence[str], secrets: Secrets) -> tuple[str, ...]:
    """Return arguments as a lock may have them, which is committed and hashed into the image: no secrets.

    Pulumi does not say which argument of a list is the secret one, so that others may be hidden too.
    """
    return tuple(
        _concealed(argument) if secrets.hide(argument) != argument else argument for argument in arguments
    )


def as_written(arguments: Sequence[str], lock: Sequence[str]) -> tuple[str, ...]:
    """Return arguments to be compared with those of a lock: what is hidden there, hidden too."""
    if not any(_CONCEALED in argument for argument in lock):
        return tuple(arguments)
    hidden = {argument: _concealed(argument) for argument in arguments if argument not in lock}
    return tuple(hidden[argument] if hidden.get(argument) in lock else argument for argument in arguments)


#: Begins what stands in place of a value: a key that is derived from it (PBKDF2), as guessing has to be slow.
_CONCEALED = "pbkdf2:"
_ROUNDS = 200_000


def _concealed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if not equals:
        name, value = "", argument
    derived = hashlib.pbkdf2_hmac("sha256", value.encode(), f"{SERVER} {name}".encode(), _ROUNDS, 16)
    return f"{name}{equals}{_CONCEALED}{derived.hex()}"


def environment(settings: ModelSpec, *, own: bool, extra: bool) -> dict[str, str]:
    """Return the server's variables for its kernels.

    Args:
        own: those of the runtime, which models may share.
        extra: those that are this model's.
    """
    if settings.runtime == "custom":
        return {}
    found = {SERVER: server_of(settings)} if own else {}
    if extra and (wanted := settings.kernel_mode) != "use":
        found[MODE] = wanted
        if wanted == "require":
            found[FORCE] = "1"
    return found
