"""The two components as the engine gets them: inputs, outputs and relations, in a preview and in an up."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import pytest

from components.cluster import failures, rollout
from components.config import arguments
from components.config.settings import Settings
from components.config.signature import SignatureSettings
from components.engine.options import OWNED
from components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from components.kserve.model_service import ModelService, ModelServiceArgs
from components.kserve.shared_runtime import SharedRuntime
from components.manifests.service import REVISION
from components.stack import translate
from modelcar import fetching, locking, oci_names
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.lock import FolderSource, HubSource, Lock, LockedFile, LockedLayer
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT
from tests.unit.mocked_engine import DIGEST, OUTPUTS, UNKNOWN, Engine

REGISTRY = "registry.example:5000/models"
STORAGE_URI = f"oci://{REGISTRY}/tiny@{DIGEST}"
#: What the docker-build provider (0.0.22) shows for an image that a preview has still to build.
NOT_BUILT = ""

PLACEMENTS = ["servingRuntime", "storageUriEnv", "storageUris"]


@pytest.fixture(params=[True, False], ids=["preview", "up"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(preview=request.param)


@pytest.fixture
def up() -> Engine:
    return Engine(preview=False)


# --- the image --------------------------------------------------------------------------------------

CONFIG = LockedFile("config.json", 100, "1" * 64)
SHARD = LockedFile("model.safetensors", 20_000_000, "2" * 64)


def make_lock(weights: str = "3", **changes: Any) -> Lock:
    lock = Lock(
        "tiny",
        HubSource("Qwen/Qwen2.5-0.5B", "c" * 40),
        "Apache-2.0",
        "none",
        (CONFIG, SHARD),
        (
            LockedLayer("sha256:" + weights * 64, 20_002_048, "sha256:" + weights * 64, (SHARD.path,)),
            LockedLayer("sha256:" + "4" * 64, 3072, "sha256:" + "4" * 64, (CONFIG.path,)),
        ),
    )
    return dataclasses.replace(lock, **changes)


LOCK = make_lock()
BASE = read_base("amd64")
PLANNED = modelcar_image(LOCK, BASE).digest


def image_args(**changes: Any) -> ModelcarImageArgs:
    return dataclasses.replace(
        ModelcarImageArgs(lock=LOCK, base=BASE, registry=REGISTRY, name="tiny"), **changes
    )


def declare_image(engine: Engine, digest: str | None = None, **changes: Any) -> dict[str, Any]:
    """Declare an image; the provider pushes what was planned, unless told otherwise."""
    args = image_args(**changes)
    made = args.resolved()
    planned = modelcar_image(made.lock, made.base).digest if made.lock else None

    def program() -> dict[str, pulumi.Output[Any]]:
        image = ModelcarImage("tiny-image", args)
        names = ("digest", "storage_uri", "reference", "lock_digest", "size_bytes")
        return {name: getattr(image, name) for name in names}

    return engine.run(program, planned if digest is None else digest)


def exported(engine: Engine) -> dict[str, str]:
    """Return the options of the image's one export."""
    [export] = engine.the("Image").inputs["exports"]
    return dict(option.split("=", 1) for option in next(csv.reader([export["raw"]])))


def test_image_is_a_child_of_its_component(engine: Engine) -> None:
    declare_image(engine)
    component, image = engine.declared
    assert component.type == "modelcar:kserve:ModelcarImage"
    assert component.urn.endswith("::tiny-image")
    assert image.type == "docker-build:index:Image"
    assert image.parent == component.urn
    assert image.urn.endswith("modelcar:kserve:ModelcarImage$docker-build:index:Image::tiny-image")


def test_weights_enter_as_a_layout_of_the_planned_digest(engine: Engine) -> None:
    outputs = declare_image(engine)
    assert engine.the("Image").inputs["context"] == {
        "location": "-",
        "named": {"weights": {"location": f"oci-layout://modelcar/data/tiny.oci@{PLANNED}"}},
    }
    assert outputs["lock_digest"] == LOCK.digest
    assert outputs["size_bytes"] == 20_000_100


def test_digest_is_known_before_the_build_and_the_same_after_it(engine: Engine) -> None:
    outputs = declare_image(engine)
    assert outputs["digest"] == PLANNED
    assert outputs["storage_uri"] == f"oci://{REGISTRY}/tiny@{PLANNED}"
    assert outputs["reference"] == f"{REGISTRY}/tiny:{PLANNED[7:23]}"


def test_preview_does_not_ask_the_provider_for_the_digest() -> None:
    """The provider (0.0.22) shows that of an image to be updated as the known empty string."""
    assert declare_image(Engine(preview=True), digest=NOT_BUILT)["digest"] == PLANNED


@pytest.mark.parametrize("pushed", [NOT_BUILT, DIGEST, "latest"])
def test_up_that_pushed_another_digest_fails(up: Engine, pushed: str) -> None:
    with pytest.raises(ValueError, match=rf"pushed {pushed!r}, and the lock says '{PLANNED}'; nothing was"):
        declare_image(up, digest=pushed)


def test_image_is_pushed_by_its_export_and_never_compressed(engine: Engine) -> None:
    outputs = declare_image(engine)
    options = exported(engine)
    assert {name: value for name, value in options.items() if not name.startswith("annotation.")} == {
        "type": "image",
        "push": "true",
        "compression": "uncompressed",
        "oci-mediatypes": "true",
        "name": outputs["reference"],
    }
    assert engine.the("Image").inputs["push"] is False, "a second push would be the provider's own, with gzip"


def test_annotations_say_where_the_model_is_from(engine: Engine) -> None:
    declare_image(engine, lock=make_lock(license='odd, "quoted"'))
    options = exported(engine)
    assert options["annotation.org.opencontainers.image.source"] == "https://huggingface.co/Qwen/Qwen2.5-0.5B"
    assert options["annotation.org.opencontainers.image.revision"] == "c" * 40
    assert options["annotation.org.opencontainers.image.licenses"] == 'odd, "quoted"'
    assert options["annotation.io.modelcar.lock.digest"].startswith("sha256:")


def test_build_is_the_same_each_time_and_not_made_for_a_preview(engine: Engine) -> None:
    declare_image(engine)
    inputs = engine.the("Image").inputs
    assert inputs["buildArgs"] == {"SOURCE_DATE_EPOCH": "0"}
    assert inputs["buildOnPreview"] is False


def test_insecure_registry_is_said_to_the_exporter_alone(up: Engine) -> None:
    secure = declare_image(up)
    assert "registry.insecure" not in exported(up)
    assert declare_image(up, insecure=True) == secure, "the image is the same"
    assert exported(up)["registry.insecure"] == "true"


def test_builder_is_the_default_one_where_none_is_named(up: Engine) -> None:
    declare_image(up)
    assert "builder" not in up.the("Image").inputs
    declare_image(up, builder="mine")
    assert up.the("Image").inputs["builder"] == {"name": "mine"}


def test_nothing_of_a_checkout_is_an_input(up: Engine, tmp_path: Path) -> None:
    inputs = []
    for name, mode in (("one", 0o644), ("other", 0o664)):
        file = tmp_path / name / "modelcar/Dockerfile"
        file.parent.mkdir(parents=True)
        file.write_text(f"FROM {name}")
        file.chmod(mode)
        declare_image(up, project=tmp_path / name)
        inputs.append(up.the("Image").inputs)
    (tmp_path / "none").mkdir()
    declare_image(up, project=tmp_path / "none")
    assert inputs == [up.the("Image").inputs] * 2
    assert inputs[0]["context"]["location"] == "-", "the provider hashes mode and content of a folder's files"
    assert not list((tmp_path / "none").iterdir()), "a project that uses the package is left alone"


def test_the_build_is_that_of_the_dockerfile_for_other_builders(up: Engine) -> None:
    declare_image(up)
    written = (PROJECT / "modelcar/Dockerfile").read_text().splitlines()
    said = [line for line in written if not line.startswith("#")]
    assert said == ["ARG WEIGHTS=weights", "FROM ${WEIGHTS}"]
    assert up.the("Image").inputs["dockerfile"] == {"inline": "FROM weights\n"}


def test_whatever_the_image_is_made_of_gives_it_another_tag(up: Engine) -> None:
    locks = [LOCK, make_lock("5"), make_lock(license="MIT"), make_lock(source=FolderSource("weights"))]
    tags = [declare_image(up, lock=lock)["reference"] for lock in locks]
    tags.append(declare_image(up, base=read_base("arm64"))["reference"])
    assert len(set(tags)) == 5
    assert all(re.fullmatch(rf"{REGISTRY}/tiny:[0-9a-f]{{16}}", tag) for tag in tags)


def test_weights_are_fetched_when_the_image_is_made_or_changed_and_not_for_a_preview(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # this machine's builder is another matter
    folder = make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder=str(folder))
    lock, _ = locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    layout = locking.layout_path(tmp_path, "tiny")
    shutil.rmtree(layout)
    declare_image(engine, lock=lock, project=tmp_path)
    image = engine.the("Image")
    assert not layout.exists(), "nothing is fetched before the engine asks for it"
    if engine.preview:
        assert (image.before_create, image.before_update, engine.hooks) == ((), (), {})
        return
    assert image.before_create == image.before_update == ("fetch-tiny-image",)
    assert set(engine.hooks) == {"fetch-tiny-image", "attach-tiny-image", "failed-tiny-image"}
    fetch: Any = engine.hooks["fetch-tiny-image"]
    asyncio.run(fetch(None))
    assert fetching.is_complete(modelcar_image(lock, BASE), layout)
    (folder / "config.json").write_text("{}")
    asyncio.run(fetch(None))  # all is there: the folder is not looked at


def test_images_of_one_lock_for_several_processors_leave_each_other_alone(
    up: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # this machine's builder is another matter
    description = locking.Description(folder=str(make_tiny_model(tmp_path / "weights")))
    lock, _ = locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    bases = {name: read_base(name) for name in ("amd64", "arm64")}
    own: dict[str, Any] = {"lock": lock, "registry": REGISTRY, "project": tmp_path}

    def program() -> dict[str, pulumi.Output[Any]]:
        for name, base in [*bases.items(), ("again", bases["amd64"])]:  # a stack names the base alone
            ModelcarImage(name, ModelcarImageArgs(**own, name=name, base=base))
        return {}

    pushed = "components.image.modelcar_image._pushed"  # the mocks push one digest for all of them
    monkeypatch.setattr(pushed, lambda image, planned, *_: image.urn.apply(lambda _: planned.digest))
    up.run(program)
    contexts = {
        one.urn.rpartition(":")[2]: one.inputs["context"]["named"]["weights"]["location"]
        for one in up.declared
        if one.type == "docker-build:index:Image"
    }
    digests = {name: modelcar_image(lock, base).digest for name, base in bases.items()}
    assert contexts == {
        "amd64": f"oci-layout://modelcar/data/tiny.oci@{digests['amd64']}",
        "arm64": f"oci-layout://modelcar/data/2/tiny.oci@{digests['arm64']}",
        "again": f"oci-layout://modelcar/data/tiny.oci@{digests['amd64']}",
    }
    for name in contexts:
        fetch: Any = up.hooks[f"fetch-{name}"]
        asyncio.run(fetch(None))
    for name, base in bases.items():
        path = tmp_path / contexts[name].removeprefix("oci-layout://").partition("@")[0]
        assert fetching.is_complete(modelcar_image(lock, base), path), f"{name} is there after the others"


@pytest.mark.parametrize("signed", [False, True])
def test_a_bill_of_materials_comes_with_the_signature_where_there_is_one(
    up: Engine, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[Any] = []
    beside: list[Any] = []
    monkeypatch.setattr("components.image.image_delivery.attach", attached.append)
    monkeypatch.setattr(
        "components.image.image_delivery.have_signed",
        lambda _reference, _signature, lock, **_: beside.append(lock),
    )
    settings = SignatureSettings.model_validate({"publicKey": "gcpkms://x"}) if signed else None
    declare_image(up, signature=settings)
    hook: Any = up.hooks["attach-tiny-image"]
    asyncio.run(hook(None))
    assert bool(attached) is not signed
    assert [lock.name for lock in beside] == (["tiny"] if signed else [])


@pytest.mark.parametrize("end", ["attach", "failed"])
def test_so_many_images_are_built_at_once_as_the_stack_says(
    up: Engine, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.image.image_delivery.bring", lambda _: None)
    monkeypatch.setattr("components.image.image_delivery.attach", lambda _: None)

    async def build() -> list[bool]:
        builds = asyncio.Semaphore(1)
        hooks: list[dict[str, Any]] = []
        for _ in range(2):
            engine, args = Engine(preview=False), image_args(builds=builds)
            planned = modelcar_image(LOCK, BASE).digest

            def declare(args: ModelcarImageArgs = args) -> dict[str, Any]:
                ModelcarImage("image", args)
                return {}

            await asyncio.to_thread(engine.run, declare, planned)
            hooks.append(dict(engine.hooks))
        first, second = hooks
        await first["fetch-image"](None)
        waiting = asyncio.ensure_future(second["fetch-image"](None))
        await asyncio.sleep(0)
        before = waiting.done()
        await first[f"{end}-image"](None)
        await asyncio.wait_for(waiting, 10)
        await first[f"{end}-image"](None)  # told twice, it gives back one place only
        return [before, waiting.done(), builds.locked()]

    assert asyncio.run(build()) == [False, True, True]


def test_up_with_weights_that_are_not_what_was_locked_makes_no_image(up: Engine, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder=str(folder))
    lock, _ = locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    shutil.rmtree(locking.layout_path(tmp_path, "tiny"))
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        last = weights.read(1)[0]
        weights.seek(-1, 2)
        weights.write(bytes([last ^ 1]))
    declare_image(up, lock=lock, project=tmp_path)
    fetch: Any = up.hooks["fetch-tiny-image"]
    with pytest.raises(InputError, match=r"model\.safetensors: sha256 .*\n.*as the lock says"):
        asyncio.run(fetch(None))


def test_without_a_lock_a_preview_shows_what_it_can(placement: str) -> None:
    preview = Engine(preview=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        image = ModelcarImage("tiny-image", image_args(lock=None))
        service = ModelService("tiny", service_args(image.storage_uri, stack(placement=placement)))
        return {"name": service.name, "storage_uri": service.storage_uri, "digest": image.digest}

    assert preview.run(program) == {"name": "tiny", "storage_uri": UNKNOWN, "digest": UNKNOWN}
    assert "oci://" not in str(preview.the("InferenceService").inputs)


@pytest.mark.parametrize("digest", ["", "latest", "sha256:" + "b" * 63, "SHA256:" + "b" * 64, DIGEST + "\n"])
def test_storage_uri_is_by_digest_or_not_at_all(digest: str) -> None:
    with pytest.raises(ValueError, match="not a sha256 digest"):
        oci_names.storage_uri(REGISTRY, "tiny", digest)


# --- the service ------------------------------------------------------------------------------------


def stack(**changes: Any) -> Settings:
    values = {
        "registry": REGISTRY,
        "serverImage": f"docker.io/vllm/vllm-openai:v1@{DIGEST}",
        "model": "tiny",
        "namespace": "models",
    }
    return Settings.model_validate({**values, **changes})


def service_args(
    uri: pulumi.Input[str], settings: Settings, kubeconfig: str | None = None
) -> ModelServiceArgs:
    """Return what the program makes of a stack's settings."""
    made = pulumi.Output.from_input(kubeconfig) if kubeconfig else None
    asked = translate.access(settings, made)
    runtime = None
    if settings.shared_runtime:
        runtime = SharedRuntime(settings.shared_runtime, translate.shared_runtime(settings, asked))
    return translate.service(settings, uri, None, runtime, asked)


def declare_service(
    engine: Engine, uri: str = STORAGE_URI, kubeconfig: str | None = None, **changes: Any
) -> dict[str, Any]:
    def program() -> dict[str, pulumi.Output[Any]]:
        served = pulumi.Output.from_input(uri)
        service = ModelService("tiny-service", service_args(served, stack(**changes), kubeconfig))
        return {name: getattr(service, name) for name in ("name", "namespace", "storage_uri")}

    return engine.run(program)


def test_objects_that_are_there_are_imported_as_they_are() -> None:
    preview = Engine(preview=True)
    declare_service(preview, importObjects=["InferenceService", "ServingRuntime"])
    for kind in ("InferenceService", "ServingRuntime"):
        assert preview.the(kind).imported == "models/tiny"
        assert preview.the(kind).ignored == ("metadata", "spec")
    declare_service(preview, importObjects=["InferenceService"])
    assert preview.the("ServingRuntime").imported == ""


def test_what_is_served_by_somebody_elses_declaration_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other = f"oci://elsewhere/by-hand@{DIGEST}"
    container = {"env": [{"name": "STORAGE_URI", "value": other}]}
    cluster = mock.Mock()
    cluster.get.return_value = {"spec": {"predictor": {"containers": [container]}}}
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: cluster)
    up = Engine(preview=False)
    assert declare_service(up, importObjects=["InferenceService"])["storage_uri"] == other
    up.await_rolled_out.assert_not_called()
    cluster.get.return_value = None
    assert declare_service(up, importObjects=["InferenceService"])["storage_uri"] == STORAGE_URI


def predictor(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.the("InferenceService").inputs["spec"]["predictor"]
    return found


def annotated(engine: Engine) -> dict[str, str]:
    found: dict[str, str] = engine.the("InferenceService").inputs["metadata"]["annotations"]
    return found


def pod(engine: Engine) -> dict[str, Any]:
    """Return the part of the resources that says what the pod is, wherever the placement puts it."""
    runtimes = [resource for resource in engine.declared if resource.type.endswith(":ServingRuntime")]
    found: dict[str, Any] = runtimes[0].inputs["spec"] if runtimes else predictor(engine)
    return found


def server(engine: Engine) -> dict[str, Any]:
    [container] = pod(engine)["containers"]
    assert container["name"] == "kserve-container"
    return dict(container)


def variables(engine: Engine) -> dict[str, str]:
    entries = server(engine)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry["value"] for entry in entries}


@pytest.fixture(params=PLACEMENTS)
def placement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def uses_of(value: Any, wanted: str, path: str = "") -> list[str]:
    """Return where a text stands in a document."""
    if isinstance(value, dict):
        return [place for key, inner in value.items() for place in uses_of(inner, wanted, f"{path}.{key}")]
    if isinstance(value, list):
        return [place for i, inner in enumerate(value) for place in uses_of(inner, wanted, f"{path}.{i}")]
    return [path.removeprefix(".")] if wanted in str(value) else []


def test_uri_of_a_runtimes_service_is_its_models(engine: Engine) -> None:
    declare_service(engine)
    spec = engine.the("InferenceService").inputs["spec"]
    assert uses_of(spec, "oci://") == ["predictor.model.storageUri"]
    model = predictor(engine)["model"]
    assert model["storageUri"] == STORAGE_URI
    assert model["runtime"] == "tiny"
    assert "containers" not in predictor(engine), "KServe 0.19 refuses a model beside a container"
    runtime = engine.the("ServingRuntime").inputs
    assert uses_of(runtime, "oci://") == []
    assert runtime["metadata"]["name"] == "tiny"
    [supported] = runtime["spec"]["supportedModelFormats"]
    assert {"name": supported["name"], "version": supported["version"]} == model["modelFormat"]
    assert supported["autoSelect"] is False, "no other service takes the runtime by chance"


def test_uri_may_be_an_environment_variable(engine: Engine) -> None:
    declare_service(engine, placement="storageUriEnv", serverEnv=["A=b"])
    assert len(uses_of(engine.the("InferenceService").inputs, "oci://")) == 1
    assert variables(engine)["STORAGE_URI"] == STORAGE_URI
    assert variables(engine)["A"] == "b"
    assert "model" not in predictor(engine)


def test_uri_may_be_one_of_the_predictors(engine: Engine) -> None:
    declare_service(engine, placement="storageUris")
    assert len(uses_of(engine.the("InferenceService").inputs, "oci://")) == 1
    assert predictor(engine)["storageUris"] == [{"uri": STORAGE_URI, "mountPath": "/mnt/models"}]
    assert "STORAGE_URI" not in variables(engine)
    assert "model" not in predictor(engine)


def test_a_runtime_is_declared_where_the_placement_needs_one_and_first(engine: Engine) -> None:
    declare_service(engine)
    assert [resource.type.split(":")[-1] for resource in engine.declared] == [
        "ModelService",
        "ServingRuntime",
        "InferenceService",
    ]
    assert engine.the("ServingRuntime").urn in engine.the("InferenceService").dependencies
    for placement in ("storageUriEnv", "storageUris"):
        declare_service(engine, placement=placement)
        assert [resource.type.split(":")[-1] for resource in engine.declared] == [
            "ModelService",
            "InferenceService",
        ]


def test_resources_are_children_of_the_component(engine: Engine, placement: str) -> None:
    declare_service(engine, placement=placement)
    component, *children = engine.declared
    assert component.type == "modelcar:kserve:ModelService"
    assert component.urn.endswith("::tiny-service")
    assert children
    for child in children:
        assert child.parent == component.urn
        assert "modelcar:kserve:ModelService$kubernetes:serving.kserve.io/" in child.urn
        assert child.inputs["metadata"]["namespace"] == "models"
        assert child.inputs["metadata"]["labels"]["app.kubernetes.io/name"] == "tiny"
    service = engine.the("InferenceService").inputs
    assert service["metadata"]["name"] == "tiny"
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")


def test_outputs_are_known_in_a_preview_too(engine: Engine) -> None:
    assert declare_service(engine) == {"name": "tiny", "namespace": "models", "storage_uri": STORAGE_URI}


def test_requests_and_limits_are_both_set(engine: Engine, placement: str) -> None:
    declare_service(engine, placement=placement, cpu="2", memory="3Gi", gpuCount=0)
    expected = {"cpu": "2", "memory": "3Gi"}
    assert server(engine)["resources"] == {"requests": expected, "limits": expected}
    if placement == "servingRuntime":
        assert predictor(engine)["model"]["resources"] == {"requests": expected, "limits": expected}


def test_cpu_limit_may_be_wider_than_the_request(up: Engine) -> None:
    declare_service(up, cpu="100m", cpuLimit="2")
    resources = server(up)["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["cpu"]) == ("100m", "2")
    assert predictor(up)["model"]["resources"] == resources


def test_gpus_are_requested_limited_and_tolerated(up: Engine, placement: str) -> None:
    declare_service(up, placement=placement, gpuCount=1)
    for kind in ("requests", "limits"):
        assert server(up)["resources"][kind]["nvidia.com/gpu"] == "1"
        if placement == "servingRuntime":
            assert predictor(up)["model"]["resources"][kind]["nvidia.com/gpu"] == "1"
    assert predictor(up)["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_without_gpus_nothing_is_said_of_them(up: Engine, placement: str) -> None:
    declare_service(up, placement=placement, gpuCount=0)
    assert all("nvidia.com/gpu" not in str(resource.inputs) for resource in up.declared)
    assert "tolerations" not in predictor(up)


def test_server_never_asks_a_hub(up: Engine, placement: str) -> None:
    declare_service(up, placement=placement, serverEnv=["VLLM_LOGGING_LEVEL=DEBUG", "HF_HOME=/tmp/other"])
    found = variables(up)
    assert (found["HF_HUB_OFFLINE"], found["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert found["HF_HOME"] == "/tmp/other"


def test_server_has_a_user_name_which_no_image_gives_it(up: Engine, placement: str) -> None:
    """torch 2.11 cannot be imported without one: `getpwuid(): uid not found: 1010`."""
    declare_service(up, placement=placement)
    assert (variables(up)["USER"], variables(up)["LOGNAME"]) == ("model", "model")
    declare_service(up, placement=placement, serverEnv=["USER=mine"])  # as stacks did before
    assert (variables(up)["USER"], variables(up)["LOGNAME"]) == ("mine", "model")


def test_home_caches_and_shared_memory_can_be_written_to(up: Engine, placement: str) -> None:
    declare_service(up, placement=placement, sharedMemory="3Gi")
    mounts = {mount["mountPath"]: mount for mount in server(up)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(up)["volumes"]}
    assert set(mounts) == {"/tmp", "/dev/shm"}
    assert not any(mount.get("readOnly") for mount in mounts.values())
    assert volumes[mounts["/tmp"]["name"]]["emptyDir"] == {}
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "3Gi"}
    assert set(volumes) == {mount["name"] for mount in mounts.values()}
    found = variables(up)
    assert found["HOME"] == "/tmp"
    for name in (
        "HF_HOME",
        "XDG_CACHE_HOME",
        "VLLM_CACHE_ROOT",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
    ):
        assert Path(found[name]).is_relative_to("/tmp"), name


def test_hosts_folders_are_mounted_where_they_are_and_read_only(up: Engine, placement: str) -> None:
    paths = ["/opt/server", "/usr/lib/python"]
    declare_service(up, placement=placement, gpuCount=0, serverHostPaths=paths)
    volumes = {volume["name"]: volume for volume in pod(up)["volumes"]}
    mounts = [mount for mount in server(up)["volumeMounts"] if mount["mountPath"] in paths]
    assert len(mounts) == 2
    for mount in mounts:
        assert mount["readOnly"] is True
        assert volumes[mount["name"]]["hostPath"] == {"path": mount["mountPath"], "type": "Directory"}


def test_more_folders_can_be_written_to(up: Engine, placement: str) -> None:
    """What a server's image writes beside /tmp: FlashInfer in its own package, on Blackwell."""
    paths = ["/usr/lib/cubins/flashinfer", "/data"]
    declare_service(up, placement=placement, serverWritablePaths=paths)
    volumes = {volume["name"]: volume for volume in pod(up)["volumes"]}
    mounts = [mount for mount in server(up)["volumeMounts"] if mount["mountPath"] in paths]
    assert [mount["mountPath"] for mount in mounts] == paths
    for mount in mounts:
        assert "readOnly" not in mount
        assert volumes[mount["name"]]["emptyDir"] == {}
    assert server(up)["securityContext"]["readOnlyRootFilesystem"] is True


def test_server_runs_as_kserves_user_with_nothing_to_gain(up: Engine, placement: str) -> None:
    declare_service(up, placement=placement)
    assert server(up)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1010,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert predictor(up)["automountServiceAccountToken"] is False
    # Else a Service named `vllm` would set VLLM_PORT=tcp://… in the pod, and vLLM would end with it.
    assert predictor(up)["enableServiceLinks"] is False
    # For the containers that KServe injects: its init container would be root.
    assert predictor(up)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1010,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_knative_gets_no_security_context_of_the_pod_which_it_refuses(up: Engine) -> None:
    declare_service(up, deploymentMode="Knative")
    assert "securityContext" not in predictor(up)
    assert predictor(up)["enableServiceLinks"] is False
    assert server(up)["securityContext"]["runAsNonRoot"] is True


def test_server_gets_model_name_and_port_before_its_own_arguments(up: Engine, placement: str) -> None:
    declare_service(
        up,
        placement=placement,
        servedModelName="org/Tiny 1",
        serverPort=9000,
        serverCommand=["serve", "it"],
        serverArgs=["--max-model-len=16", "a b"],
    )
    found = server(up)
    assert found["image"] == f"docker.io/vllm/vllm-openai:v1@{DIGEST}"
    assert found["command"][:2] == ["sh", "-c"]
    assert found["command"][4:] == ["serve", "it"]
    assert found["args"] == [
        *("--model", "/mnt/models", "--served-model-name", "org/Tiny 1", "--port", "9000"),
        "--shutdown-timeout=300",
        *("--max-model-len=16", "a b"),
    ]
    [port] = found["ports"]
    assert port["containerPort"] == 9000
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/health", "port": 9000}


def test_server_starts_when_the_model_is_there_and_gets_its_arguments_untouched(
    up: Engine, tmp_path: Path
) -> None:
    """The container's own command line, run here with another folder for the model."""
    declare_service(up, serverCommand=["printf", "<%s>"], serverArgs=["a b", "$HOME", "`x`", "'\"", ""])
    model, tools = tmp_path / "models", tmp_path / "tools"
    tools.mkdir()
    # Each wait brings the sidecar's work one step further: the link, then the files.
    (tools / "sleep").write_text(
        f"#!/bin/sh\nif [ -d '{model}' ]; then echo {{}} > '{model}/params.json'; else mkdir '{model}'; fi\n"
    )
    (tools / "sleep").chmod(0o755)
    found = server(up)
    shell, option, script, *rest = found["command"]
    assert "/mnt/models/*" in script
    ran = subprocess.run(
        [shell, option, script.replace("/mnt/models", str(model)), *rest, *found["args"]],
        env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": "/root"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    *waiting, said = ran.stdout.splitlines()
    assert waiting == [f"waiting for {model}", f"{model} is there", "kernels: the image has none"]
    assert said == "".join(f"<{argument}>" for argument in found["args"])


def startup_seconds(engine: Engine) -> int:
    probe = server(engine)["startupProbe"]
    return int(probe["periodSeconds"] * probe["failureThreshold"])


def test_startup_may_take_as_long_as_the_setting_says(up: Engine, placement: str) -> None:
    for seconds in (10, 600, 1800):
        declare_service(up, placement=placement, startTimeoutSeconds=seconds)
        assert seconds <= startup_seconds(up) < seconds + 10


@pytest.mark.parametrize("seconds", [11, 1799])
def test_startup_may_take_as_long_as_an_odd_setting_says(up: Engine, seconds: int) -> None:
    declare_service(up, startTimeoutSeconds=seconds)
    assert seconds <= startup_seconds(up) < seconds + 10


def test_server_that_runs_is_left_alone_longer_than_one_that_is_asked(up: Engine) -> None:
    declare_service(up)
    ready, live = server(up)["readinessProbe"], server(up)["livenessProbe"]
    assert (
        ready["periodSeconds"] * ready["failureThreshold"] < live["periodSeconds"] * live["failureThreshold"]
    )
    assert live["failureThreshold"] >= 3, "one slow answer does not kill a server that took long to start"


@pytest.mark.parametrize(
    ("changes", "recreate"),
    [
        ({"gpuCount": 1}, True),
        ({"gpuCount": 8}, True),
        ({"gpuCount": 0}, False),
        ({"gpuCount": 1, "maxReplicas": 2}, False),
        ({"gpuCount": 1, "rollout": "RollingUpdate"}, False),
        ({"gpuCount": 0, "rollout": "Recreate"}, True),
        ({"gpuCount": 1, "maxReplicas": 2, "rollout": "Recreate"}, True),
        ({"gpuCount": 1, "deploymentMode": "Knative"}, False),
    ],
    ids=str,
)
def test_old_pod_goes_first_with_a_single_gpu_or_by_the_setting(
    up: Engine, changes: dict[str, Any], recreate: bool
) -> None:
    declare_service(up, **changes)
    expected = {"type": "Recreate"} if recreate else None  # KServe's own default is a rolling update
    assert predictor(up).get("deploymentStrategy") == expected


def test_rollout_is_the_predictors_whatever_the_placement(up: Engine, placement: str) -> None:
    declare_service(up, placement=placement, minReplicas=2, maxReplicas=3, rollout="Recreate")
    found = predictor(up)
    assert found["deploymentStrategy"] == {"type": "Recreate"}
    assert (found["minReplicas"], found["maxReplicas"]) == (2, 3)


def test_canary_gets_its_share(engine: Engine) -> None:
    declare_service(engine, deploymentMode="Knative", canaryTrafficPercent=10)
    assert predictor(engine)["canaryTrafficPercent"] == 10
    declare_service(engine, deploymentMode="Knative")
    assert "canaryTrafficPercent" not in predictor(engine)


@pytest.mark.parametrize(
    ("changes", "autoscaler"),
    [
        ({}, "none"),
        ({"minReplicas": 2, "maxReplicas": 2}, "none"),
        ({"maxReplicas": 2}, None),
        ({"deploymentMode": "Knative"}, None),
    ],
    ids=str,
)
def test_fixed_number_of_pods_has_no_autoscaler(
    up: Engine, changes: dict[str, Any], autoscaler: str | None
) -> None:
    declare_service(up, **changes)
    assert annotated(up).get("serving.kserve.io/autoscalerClass") == autoscaler
    # KServe 0.19 never gets to work on one that asks for Knative by name: its own webhook refuses that.
    told = None if "deploymentMode" in changes else "Standard"
    assert annotated(up).get("serving.kserve.io/deploymentMode") == told


@pytest.mark.parametrize(
    "changes", [{}, {"awaitReady": False}, {"idle": True}, {"deploymentMode": "Knative"}]
)
def test_the_provider_waits_for_nothing(engine: Engine, changes: dict[str, Any]) -> None:
    """It would wait for a generation that KServe never writes; and what pods are told is the same always."""
    declare_service(engine, **changes)
    told = {name: value for name, value in annotated(engine).items() if name.startswith("pulumi.com/")}
    assert told == {**OWNED, "pulumi.com/skipAwait": "true"}


def declared_revision(engine: Engine, uri: str = STORAGE_URI, **changes: Any) -> str | None:
    declare_service(engine, uri, **changes)
    return annotated(engine).get(REVISION)


def test_what_needs_no_new_pod_is_the_same_revision(engine: Engine) -> None:
    first = declared_revision(engine)
    assert first
    for changes in (
        {"maxReplicas": 3},
        {"idle": True},
        {"rollout": "Recreate"},
        {"awaitReady": False},
    ):
        assert declared_revision(engine, **changes) == first, changes


def test_what_needs_a_new_pod_is_another_revision(engine: Engine, placement: str) -> None:
    found = [
        declared_revision(engine, placement=placement),
        declared_revision(engine, STORAGE_URI[:-1] + "0", placement=placement),
        declared_revision(engine, placement=placement, serverArgs=["--other"]),
        declared_revision(engine, placement=placement, memory="7Gi"),
    ]
    assert None not in found
    assert len(set(found)) == len(found)


def test_a_canarys_share_is_no_revision(engine: Engine) -> None:
    """Knative would make a new one for each share, and the share would be that one's."""
    first = declared_revision(engine, deploymentMode="Knative", canaryTrafficPercent=10)
    assert first
    assert declared_revision(engine, deploymentMode="Knative", canaryTrafficPercent=50) == first
    assert declared_revision(engine, deploymentMode="Knative") == first


@pytest.mark.parametrize("changes", [{}, {"deploymentMode": "Knative"}, {"idle": True}])
def test_up_ends_when_the_pods_of_this_declaration_serve(engine: Engine, changes: dict[str, Any]) -> None:
    revision = declared_revision(engine, **changes)
    if engine.preview:
        assert not engine.await_rolled_out.called
        return
    [call] = engine.await_rolled_out.call_args_list
    settings, wanted, say = call.args
    assert (settings.service_name, wanted, say) == ("tiny", revision, pulumi.log.info)


def test_a_program_of_ones_own_is_told_arguments_and_a_stack_settings(
    up: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = failures.cause("World size (4) is larger than the number of available GPUs (2)")
    assert known
    log = "its log ends:\n  pulled registry.example.com/modelcar:v1, maxModelLen 5, modelcar:gpuCount"
    said = f"models/tiny does not serve: awaitReady\n{rollout.told(known)}\n{log}"
    up.await_rolled_out.side_effect = pulumi.RunError(said)
    with pytest.raises(pulumi.RunError, match="set modelcar:gpuCount to 4, or lower modelcar:vllm"):
        declare_service(up)
    monkeypatch.setattr(arguments, "spelled", str)
    with pytest.raises(pulumi.RunError) as caught:
        declare_service(up)
    assert "set resources.gpus to 4, or lower server.tensor_parallel_size" in str(caught.value)
    assert "(times pipeline_parallel_size) to 2" in str(caught.value)
    assert str(caught.value).endswith(log)


def test_pods_that_never_serve_fail_up(up: Engine) -> None:
    up.await_rolled_out.side_effect = pulumi.RunError("models/tiny does not serve what was applied")
    with pytest.raises(pulumi.RunError, match="does not serve what was applied"):
        declare_service(up)


@pytest.mark.parametrize(
    "changes",
    [{"awaitReady": False}, {"deploymentMode": "Knative", "idle": True}],
    ids=str,
)
def test_pods_are_not_waited_for_where_none_are_expected(up: Engine, changes: dict[str, Any]) -> None:
    declare_service(up, **changes)
    assert not up.await_rolled_out.called


def test_the_cluster_of_the_stack_is_asked(up: Engine) -> None:
    declare_service(up, kubeconfig="kind: Config")
    [call] = up.await_rolled_out.call_args_list
    assert call.args[0].kubeconfig == "kind: Config"


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_, **__: told.append(text))
    return told


LEFT_OUT = "left out of this run (--target, --exclude): as the last one made it"


def test_a_service_that_a_run_leaves_out_is_not_waited_for(up: Engine, warned: list[str]) -> None:
    """By `--target` the engine answers with what its state has."""
    former = {"metadata": {"annotations": {"modelcar/revision": "former"}}}
    with mock.patch.dict(OUTPUTS, {"kubernetes:serving.kserve.io/v1beta1:InferenceService": former}):
        declare_service(up)
    assert not up.await_rolled_out.called
    assert [line for line in warned if LEFT_OUT in line] == [f"tiny-service: {LEFT_OUT}"]


def test_an_image_that_a_run_leaves_out_is_the_former_one(up: Engine, warned: list[str]) -> None:
    former = {"context": {"location": "-", "named": {"weights": {"location": "oci-layout://former"}}}}
    digest = f"sha256:{'0' * 64}"
    with mock.patch.dict(OUTPUTS, {"docker-build:index:Image": former}):
        assert declare_image(up, digest=digest)["digest"] == digest
    assert [line for line in warned if LEFT_OUT in line] == [f"tiny-image: {LEFT_OUT}"]
