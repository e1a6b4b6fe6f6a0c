"""What a preview finds out of a model beside its settings, and where a reviewer reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.cluster.placement import Found
from components.config.checks import without_effect
from components.config.models import load_stack
from components.stack import preflight
from modelcar import locking
from modelcar.errors import InputError
from modelcar.tiny_model import make_tiny_model
from tests.unit.test_components_settings import MINIMAL, as_text, load
from tests.unit.test_google_settings import CLUSTER, as_texts, dev


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights")
    locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    return tmp_path


def check(project: Path, outputs: dict[str, Any] | None = None, **settings: Any) -> preflight.CheckedStack:
    """Look at a stack; a setting that is None is left out. outputs: of its last run."""
    config = {**MINIMAL, "model": "tiny", "checkReachable": "false", **settings}
    told = {f"modelcar:{key}": as_text(value) for key, value in config.items() if value is not None}
    return preflight.check(load_stack(told, project), project, outputs)


BY_DAY = {"type": "cron", "timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *", "desiredReplicas": 1}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"egress": {"restrict": False, "allow": [{"cidr": "10.0.0.0/8"}]}}, "egress.allow"),
        ({"gpu": "nvidia-l4"}, "gpu"),
        ({"mirrorsInsecure": True}, "mirrorsInsecure"),
        ({"kserve": {"modelcarCpu": "1"}}, "kserve.modelcarCpu"),
        (
            {
                "minReplicas": 0,
                "maxReplicas": 2,
                "autoscaling": {"fallbackReplicas": 1, "triggers": [BY_DAY]},
            },
            "autoscaling.fallbackReplicas",
        ),
    ],
)
def test_a_setting_without_effect_is_told(project: Path, settings: dict[str, Any], key: str) -> None:
    [doubt] = check(project, **settings).doubts
    assert doubt.startswith(f"modelcar:{key} has no effect w")


def test_settings_of_google_without_effect_are_told() -> None:
    google: dict[str, Any] = {
        "project": "my-project",
        "region": "europe-west4",
        "repository": {"name": "m", "existing": True, "untaggedDays": 7, "vulnerabilityScanning": False},
        "cluster": {"name": "c", "releaseChannel": "RAPID"},
        "nodes": {"gpu": "nvidia-l4", "machineType": "g2-standard-8"},
    }
    told = [doubt.split()[0] for doubt in without_effect.doubts(load(google=google, registry=None))]
    assert told == [
        "modelcar:google.cluster.releaseChannel",
        "modelcar:google.repository.untaggedDays",
        "modelcar:google.repository.vulnerabilityScanning",
    ]


def test_a_length_beyond_the_models_is_refused_or_told(project: Path) -> None:
    longer = {"vllm": {"maxModelLen": "4k"}}
    with pytest.raises(InputError, match="4000, more than the model was made for"):
        check(project, **longer)
    [doubt] = check(project, **longer, serverEnv=["VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"]).doubts
    assert doubt.startswith("qwen-oci: modelcar:vllm.maxModelLen: 4000 tokens")
    assert check(project).doubts == ()


def test_folders_that_arguments_name_are_looked_for_in_the_lock(project: Path) -> None:
    with pytest.raises(InputError, match=r"the model's lock has no draft/config\.json"):
        check(project, serverArgs=["--spec-model", "/mnt/models/draft"])


def test_a_deployed_service_is_not_renamed_by_its_model(project: Path) -> None:
    before = {"serviceName": "qwen-oci"}
    with pytest.raises(InputError) as caught:
        check(project, before, serviceName=None)
    [found] = caught.value.problems
    assert found.key == "modelcar:serviceName"
    assert "the model's name makes it tiny, and the deployed service is qwen-oci" in found.value
    assert found.fix == "pulumi config set modelcar:serviceName qwen-oci"


@pytest.mark.parametrize(
    ("outputs", "settings"),
    [
        ({}, {"serviceName": None}),
        ({"serviceName": "tiny"}, {"serviceName": None}),
        ({"serviceName": "qwen-oci"}, {"serviceName": "tiny"}),
        ({"serviceName": "qwen-oci"}, {"serviceName": None, "model": None, "models": [{"name": "tiny"}]}),
    ],
    ids=["new", "as before", "said", "listed"],
)
def test_a_service_is_renamed_where_the_stack_says_so(
    project: Path, outputs: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert check(project, outputs, **settings).stack.shared.service_name == "tiny"


def test_a_placement_is_not_tested_before_the_registry_of_this_stack_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def find(*_: Any, **arguments: Any) -> Found:
        told.append(arguments)
        return Found("servingRuntime")

    monkeypatch.setattr(preflight, "require_adopted", lambda *_: None)
    monkeypatch.setattr("components.stack.preflight.placement.find", find)
    place = {CLUSTER + "create": None, CLUSTER + "name": "shared"}
    config = dev(**place, model="tiny", vllm=None, placement="auto", kserve={"install": False})
    stack = load_stack(as_texts(config), project)
    for outputs in ({}, {"registry": stack.shared.registry}):
        checked = preflight.check(stack, project, outputs)
        assert checked.stack.shared.placement == "servingRuntime"
    assert [arguments["registry"] for arguments in told] == [False, True]
