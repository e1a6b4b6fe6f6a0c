"""KServe's platform, the right to pull and the model's size: what is declared, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components import kserve_platform
from components.kserve_platform import KServePlatform, KServePlatformArgs, KServeSettings, ModelcarOffError
from components.model_service import ModelService, ModelServiceArgs
from components.model_size import model_bytes
from components.pull_access import PullAccess, PullAccessArgs
from modelcar.errors import InputError
from modelcar.tiny_model import make_tiny_model
from tests.unit.mocked_engine import DIGEST, Engine
from tests.unit.test_google_settings import NODES, dev, load

PASSWORD = "s3cret-of-the-registry"
URI = f"oci://registry.example/models/tiny@{DIGEST}"


@pytest.fixture
def up() -> Engine:
    return Engine(preview=False)


# --- KServe


def declare_kserve(engine: Engine, mode: Any = "Standard", **settings: Any) -> None:
    def program() -> dict[str, pulumi.Output[Any]]:
        arguments = KServePlatformArgs(KServeSettings.model_validate(settings), mode)
        return {"version": KServePlatform("kserve", arguments).version}

    engine.run(program)


def releases(engine: Engine) -> dict[str, Any]:
    return {found.inputs["name"]: found for found in engine.declared if found.type.endswith(":Release")}


def test_kserve_comes_with_modelcar_on_and_after_what_it_needs(up: Engine) -> None:
    declare_kserve(up, modelcarMemory="20Mi")
    found = releases(up)
    assert set(found) == {"cert-manager", "kserve-crd", "kserve"}
    storage = found["kserve"].inputs["values"]["kserve"]["storage"]
    assert storage == {
        "enableModelcar": True,
        "uidModelcar": 1010,
        "cpuModelcar": "10m",
        "memoryModelcar": "20Mi",
    }
    assert {found["cert-manager"].urn, found["kserve-crd"].urn} <= set(found["kserve"].dependencies)
    versions = {name: release.inputs["version"] for name, release in found.items()}
    assert versions == {"cert-manager": "v1.17.0", "kserve-crd": "v0.19.0", "kserve": "v0.19.0"}


@pytest.mark.parametrize(("mode", "closed"), [("Standard", True), ("Knative", False)])
def test_a_model_gets_no_ingress_by_itself_in_standard_mode(up: Engine, mode: str, closed: bool) -> None:
    declare_kserve(up, mode)
    controller = releases(up)["kserve"].inputs["values"]["kserve"]["controller"]
    assert controller["deploymentMode"] == mode
    assert controller["gateway"]["disableIngressCreation"] is closed


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"storageInitializer": "{}"},
        {"storageInitializer": "not JSON"},
        {"storageInitializer": '{"enableModelcar": false}'},
        {"storageInitializer": '{"enableModelcar": "true"}'},
        {"storageInitializer": "[]"},
    ],
)
def test_a_kserve_with_modelcar_off_is_refused(data: dict[str, str] | None) -> None:
    with pytest.raises(
        ModelcarOffError, match=r"(?s)enableModelcar.*allowed: true.*fix: .*enableModelcar=true"
    ):
        kserve_platform.require_modelcar(data)


def test_a_kserve_with_modelcar_on_is_fine() -> None:
    kserve_platform.require_modelcar({"storageInitializer": '{"enableModelcar": true, "image": "x"}'})


# --- the right to pull


def declare_access(engine: Engine, **settings: Any) -> None:
    loaded = load(dev(registry="registry.example/models", **settings))

    def program() -> dict[str, pulumi.Output[Any]]:
        access = PullAccess("pull-access", PullAccessArgs.of(loaded))
        service = ModelService("svc", ModelServiceArgs(URI, loaded, access.service_account))
        return {"account": access.service_account, "name": service.name}

    engine.run(program)


def test_an_existing_secret_is_carried_by_the_pods_account(up: Engine) -> None:
    declare_access(up, pullSecret="my-registry")
    account = up.the("ServiceAccount").inputs
    assert account["imagePullSecrets"] == [{"name": "my-registry"}]
    assert account["automountServiceAccountToken"] is False
    predictor = up.the("InferenceService").inputs["spec"]["predictor"]
    assert predictor["serviceAccountName"] == account["metadata"]["name"]
    assert not [found for found in up.declared if found.type.endswith(":Secret")]


def test_credentials_become_a_pull_secret_and_stay_secret(up: Engine) -> None:
    declare_access(up, registryUsername="robot", registryPassword=PASSWORD)
    secret = up.the("Secret").inputs
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    content = secret["data"]
    content = content.get("value", content) if pulumi.runtime.rpc.is_rpc_secret(content) else content
    [text] = content.values()
    text = text["value"] if isinstance(text, dict) else text
    auth = json.loads(base64.b64decode(text))["auths"]["registry.example"]["auth"]
    assert base64.b64decode(auth).decode() == f"robot:{PASSWORD}"
    assert up.the("ServiceAccount").inputs["imagePullSecrets"][0]["name"] == secret["metadata"]["name"]
    others = [found.inputs for found in up.declared if not found.type.endswith(":Secret")]
    assert PASSWORD not in repr(others)
    assert "[secret]" not in repr(others)


def test_a_service_on_google_needs_no_account_of_its_own() -> None:
    assert not load(dev()).needs_pull_access


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"registryUsername": "robot"}, "registryPassword"),
        ({"registryPassword": PASSWORD}, "registryUsername"),
        ({"registryUsername": "robot", "registryPassword": PASSWORD, "pullSecret": "x"}, "pullSecret"),
        ({"pullSecret": "My_Secret"}, "pullSecret"),
    ],
)
def test_half_of_the_credentials_is_refused_and_none_is_shown(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        load(dev(**changes))
    assert f"modelcar:{key}" in {problem.key for problem in caught.value.problems}
    assert PASSWORD not in str(caught.value)


# --- the model's size


def sized(project: Path, **changes: Any) -> int:
    return model_bytes(load(dev(weights=str(project / "weights"), **changes)), project)


def test_the_weights_tell_their_size(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "weights")
    total = sum(file.stat().st_size for file in (tmp_path / "weights").iterdir())
    assert sized(tmp_path, modelSize=None) == total
    assert sized(tmp_path) == total, "the setting is for machines without the weights"


def test_weights_larger_than_said_are_refused(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "weights")
    with pytest.raises(InputError, match=r"modelcar:modelSize: 1Mi, and .* has 0\.00 GiB"):
        sized(tmp_path, modelSize="1Mi")


def test_missing_weights_are_refused_outside_of_a_preview(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        sized(tmp_path)


def test_a_disk_too_small_for_the_weights_on_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(tmp_path / "weights")
    monkeypatch.setattr("components.google.disk.GB", 1000**2 / 50)  # the tiny model counts as 200 GB
    with pytest.raises(InputError, match=r"(?s)google\.nodes\.diskGb: 300.*at least \d{3,4}.*computed then"):
        sized(tmp_path, **{NODES + "diskGb": 300, "modelSize": None})
