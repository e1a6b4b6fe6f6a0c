"""The bill of materials, attached to an image and read back; what an image says without being pulled."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from modelcar import locking
from modelcar.__main__ import main
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.evidence import Artifact, attach, attach_sbom, attached_sbom, sbom_of
from modelcar.image import modelcar_image
from modelcar.inspect_image import differences, inspect
from modelcar.lock import FolderSource, HubSource, Lock
from modelcar.manifest import LAYER_TYPES, MANIFEST_TYPE, Image, ImageLayer, make_image, sha256_digest
from modelcar.push import push_layers
from modelcar.registry import Registry, Target, fallback_tag, parse
from modelcar.sbom import SBOM_TYPE, sbom
from modelcar.tiny_model import make_tiny_model
from tests import registry_server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_tiny_model(folder / "weights")
    return folder


@pytest.fixture(scope="module")
def lock(project: Path) -> Lock:
    description = locking.Description(folder="weights", license="Apache-2.0")
    return locking.lock_model("tiny", description, locking.resolve(description, project), project)[0]


@pytest.fixture
def image(lock: Lock) -> Image:
    return modelcar_image(lock, read_base("amd64"))


def target(server: registry_server.Registry) -> Target:
    return Target(f"{server.host}/models", "tiny", insecure=True)


def push(server: registry_server.Registry, project: Path, image: Image, tag: str = "latest") -> None:
    push_layers(image, locking.layout_path(project, "tiny"), target(server))
    with Registry(target(server), write=True) as registry:
        registry.add_blob(image.config)
        registry.add_manifest(tag, image.manifest, MANIFEST_TYPE)


# --- the bill of materials


@pytest.mark.parametrize("license", [None, "Apache-2.0", "MIT OR Apache-2.0", "qwen research license"])
@pytest.mark.parametrize("source", [FolderSource("x"), HubSource("Qwen/Qwen2.5-0.5B", "c" * 40)])
def test_it_is_valid_cyclonedx(lock: Lock, license: str | None, source: Any) -> None:
    content = sbom(dataclasses.replace(lock, license=license, source=source))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode()) is None


def test_it_names_model_source_and_every_file(lock: Lock) -> None:
    found = json.loads(sbom(dataclasses.replace(lock, source=HubSource("Qwen/Qwen2.5-0.5B", "c" * 40))))
    model = found["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "tiny", "c" * 40)
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["purl"] == "pkg:huggingface/Qwen/Qwen2.5-0.5B@" + "c" * 40
    assert {file["name"]: file["hashes"][0]["content"] for file in found["components"]} == {
        file.path: file.sha256 for file in lock.files
    }


def test_the_same_lock_gives_the_same_bytes_and_another_one_others(lock: Lock) -> None:
    assert sbom(lock) == sbom(lock)
    assert sbom(lock) != sbom(dataclasses.replace(lock, license="MIT"))


# --- attached to an image


SIGNATURE = Artifact("application/vnd.dev.sigstore.bundle.v0.3+json", b"{}", annotations={"a": "b"})


@pytest.mark.parametrize("api", [True, False], ids=["referrers", "fallback tag"])
def test_where_tags_do_not_move_all_of_it_is_listed_by_one_write(
    project: Path, lock: Lock, image: Image, api: bool
) -> None:
    with registry_server.serve() as server:
        server.has_referrers, server.immutable_tags = api, True
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            attach(registry, manifest, [sbom_of(lock), SIGNATURE])
            listed = {entry["artifactType"]: entry for entry in registry.referrers(image.digest)}
            assert set(listed) == {SBOM_TYPE, SIGNATURE.type}
            assert attached_sbom(registry, image.digest) == json.loads(sbom(lock))
            found = registry.manifest(listed[SIGNATURE.type]["digest"])
            assert found
            assert found.document["annotations"] == SIGNATURE.annotations
            assert registry.blob(found.document["layers"][0]["digest"]) == SIGNATURE.content
            # What is there already is no reason to write again.
            attach(registry, manifest, [sbom_of(lock)])
            attach(registry, manifest, [SIGNATURE, sbom_of(lock)])


def test_what_comes_later_is_refused_with_the_tag_and_the_way_out(
    project: Path, lock: Lock, image: Image
) -> None:
    with registry_server.serve() as server:
        server.has_referrers, server.immutable_tags = False, True
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            attach_sbom(registry, manifest, lock)
            with pytest.raises(InputError) as caught:
                attach(registry, manifest, [SIGNATURE])
            tag = fallback_tag(image.digest)
            assert f"{server.host}/models/tiny:{tag}: the registry answers 400" in str(caught.value)
            assert "--no-immutable-tags" in str(caught.value)
            assert [entry["artifactType"] for entry in registry.referrers(image.digest)] == [SBOM_TYPE]
            server.immutable_tags = False
            attach(registry, manifest, [SIGNATURE])
            assert len(registry.referrers(image.digest)) == 2


@pytest.mark.parametrize("api", [True, False], ids=["referrers", "fallback tag"])
def test_it_is_attached_once_and_others_stay(project: Path, lock: Lock, image: Image, api: bool) -> None:
    with registry_server.serve() as server:
        server.has_referrers = api
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            assert manifest.digest == image.digest
            if not api:
                other = {"manifests": [{"digest": "sha256:" + "0" * 64, "artifactType": "signature"}]}
                registry.add_manifest(fallback_tag(image.digest), json.dumps(other).encode(), "x/index")
            first = attach_sbom(registry, manifest, lock)
            sent = len(server.sent)
            assert attach_sbom(registry, manifest, lock) == first
            assert len(server.sent) == sent
            kinds = [entry.get("artifactType") for entry in registry.referrers(image.digest)]
        assert kinds == ([SBOM_TYPE] if api else ["signature", SBOM_TYPE])


def without_api(status: int) -> Any:
    return lambda _, path: (status, {}, b"") if "/referrers/" in path else None


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_a_registry_without_the_api_says_so_in_its_own_way(
    project: Path, lock: Lock, image: Image, status: int
) -> None:
    """Artifactory answers 406; signing, looking and cleaning up stopped there."""
    with registry_server.serve() as server:
        server.has_referrers, server.instead = False, without_api(status)
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            assert registry.referrers(image.digest) == []
            attach_sbom(registry, manifest, lock)
            assert [entry["artifactType"] for entry in registry.referrers(image.digest)] == [SBOM_TYPE]
            found, _ = inspect(registry, "latest")
        assert list(differences(found, lock)) == []


@pytest.mark.parametrize("status", [200, 303, 403, 429])
def test_a_registry_that_leads_to_a_web_page_has_no_api(
    project: Path, lock: Lock, image: Image, status: int
) -> None:
    """GHCR leads to GitHub's pages, which are rate-limited; its own host may lead on to itself."""
    with registry_server.serve() as server, registry_server.serve() as pages:
        page = {"Content-Type": "text/html", "Retry-After": "3600", "Location": "/login"}
        pages.instead = lambda *_: (status, page, b"<html>Log in</html>")
        away = (303, {"Location": f"http://{pages.host}/packages"}, b"")

        def instead(_: str, path: str) -> registry_server.Answer | None:
            if "/referrers/" in path:
                return 307, {"Location": f"http://{server.host}/elsewhere/"}, b""
            return away if path == "/elsewhere/" else None

        server.has_referrers, server.instead = False, instead
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            attach_sbom(registry, manifest, lock)
            assert [entry["artifactType"] for entry in registry.referrers(image.digest)] == [SBOM_TYPE]
            found, _ = inspect(registry, "latest")
        assert list(differences(found, lock)) == []


def test_a_list_of_tags_on_another_host_is_no_empty_one(project: Path, image: Image) -> None:
    """`make prune` takes what no tag names for unused."""
    with registry_server.serve() as server, registry_server.serve() as other:
        push(server, project, image)
        push(other, project, image)
        there = f"http://{other.host}/v2/models/tiny/tags/list"
        server.instead = lambda _, path: (
            (307, {"Location": there}, b"") if path.endswith("/tags/list") else None
        )
        with Registry(target(server)) as registry:
            assert set(registry.tagged()) == {image.digest}


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_registry_that_refuses_or_fails_does_not_say_that_nothing_is_attached(
    project: Path, image: Image, status: int
) -> None:
    with registry_server.serve() as server:
        server.instead = without_api(status)
        push(server, project, image)
        with pytest.raises(InputError, match=f"answers {status}"), Registry(target(server)) as registry:
            registry.referrers(image.digest)


@pytest.mark.parametrize("status", [400, 406])
def test_a_list_that_breaks_off_and_one_of_tags_are_errors(
    project: Path, lock: Lock, image: Image, status: int
) -> None:
    with registry_server.serve() as server:
        push(server, project, image)
        server.page_size = 1
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            attach(registry, manifest, [sbom_of(lock), SIGNATURE])
        server.instead = lambda _, path: (status, {}, b"") if "?last=" in path else None
        with pytest.raises(InputError, match=f"answers {status}"), Registry(target(server)) as registry:
            registry.referrers(image.digest)
        server.instead = lambda _, path: (status, {}, b"") if path.endswith("/tags/list") else None
        with pytest.raises(InputError, match=f"answers {status}"), Registry(target(server)) as registry:
            registry.tagged()


def of_a_scanner(**more: Any) -> bytes:
    """What a scanner makes of an image: the same format, with components of its own."""
    component = {"type": "container", "name": "tiny", "properties": [{"name": "syft:image", "value": "x"}]}
    document = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": component},
        "components": [{"type": "file", "name": "/bin/busybox"}],
    }
    return json.dumps({**document, **more}).encode()


FOREIGN = {
    "a scanner's": of_a_scanner(),
    "without a component": of_a_scanner(metadata={"tools": []}),
    "with a component that is none": of_a_scanner(metadata=["x"]),
    "a list": b"[]",
    "XML": b"<?xml version='1.0'?><bom/>",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_bill_of_materials_of_another_tool_is_not_taken_for_our_own(
    project: Path, lock: Lock, image: Image, content: bytes
) -> None:
    with registry_server.serve() as server:
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            attach(registry, manifest, [Artifact(SBOM_TYPE, content)])
            assert attached_sbom(registry, image.digest) is None
            found, _ = inspect(registry, "latest")
            assert (found.attached, found.files) == ((SBOM_TYPE,), ())
            attach_sbom(registry, manifest, lock)
            found, _ = inspect(registry, "latest")
            assert list(differences(found, lock)) == []


def test_one_of_another_tool_is_passed_over_without_reading_it_where_it_is_large(
    project: Path, lock: Lock, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelcar.evidence.MAX_BLOB", len(sbom(lock)))
    monkeypatch.setattr("modelcar.registry.MAX_BLOB", len(sbom(lock)))
    with registry_server.serve() as server:
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            manifest = registry.manifest("latest")
            assert manifest
            attach(registry, manifest, [Artifact(SBOM_TYPE, b" " * len(sbom(lock)) + of_a_scanner())])
            attach_sbom(registry, manifest, lock)
            assert attached_sbom(registry, image.digest) == json.loads(sbom(lock))


# --- looked at


def test_an_image_is_looked_at_without_a_layer(project: Path, lock: Lock, image: Image) -> None:
    with registry_server.serve() as server:
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            _, manifest = inspect(registry, "latest")
            attach_sbom(registry, manifest, lock)
            server.read.clear()
            found, _ = inspect(registry, image.digest)
        assert not {layer.digest for layer in image.layers} & set(server.read)
    assert found.digest == image.digest
    assert found.platform == "linux/amd64"
    assert [layer.made_by for layer in found.layers] == ["bin/busybox", "config.json and 6 more"]
    assert found.attached == (SBOM_TYPE,)
    assert sorted(found.files) == sorted((file.path, file.size, file.sha256) for file in lock.files)
    assert list(differences(found, lock)) == []


def test_what_differs_from_a_lock_is_told(project: Path, lock: Lock, image: Image) -> None:
    with registry_server.serve() as server:
        push(server, project, image)
        with Registry(target(server)) as registry:
            found, _ = inspect(registry, "latest")
    assert list(differences(found, lock)) == []
    other = dataclasses.replace(lock, license="MIT", layers=lock.layers + lock.layers)
    told = list(differences(found, other))
    assert told[0] == f"made from the lock {lock.digest}, not {other.digest}"
    assert told[1] == "its layers are not the lock's"


EVIL = ImageLayer("sha256:" + "e" * 64, 9, "sha256:" + "e" * 64, LAYER_TYPES["none"], "modelcar: evil.py")


def made_otherwise(image: Image, *layers: ImageLayer, **config: Any) -> Image:
    """An image with the annotations of the lock's own one."""
    known = {**json.loads(image.config)["config"], **config}
    return make_image(layers or image.layers, "amd64", known, image.annotations)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda i: made_otherwise(i, i.layers[0], EVIL, *i.layers[1:]), f"has not: {EVIL.digest}"),
        (lambda i: made_otherwise(i, *i.layers, EVIL), f"has not: {EVIL.digest}"),
        (lambda i: made_otherwise(i, EVIL, *i.layers[1:]), "its programs are not base.lock's"),
        (lambda i: made_otherwise(i, *reversed(i.layers)), "its layers are not the lock's"),
        (lambda i: made_otherwise(i, Entrypoint=["/models/evil"]), "its Entrypoint is ['/models/evil']"),
        (lambda i: made_otherwise(i, Env=["PATH=/models"]), "its Env is ['PATH=/models'], not ['PATH="),
    ],
    ids=["below", "above", "base", "order", "entry point", "environment"],
)
def test_what_an_image_has_beside_the_locks_layers_is_told(
    project: Path,
    lock: Lock,
    image: Image,
    change: Any,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its annotations and its bill of materials say that it is the lock's: whoever pushes writes them."""
    other = change(image)
    with registry_server.serve() as server:
        push(server, project, image)
        server.blobs[EVIL.digest] = b"evil"
        with Registry(target(server), write=True) as registry:
            registry.add_blob(other.config)
            registry.add_manifest("v1", other.manifest, MANIFEST_TYPE)
            manifest = registry.manifest("v1")
            assert manifest
            attach_sbom(registry, manifest, lock)
        reference = f"{server.host}/models/tiny:v1"
        assert main(["--project", str(project), "verify-image", "tiny", reference, "--insecure"]) == 1
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


def test_an_image_that_another_builder_wrote_is_the_locks(project: Path, lock: Lock, image: Image) -> None:
    """kaniko notes when it built."""
    known = {**json.loads(image.config), "created": "2026-01-01T00:00:00Z"}
    config = json.dumps(known).encode()
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": sha256_digest(config), "size": len(config)}
    with registry_server.serve() as server:
        push(server, project, image)
        with Registry(target(server), write=True) as registry:
            registry.add_blob(config)
            registry.add_manifest("v1", json.dumps(manifest).encode(), MANIFEST_TYPE)
            found, _ = inspect(registry, "v1")
    assert found.digest != image.digest
    assert list(differences(found, lock)) == []
    assert list(differences(dataclasses.replace(found, platform="windows/amd64"), lock)) == [
        "made for windows/amd64, not for linux and amd64 or arm64"
    ]


def test_a_registry_that_sends_another_manifest_is_not_believed(project: Path, image: Image) -> None:
    with registry_server.serve() as server:
        push(server, project, image)
        server.manifests[image.digest] = (b'{"layers": []}', MANIFEST_TYPE)
        with pytest.raises(InputError, match="do not trust"), Registry(target(server)) as registry:
            registry.manifest(image.digest)


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_another_host_that_has_the_blobs_gets_no_credentials(
    project: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants: str
) -> None:
    """A bucket that asks for a login is not asked who gives tokens, nor told who the user is."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registry_server.serve(wants) as server, registry_server.serve("Bearer") as bucket:
        pair = f"{registry_server.USER}:{registry_server.PASSWORD}"
        known = {"auth": base64.b64encode(pair.encode()).decode()}
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: known}}))
        push(server, project, image)
        leads = (307, {"Location": f"http://{bucket.host}/v2/x/blobs/{image.config_digest}"}, b"")
        server.instead = lambda method, path: leads if method == "GET" and "/blobs/" in path else None
        with pytest.raises(InputError, match="answers 401"), Registry(target(server)) as registry:
            registry.blob(image.config_digest)
        assert server.credentials
        assert len(bucket.requests) > 0
        assert bucket.credentials == []
        bucket.wants, bucket.blobs = None, {image.config_digest: image.config}
        with Registry(target(server)) as registry:
            assert registry.blob(image.config_digest) == image.config


@pytest.mark.parametrize("challenge", ['Bearer realm="https://exa mple:port/x"', "Bearer", "Other"])
def test_a_challenge_that_names_no_address_is_told(image: Image, challenge: str) -> None:
    with registry_server.serve() as server:
        server.instead = lambda _method, _path: (401, {"WWW-Authenticate": challenge}, b"")
        with pytest.raises(InputError, match="answers 401"), Registry(target(server)) as registry:
            registry.manifest(image.digest)


def test_commands_speak_in_words(project: Path, image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    with registry_server.serve("Basic") as server:
        reference = f"{server.host}/models/tiny"
        assert main(["inspect", reference, "--insecure"]) == 1
        assert "the registry answers 401" in capsys.readouterr().err
    for command in (["inspect"], ["--project", str(project), "verify-image", "tiny"]):
        assert main([*command, reference, "--insecure"]) == 1
        said = capsys.readouterr().err
        assert "cannot be reached" in said
        assert "with the input" not in said
    with registry_server.serve() as server:
        push(server, project, image)
        reference = f"{server.host}/models/tiny"
        at = ["--project", str(project)]
        assert main([*at, "inspect", f"{reference}:absent", "--insecure"]) == 2
        assert main([*at, "verify-image", "tiny", reference, "--insecure"]) == 0
        assert "no bill of materials" in capsys.readouterr().err
        assert main([*at, "attach", "tiny", reference, "--insecure"]) == 0
        assert main([*at, "verify-image", "tiny", reference, "--insecure"]) == 0
        assert "no bill of materials" not in capsys.readouterr().err
        assert main([*at, "sbom", "tiny"]) == 0
        assert '"machine-learning-model"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reference", "repository", "wanted"),
    [
        ("h.io/a/b", "a/b", "latest"),
        ("h.io:5000/b:v1", "b", "v1"),
        ("oci://h.io/a/b@sha256:" + "a" * 64, "a/b", "sha256:" + "a" * 64),
        ("h.io/a:v1@sha256:" + "a" * 64, "a", "sha256:" + "a" * 64),
    ],
)
def test_references_are_read(reference: str, repository: str, wanted: str) -> None:
    found, rest = parse(reference)
    assert (found.host.split(":")[0], found.repository, rest) == ("h.io", repository, wanted)


@pytest.mark.parametrize("reference", ["busybox", "", "h.io/A", "https://h.io/a", "h.io/a@sha256:abc"])
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match="storageUri"):
        parse(reference)
