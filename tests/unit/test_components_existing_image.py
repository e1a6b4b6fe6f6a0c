"""modelcar:image: an image that is there is served as it is, beside models that are built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.config.image_place import ImagePlace
from components.config.settings import Settings
from components.image import existing_image, former_image
from components.image.existing_image import Existing
from components.manifests import gitops
from components.stack import model, preflight, reachability
from components.stack.output_schema import ModelOutputs
from local import doctor
from local.up import models_of
from modelcar.errors import InputError
from modelcar.registry import Target
from operations import admission
from tests import made_images as made
from tests import registry_server
from tests.unit.mocked_engine import UNKNOWN, Engine
from tests.unit.test_admission import is_judged
from tests.unit.test_components_image_and_service import BASE
from tests.unit.test_components_models import CHAT, on_google
from tests.unit.test_components_models import load as load_stack
from tests.unit.test_components_models import problems as problems_of_stack
from tests.unit.test_components_settings import load, problems

NAME = "registry.example:5000/catalogue/granite"
DIGEST = "sha256:" + "1" * 64
REFERENCE = f"{NAME}@{DIGEST}"
SHELL = made.layer(made.SHELL, created_by="FROM busybox")
IMAGE = made.image([SHELL, made.layer(made.MODEL)])


@pytest.fixture
def server() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as running:
        yield running


def target(server: registry_server.Registry) -> Target:
    return Target(f"{server.host}/others", "granite", insecure=True)


def settings(server: registry_server.Registry, image: made.Made = IMAGE, **more: Any) -> Settings:
    reference = image.push(target(server))
    place = {"registry": f"{server.host}/models", "registryInsecure": True}
    return load(**{**place, "image": reference, **more})


def found(settings: Settings, **more: Any) -> Existing:
    there = existing_image.find(settings, **{"preview": False, **more})
    assert there
    return there


# --- the setting


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (REFERENCE, ("registry.example:5000/catalogue", "granite", None, DIGEST)),
        (f"oci://{REFERENCE}", ("registry.example:5000/catalogue", "granite", None, DIGEST)),
        (f"{NAME}:v1@{DIGEST}", ("registry.example:5000/catalogue", "granite", "v1", DIGEST)),
        (f"localhost/m@{DIGEST}", ("localhost", "m", None, DIGEST)),
        (f"docker.io/a/b@{DIGEST}", ("docker.io/a", "b", None, DIGEST)),
    ],
)
def test_what_is_an_image(value: str, place: tuple[str, ...]) -> None:
    there = load(image=value).place
    assert (there.registry, there.name, there.tag, there.digest) == place


@pytest.mark.parametrize(
    ("value", "why", "fix"),
    [
        (f"granite@{DIGEST}", "not an image by digest", f"docker.io/library/granite@{DIGEST}"),
        (f"catalogue/granite@{DIGEST}", "names no registry", f"docker.io/catalogue/granite@{DIGEST}"),
        (f"https://{REFERENCE}", "not an image by digest", "copy it"),
        (f"{NAME}@sha256:12", "not an image by digest", "copy it"),
        (f"{NAME}/UPPER@{DIGEST}", "not an image by digest", "copy it"),
    ],
)
def test_what_is_none_is_refused_with_the_fix(value: str, why: str, fix: str) -> None:
    [one] = problems(image=value)
    assert one.key == "modelcar:image"
    assert why in one.value
    assert fix in one.fix
    assert "HOST[:PORT]/PATH@sha256:" in one.allowed


def test_a_tag_is_refused_with_the_digest_that_it_has_now(server: registry_server.Registry) -> None:
    IMAGE.push(target(server), "v1", "latest")
    place: dict[str, Any] = {"registry": f"{server.host}/models", "registryInsecure": True}
    for tag in (":v1", ""):
        [one] = problems(**place, image=f"{server.host}/others/granite{tag}")
        assert one.key == "modelcar:image"
        assert "a tag, which somebody else's push can change" in one.value
        assert f"pulumi config set modelcar:image {server.host}/others/granite@{IMAGE.digest}" in one.fix
    [one] = problems(**place, image=f"{server.host}/others/granite:v2")
    assert "the registry has no such tag" in one.fix
    assert f"imagetools inspect {server.host}/others/granite:v2" in one.fix


def test_a_registry_that_does_not_answer_does_not_hide_what_is_wrong_with_a_tag() -> None:
    with registry_server.serve() as gone:
        place: dict[str, Any] = {"registry": f"{gone.host}/models", "registryInsecure": True}
        name = f"{gone.host}/others/granite:v1"
    [one] = problems(**place, image=name)
    assert "cannot be reached" in one.fix
    assert f"docker buildx imagetools inspect {name}" in one.fix


def test_what_would_be_built_is_refused_beside_it() -> None:
    assert [(one.key, one.value) for one in problems(image=REFERENCE, model="tiny", imageName="x")] == [
        ("modelcar:model", "tiny, beside modelcar:image, which is served as it is")
    ]
    assert [one.key for one in problems(image=REFERENCE, imageName="x")] == ["modelcar:imageName"]
    assert [one.key for one in problems(entrypointRunsArguments=True)] == ["modelcar:entrypointRunsArguments"]
    assert load(image=REFERENCE).model == "granite"


def test_the_registry_follows_from_it_where_nothing_is_pushed() -> None:
    one = load(image=REFERENCE, registry=None)
    assert one.registry == "registry.example:5000/catalogue"
    assert one.model_name == "granite"
    assert [one.key for one in problems(registry=None)] == ["modelcar:registry"]
    assert [one.key for one in problems(registry=None, image="x")] == ["modelcar:image"]


def test_plain_http_is_for_the_stacks_own_registry_only() -> None:
    assert not load(image=REFERENCE, registryInsecure=True).insecure_place
    assert load(image=f"localhost:5000/others/x@{DIGEST}", registryInsecure=True).insecure_place
    assert load(registryInsecure=True).insecure_place


def test_it_stands_beside_locked_models_and_several_may_serve_one() -> None:
    listed = [CHAT, {"name": "granite", "image": REFERENCE}, {"name": "other", "image": REFERENCE}]
    chat, granite, other = load_stack(*listed).models
    assert chat.place.repository == "localhost:5000/models/chat"
    assert granite.place == other.place
    assert (granite.model_name, other.model_name, granite.service_name) == ("granite", "other", "granite")
    # Nobody pushes to a repository by an entry's name where that has an image.
    assert load_stack({**CHAT, "imageName": "granite"}, {"name": "granite", "image": REFERENCE})
    assert [one.key for one in problems_of_stack(CHAT, image=REFERENCE)] == ["modelcar:image"]
    [one] = problems_of_stack(CHAT, {"name": "b", "image": "x"})
    assert one.key == "modelcar:models[1].image"
    [one] = problems_of_stack(CHAT, {"name": "b", "image": REFERENCE, "model": "tiny"})
    assert one.key == "modelcar:models[1].model"


# --- what is found out


def test_up_knows_size_and_lock(server: registry_server.Registry) -> None:
    there = found(settings(server))
    assert (there.digest, there.lock_digest, there.doubts) == (IMAGE.digest, "", ())
    assert there.size == sum(layer["size"] for layer in json.loads(IMAGE.manifest)["layers"])
    ours = made.image(
        [SHELL, made.layer(made.MODEL)], manifest={"annotations": {"io.modelcar.lock.digest": DIGEST}}
    )
    assert found(settings(server, ours)).lock_digest == DIGEST
    assert existing_image.find(load(), preview=False) is None


def test_what_keeps_it_from_being_served_is_told_at_once_and_with_the_setting(
    server: registry_server.Registry,
) -> None:
    bad = made.image([made.layer({"models/": None})], {"Entrypoint": ["python3"]})
    for preview in (True, False):
        with pytest.raises(InputError) as caught:
            found(settings(server, bad), preview=preview, key="modelcar:models[2].image")
        told = [one.value.partition(f"@{bad.digest}: ")[2][:20] for one in caught.value.problems]
        assert told == ["has the ENTRYPOINT [", "has no sh in /usr/lo", "its folder /models i"]
        assert {one.key for one in caught.value.problems} == {"modelcar:models[2].image"}
    allowed = settings(
        server,
        made.image([SHELL, made.layer(made.MODEL)], {"Entrypoint": ["x"]}),
        entrypointRunsArguments=True,
    )
    [doubt] = found(allowed).doubts
    assert "entrypointRunsArguments" in doubt


def test_files_that_vllm_does_not_read_are_for_another_server(server: registry_server.Registry) -> None:
    gguf = made.image([SHELL, made.layer({"models/": None, "models/model.gguf": b"GGUF"})])
    with pytest.raises(InputError) as caught:
        found(settings(server, gguf))
    [one] = caught.value.problems
    assert one.value.endswith("has no /models/config.json: vLLM ends without it")
    assert "modelcar:runtime custom" in one.fix
    own = {
        "runtime": "custom",
        "serverCommand": ["llama-server"],
        "serverImage": f"registry.example/llama@{DIGEST}",
    }
    [doubt] = found(settings(server, gguf, **own)).doubts
    assert "has no /models/config.json" in doubt
    assert found(settings(server, gguf, serverArgs=["--hf-config-path", "/opt/config"])).doubts


def test_one_that_is_not_there_is_refused_in_a_preview_too(server: registry_server.Registry) -> None:
    absent = settings(server, image=IMAGE)
    server.manifests.clear()
    for preview in (True, False):
        with pytest.raises(InputError, match="the registry does not have it"):
            found(absent, preview=preview)


def test_the_servers_arguments_are_held_to_the_models_config(server: registry_server.Registry) -> None:
    with pytest.raises(InputError) as caught:
        found(settings(server, vllm={"maxModelLen": 4096}))
    [one] = caught.value.problems
    assert one.key == "modelcar:vllm.maxModelLen"
    adapters = {"loraModules": [{"name": "a", "path": "adapters/a"}]}
    with pytest.raises(InputError, match=r"loraModules\[0\].path: adapters/a: .* has no /models/adapters/a"):
        found(settings(server, vllm=adapters))
    with_adapter = made.layer({**made.MODEL, "models/adapters/a/adapter_config.json": b"{}"})
    assert found(settings(server, made.image([SHELL, with_adapter]), vllm=adapters)).doubts == ()


def test_without_the_registry_a_preview_goes_on_and_up_does_not() -> None:
    with registry_server.serve() as running:
        away = settings(running)
    with pytest.raises(InputError) as caught:
        found(away)
    [one] = caught.value.problems
    assert one.key == "modelcar:image"
    assert "cannot be reached" in one.value
    assert "modelcar:checkReachable false" in one.fix
    there = found(away, preview=True)
    assert (there.size, there.lock_digest) == (None, None)
    [doubt] = there.doubts
    assert "not looked at" in doubt
    assert "does not know whether it fits the nodes' disk" in doubt
    blind = away.model_copy(update={"check_reachable": False})
    assert found(blind).doubts, "where only the nodes can reach it"


def test_what_the_last_run_told_stands_in_for_the_registry() -> None:
    with registry_server.serve() as running:
        away = settings(running)
    told = {"modelDigest": IMAGE.digest, "modelBytes": 1000, "lockDigest": ""}
    there = found(away, preview=True, told=told)
    assert (there.size, there.disk, there.lock_digest) == (1000, 1250, "")
    assert found(away, preview=True, told={**told, "modelDigest": DIGEST}).size is None
    assert found(away, preview=True, told={**told, "modelBytes": 0}).size is None, "nobody had looked"


# --- who may pull it


def doubts(server: registry_server.Registry, registry: str, **more: Any) -> list[str]:
    """Return the doubts about an image at this server, in a stack of another registry."""
    IMAGE.push(target(server))
    place = ImagePlace(f"{server.host}/others", "granite", None, IMAGE.digest)
    one = load(registry=registry, image=REFERENCE, **more)
    return list(existing_image._pull_doubts(one, place, target(server)))


def test_a_public_image_needs_no_right(server: registry_server.Registry) -> None:
    assert doubts(server, "elsewhere.example/models") == []


def test_what_the_nodes_lack_to_pull_from_another_registry_is_told(server: registry_server.Registry) -> None:
    IMAGE.push(target(server))
    server.wants = "Basic"
    host = server.host
    assert existing_image._public(target(server), IMAGE.digest) is False

    def told(registry: str, **more: Any) -> list[str]:
        one = load(registry=registry, image=REFERENCE, **more)
        place = ImagePlace(f"{host}/others", "granite", None, IMAGE.digest)
        return list(existing_image._pull_doubts(one, place, target(server)))

    [one] = told("elsewhere.example/models")
    assert f"nothing here lets the nodes pull from {host}" in one
    assert "modelcar:pullSecret" in one
    [one] = told("elsewhere.example/models", pullSecret="mine")
    assert one == f"is pulled with Secret mine: it has to have credentials for {host}"
    [one] = told("elsewhere.example/models", registryUsername="u", registryPassword="p")
    assert "registryUsername is of elsewhere.example" in one
    assert told(f"{host}/models") == [], "the stack's own registry, as for any model"


def test_on_google_the_grant_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing_image, "_public", lambda *_: False)
    [one] = on_google({"name": "granite", "image": REFERENCE}).models
    assert one.google

    def told(registry: str) -> list[str]:
        place = ImagePlace(registry, "granite", None, DIGEST)
        return list(existing_image._pull_doubts(one, place, Target(registry, "granite")))

    assert told(one.google.registry) == []
    [doubt] = told("us-docker.pkg.dev/other/catalogue")
    assert "add-iam-policy-binding catalogue --project=other --location=us " in doubt
    assert "roles/artifactregistry.reader" in doubt
    assert len(told("quay.io/org")) == 1


# --- what is declared


def declare(engine: Engine, one: Settings, there: Existing) -> dict[str, Any]:
    def program() -> dict[str, Any]:
        arguments = model.ModelArgs(one, None, BASE, Path(), existing=there)
        return told_by(model.Model("granite", arguments))

    return engine.run(program)


def told_by(declared: model.Model) -> dict[str, pulumi.Output[Any]]:
    return {key: pulumi.Output.from_input(value) for key, value in declared.outputs.items()}


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
def test_nothing_is_built_and_the_outputs_are_as_for_any_other(
    server: registry_server.Registry, preview: bool
) -> None:
    one, engine = settings(server), Engine(preview)
    told = declare(engine, one, found(one))
    reference = f"{server.host}/others/granite@{IMAGE.digest}"
    assert told["storageUri"] == f"oci://{reference}"
    assert (told["modelDigest"], told["imageReference"], told["lockDigest"]) == (IMAGE.digest, reference, "")
    assert told["built"] is False
    assert told["modelBytes"] == found(one).size
    assert told["servedModelName"] == "granite"
    assert told["idleCost"][0].startswith(f"{server.host}/others/granite: storage")
    assert [row.type for row in engine.declared] == ["modelcar:kserve:Model", "modelcar:kserve:ExistingImage"]


def test_an_up_that_does_not_get_to_see_it_leaves_nothing_open() -> None:
    """What is unknown in an `up` would be kept in the state as a placeholder, for other stacks to read."""
    with registry_server.serve() as running:
        blind = settings(running, checkReachable=False)
    told = declare(Engine(False), blind, found(blind))
    assert (told["modelBytes"], told["lockDigest"]) == (0, "")
    assert told["modelDigest"] == IMAGE.digest
    assert declare(Engine(True), blind, found(blind))["modelBytes"] == UNKNOWN


def test_a_tag_beside_the_digest_is_told_for_people(server: registry_server.Registry) -> None:
    one = settings(server)
    one = one.model_copy(update={"image": str(one.image).replace("@", ":v1@")})
    told = declare(Engine(preview=False), one, found(one))
    assert told["imageReference"] == f"{server.host}/others/granite:v1"
    assert told["storageUri"] == f"oci://{server.host}/others/granite@{IMAGE.digest}", (
        "served by digest alone"
    )


def test_what_is_not_known_offline_is_unknown_in_a_preview() -> None:
    with registry_server.serve() as running:
        away = settings(running)
    told = declare(Engine(preview=True), away, found(away, preview=True))
    assert (told["modelBytes"], told["lockDigest"]) == (UNKNOWN, UNKNOWN)
    assert told["modelDigest"] == IMAGE.digest


def test_one_without_a_signature_that_counts_is_not_served(
    server: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def verify(reference: str, *_: Any, **__: Any) -> str | None:
        asked.append(reference)
        return "no signature"

    monkeypatch.setattr("modelcar.signing.verify", verify)
    signature = {"identity": "a@example.org", "issuer": "https://accounts.example.org"}
    one = settings(server, signature=signature)
    with pytest.raises(pulumi.RunError, match="is not served: no signature; nothing was deployed"):
        declare(Engine(preview=False), one, found(one))
    assert asked == [f"{server.host}/others/granite@{IMAGE.digest}"]
    assert declare(Engine(preview=True), one, found(one))["modelDigest"] == IMAGE.digest


def test_a_rollback_goes_to_another_image_of_its_repository(server: registry_server.Registry) -> None:
    older = made.index((made.image([SHELL, made.layer({**made.MODEL, "models/v": b"1"})]), "amd64"))
    older.push(target(server))
    one, engine = settings(server, rollbackTo=older.digest), Engine(preview=False)
    former = former_image.find(one, preview=False)
    assert former
    assert former.size_bytes

    def program() -> dict[str, Any]:
        arguments = model.ModelArgs(one, None, BASE, Path(), former=former, existing=found(one))
        return told_by(model.Model("granite", arguments))

    told = engine.run(program)
    assert told["storageUri"] == f"oci://{server.host}/others/granite@{older.digest}"
    assert told["imageReference"] == f"{server.host}/others/granite@{older.digest}"
    bad = made.image([SHELL, made.layer({"models/": None})])
    bad.push(target(server))
    with pytest.raises(InputError, match=r"rollbackTo: (?s:.*)/models is empty"):
        former_image.find(one.model_copy(update={"rollback_to": bad.digest}), preview=False)


# --- beside it


def test_before_anything_is_declared_all_images_are_looked_at(
    server: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(reachability, "require", lambda *_, pushes, **__: asked.append(pushes))
    bad = made.image([SHELL, made.layer({"models/": None})]).push(target(server))
    good = IMAGE.push(target(server))
    shared = {"registry": f"{server.host}/models", "registryInsecure": True, "kserve": {"verify": False}}
    with pytest.raises(InputError) as caught:
        preflight.check(load_stack({"name": "a", "image": bad}, {"name": "b"}, **shared), Path("/nowhere"))
    assert [one.key for one in caught.value.problems] == ["modelcar:model", "modelcar:models[0].image"]
    facts = preflight.check(load_stack({"name": "a", "image": good}, **shared), Path("/nowhere"))
    assert facts.existing["a"].digest == IMAGE.digest
    assert preflight.sizes(facts.locks, facts.existing) == {"a": facts.existing["a"].disk}
    assert asked == [False], "nothing is pushed, so nothing has to take a push"


def test_doctor_and_make_up_look_at_the_image_in_place_of_a_lock(server: registry_server.Registry) -> None:
    reference = IMAGE.push(target(server))
    shared: dict[str, Any] = {"registry": f"{server.host}/models", "registryInsecure": True}
    stack = load_stack({"name": "granite", "image": reference}, **shared)
    [line] = doctor._locks(stack)
    assert (line.state, line.part) == ("ok", "image of granite")
    server.manifests.clear()
    [line] = doctor._locks(stack)
    assert line.state == "missing"
    assert "the registry does not have it" in line.found
    assert models_of({"models": [{"name": "a", "image": reference}, {"name": "b"}]}) == ["b"]
    assert models_of({"image": reference, "model": "tiny"}) == []


def test_a_renamed_model_keeps_the_lock_of_its_first_name() -> None:
    renamed = {"name": "helper", "formerNames": ["chat", "assistant"]}
    assert models_of({"models": [renamed, {**renamed, "model": "other"}]}) == ["chat", "other"]


def test_git_gets_it_by_digest_without_a_lock(tmp_path: Path) -> None:
    one = load(image=REFERENCE)
    written = gitops.manifests(one, tmp_path)
    service = written["inferenceservice.yaml"]
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"oci://{REFERENCE}"
    listed = load_stack({"name": "a", "image": REFERENCE}, delivery="gitops", gitops={"folder": "deploy"})
    gitops.check(listed, tmp_path, {"a": None})
    assert yaml.safe_dump(written)


def test_admission_asks_for_signatures_of_it_too() -> None:
    signature = {"identity": "a@example.org", "issuer": "https://accounts.example.org"}
    one = load(signature=signature, image=REFERENCE)
    policy = admission.policy(one, Path(), "test", name="signed", others=[NAME, "localhost:5000/models/own"])

    def asked(reference: str) -> bool:
        return any(is_judged(policy, reference))

    assert asked(f"{NAME}@sha256:1")
    assert asked(f"{NAME}:tag")
    assert asked(NAME)
    assert asked("localhost:5000/models/own@sha256:1")
    assert not asked(f"{NAME}er@sha256:1"), "another repository"


def test_the_outputs_keep_to_the_schema(server: registry_server.Registry) -> None:
    one = settings(server)
    told = declare(Engine(preview=False), one, found(one))
    assert ModelOutputs.model_validate(told).built is False
    assert ModelOutputs.model_validate({k: v for k, v in told.items() if k != "built"}).built is True
