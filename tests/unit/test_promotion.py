"""Promotion from one stack to another: what `up` takes from where, what a preview says, what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.config.signature import SignatureSettings
from components.config.stack import Stack
from components.image import image_delivery
from components.image.delivery_plan import Delivery
from components.stack import promotion, summary
from components.stack.preflight import CheckedStack
from modelcar import fetching, hub, locking, mirror_blob, mirrors, signing
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.lock import LAYOUTS, Lock
from modelcar.manifest import MANIFEST_TYPE, Image, sha256_digest, to_json
from modelcar.sbom import SBOM_TYPE
from modelcar.signing import Trust
from modelcar.tiny_model import make_tiny_model
from tests import hub_server
from tests.registry_server import Answer, ReadFault, serve
from tests.registry_server import Registry as Server
from tests.unit.test_components_models import load
from tests.unit.test_components_settings import load as load_one
from tests.unit.test_components_settings import problems
from tests.unit.test_outputs import MODEL, OUTPUTS

BASE = read_base("amd64")
REPOSITORY = "org/tiny"
LAYOUT = LAYOUTS / "tiny.oci"
TAR = "application/vnd.oci.image.layer.v1.tar"
DEV = "acme/modelcar/dev"
PROD = "acme/modelcar/prod"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(mirrors, "WAITS", (0.0,))
    monkeypatch.setattr(mirrors, "STALL", 2.0)
    monkeypatch.setattr(mirrors, "PATIENCE", 0.1)
    monkeypatch.setattr(mirror_blob, "PIECE", 100_000)
    monkeypatch.setattr(hub, "WAITS", ())


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, warnings marked."""
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    monkeypatch.setattr(pulumi.log, "warn", lambda line: lines.append(f"warning: {line}"))
    return lines


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hub_server.Content]:
    folder = make_tiny_model(tmp_path_factory.mktemp("hub") / "tiny")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def the_hub(files: dict[str, hub_server.Content]) -> Iterator[hub_server.Hub]:
    with hub_server.serve({REPOSITORY: files}) as running:
        yield running


@pytest.fixture
def registry() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def blobs() -> dict[str, bytes]:
    """Filled by `lock` with the image's layers."""
    return {}


@pytest.fixture
def lock(the_hub: hub_server.Hub, tmp_path: Path, blobs: dict[str, bytes]) -> Lock:
    """Of a model from the hub, none of which is on this machine any more."""
    description = locking.Description(hub=REPOSITORY)
    resolved = locking.resolve(description, tmp_path, endpoint=the_hub.url)
    found, _ = locking.lock_model("tiny", description, resolved, tmp_path, large_file=10**6)
    fetching.fetch(found, BASE, tmp_path, tmp_path / LAYOUT)
    for layer in modelcar_image(found, BASE).layers:
        blobs[layer.digest] = (tmp_path / LAYOUT / "blobs" / layer.digest.replace(":", "/")).read_bytes()
    shutil.rmtree(tmp_path / LAYOUT)
    the_hub.requests.clear()
    return found


@pytest.fixture
def image(lock: Lock) -> Image:
    return modelcar_image(lock, BASE)


@pytest.fixture
def delivery(
    lock: Lock,
    image: Image,
    tmp_path: Path,
    registry: Server,
    the_hub: hub_server.Hub,
    blobs: dict[str, bytes],
) -> Delivery:
    """Into prod/tiny, with dev/tiny of the same registry as mirror."""
    registry.own["dev/tiny"] = dict(blobs)
    return Delivery(
        image,
        lock,
        BASE,
        LAYOUT,
        tmp_path,
        f"{registry.host}/prod",
        "tiny",
        insecure=True,
        hub_endpoint=the_hub.url,
        mirrors=(f"{registry.host}/dev/tiny",),
    )


def origins(log: list[str]) -> dict[str, str]:
    """Return the told origin of each layer, by the first characters of its digest."""
    [table] = [line for line in log if ": its layers\n" in line]
    rows = (line.split(maxsplit=3) for line in table.splitlines()[1:])
    return {digest: told.partition(": ")[0] for digest, _, _, told in rows}


# --- what `up` does ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mounts", [True, False])
def test_up_needs_no_hub_where_a_mirror_has_all(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, image: Image, log: list[str], mounts: bool
) -> None:
    registry.mounts = mounts
    image_delivery.bring(delivery)
    assert the_hub.requests == []
    assert {layer.digest for layer in image.layers} == set(registry.blobs)
    how = "mounted" if mounts else "copied"
    assert origins(log) == {
        layer.digest[:19]: f"{how} from {registry.host}/dev/tiny" for layer in image.layers
    }
    assert fetching.is_complete(image, delivery.project / LAYOUT, set(registry.blobs)), "for BuildKit"
    layout = delivery.project / LAYOUT
    assert not any((layout / "blobs" / layer.digest.replace(":", "/")).exists() for layer in image.layers[1:])
    registry.requests.clear()
    image_delivery.bring(delivery)
    assert not [request for request in registry.requests if request.startswith("P")], "all is there"


def test_up_takes_from_the_hub_what_mirrors_lack(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, image: Image, log: list[str]
) -> None:
    small = image.layers[-1].digest
    del registry.own["dev/tiny"][small]
    image_delivery.bring(delivery)
    asked = {request.path for request in the_hub.requests}
    assert "model.safetensors" not in asked
    assert "config.json" in asked
    assert origins(log)[small[:19]] == f"from the hub ({REPOSITORY})"
    assert set(registry.blobs) == {layer.digest for layer in image.layers}


def test_up_takes_what_is_on_this_machine_before_the_hub(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, image: Image, lock: Lock, log: list[str]
) -> None:
    fetching.fetch(lock, BASE, delivery.project, delivery.project / LAYOUT, endpoint=the_hub.url)
    the_hub.requests.clear()
    weights = image.layers[1].digest
    registry.own["dev/tiny"] = {weights: registry.own["dev/tiny"][weights]}
    image_delivery.bring(delivery)
    assert the_hub.requests == []
    told = origins(log)
    assert told.pop(weights[:19]) == f"copied from {registry.host}/dev/tiny"
    assert set(told.values()) == {"from this machine"}


def test_a_wrong_byte_of_a_mirror_is_told_and_the_hub_asked(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, image: Image, log: list[str]
) -> None:
    weights = image.layers[1].digest
    registry.own["dev/tiny"] = {weights: registry.own["dev/tiny"][weights]}
    registry.read_faults.append(ReadFault(flip=2_000_000))
    image_delivery.bring(delivery)
    assert any(
        line.startswith(f"warning: tiny: mirror {registry.host}/dev/tiny does not bring {weights}: it sends")
        for line in log
    )
    assert "model.safetensors" in {request.path for request in the_hub.requests}
    assert set(registry.blobs) == {layer.digest for layer in image.layers}


def test_a_registry_that_only_the_builder_reaches_gets_layers_by_this_machine(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, image: Image, log: list[str]
) -> None:
    """Mirrors are read to this machine's disk then: BuildKit takes them from there."""
    away = replace(delivery, registry="127.0.0.1:1/prod", mirrors_insecure=True)
    image_delivery.bring(away)
    assert the_hub.requests == []
    assert fetching.is_complete(image, delivery.project / LAYOUT)
    assert f"fetched from {registry.host}/dev/tiny" in origins(log).values()


def test_a_registry_that_refuses_layers_leaves_them_to_buildkit(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, image: Image, log: list[str]
) -> None:
    registry.failures += [413] * 50
    image_delivery.bring(delivery)
    told = [line for line in log if "the registry answers 413; check the name" in line]
    assert "tiny: the registry took not all layers of mirrors" in told[0]
    assert "tiny: layers were not sent ahead" in told[1]
    assert "for url" not in str(log)
    assert the_hub.requests == []
    assert fetching.is_complete(image, delivery.project / LAYOUT, set(registry.blobs))


def test_an_address_with_credentials_that_a_registry_leads_to_is_not_told(
    delivery: Delivery, registry: Server, log: list[str]
) -> None:
    def instead(_: str, path: str) -> Answer | None:
        if path.startswith("/bucket/"):
            return 403, {}, b""
        led = "/v2/prod/tiny/blobs/" in path
        return (307, {"Location": "/bucket/x?X-Amz-Signature=s3cret"}, b"") if led else None

    registry.instead = instead
    image_delivery.bring(delivery)
    [told] = [line for line in log if "layers cannot be sent ahead" in line]
    assert "the registry answers 403; docker login" in told
    assert "s3cret" not in str(log)


def test_a_mirror_that_is_the_registrys_own_repository_is_told_and_left(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, log: list[str]
) -> None:
    image_delivery.bring(replace(delivery, mirrors=(f"{registry.host}/prod/tiny",)))
    assert f"tiny: mirror {registry.host}/prod/tiny is the registry's own repository, nothing to copy" in log
    assert the_hub.requests


def test_where_the_builder_fetches_layers_are_mounted(
    delivery: Delivery,
    registry: Server,
    the_hub: hub_server.Hub,
    log: list[str],
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_build(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to fetch")

    registry.mounts = True
    monkeypatch.setattr(image_delivery, "push_by_builder", no_build)
    image_delivery.bring(replace(delivery, fetching_builder="in-cluster"))
    assert len(registry.mounted) == len(image.layers)
    assert (registry.read, registry.sent, the_hub.requests) == ([], [], [])
    assert set(origins(log).values()) == {f"mounted from {registry.host}/dev/tiny"}


def test_where_the_builder_fetches_it_does_what_cannot_be_mounted(
    delivery: Delivery, registry: Server, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def build(_: Lock, layers: Any, *__: Any, **___: Any) -> None:
        asked.extend(layers)
        registry.blobs.update(registry.own["dev/tiny"])

    monkeypatch.setattr(image_delivery, "push_by_builder", build)
    image_delivery.bring(replace(delivery, fetching_builder="in-cluster"))
    assert asked == list(delivery.lock.layers)
    assert registry.read == [], "no byte of weights passes this machine"
    assert any("are not mounted" in line for line in log)
    assert "fetched by in-cluster" in origins(log).values()


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says", "fix"),
    [
        ("https://h.io/dev/tiny", "has a scheme", "write h.io/dev/tiny"),
        ("h.io/dev/tiny:latest", "has a tag", "write h.io/dev/tiny"),
        ("h.io/dev/tiny@sha256:" + "0" * 64, "has a digest", "write h.io/dev/tiny"),
        (7, "not a repository's name", "for example"),
    ],
)
def test_a_mirror_that_is_no_repository_is_refused(name: Any, says: str, fix: str) -> None:
    [found] = problems(mirrors=["h.io/dev/other", name])
    assert found.key == "modelcar:mirrors[1]"
    assert says in found.value
    assert str(name) in found.value
    assert "HOST[:PORT]/PATH" in found.allowed
    assert fix in found.fix


def test_every_wrong_mirror_is_told_at_once() -> None:
    found = problems(mirrors=["https://a/b", "c/d:1"], promoteFrom="dev")
    assert [problem.key for problem in found] == [
        "modelcar:mirrors[0]",
        "modelcar:mirrors[1]",
        "modelcar:promoteFrom",
    ]
    assert found[2].allowed == "ORGANIZATION/PROJECT/STACK"


def test_where_the_builder_fetches_mirrors_are_in_the_same_registry() -> None:
    builder: dict[str, Any] = {"fetchOn": "builder", "builder": "in-cluster", "registry": "h.io/prod"}
    [found] = problems(**builder, mirrors=["h.io/dev/tiny", "other.io/dev/tiny"])
    assert found.key == "modelcar:mirrors"
    assert found.value.startswith("other.io/dev/tiny, beside fetchOn builder")
    assert "repositories of h.io" in found.allowed
    assert load_one(**builder, mirrors=["h.io/dev/tiny"]).mirrors == ("h.io/dev/tiny",)


def test_a_model_can_have_mirrors_of_its_own() -> None:
    chat, code = load({"name": "chat"}, {"name": "code", "mirrors": ["x.io/y"]}, mirrors=["a.io/b"]).models
    assert (chat.mirrors, code.mirrors) == (("a.io/b",), ("x.io/y",))


# --- promoteFrom ------------------------------------------------------------------------------------


def resolve(
    monkeypatch: pytest.MonkeyPatch,
    stack: Stack,
    lock: Lock | None,
    outputs: dict[str, Any] | Exception,
    *,
    preview: bool = False,
) -> Stack:
    async def invoke(token: str, arguments: dict[str, str]) -> dict[str, Any]:
        assert (token, arguments) == ("pulumi:pulumi:readStackOutputs", {"name": DEV})
        if isinstance(outputs, Exception):
            raise outputs
        return {"outputs": outputs}

    monkeypatch.setattr(pulumi.runtime, "invoke_async", invoke)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: preview)
    for name, value in zip(("organization", "project", "stack"), PROD.split("/"), strict=True):
        monkeypatch.setattr(pulumi, f"get_{name}", lambda value=value: value)
    known: dict[str, Any] = {settings.key: lock for settings in stack.models}
    facts = CheckedStack(stack, known, dict.fromkeys(known), {})
    return asyncio.run(promotion.resolved(facts)).stack


def of_dev(lock: Lock, **changes: str) -> dict[str, Any]:
    digest = modelcar_image(lock, BASE).digest
    found = {**MODEL, "modelDigest": digest, "lockDigest": lock.digest, **changes}
    return {**found, "storageUri": f"oci://dev.example/models/{found['serviceName']}@{found['modelDigest']}"}


def test_each_model_comes_from_where_the_other_stack_has_it(
    monkeypatch: pytest.MonkeyPatch, lock: Lock, log: list[str]
) -> None:
    stack = load({"name": "chat", "mirrors": ["x.io/y"]}, promoteFrom=DEV)
    found = resolve(monkeypatch, stack, lock, {**OUTPUTS, "models": {"chat": of_dev(lock)}})
    assert found.shared.mirrors == ("dev.example/models/chat", "x.io/y")
    assert log == []


def test_a_model_of_another_name_is_found_by_its_lock(
    monkeypatch: pytest.MonkeyPatch, lock: Lock, log: list[str]
) -> None:
    stack = load({"name": "assistant"}, promoteFrom=DEV)
    models = {"chat": of_dev(lock), "code": of_dev(lock, serviceName="code", lockDigest="sha256:" + "0" * 64)}
    assert resolve(monkeypatch, stack, lock, {**OUTPUTS, "models": models}).shared.mirrors == (
        "dev.example/models/chat",
    )
    assert log == []


def test_another_digest_than_the_one_that_was_tested_is_told(
    monkeypatch: pytest.MonkeyPatch, lock: Lock, log: list[str]
) -> None:
    other = "sha256:" + "0" * 64
    stack = load({"name": "chat"}, promoteFrom=DEV)
    models = {"chat": of_dev(lock, modelDigest=other, lockDigest=other)}
    found = resolve(monkeypatch, stack, lock, {**OUTPUTS, "models": models})
    assert found.shared.mirrors == ("dev.example/models/chat",), "most of its layers may be the same"
    [warning] = log
    assert f"{DEV} serves {other} of chat, and this stack's lock says sha256:" in warning


def test_a_model_that_the_other_stack_has_not_is_told(
    monkeypatch: pytest.MonkeyPatch, lock: Lock, log: list[str]
) -> None:
    stack = load({"name": "new"}, promoteFrom=DEV)
    models = {"chat": of_dev(lock, lockDigest="sha256:" + "0" * 64)}
    assert resolve(monkeypatch, stack, lock, {**OUTPUTS, "models": models}).shared.mirrors == ()
    assert log == [
        f"warning: modelcar:promoteFrom: {DEV} has no model new, and none of its lock: "
        "its layers come from elsewhere"
    ]


UNKNOWN = Exception(f'invoke of readStackOutputs failed:\nerror: unknown stack "{DEV}"')


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (UNKNOWN, f'unknown stack "{DEV}"'),
        ({}, "has no outputs of a modelcar stack: deploy it first"),
        ({**OUTPUTS, "schemaVersion": "9.0"}, "tells its outputs in version 9.0"),
    ],
    ids=["unknown", "never deployed", "another version"],
)
def test_a_stack_that_cannot_be_read_stops_up_and_not_a_preview(
    monkeypatch: pytest.MonkeyPatch, lock: Lock, log: list[str], outputs: Any, says: str
) -> None:
    stack = load({"name": "chat"}, promoteFrom=DEV)
    with pytest.raises(InputError) as caught:
        resolve(monkeypatch, stack, lock, outputs)
    [found] = caught.value.problems
    assert found.key == "modelcar:promoteFrom"
    assert found.value.startswith(f"{DEV}: ")
    assert says in found.value
    assert "modelcar:mirrors" in found.fix
    assert log == []
    assert resolve(monkeypatch, stack, lock, outputs, preview=True) == stack
    assert log[0].startswith("warning: modelcar:promoteFrom: not read, so this preview knows no layers of it")


def test_a_stack_is_not_promoted_from_itself(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    with pytest.raises(InputError, match="it is this stack itself"):
        resolve(monkeypatch, load({"name": "chat"}, promoteFrom=PROD), lock, {})


def test_where_the_builder_fetches_the_other_stack_has_the_same_registry(
    monkeypatch: pytest.MonkeyPatch, lock: Lock
) -> None:
    builder = {"fetchOn": "builder", "builder": "in-cluster", "promoteFrom": DEV}
    outputs = {**OUTPUTS, "models": {"chat": of_dev(lock)}}
    with pytest.raises(InputError, match=r"modelcar:promoteFrom: dev\.example/models/chat, beside"):
        resolve(monkeypatch, load({"name": "chat"}, **builder), lock, outputs)
    same = load({"name": "chat"}, **builder, registry="dev.example/prod")
    assert resolve(monkeypatch, same, lock, outputs).shared.mirrors == ("dev.example/models/chat",)


def test_without_the_setting_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    stack = load({"name": "chat"})
    assert resolve(monkeypatch, stack, lock, AssertionError()) is stack


# --- what a preview says ----------------------------------------------------------------------------


def told(lock: Lock, project: Path, log: list[str], *names: str, registry: str) -> list[str]:
    stack = load({"name": "tiny"}, registry=registry, registryInsecure=True, mirrors=list(names))
    stack = replace(
        stack, models=tuple(m.model_copy(update={"mirrors_insecure": True}) for m in stack.models)
    )
    facts = CheckedStack(stack, {"tiny": lock}, {"tiny": None}, {}, project=project)
    asyncio.run(summary.tell(facts, {}))
    return log[-1].splitlines()[2:]


def test_a_preview_says_where_layers_will_come_from(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, lock: Lock, image: Image, log: list[str]
) -> None:
    small = image.layers[-1].digest
    del registry.own["dev/tiny"][small]
    with serve() as prod:
        lines = told(
            lock, delivery.project, log, *delivery.mirrors, "127.0.0.1:1/gone", registry=f"{prod.host}/p"
        )
        assert not [request for request in prod.requests if not request.startswith("HEAD")]
    assert lines[0].startswith("tiny: ")
    assert lines[0].endswith(f"in 2 layers copied from {registry.host}/dev/tiny")
    assert lines[1].endswith(f"in 1 layer from the hub ({REPOSITORY})")
    assert lines[2].startswith("tiny: mirror 127.0.0.1:1/gone cannot be used: it cannot be reached")
    assert (registry.read, the_hub.requests) == ([], [])
    assert not (delivery.project / LAYOUT).exists(), "a preview writes nothing"


def test_a_preview_tells_mounts_and_what_is_on_this_machine(
    delivery: Delivery, registry: Server, the_hub: hub_server.Hub, lock: Lock, image: Image, log: list[str]
) -> None:
    fetching.fetch(lock, BASE, delivery.project, delivery.project / LAYOUT, endpoint=the_hub.url)
    weights = image.layers[1].digest
    registry.own["dev/tiny"] = {weights: registry.own["dev/tiny"][weights]}
    lines = told(lock, delivery.project, log, *delivery.mirrors, registry=delivery.registry)
    assert [line.partition(" layer")[2] for line in lines] == [
        "s from this machine",
        f" mounted from {registry.host}/dev/tiny, or copied",
    ]


def test_a_preview_without_mirrors_says_no_more_than_before(
    delivery: Delivery, lock: Lock, log: list[str]
) -> None:
    assert told(lock, delivery.project, log, registry=delivery.registry) == []


# --- signatures -------------------------------------------------------------------------------------

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def bundle_by(who: str) -> bytes:
    statement = to_json({"predicateType": "https://sigstore.dev/cosign/sign/v1", "by": who})
    envelope = {"payload": base64.b64encode(statement).decode()}
    return to_json({"mediaType": BUNDLE, "dsseEnvelope": envelope})


OURS = bundle_by("cosign.pub")


@pytest.fixture
def signed(delivery: Delivery, registry: Server, image: Image) -> Iterator[Server]:
    """A registry of dev, with the image and its signature; the image is in prod's, too."""
    registry.manifests[image.digest] = (image.manifest, MANIFEST_TYPE)
    with serve() as dev:
        content = OURS
        part = {"mediaType": BUNDLE, "digest": sha256_digest(content), "size": len(content)}
        empty = {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": sha256_digest(b"{}"),
            "size": 2,
        }
        subject = {"mediaType": MANIFEST_TYPE, "digest": image.digest, "size": len(image.manifest)}
        document = {"artifactType": BUNDLE, "config": empty, "layers": [part], "subject": subject}
        manifest = to_json({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, **document})
        sbom = to_json({**document, "artifactType": "application/vnd.cyclonedx+json"})
        dev.blobs |= {sha256_digest(content): content, sha256_digest(b"{}"): b"{}"}
        for found in (manifest, sbom):
            dev.manifests[sha256_digest(found)] = (found, MANIFEST_TYPE)
        yield dev


def have_signed(
    monkeypatch: pytest.MonkeyPatch,
    registry: Server,
    image: Image,
    dev: Server,
    *,
    key: str | None,
    lock: Lock | None = None,
) -> list[str]:
    """Have the image signed, where the signature of dev's counts; return what was signed."""
    made: list[str] = []

    def verify(reference: str, trust: Trust, *, insecure: bool = False) -> str | None:
        assert insecure
        server = dev if reference.startswith(dev.host) else registry
        known = any(BUNDLE.encode() in content for content, _ in server.manifests.values())
        return None if (known and trust.public_key == "cosign.pub") or made else "no signature"

    def cosign(command: str, options: list[str], *_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        """Take a bundle by the asked key, of the image alone."""
        told = dict(option.partition("=")[::2] for option in options)
        assert command == "verify-blob-attestation"
        assert told["--digest"] == image.digest.removeprefix("sha256:")
        counts = Path(told["--bundle"]).read_bytes() == bundle_by(told["--key"])
        return subprocess.CompletedProcess([], 0 if counts else 1, "", "")

    monkeypatch.setattr(signing, "verify", verify)
    monkeypatch.setattr(signing, "_cosign", cosign)
    monkeypatch.setattr(signing, "sign", lambda reference, *_, **__: made.append(reference))
    image_delivery.have_signed(
        f"{registry.host}/prod/tiny@{image.digest}",
        SignatureSettings.model_validate({"publicKey": "prod.pub" if key else "cosign.pub", "key": key}),
        lock,
        insecure=True,
        mirrors=(f"{dev.host}/dev/tiny",),
        mirrors_insecure=True,
    )
    return made


@pytest.mark.parametrize("has_referrers", [True, False])
def test_a_signature_that_counts_is_copied(
    monkeypatch: pytest.MonkeyPatch,
    registry: Server,
    signed: Server,
    image: Image,
    log: list[str],
    has_referrers: bool,
) -> None:
    registry.has_referrers = has_referrers
    assert have_signed(monkeypatch, registry, image, signed, key=None) == [], "no private key is needed"
    [line] = [line for line in log if "its signature is copied from" in line]
    assert f"{signed.host}/dev/tiny (cosign.pub)" in line
    assert [attached["artifactType"] for attached in attachments_of(registry, image)] == [BUNDLE]
    assert set(registry.blobs) == {sha256_digest(OURS), sha256_digest(b"{}")}
    if not has_referrers:
        index = json.loads(registry.manifests[image.digest.replace(":", "-")][0])
        assert [entry["artifactType"] for entry in index["manifests"]] == [BUNDLE]


def attachments_of(registry: Server, image: Image) -> list[dict[str, Any]]:
    """Return the manifests of all that a registry has beside the image and the list of what refers to it."""
    others = [digest for digest in registry.manifests if digest.startswith("sha256:")]
    found = [json.loads(registry.manifests[digest][0]) for digest in others if digest != image.digest]
    return [document for document in found if "manifests" not in document]


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("a bundle by another key", {"content": bundle_by("other.pub")}),
        ("a bundle of our key beside a layer", {"layers": 2}),
        ("a bundle of our key for another image", {"subject": {"digest": f"sha256:{'0' * 64}"}}),
        ("an image that refers to nothing", {"subject": None, "content": b"layer", "type": TAR}),
        ("an image that refers to ours", {"content": b"layer", "type": TAR}),
        ("a bundle that is none", {"content": b"[" * 10_000}),
    ],
)
def test_what_else_a_mirror_calls_a_signature_does_not_come_with_the_one_that_counts(
    monkeypatch: pytest.MonkeyPatch,
    registry: Server,
    signed: Server,
    image: Image,
    log: list[str],
    what: str,
    changes: dict[str, Any],
) -> None:
    [ours] = [digest for digest, (content, _) in signed.manifests.items() if BUNDLE.encode() in content][:1]
    content = changes.get("content", OURS)
    part = {"mediaType": changes.get("type", BUNDLE), "digest": sha256_digest(content), "size": len(content)}
    document = json.loads(signed.manifests[ours][0])
    document |= {"layers": [part] * changes.get("layers", 1), "annotations": {"what": what}}
    document |= {"subject": changes.get("subject", document["subject"])}
    foreign = to_json({key: value for key, value in document.items() if value is not None})
    signed.blobs[sha256_digest(content)] = content
    signed.manifests[sha256_digest(foreign)] = (foreign, MANIFEST_TYPE)
    # The list says what whoever has the mirror likes.
    entries = [
        {"digest": digest, "artifactType": BUNDLE, "size": 1} for digest in [sha256_digest(foreign), ours]
    ]
    signed.has_referrers = False
    listed = to_json({"schemaVersion": 2, "manifests": entries})
    signed.manifests[image.digest.replace(":", "-")] = (listed, "application/vnd.oci.image.index.v1+json")
    assert have_signed(monkeypatch, registry, image, signed, key=None) == []
    assert [line for line in log if "its signature is copied from" in line]
    [attached] = attachments_of(registry, image)
    assert [layer["digest"] for layer in attached["layers"]] == [sha256_digest(OURS)]
    assert attached["subject"]["digest"] == image.digest
    assert set(registry.blobs) == {sha256_digest(OURS), sha256_digest(b"{}")}


def test_signature_and_bill_of_materials_are_listed_by_one_write(
    monkeypatch: pytest.MonkeyPatch,
    registry: Server,
    signed: Server,
    image: Image,
    lock: Lock,
    log: list[str],
) -> None:
    """As Artifact Registry is reported: no API for referrers, and no tag ever moves."""
    registry.has_referrers, registry.immutable_tags = False, True
    assert have_signed(monkeypatch, registry, image, signed, key=None, lock=lock) == []
    index = json.loads(registry.manifests[image.digest.replace(":", "-")][0])
    assert {entry["artifactType"] for entry in index["manifests"]} == {BUNDLE, SBOM_TYPE}
    assert not [line for line in log if "bill of materials" in line]


def test_a_signature_by_another_key_is_not_copied_but_made_anew(
    monkeypatch: pytest.MonkeyPatch, registry: Server, signed: Server, image: Image, log: list[str]
) -> None:
    made = have_signed(monkeypatch, registry, image, signed, key="prod.key")
    assert made == [f"{registry.host}/prod/tiny@{image.digest}"]
    assert not attachments_of(registry, image), "dev's signature is of no use here"
    assert f"{signed.host}/dev/tiny: no signature" in log


def test_without_a_key_and_a_signature_nothing_is_deployed(
    monkeypatch: pytest.MonkeyPatch, registry: Server, signed: Server, image: Image, log: list[str]
) -> None:
    signed.manifests.clear()
    with pytest.raises(pulumi.RunError, match="is not signed, and nothing was deployed"):
        have_signed(monkeypatch, registry, image, signed, key=None)
