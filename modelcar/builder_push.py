"""Let a builder bring layers from the hub to the registry: the weights never pass this machine.

BuildKit downloads each file itself (`ADD --checksum`), makes the layer's very bytes of it (layer_format.py),
and pushes it. What comes of it is a heap of layers, not the image: that is put together of them, under the
digest that was predicted, as always. Only layers that the registry lacks are brought.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from modelcar import hub_address
from modelcar.buildx import buildx
from modelcar.errors import refuse
from modelcar.layer_format import MODELS
from modelcar.lock import EXTRA, HubSource, Lock, LockedLayer
from modelcar.paths import printable
from modelcar.registry import Target

#: Told what the builder does, a line at a time.
Note = Callable[[str], None]
#: Seconds between two lines.
INTERVAL = 10.0

#: Characters of a path or a URL that nothing escapes in a Dockerfile; their names are expanded there.
_NAMED = {"$": ("DOLLAR", "'$'"), "'": ("APOSTROPHE", '"\'"'), '"': ("QUOTE", "'\"'")}
_NAMES = [f"ARG {name}={value}" for name, value in _NAMED.values()]
_EXPANDED = str.maketrans({character: f"${{{name}}}" for character, (name, _) in _NAMED.items()})


def fault_for_builder(lock: Lock) -> tuple[str, str, str] | None:
    """Return why a builder cannot bring a model's layers: what was found, what is allowed, the fix."""
    if not isinstance(lock.source, HubSource):
        found = f"{lock.name} is from the folder {lock.source.path}, which only this machine has"
        return found, "a model that is locked from a hub", f"python -m modelcar lock {lock.name} --hub …"
    if lock.compression != "none":
        found = f"{lock.name} has {lock.compression} layers, and a builder compresses to other bytes"
        return found, "a lock without compression", f"python -m modelcar lock {lock.name} --compression none"
    for extra in lock.extra:
        if extra.url is None:
            found = f"{lock.name} has {EXTRA}/{printable(extra.path)}, which only this machine has"
            fix = f"name it by URL: python -m modelcar lock {lock.name} --extra PATH=URL#sha256=…"
            return found, "extra files that have a URL", fix
    for file in lock.files:
        if file.path.endswith(" "):
            found = f"{printable(file.path)!r} ends with a space, which BuildKit leaves out"
            return found, "names that end otherwise", f"python -m modelcar lock {lock.name} --ignore '* '"
    return None


def dockerfile(lock: Lock, layers: Sequence[LockedLayer], endpoint: str | None = None) -> str:
    """Return the Dockerfile whose layers are these of a hub's model, in their order.

    Args:
        lock: of a model without fault_for_builder.
        layers: those to bring.
        endpoint: address of the hub, or a mirror, as the builder reaches it; None for the hub itself.

    Raises:
        InputError: the model is none that a builder can bring.
    """
    from huggingface_hub import hf_hub_url  # a preview gets here only for fault_for_builder

    source = _hub_of(lock)
    checksums = {file.path: file.sha256 for file in lock.files}
    urls = {extra.path: extra.url for extra in lock.extra}
    stages, last = [], ["FROM scratch", *_NAMES]
    for number, layer in enumerate(layers):
        lines = []
        for path in layer.files:
            url = urls.get(path) or hf_hub_url(
                source.repository, path, revision=source.revision, endpoint=endpoint
            )
            words = [word.translate(_EXPANDED) for word in (url, f"/{MODELS}/{path}")]
            place = json.dumps(words, ensure_ascii=False)
            lines.append(f"ADD --link --chmod=a=rX --checksum=sha256:{checksums[path]} {place}")
        if len(lines) == 1:
            last += lines
        else:
            stages += [f"FROM scratch AS layer{number}", *_NAMES, *lines]
            last.append(f"COPY --link --from=layer{number} / /")
    return "\n".join([*stages, *last, ""])


def push_by_builder(
    lock: Lock,
    layers: Sequence[LockedLayer],
    target: Target,
    builder: str,
    *,
    endpoint: str | None = None,
    note: Note | None = None,
) -> None:
    """Let a builder download the files of layers, and push the layers.

    A token for the hub (HF_TOKEN) goes over the build's own connection, for the hub's host alone, and is kept
    nowhere. Credentials of the registry are docker's, as for any build.

    Args:
        lock: of the model.
        layers: those to bring.
        target: repository.
        builder: name of the buildx builder.
        endpoint: as in `dockerfile`.
        note: told what it does.

    Raises:
        InputError: the model is none that a builder can bring, there is no buildx, or the build failed.
    """
    from huggingface_hub import constants, get_token

    content = dockerfile(lock, layers, endpoint)
    output = [
        "type=image",
        f"name={target.registry}/{target.name}",
        "push=true",
        # The layers are what is wanted; an image of them without a tag is in nobody's way.
        "push-by-digest=true",
        "oci-mediatypes=true",
        "compression=uncompressed",
        "rewrite-timestamp=true",
        *(["registry.insecure=true"] if target.insecure else []),
    ]
    command = [
        *buildx(),
        "build",
        f"--builder={builder}",
        "--provenance=false",
        "--build-arg=SOURCE_DATE_EPOCH=0",
        "--progress=rawjson",
        f"--output={','.join(output)}",
    ]
    environment = dict(os.environ)
    if token := get_token():
        if fault := hub_address.fault_of_address(endpoint or constants.ENDPOINT):
            raise hub_address.refused(endpoint, fault)  # the token would go there in the clear
        host = urlsplit(endpoint or constants.ENDPOINT).hostname
        environment["MODELCAR_HUB_TOKEN"] = token
        command.append(f"--secret=id=HTTP_AUTH_TOKEN_{host},env=MODELCAR_HUB_TOKEN")
    with tempfile.TemporaryFile("w+") as file:
        file.write(content)
        file.seek(0)
        with subprocess.Popen(
            [*command, "-"],
            env=environment,
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            files = sum(len(layer.files) for layer in layers)
            error = _follow(process.stderr or (), files, note or (lambda _: None))
    if process.returncode:
        raise refuse(
            f"builder {builder}",
            error or f"exit status {process.returncode}",
            allowed="a builder of BuildKit 0.31 that reaches hub and registry",
            fix="`docker buildx ls` shows it; modelcar:hubEndpoint names a mirror as the builder reaches it, "
            "HF_TOKEN a token for models that need one",
        )


def _hub_of(lock: Lock) -> HubSource:
    fault = fault_for_builder(lock)
    if isinstance(lock.source, HubSource) and not fault:
        return lock.source
    found, allowed, fix = fault or ("", "", "")
    raise refuse(lock.name, found, allowed=allowed, fix=fix)


def _follow(lines: Iterable[str], files: int, note: Note) -> str:
    """Tell what the builder does; return its last words where they are an error."""
    done, error, exporting, told = set(), "", False, time.monotonic()
    for line in lines:
        try:
            report: dict[str, Any] = json.loads(line)
        except ValueError:
            error = line.strip().removeprefix("ERROR: ") or error
            continue
        for vertex in report.get("vertexes") or []:
            exporting |= vertex["name"] == "exporting to image"
            if vertex.get("completed") and " ADD " in vertex["name"]:
                done.add(vertex["digest"])
        if time.monotonic() - told >= INTERVAL:
            told = time.monotonic()
            note("pushing" if exporting else f"{min(len(done), files)} of {files} files downloaded")
    return error
