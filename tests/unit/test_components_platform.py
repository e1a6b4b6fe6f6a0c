"""KServe's platform, the right to pull and the model's lock: what is declared, and what is refused."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import pytest

from components.cluster.guard import ClusterAccess
from components.config.models import load_stack
from components.image.model_lock import model_lock
from components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from components.kserve.model_service import ModelService
from components.kserve.pull_access import PullAccess
from components.stack import translate
from components.stack.preflight import node_disks, sizes
from modelcar import locking
from modelcar.errors import InputError
from modelcar.tiny_model import make_tiny_model
from tests.unit.mocked_engine import DIGEST, Engine
from tests.unit.test_google_settings import NODES, as_texts, dev, load

PASSWORD = "s3cret-of-the-registry"
URI = f"oci://registry.example/models/tiny@{DIGEST}"


@pytest.fixture
def up() -> Engine:
    return Engine(preview=False)


# --- KServe


def declare_kserve(engine: Engine, mode: Any = "Standard", **settings: Any) -> None:
    def program() -> dict[str, pulumi.Output[Any]]:
        arguments = KServePlatformArgs(mode=mode, **settings)
        return {"version": KServePlatform("kserve", arguments).version}

    engine.run(program)


def releases(engine: Engine) -> dict[str, Any]:
    return {found.inputs["name"]: found for found in engine.declared if found.type.endswith(":Release")}


def test_kserve_comes_with_modelcar_on_and_after_what_it_needs(up: Engine) -> None:
    declare_kserve(up, modelcar_memory="20Mi")
    found = releases(up)
    assert set(found) == {"cert-manager", "kserve-crd", "kserve"}
    storage = found["kserve"].inputs["values"]["kserve"]["storage"]
    assert storage == {
        "enableModelcar": True,
        "uidModelcar": 1010,
        "cpuModelcar": "100m",
        "memoryModelcar": "20Mi",
    }
    assert {found["cert-manager"].urn, found["kserve-crd"].urn} <= set(found["kserve"].dependencies)
    versions = {name: release.inputs["version"] for name, release in found.items()}
    assert versions == {"cert-manager": "v1.21.2", "kserve-crd": "v0.19.0", "kserve": "v0.19.0"}


def test_a_cluster_that_has_cert_manager_gets_no_second_one(up: Engine) -> None:
    declare_kserve(up, install_cert_manager=False)
    assert set(releases(up)) == {"kserve-crd", "kserve"}
    spaces = [found.inputs["metadata"]["name"] for found in up.declared if found.type.endswith(":Namespace")]
    assert spaces == ["kserve"]


def test_somebody_is_asked_for_both_namespaces_before_they_are_made(up: Engine) -> None:
    declare_kserve(up)
    spaces = [found for found in up.declared if found.type.endswith(":Namespace")]
    assert [found.before_create for found in spaces] == [(), ()], "nobody is asked"
    up = Engine(preview=False)
    declare_kserve(up, access=ClusterAccess())
    spaces = [found for found in up.declared if found.type.endswith(":Namespace")]
    assert {found.inputs["metadata"]["name"]: found.before_create for found in spaces} == {
        "kserve": ("absent-KServeNamespace-kserve-namespace-kserve",),
        "cert-manager": ("absent-CertManagerNamespace-kserve-namespace-cert-manager",),
    }


def test_namespaces_that_helm_made_are_taken_over(up: Engine) -> None:
    """As versions before 0.3.0 left it to the charts."""
    settings = load(dev(importExisting=["KServeNamespaces"], kserve={"install": True}))
    arguments = translate.platform(settings, ClusterAccess(), unread=False)
    assert list(arguments.imports) == ["Namespace"]
    declare_kserve(up, imports=arguments.imports)
    spaces = [found for found in up.declared if found.type.endswith(":Namespace")]
    assert {found.imported: found.ignored for found in spaces} == dict.fromkeys(
        ("kserve", "cert-manager"), ("metadata", "spec")
    )


def test_a_cluster_without_a_way_out_has_copies_of_charts_and_images(up: Engine) -> None:
    copies = {"chart_repository": "/charts", "cert_manager_repository": "oci://mirror.example/charts"}
    declare_kserve(up, image_registry="mirror.example/copies", **copies)
    found = releases(up)
    charts = {name: release.inputs["chart"] for name, release in found.items()}
    assert charts == {
        "cert-manager": "oci://mirror.example/charts/cert-manager",
        "kserve-crd": "/charts/kserve-crd",
        "kserve": "/charts/kserve-resources",
    }
    assert "repositoryOpts" not in found["cert-manager"].inputs
    images = json.dumps([release.inputs.get("values") for release in found.values()])
    for name in ("kserve/kserve-controller", "brancz/kube-rbac-proxy:v0.18.0", "kserve/storage-initializer"):
        assert f'"mirror.example/copies/{name}"' in images
    for part in ("controller", "webhook", "cainjector", "acmesolver", "startupapicheck"):
        assert f'"mirror.example/copies/jetstack/cert-manager-{part}"' in images


@pytest.mark.parametrize(("mode", "closed"), [("Standard", True), ("Knative", False)])
def test_a_model_gets_no_ingress_by_itself_in_standard_mode(up: Engine, mode: str, closed: bool) -> None:
    declare_kserve(up, mode)
    controller = releases(up)["kserve"].inputs["values"]["kserve"]["controller"]
    assert controller["deploymentMode"] == mode
    assert controller["gateway"]["disableIngressCreation"] is closed


def test_a_preview_without_network_lets_no_chart_be_downloaded() -> None:
    """The provider reads the chart of a release of which all is known."""
    for preview, expected in ((True, True), (False, False)):
        engine = Engine(preview=preview)

        def program() -> dict[str, pulumi.Output[Any]]:
            arguments = KServePlatformArgs(unread=True)
            return {"version": KServePlatform("kserve", arguments).version}

        engine.run(program)
        told = [found.inputs.get("description") is not None for found in releases(engine).values()]
        assert told == [expected] * 3


# --- the right to pull


def declare_access(engine: Engine, **settings: Any) -> None:
    loaded = load(dev(registry="registry.example/models", **settings))

    def program() -> dict[str, pulumi.Output[Any]]:
        access = PullAccess("pull-access", translate.pull_access(loaded))
        asked = translate.access(loaded, None)
        service = ModelService("svc", translate.service(loaded, URI, access.service_account, None, asked))
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


@pytest.mark.parametrize("name", ["registry.redhat.io", "a.b-c.d", "x", "regcred"])
def test_a_secret_may_be_called_as_kubernetes_allows(up: Engine, name: str) -> None:
    declare_access(up, pullSecret=name)
    assert up.the("ServiceAccount").inputs["imagePullSecrets"] == [{"name": name}]


@pytest.mark.parametrize("name", ["Registry.io", "a..b", ".a", "a.", "a_b", "-a", "a.-b", "x" * 254, "a/b"])
def test_another_name_of_a_secret_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"modelcar:pullSecret: .*\n.*letters, digits, '-' and '\.'"):
        load(dev(pullSecret=name))


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


# --- the model's lock


def locked(project: Path, *, preview: bool = False, **changes: Any) -> int:
    """Return the size that the lock of a stack says; 0 where there is none."""
    with mock.patch("pulumi.runtime.is_dry_run", return_value=preview):
        found = model_lock(load(dev(model="tiny", vllm=None, **changes)), project)
    return found.total_size if found else 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a locked model, whose weights are there and were not packed on this machine."""
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights")
    locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    shutil.rmtree(locking.layout_path(tmp_path, "tiny"))
    return tmp_path


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the program warns of."""
    found: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", found.append)
    return found


def test_the_lock_tells_the_size_without_the_weights(project: Path, warned: list[str]) -> None:
    total = sum(file.stat().st_size for file in (project / "weights").iterdir())
    shutil.rmtree(project / "weights")
    assert locked(project) == locked(project, preview=True) == total
    assert warned == []


def test_without_a_lock_only_a_preview_goes_on(tmp_path: Path, warned: list[str]) -> None:
    assert locked(tmp_path, preview=True) == 0
    [warning] = warned
    assert "no lock yet" in warning
    assert "python -m modelcar lock tiny" in warning
    with pytest.raises(InputError, match=r"modelcar:model: tiny: .*is not there(?s:.*)modelcar lock tiny"):
        locked(tmp_path)


def test_a_lock_edited_by_hand_is_refused_in_a_preview_too(project: Path) -> None:
    path = project / "modelcar/models/tiny/model.lock"
    path.write_text(path.read_text().replace("totalSize: 4", "totalSize: 5"))
    with pytest.raises(InputError, match="totalSize"):
        locked(project, preview=True)


def test_files_that_changed_since_are_told_and_not_delivered(project: Path, warned: list[str]) -> None:
    with (project / "weights/config.json").open("a") as file:
        file.write("\n")
    assert locked(project) > 0
    assert "config.json changed since tiny was locked" in warned[0]


def test_a_disk_too_small_for_the_locked_model_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.config.disk.GB", 1000**2 / 50)  # the tiny model counts as 200 GB
    stack = load_stack(as_texts(dev(model="tiny", vllm=None, **{NODES + "diskGb": 300})), project)
    locks = {stack.shared.key: model_lock(stack.shared, project)}
    with pytest.raises(InputError, match=r"(?s)google\.nodes\.diskGb: 300.*at least \d{3,4}.*computed then"):
        node_disks(stack, sizes(locks, {}))
