"""Which driver a node gets and which one a server needs: what is certain is refused, the rest is told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components.config import gpus
from components.config.checks import drivers
from components.config.google import NodeSettings
from components.config.models import load_stack
from components.config.stack import Stack
from components.google.adopted_cluster import require_adopted
from components.stack import summary
from components.stack.preflight import CheckedStack, node_doubts
from modelcar.errors import InputError, Problem
from tests.unit.test_google_settings import CLUSTER, NODES, as_texts, dev, stack_config

NOWHERE = Path("/nowhere")
VLLM = "docker.io/vllm/vllm-openai"
DIGEST = "@sha256:" + "0" * 64
ADOPTED = {CLUSTER + "create": False, CLUSTER + "name": "shared"}


def stack(**changes: Any) -> Stack:
    return load_stack(as_texts(dev(**changes)), NOWHERE)


def doubts(adopted: str | None, **changes: Any) -> tuple[str, ...]:
    found = stack(**changes)
    return node_doubts(found, {model.key: 0.0 for model in found.models}, adopted)


def problems(adopted: str | None, **changes: Any) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        doubts(adopted, **changes)
    return caught.value.problems


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        (f"{VLLM}:v0.23.0{DIGEST}", 13),
        (f"europe-west4-docker.pkg.dev/my-project/copies/vllm-openai:v0.23.0{DIGEST}", 13),
        (f"{VLLM}:v0.20.0", 13),
        (f"{VLLM}:v0.31.2{DIGEST}", 13),
        (f"{VLLM}:v0.19.1{DIGEST}", 12),
        (f"{VLLM}:v0.19.1-cu130{DIGEST}", 13),
        (f"{VLLM}:v0.23.0-cu129{DIGEST}", 12),
        (f"{VLLM}:nightly{DIGEST}", None),
        (f"{VLLM}{DIGEST}", None),
        (f"docker.io/lmsysorg/sglang:v0.23.0{DIGEST}", None),
    ],
)
def test_what_a_server_image_has_follows_from_its_tag(image: str, cuda: int | None) -> None:
    assert drivers.cuda_of(image) == cuda


#: GPU, version, DEFAULT, LATEST.
INSTALLED = [
    (gpus.L4, "1.31.14-gke.2613000", 535, 580),
    (gpus.L4, "1.33.13-gke.1499000", 535, 580),
    (gpus.L4, "1.34.0-gke.1662000", None, 580),
    (gpus.L4, "1.34.1-gke.2037002", 580, 580),
    (gpus.L4, "1.34.9-gke.1322001", 580, 580),
    (gpus.L4, "1.36.3-gke.1640000", 580, 580),
    (gpus.L4, "1.40.0-gke.1", 580, 580),
    (gpus.H200, "1.33.13-gke.1499000", None, 580),
    (gpus.H200, "1.34.9-gke.1322001", 580, 580),
    (gpus.L4, "1.30.14-gke.1", None, None),
    (gpus.L4, "latest", None, None),
]


@pytest.mark.parametrize(("gpu", "version", "default", "latest"), INSTALLED)
def test_what_gke_installs(gpu: str, version: str, default: int | None, latest: int | None) -> None:
    for driver, expected in (("DEFAULT", default), ("LATEST", latest)):
        nodes = NodeSettings.model_validate({"gpu": gpu, "machineType": "x", "driver": driver})
        assert drivers.installed(nodes, version) == expected


def test_a_node_image_has_what_a_later_one_has_or_less() -> None:
    known = [image.since for image in drivers.NODE_IMAGES]
    assert known == sorted(known, reverse=True), "the newest first"
    assert all(image.latest >= (image.default or 0) for image in drivers.NODE_IMAGES)


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_committed_stacks_get_a_driver_that_their_server_runs_on(name: str) -> None:
    [model] = load_stack(as_texts(stack_config(name)), NOWHERE).models
    assert model.google
    version = drivers.made_with(model.google)
    assert version
    assert drivers.needed(model) == 580
    assert drivers.installed(model.google.nodes, version) == 580
    assert not list(drivers.doubts(model, model.google.nodes, version))


def test_an_older_cluster_with_the_default_driver_is_refused_with_the_way_out() -> None:
    [found] = problems("1.33.5-gke.1162000", **ADOPTED)
    assert found.key == "modelcar:google.nodes.driver"
    assert "DEFAULT, which is R535 on GKE 1.33.5-gke.1162000" in found.value
    assert "vllm-openai:v0.23.0 has CUDA 13, which needs a driver of R580" in found.value
    assert found.allowed == "a driver of R580 or newer (nodes.driver LATEST)"
    assert "LATEST" in found.fix
    assert "1.34" in found.fix


def test_the_version_is_that_of_the_cluster_which_is_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(master_version="1.33.5-gke.1162000")
    monkeypatch.setattr("pulumi_gcp.container.get_cluster", lambda **_: found)
    [adopted] = stack(**ADOPTED).models
    [created] = stack().models
    assert adopted.google
    assert created.google
    assert require_adopted(adopted.google) == "1.33.5-gke.1162000"
    assert require_adopted(created.google) is None


@pytest.mark.parametrize(
    ("adopted", "changes"),
    [
        ("1.33.5-gke.1162000", {NODES + "driver": "LATEST"}),
        ("1.34.9-gke.1322001", {}),
        ("1.33.5-gke.1162000", {"serverImage": f"{VLLM}:v0.19.1{DIGEST}"}),
        ("1.33.5-gke.1162000", {"serverImage": f"{VLLM}:v0.23.0-cu129{DIGEST}"}),
        ("1.33.5-gke.1162000", {"serverImage": f"registry.example.org/ours{DIGEST}"}),
        ("1.33.5-gke.1162000", {"runtime": "custom", "vllm": None}),
        (None, {NODES + "driver": "LATEST"}),
        (None, {"serverImage": f"{VLLM}:v0.19.1{DIGEST}"}),
    ],
)
def test_where_the_driver_is_right_or_the_image_unknown_nothing_is_said(
    adopted: str | None, changes: dict[str, Any]
) -> None:
    assert doubts(adopted, **ADOPTED, **changes) == ()


def test_what_is_not_certain_is_told_and_stops_nothing() -> None:
    reference = {CLUSTER + key: None for key in ("create", "name", "location")}
    [unknown] = doubts(None, **reference, **{CLUSTER + "stackReference": "org/clusters/dev"})
    assert "R535 before 1.34" in unknown
    assert "driver to LATEST" in unknown
    [extended] = doubts(None, **{CLUSTER + "releaseChannel": "EXTENDED"})
    assert extended == unknown, "a cluster may stay there on an old version"
    [own] = doubts("1.33.5-gke.1162000", **ADOPTED, serverEnv=["VLLM_ENABLE_CUDA_COMPATIBILITY=1"])
    assert "the nodes have R535" in own
    assert "not tried here" in own
    h200 = {
        **{NODES + "gpu": "nvidia-h200-141gb", NODES + "machineType": "a3-ultragpu-8g"},
        **{NODES + "gpusPerNode": 8, NODES + "zones": ["europe-west4-b"]},
    }
    [newer] = doubts("1.33.5-gke.1162000", **ADOPTED, **h200)
    assert "GKE 1.33.5-gke.1162000 may be older" in newer


def test_each_pool_is_held_against_the_models_that_land_on_it() -> None:
    wide = {"name": "wide", "gpu": "nvidia-l4", "gpusPerNode": 2, "machineType": "g2-standard-24"}
    models = [
        {"name": "small", "serverImage": f"{VLLM}:v0.19.1{DIGEST}"},
        {"name": "large", "gpuCount": 2},
    ]
    config = {"google.pools": [wide], "models": models, "model": None, "serviceName": None}
    [found] = problems("1.33.5-gke.1162000", **ADOPTED, **config)
    assert found.key == "modelcar:google.pools[0].driver"
    assert "pool wide" in found.fix


def test_machines_that_a_cluster_is_too_old_for() -> None:
    rtx = {NODES + "gpu": "nvidia-rtx-pro-6000", NODES + "machineType": "g4-standard-48"}
    [found] = problems("1.33.5-gke.1162000", **ADOPTED, **rtx, **{NODES + "driver": "LATEST"})
    assert found.key == "modelcar:google.nodes.gpu"
    assert "1.34.0-gke.1662000 or newer" in found.allowed
    assert doubts("1.34.9-gke.1322001", **ADOPTED, **rtx) == ()


def test_a_model_that_is_larger_than_its_gpus_is_told() -> None:
    [model] = stack().models
    assert model.google
    [told] = drivers.too_large(model, model.google.nodes, 65e9)
    assert "65 GB of weights" in told
    assert "1 x nvidia-l4 with 24 GB" in told
    assert not list(drivers.too_large(model, model.google.nodes, 15e9))


def test_doubts_are_at_the_head_of_a_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    monkeypatch.setattr(pulumi.log, "info", said.append)
    monkeypatch.setattr("components.stack.summary.pools", lambda _: ())
    monkeypatch.setattr("components.stack.summary.made_anew", lambda *_: ())
    found = stack()
    none = dict.fromkeys(model.key for model in found.models)
    asyncio.run(summary.tell(CheckedStack(found, none, none, {}, doubts=("the driver may be older",)), {}))
    assert said[0] == "the driver may be older"
    assert re.match("model +digest", said[1])
