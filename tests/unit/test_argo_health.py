"""Argo CD's health check of an InferenceService: what it says of statuses that KServe 0.19 wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml

from components.manifests.argo_health import FILE, HEALTH, KEY, patch
from components.manifests.gitops import HEADER, Folder, changes, folders, write
from tests.unit.test_operations_gitops import project, stack, told

__all__ = ["project"]  # the fixture

STOPPED = {"type": "Stopped", "status": "False", "severity": "Info"}
INGRESS = {"type": "IngressReady", "status": "True"}
WAITING = {
    "status": "False",
    "reason": "MinimumReplicasUnavailable",
    "message": "Deployment does not have minimum availability.",
}
SERVED = {
    "conditions": [
        INGRESS,
        {"type": "PredictorReady", "status": "True", "reason": "NewReplicaSetAvailable"},
        {"type": "Ready", "status": "True"},
        STOPPED,
    ],
    "modelStatus": {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded"}},
}
ROLLING = {
    "conditions": [INGRESS, {"type": "PredictorReady", **WAITING}, {"type": "Ready", **WAITING}, STOPPED],
    "modelStatus": {"transitionStatus": "InProgress", "states": {"targetModelState": "Pending"}},
}


def service(status: Any, replicas: int = 1) -> dict[str, Any]:
    annotations = {"serving.kserve.io/autoscalerClass": "none"}
    spec = {"predictor": {"minReplicas": replicas, "model": {"runtime": "m"}}}
    return {"metadata": {"name": "m", "annotations": annotations}, "spec": spec, "status": status}


def scaled(status: Any, replicas: int = 0) -> dict[str, Any]:
    """A model whose number of pods KEDA keeps."""
    found = service(status, replicas)
    found["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] = "external"
    return found


#: What KServe 0.19 says of a Deployment of no pod that is as declared.
EMPTY = {**SERVED, "modelStatus": ROLLING["modelStatus"]}


def failed() -> dict[str, Any]:
    model = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no GPU"}}
    return {**ROLLING, "modelStatus": model}


@pytest.mark.parametrize(
    ("found", "status", "message"),
    [
        (service(SERVED), "Healthy", "it serves"),
        (service(ROLLING), "Progressing", "MinimumReplicasUnavailable: Deployment does not have"),
        (service(ROLLING, replicas=0), "Healthy", "idle, as declared: it keeps no pod"),
        (scaled(EMPTY), "Healthy", "no pod now: its autoscaler keeps none"),
        (scaled(ROLLING), "Progressing", "MinimumReplicasUnavailable: Deployment does not have"),
        (scaled(EMPTY, replicas=1), "Progressing", "InProgress: not ready yet"),
        (scaled(SERVED), "Healthy", "it serves"),
        (service(failed()), "Degraded", "BlockedByFailedLoad: no GPU"),
        (service({**SERVED, "conditions": [{**STOPPED, "status": "True"}]}), "Suspended", "stopped"),
        (service({}), "Progressing", "KServe has not reported on it yet"),
        (service(None), "Progressing", "KServe has not reported on it yet"),
    ],
    ids=[
        "served",
        "rolling",
        "idle",
        "scaled to none",
        "scaled from none",
        "scaled, and never to none",
        "scaled and served",
        "failed",
        "stopped",
        "new",
        "without a status",
    ],
)
def test_what_argo_cd_says(found: dict[str, Any], status: str, message: str) -> None:
    lua: Any = lupa.LuaRuntime(unpack_returned_tuples=False)
    lua.globals().obj = lua.table_from(found, recursive=True)
    said = lua.execute(HEALTH)
    assert said["status"] == status
    assert message in said["message"]


def test_the_patch_holds_the_check_under_argo_cds_key_and_nothing_else() -> None:
    text = patch("argo")
    assert yaml.safe_load(text) == {"data": {KEY: HEALTH}}
    assert f"kubectl -n argo patch configmap argocd-cm --patch-file {FILE}" in text


def test_it_lies_beside_the_application_of_a_stack_in_standard_mode(project: Path, tmp_path: Path) -> None:
    settings = told(folder=str(tmp_path / "apps/qwen"), path="apps/qwen", namespace="argo")
    *_, beside = folders(stack(), project, settings)
    assert set(beside.files) == {"kserve-demo.yaml", FILE}
    write(beside)
    text = (beside.path / FILE).read_text()
    assert text == HEADER + patch("argo")
    assert list(changes(beside)) == []
    *_, beside = folders(stack(deploymentMode="Knative"), project, settings)
    assert set(beside.files) == {"kserve-demo.yaml"}


def test_the_applications_of_other_stacks_stay(project: Path, tmp_path: Path) -> None:
    """They lie in one folder where stacks write to folders beside each other."""
    one = told(folder=str(tmp_path / "apps/one"), path="apps/one")
    other = told(folder=str(tmp_path / "apps/other"), path="apps/other")
    for settings, namespace in ((one, "one"), (other, "other")):
        write(folders(stack(namespace=namespace), project, settings)[-1])
    names = {"one.yaml", "other.yaml", FILE}
    assert {path.name for path in (tmp_path / "apps/argocd").iterdir()} == names
    [moved] = write(folders(stack(namespace="new"), project, one)[-1])
    assert (moved.path.name, moved.what) == ("one.yaml", "changed"), "Argo CD knows it by that name"


def test_a_folder_of_one_stack_is_that_stacks_alone(tmp_path: Path) -> None:
    write(Folder(tmp_path, {"a.yaml": {"kind": "A"}}))
    [gone] = write(Folder(tmp_path, {}))
    assert (gone.path.name, gone.what) == ("a.yaml", "removed")
