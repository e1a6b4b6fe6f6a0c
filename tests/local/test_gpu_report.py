"""`make gpu-report` without a GPU: its way works, so that it does on a machine with one."""

from __future__ import annotations

import json

import pytest

from components.config.model_path import MODEL_PATH
from components.manifests.read_ahead import SAID
from tests.conftest import Platform

pytestmark = pytest.mark.timeout(1500)


def test_a_small_model_goes_the_whole_way_beside_a_bare_server(platform: Platform) -> None:
    checkout = platform.checkout
    before = {path.name: path.read_bytes() for path in checkout.folder.glob("Pulumi*.yaml")}
    arguments = "--cpu --skip up,validate,runbook,smoke --minutes 20 --out told"
    said = checkout.make("gpu-report", ARGS=arguments).stdout
    found = json.loads((checkout.folder / "told" / "gpu-report.json").read_text())
    steps = found["steps"]
    unfit = {
        "up",
        "validate",
        "runbook",
        "smoke",
        "two-gpus",
        "two-gpus-kernels",
        "filled-card",
        "small/saved",
        "small/kernels 1",
        "small/all 1",
    }
    assert {name for name, step in steps.items() if step["state"] != "passed"} == unfit, said

    pod, bare = steps["small/pod 1"]["found"], steps["small/bare 1"]["found"]
    assert pod["firstToken"] > pod["ready"] >= pod["health"] > 0
    assert bare["firstToken"] > bare["health"] > 0
    assert bare["limited"] is pod["pageCacheDropped"] is True
    for run in (pod, bare):
        assert [rate["streams"] for rate in run["rates"]] == [1, 4]
        assert all(rate["tokensPerSecond"] > 0 for rate in run["rates"])
    for one in steps["small/in turn"]["found"]["turns"]:
        assert len(one["pod"]) == len(one["bare"]) == 2
        assert min(*one["pod"], *one["bare"]) > 0
    assert steps["small/pushed"]["found"]["digest"] in steps["small/served"]["found"]["image"]
    logs = [path.read_text() for path in (checkout.folder / ".local/gpu-report/logs").glob("small-*-*.log")]
    assert any(SAID.format(folder=MODEL_PATH) in log for log in logs), "of the pod of `ahead 1`"
    assert {kind: len(each) for kind, each in steps["imports"]["found"]["seconds"].items()} == {
        "cold": 1,
        "ahead": 1,
        "warm": 1,
        "weights": 1,
        "ahead, weights": 1,
    }
    said_of_gpus = "\n".join(steps["too-many-gpus"]["found"]["said"])
    assert "the pod asks for 1 GPU (nvidia.com/gpu), and no node offers any" in said_of_gpus
    assert "fix: " in said_of_gpus

    assert "says nothing of a GPU" in (checkout.folder / "told" / "gpu-report.md").read_text()
    assert "gpu-report-" not in platform.kubectl("get", "namespaces")
    assert {path.name: path.read_bytes() for path in checkout.folder.glob("Pulumi*.yaml")} == before
