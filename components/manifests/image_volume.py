"""`modelcar:placement imageVolume`: the kubelet mounts the image itself, and KServe has no part in it.

Kubernetes has image volumes by default since 1.35 (stable in 1.36), and containerd since 2.1:
https://kubernetes.io/docs/concepts/storage/volumes/#image. The pod has one container: no sidecar, no init
container, no shared process namespace. KServe takes such a predictor (0.16, 0.19 and 0.20 were run);
KServe 0.20's own way, `oci+native://`, mounts with a `subPath`, which not every runtime honours.

The whole image is mounted at /mnt, so that its folder `models` is /mnt/models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.config.model_path import IMAGE_PATH, MODEL_PATH, adapter_mount
from components.config.model_spec import ModelSpec

#: Of the model; an adapter's is called by its place in the list.
VOLUME = "model"

#: What a server says before it ends where the runtime has mounted nothing.
EMPTY = f"{MODEL_PATH} is empty: this node mounts no image volumes"
#: A mounted image is there before any process of the pod, so nothing is waited for.
REQUIRE_MODEL = (
    f'there=; for file in {MODEL_PATH}/*; do if [ -r "$file" ]; then there=1; break; fi; done; '
    f"if ! [ \"$there\" ]; then echo '{EMPTY}'; exit 1; fi; "
)


#: The shell stays, as the first process of the container, and tells the server to stop. Linux lets a first
#: process ignore signals that it has no handler for, so such a server would outlive its grace period; in pods
#: that share their processes the first one is the pause container's. `wait` ends early where a signal comes,
#: with that signal's number, so it is asked again: dash says 127 where it has told the code already, bash -1
#: where it lost it, which happens only to a server that was told to stop (143 is SIGTERM's).
#: INT and QUIT, which an image may name as its STOPSIGNAL, are ignored by what a shell starts beside itself.
SERVE = (
    "server=; told=; "
    'hand_on() { told=1; if [ "$server" ]; then kill -TERM "$server" 2>/dev/null; fi; }; '
    "trap hand_on TERM INT QUIT; "
    '"$@" & server=$!; if [ "$told" ]; then hand_on; fi; '
    'code=127; while :; do told=; wait "$server"; now=$?; '
    'case "$now" in 127) ;; -1) code=143 ;; *) code=$now ;; esac; '
    'if ! [ "$told" ]; then break; fi; done; exit "$code"'
)


def reference(storage_uri: pulumi.Input[str]) -> pulumi.Input[str]:
    """Return the image of a storage URI, `oci://IMAGE@sha256:…`."""
    if isinstance(storage_uri, str):
        return storage_uri.removeprefix("oci://")
    known: pulumi.Output[Any] = pulumi.Output.from_input(storage_uri)
    return known.apply(lambda uri: str(uri).removeprefix("oci://"))


def volumes(settings: ModelSpec, storage_uri: pulumi.Input[str]) -> list[dict[str, Any]]:
    """Return the volumes of the model and of its adapters."""
    adapters = [_volume(_adapter(number), image) for number, image in settings.adapter_images]
    return [_volume(VOLUME, reference(storage_uri)), *adapters]


def mounts(settings: ModelSpec) -> list[dict[str, Any]]:
    """Return where the server's container has them; nowhere with another placement."""
    if settings.placement != "imageVolume":
        return []
    adapters = [_mount(_adapter(number), adapter_mount(number)) for number, _ in settings.adapter_images]
    return [_mount(VOLUME, IMAGE_PATH), *adapters]


def model_image(pod: Mapping[str, Any]) -> str | None:
    """Return the image that a pod has its model from: of its modelcar, or of its volume."""
    spec = pod["spec"]
    for box in [*(spec.get("initContainers") or []), *spec["containers"]]:
        if box["name"] in {"modelcar", "modelcar-init"} and "image" in box:
            return str(box["image"])
    for volume in spec.get("volumes") or []:
        if volume["name"] == VOLUME and volume.get("image"):
            return str(volume["image"]["reference"])
    return None


def _adapter(number: int) -> str:
    return f"adapter-{number}"


def _mount(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "mountPath": path, "readOnly": True}


def _volume(name: str, image: pulumi.Input[str]) -> dict[str, Any]:
    return {"name": name, "image": {"reference": image, "pullPolicy": "IfNotPresent"}}
