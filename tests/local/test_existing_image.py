"""`modelcar:image` on the real cluster: images as others build them are served, or fail as a preview says."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from components.manifests.service import predictor
from local import ask
from modelcar.existing_image import UnfitError, faults, look
from modelcar.registry import Registry, Target
from tests import made_images as made
from tests.conftest import Platform
from tests.engine.conftest import STUB_SERVER, Project, project
from tests.local.conftest import SECONDS
from tests.unit.test_components_settings import load

__all__ = ["project"]

#: Settings of the engine's stack that stand in for a model server.
STAND_INS = ("serverCommand", "serverArgs", "serverEnv", "serverHostPaths", "cpu", "memory", "sharedMemory")
USER = 1010


def target(platform: Platform, name: str) -> Target:
    return made.elsewhere(str(platform.settings["registry"]), name)


@pytest.fixture(scope="module")
def busybox(platform: Platform) -> made.MadeLayer:
    return made.base_of(platform.server_image)


def test_the_runbooks_own_image_is_served_and_answers(project: Project, busybox: made.MadeLayer) -> None:
    # modelcar/cloudbuild.yaml's predecessor: FROM busybox, COPY data/ /models/, a gzipped layer.
    image = made.image([busybox, made.folder_layer(project.weights)], {"Cmd": ["ls", "-lR", "/models"]})
    reference = image.push(target(project.platform, f"runbook-{project.namespace}"), "v1")
    own = dict.fromkeys(STAND_INS) | {"model": None, "image": reference, "startTimeoutSeconds": 600}
    project.configure(**own)
    outputs = project.up()
    assert outputs["storageUri"] == f"oci://{reference}"
    api = ask.core_api(project.platform.kubeconfig, None)
    pod = ask.served_pod(api, project.namespace, "tiny")
    answer = ask.ask(f"http://{pod.address}:{pod.port}", outputs["servedModelName"])
    assert answer.text
    assert pod.sidecars == {"modelcar": reference}
    assert project.preview() == []


def model(**options: Any) -> made.MadeLayer:
    return made.layer(made.MODEL, **options)


def images(busybox: made.MadeLayer) -> dict[str, made.Made]:
    """Return images by what is special about them."""
    script = {"entry.sh": b'#!/bin/sh\nexec "$@"\n'}
    wrapper = made.layer(script, mode=0o755, created_by="COPY entry.sh / # buildkit")
    hub = {"models/": None, "hub/config.json": b"{}", "models/config.json": "/hub/config.json"}
    relative = {"models/": None, "hub/config.json": b"{}", "models/config.json": "../hub/config.json"}

    raw = made.MadeLayer(b"w", NOTHING, CNCF + ".weight.v1.raw")
    names = {"type": "layers", "diff_ids": [busybox.diff_id, model().diff_id]}

    def of(*layers: made.MadeLayer, **run: Any) -> made.Made:
        return made.image([busybox, *layers], run or None)

    return {
        "plain": of(model()),
        "zstd": of(model(packed="zstd")),
        "tar": of(model(packed="none")),
        "index": made.index((of(model()), "amd64")),
        "cmd": of(model(), Cmd=["python3", "serve.py"], User="65532"),
        "wrapper": of(wrapper, model(), Entrypoint=["/entry.sh"]),
        "group-root": of(model(mode=0o640)),
        "relative-link": of(made.layer(relative)),
        "volume": of(model(), Volumes={"/models": {}}),
        "entrypoint": of(model(), Entrypoint=["/bin/cat"]),
        "sh-c": of(model(), Entrypoint=["/bin/sh", "-c"]),
        "no-shell": made.image([model()]),
        "no-models": of(made.layer({"data/config.json": b"{}"}, created_by="COPY data /data")),
        "empty-models": of(made.layer({"models/": None})),
        "no-config": of(made.layer({"models/": None, "models/model.safetensors": b"w"})),
        "deeper": of(made.layer({"models/": None, "models/tiny/config.json": b"{}"})),
        "absolute-link": of(made.layer(hub)),
        "closed-file": of(model(mode=0o600)),
        "closed-folder": of(model(folder_mode=0o700)),
        "other-config-type": made.image([busybox, model()], config_type=CNCF + ".config.v1+json"),
        "other-layer-type": of(replace(model(), media_type=CNCF + ".weight.v1.tar")),
        "layer-beside": made.image([busybox, model(), raw], rootfs=names),
        "raw-layer": of(raw),
        "no-configuration": made.image([busybox, model()], rootfs={}),
        "damaged": made.image([busybox, model()], rootfs={"type": "layers", "diff_ids": [NOTHING]}),
        "arm64": made.image([busybox, model()], architecture="arm64"),
    }


#: CNCF ModelPack's media types: https://github.com/modelpack/model-spec
CNCF = "application/vnd.cncf.model"
NOTHING = "sha256:" + "1" * 64
#: These are refused though this node runs them: their configuration says another processor, the programs not.
WRONGLY_LABELLED = frozenset({"arm64"})


@pytest.mark.extended
def test_what_is_refused_fails_and_nothing_else(
    platform: Platform, namespace: str, busybox: made.MadeLayer
) -> None:
    said: dict[str, list[str]] = {}
    for name, image in images(busybox).items():
        reference = image.push(target(platform, name))
        said[name] = refusals(platform, name, image)
        serve(platform, namespace, name, reference)
    serving, seen = watch(platform, namespace, set(said))
    inside = ("exec", "deploy/volume-predictor", "-c", "modelcar", "--", "cat", "/proc/mounts")
    mounts = platform.kubectl("-n", namespace, *inside)
    assert " /models " in mounts, "a copy of the image's own files"
    for name in sorted(said):
        print(f"{name:14} {'served' if name in serving else 'NOT'}  {seen.get(name)}  said {said[name]}")
    refused = {name for name, why in said.items() if why} - WRONGLY_LABELLED
    # Nobody can know what a script does with its arguments: entrypointRunsArguments is for it.
    assert refused - {"wrapper"} == set(said) - serving - WRONGLY_LABELLED
    assert "wrapper" in refused & serving
    assert {"no-config", "deeper"} <= serving, "a server of one's own may read any files"


@pytest.fixture
def namespace(platform: Platform) -> Iterator[str]:
    name = f"others-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", name)
    yield name
    platform.kubectl("delete", "namespace", name, "--wait=false")


def refusals(platform: Platform, name: str, image: made.Made) -> list[str]:
    with Registry(target(platform, name)) as registry:
        try:
            found = look(registry, image.digest, str(platform.settings["architecture"]))
        except UnfitError as error:
            return [error.fault.found]
    assert found
    # `serve` takes runtime custom: what is served is what the program's own wait, and the nodes, let through.
    return [fault.found for fault in faults(found, USER, needs_config=False)]


def serve(platform: Platform, namespace: str, name: str, reference: str) -> None:
    """Serve an image by a server that waits for the model, and is then ready."""
    settings = load(
        namespace=namespace,
        serviceName=name,
        gpuCount=0,
        cpu="10m",
        memory="16Mi",
        sharedMemory="1Mi",
        serverImage=platform.server_image,
        serverCommand=STUB_SERVER,
        placement="storageUriEnv",
        runtime="custom",
    )
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "none",
            },
        },
        "spec": {"predictor": predictor(settings, f"oci://{reference}")},
    }
    platform.kubectl("apply", "-f", "-", text=json.dumps(service))


def watch(platform: Platform, namespace: str, names: set[str]) -> tuple[set[str], dict[str, str]]:
    """Return which are served before patience ends, and of each what its containers say.

    What serves makes room for others: two processors are too few for all. `volume` stays, to be looked into.
    """
    serving: set[str] = set()
    seen: dict[str, str] = {}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and serving != names:
        time.sleep(2)
        for pod in json.loads(platform.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]:
            name = pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]
            if name in serving:
                continue
            rows = pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
            seen[name] = "; ".join(f"{row['name']} {told(row)}" for row in rows)
            if rows and all(row["ready"] for row in rows):
                serving.add(name)
                end = time.monotonic() + SECONDS
                if name != "volume":
                    platform.kubectl("-n", namespace, "delete", "inferenceservice", name, "--wait=false")
    return serving, seen


def told(row: dict[str, Any]) -> str:
    [(kind, state)] = row["state"].items()
    last = (row.get("lastState") or {}).get("terminated") or state
    why = " ".join(str(last.get(key, "")) for key in ("reason", "exitCode", "message")).strip()
    return f"{kind} {state.get('reason', '')} x{row['restartCount']} ({why[:160]})"
