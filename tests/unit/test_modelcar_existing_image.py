"""Images that others built: what keeps one from being served is found out without pulling it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from modelcar import layer_head
from modelcar.existing_image import ExistingImage, UnfitError, faults, look, notes
from modelcar.manifest import MANIFEST_TYPE, sha256_digest
from modelcar.registry import Registry, Target
from tests import made_images as made
from tests import registry_server

USER = 1010
BASE = made.layer(made.SHELL, created_by="ADD busybox.tar.xz / # buildkit")
CNCF = "application/vnd.cncf.model.config.v1+json"
RAW = made.MadeLayer(b"weights", "sha256:1", "application/vnd.cncf.model.weight.v1.raw")
#: More than is read of a layer, and does not compress.
LARGE = layer_head.HEAD + 2**20


@pytest.fixture
def server() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as running:
        yield running


@pytest.fixture
def target(server: registry_server.Registry) -> Target:
    return Target(f"{server.host}/others", "model", insecure=True)


def seen(target: Target, image: made.Made, architecture: str = "amd64") -> ExistingImage:
    image.push(target)
    with Registry(target) as registry:
        found = look(registry, image.digest, architecture)
    assert found
    return found


def why(target: Target, *layers: made.MadeLayer, run: dict[str, Any] | None = None, **more: Any) -> list[str]:
    image = seen(target, made.image(layers, run))
    return [fault.found for fault in faults(image, USER, **more)]


def model(*, without: str = "", **more: Any) -> made.MadeLayer:
    options = {key: more.pop(key) for key in list(more) if key in {"packed", "mode", "folder_mode", "owner"}}
    files = {path: content for path, content in made.MODEL.items() if path != without} | more
    return made.layer(files, **options)


@pytest.mark.parametrize("packed", ["gzip", "zstd", "none"])
def test_the_runbooks_image_is_served(target: Target, packed: str) -> None:
    image = seen(target, made.image([BASE, model(packed=packed)]))
    assert list(faults(image, USER)) == []
    assert list(notes(image)) == []
    assert image.model_config == made.CONFIG
    assert image.size == len(BASE.blob) + len(model(packed=packed).blob)
    assert image.lock_digest == ""


def test_layers_of_many_gzip_members_are_read(target: Target) -> None:
    # As eStargz and pigz write them.
    plain = gzip.decompress(model().blob)
    pieces = b"".join(gzip.compress(plain[i : i + 512]) for i in range(0, len(plain), 512))
    one = made.MadeLayer(pieces, model().diff_id, model().media_type)
    assert seen(target, made.image([BASE, one])).model_config == made.CONFIG


def test_of_a_large_layer_the_beginning_is_read(
    target: Target, server: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_head, "HEAD", 64 * 1024)
    weights = {"models/model.safetensors": bytes(64 * 2**20 + 1), "models/vocab.json": b"{}"}
    large = made.layer({**made.MODEL, **weights})
    image = seen(target, made.image([BASE, large]))
    assert image.model_config == made.CONFIG
    assert "models/vocab.json" not in image.files.files
    assert image.files.unread_models
    assert not image.files.unread_programs, "its builder wrote down that it is COPY … /models"
    assert list(faults(image, USER)) == []
    assert list(notes(image)) == []


def test_a_config_that_comes_after_what_is_read_is_not_missing(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_head, "UNPACKED", 64 * 1024)
    late: dict[str, made.Content] = {"models/a.safetensors": bytes(2**20), "models/config.json": b"{}"}
    image = seen(target, made.image([BASE, made.layer(late)]))
    assert list(faults(image, USER)) == []
    [note] = notes(image)
    assert "config.json, so that the server's arguments are not compared" in note


def test_what_may_be_in_the_unread_part_is_no_fault_but_is_told(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_head, "UNPACKED", 4096)
    first = made.layer({"etc/large": b"x" * 9000, **made.SHELL, **made.MODEL}, created_by="tool")
    image = seen(target, made.image([first]))
    assert list(faults(image, USER)) == []
    [note] = notes(image)
    for part in ("whether /models has files", "config.json", "whether it has sh, ls, ln, sleep"):
        assert part in note


@pytest.mark.parametrize(
    "entrypoint",
    [["python3"], ["/bin/sh", "-c"], ["tini", "--", "cat"], ["/docker-entrypoint.sh"], ["env", "python"]],
    ids=" ".join,
)
def test_an_entrypoint_is_refused_as_kserve_gives_arguments_only(
    target: Target, entrypoint: list[str]
) -> None:
    [found] = why(target, BASE, model(), run={"Entrypoint": entrypoint, "Cmd": ["serve"]})
    assert f"has the ENTRYPOINT {json.dumps(entrypoint)}" in found
    assert why(target, BASE, model(), run={"Entrypoint": entrypoint}, runs_arguments=True) == []


@pytest.mark.parametrize("entrypoint", [["/sbin/tini", "--"], ["dumb-init"], ["container-entrypoint"]])
def test_one_that_runs_its_arguments_is_told(target: Target, entrypoint: list[str]) -> None:
    image = seen(target, made.image([BASE, model()], {"Entrypoint": entrypoint}))
    assert list(faults(image, USER)) == []
    [note] = notes(image)
    assert entrypoint[0] in note


def test_a_cmd_is_of_no_account(target: Target) -> None:
    assert why(target, BASE, model(), run={"Cmd": ["python3", "serve.py"], "User": "65532"}) == []


def test_an_image_without_a_shell_is_refused(target: Target) -> None:
    [found] = why(target, model())
    assert found.startswith("has no sh in /usr/local/sbin:")


@pytest.mark.parametrize("parts", [True, False])
def test_of_layers_that_are_not_compressed_the_names_are_read(
    target: Target, server: registry_server.Registry, parts: bool
) -> None:
    # As oci-modelcar writes them: a layer for each file, no base, no history.
    server.gives_parts = parts
    files: list[dict[str, made.Content]] = [
        {"models/config.json": b"{}"},
        {"models/model-1.safetensors": bytes(LARGE)},
        {"models/model-2.safetensors": bytes(LARGE), "models/vocab.json": b"{}"},
    ]
    layers = [made.layer(one, packed="none") for one in files]
    image = seen(target, made.image(layers, history=[]))
    assert image.files.unread_models is not parts
    assert bool(image.files.find("models/vocab.json")) is parts
    found = [fault.found for fault in faults(image, USER)]
    assert [one.startswith("has no sh in") for one in found] == [True] * parts


def test_a_shell_that_may_have_the_other_programs_itself_is_told(target: Target) -> None:
    image = seen(target, made.image([made.layer({"bin/sh": b"#!"}), model()]))
    assert list(faults(image, USER)) == []
    [note] = notes(image)
    assert note.startswith("has no ls, ln, sleep, which KServe's containers run, unless")


def test_a_shell_is_found_by_path_and_through_links(target: Target) -> None:
    merged = made.layer({"bin": "usr/bin", **{f"usr/{path}": to for path, to in made.SHELL.items()}})
    assert why(target, merged, model()) == []
    elsewhere = made.layer({f"busybox/{path}": to for path, to in made.SHELL.items()})
    assert why(target, elsewhere, model(), run={"Env": ["PATH=/usr/bin:/busybox/bin"]}) == []
    assert why(target, elsewhere, model())


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "has no folder /models"),
        ({"models/": None}, "its folder /models is empty"),
        ({"config.json": b"{}", "model.safetensors": b"w"}, "has no folder /models"),
        (
            {"models/": None, "models/model.safetensors": b"w"},
            "has no /models/config.json: vLLM ends without",
        ),
        ({"models/": None, "models/tiny/config.json": b"{}"}, "it is in /models/tiny/config.json"),
        (
            {**made.MODEL, "models/config.json": "/hub/config.json"},
            "/models/config.json is a link to an absolute",
        ),
        ({"hub/config.json": b"{}", "models": "/hub"}, "/models is a link to an absolute path"),
    ],
    ids=[
        "none",
        "empty",
        "at the root",
        "no config.json",
        "a folder deeper",
        "absolute link",
        "models a link",
    ],
)
def test_the_models_files_have_to_be_where_kserve_looks(
    target: Target, files: dict[str, made.Content], found: str
) -> None:
    [fault] = why(target, BASE, made.layer(files))
    assert found in fault


@pytest.mark.parametrize("path", ["models/model.gguf", "models/tiny/config.json"])
def test_a_server_of_ones_own_needs_no_config_and_is_told_of(target: Target, path: str) -> None:
    image = seen(target, made.image([BASE, made.layer({"models/": None, path: b"{}"})]))
    assert len(list(faults(image, USER))) == 1
    assert list(faults(image, USER, needs_config=False)) == []
    [note] = notes(image)
    assert note == "has no /models/config.json: whether the server can read the model is not looked at"


def test_pickles_are_told_and_not_refused(target: Target) -> None:
    pickled: dict[str, made.Content] = {"models/pytorch_model.bin": b"p", "models/training_args.BIN": b"p"}
    image = seen(target, made.image([BASE, made.layer({**made.MODEL, **pickled})]))
    assert list(faults(image, USER)) == []
    [note] = notes(image)
    assert "/models/pytorch_model.bin is a pickle, as are 1 more: whoever made it may run code" in note


def test_mistrals_own_configuration_counts_where_vllm_reads_it(target: Target) -> None:
    weights: dict[str, made.Content] = {"models/consolidated.safetensors": b"w", "models/params.json": b"{}"}
    assert why(target, BASE, made.layer(weights)) == []
    [fault] = why(target, BASE, made.layer({"models/a.safetensors": b"w", "models/params.json": b"{}"}))
    assert "vLLM ends without it" in fault


def test_a_relative_link_is_followed(target: Target) -> None:
    # As a hub's cache has them.
    files: dict[str, made.Content] = {
        "models/config.json": "../blobs/1",
        "blobs/1": b"{}",
        "models/model.safetensors": b"w",
    }
    assert why(target, BASE, made.layer(files)) == []
    assert why(target, BASE, made.layer({"hub/config.json": b"{}", "models": "hub"})) == []
    [fault] = why(target, BASE, made.layer({**files, "models/config.json": "config.json"}))
    assert "no /models/config.json" in fault, "a ring of links leads nowhere"


def test_a_later_layer_deletes_and_replaces(target: Target) -> None:
    [fault] = why(target, BASE, model(), made.layer({"models/.wh.config.json": b""}))
    assert "no /models/config.json" in fault
    [fault] = why(target, BASE, model(), made.layer({"models/.wh..wh..opq": b""}))
    assert "/models is empty" in fault
    newer = made.layer({"models/config.json": b'{"model_type": "llama"}'})
    assert seen(target, made.image([BASE, model(), newer])).model_config == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("options", "closed"),
    [
        ({"mode": 0o600}, "/models/config.json"),
        ({"mode": 0o640, "owner": (1000, 1000)}, "/models/config.json"),
        ({"folder_mode": 0o700}, "/models"),
        ({"mode": 0o640}, ""),  # who is not known to the image is in group 0
        ({"mode": 0o600, "folder_mode": 0o700, "owner": (USER, USER)}, ""),
        ({"mode": 0o604, "owner": (1000, 1000)}, ""),
    ],
)
def test_files_that_the_servers_user_cannot_read_are_refused(
    target: Target, options: dict[str, Any], closed: str
) -> None:
    found = why(target, BASE, model(**options))
    assert [fault.partition(" cannot be read by user 1010")[0] for fault in found] == (
        [closed] if closed else []
    )


def test_a_volume_over_the_weights_is_told(target: Target) -> None:
    for path, told in (("/models", True), ("/models/", True), ("/", True), ("/data", False)):
        image = seen(target, made.image([BASE, model()], {"Volumes": {path: {}}}))
        assert [note.startswith("has a VOLUME") for note in notes(image)] == [True] * told


# --- what is no image of the nodes' platform


def refused(target: Target, image: made.Made, architecture: str = "amd64") -> str:
    with pytest.raises(UnfitError) as caught:
        seen(target, image, architecture)
    return caught.value.fault.found


def test_another_platform_is_refused(target: Target) -> None:
    assert "an image for linux/arm64" in refused(target, made.image([BASE, model()], architecture="arm64"))
    assert "an image for windows/amd64" in refused(target, made.image([BASE, model()], os="windows"))
    assert seen(target, made.image([BASE, model()], architecture="arm64"), "arm64")
    unsaid = seen(target, made.image([BASE, model()], architecture=None))
    assert list(notes(unsaid)) == ["does not say which processors it is for"]


def test_of_an_index_the_nodes_image_is_taken(target: Target) -> None:
    arm, intel = (
        made.image([BASE, model(), made.layer({f"models/{a}": b"x"})], architecture=a)
        for a in ("arm64", "amd64")
    )
    for said in (True, False):  # some indexes do not say it; then the images do
        both = made.index((arm, "arm64" if said else None), (intel, "amd64" if said else None))
        found = seen(target, both)
        assert found.digest == both.digest, "it is served by the digest that the stack names"
        assert found.files.find("models/amd64")
    assert "an index of linux/arm64" in refused(target, made.index((arm, "arm64")))
    assert "an index of nothing" in refused(target, made.index())


def test_what_buildkit_says_of_a_build_is_no_image(target: Target) -> None:
    image, said = made.image([BASE, model()]), made.image([BASE])
    both = made.index((said, "unknown"), (image, "amd64"))
    document = json.loads(both.manifest)
    document["manifests"][0]["platform"]["os"] = "unknown"
    both.manifest = json.dumps(document).encode()
    assert seen(target, both).model_config == made.CONFIG


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (made.image([RAW], config_type=CNCF), f"an artifact, none of whose layers a container gets ({CNCF})"),
        (
            made.image([RAW], manifest={"artifactType": "application/vnd.example.model"}),
            "an artifact, none of whose layers a container gets (application/vnd.example.model)",
        ),
        (made.image([BASE, model(), RAW]), "2 layers of an image, and its configuration names 3"),
        (made.image([BASE, model()], rootfs={}), "2 layers of an image, and its configuration names 0"),
        (
            made.image([BASE, model()], rootfs={"diff_ids": ["sha256:1"]}),
            "2 layers of an image, and its configuration names 1",
        ),
        (made.image([]), "an artifact, none"),
        (
            made.Made(
                b'{"schemaVersion": 1, "fsLayers": []}',
                "application/vnd.docker.distribution.manifest.v1+json",
            ),
            "no manifest of an image (schemaVersion 1)",
        ),
        (made.image([BASE], manifest={"layers": "none"}), "no manifest of an image"),
    ],
    ids=[
        "artifact",
        "artifact type",
        "raw layer",
        "no rootfs",
        "damaged",
        "no layers",
        "schema 1",
        "no list",
    ],
)
def test_artifacts_are_no_images(target: Target, image: made.Made, found: str) -> None:
    assert found in refused(target, image)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'"x"'])
def test_a_manifest_that_is_none_is_refused_in_words(
    target: Target, server: registry_server.Registry, content: bytes
) -> None:
    digest = sha256_digest(content)
    server.manifests[digest] = (content, MANIFEST_TYPE)
    with Registry(target) as registry, pytest.raises(UnfitError, match="no manifest of an image"):
        look(registry, digest, "amd64")


def test_what_no_container_gets_beside_an_images_layers_is_passed_over(target: Target) -> None:
    # As containerd does, whatever type the configuration has.
    names = {"type": "layers", "diff_ids": [BASE.diff_id, model().diff_id]}
    image = seen(target, made.image([BASE, model(), RAW], config_type=CNCF, rootfs=names))
    assert list(faults(image, USER)) == []
    assert image.model_config == made.CONFIG
    assert image.size == sum(len(one.blob) for one in (BASE, model(), RAW)), "it is pulled all the same"


def test_docker_s_own_types_are_images(target: Target) -> None:
    image = made.image([BASE, model()], config_type="application/vnd.docker.container.image.v1+json")
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    image.manifest = image.manifest.replace(b"application/vnd.oci.image.layer.v1.tar+gzip", docker.encode())
    assert seen(target, image).model_config == made.CONFIG


def test_the_disk_has_room_for_what_compressed_layers_unpack_to(target: Target) -> None:
    packed = seen(target, made.image([BASE, model()]))
    assert packed.disk == pytest.approx(packed.size * 1.25)
    plain = made.image([model(packed="none")])
    assert seen(target, plain).disk == seen(target, plain).size


def test_layers_that_cannot_be_had_are_told(target: Target, server: registry_server.Registry) -> None:
    image = made.image([BASE, model()])
    image.push(target)
    server.blobs.pop(json.loads(image.manifest)["layers"][1]["digest"])
    with Registry(target) as registry:
        found = look(registry, image.digest, "amd64")
    assert found
    assert list(faults(found, USER)) == []
    [note] = notes(found)
    assert "whether /models has files" in note
    assert "404" in note


def test_what_is_no_archive_is_told(target: Target) -> None:
    image = seen(target, made.image([BASE, made.MadeLayer(b"\x1f\x8bno", "sha256:1", model().media_type)]))
    assert list(faults(image, USER)) == []
    assert any("whether /models has files" in note for note in notes(image))


def test_one_that_is_not_there_is_none(target: Target, server: registry_server.Registry) -> None:
    with Registry(target) as registry:
        assert look(registry, "sha256:" + "0" * 64, "amd64") is None


def test_docker_hub_is_asked_where_its_registry_is() -> None:
    assert Target("docker.io", "busybox").url == "https://registry-1.docker.io/v2/library/busybox"
    assert Target("docker.io/vllm", "vllm-openai").url == "https://registry-1.docker.io/v2/vllm/vllm-openai"
