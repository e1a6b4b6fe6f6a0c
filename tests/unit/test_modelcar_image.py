"""The image's configuration and manifest: byte for byte what BuildKit writes, from the lock alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from modelcar import base
from modelcar.image import LOCK_ANNOTATION, annotations_of, modelcar_image
from modelcar.layer_format import layer_size
from modelcar.lock import FolderSource, HubSource, Lock, LockedFile, LockedLayer
from modelcar.lock_reader import read_lock
from modelcar.manifest import sha256_digest

PROJECT = Path(base.__file__).parent.parent
AMD64 = base.read_base("amd64")

#: What a real BuildKit 0.31 pushed for the demo's model.
PUSHED = "sha256:ff85c0100ddcc8f93d00326b3f6d73d30427551ebd0c4d230f1a2acbdd970b2e"
LAYER = "sha256:dbe47882f0851caea1992f4a50ae341934eec11a4d267d2e7111b9e5207269e9"
LARGE, SMALL = "sha256:" + "e" * 64, "sha256:" + "d" * 64


def lock() -> Lock:
    files = (LockedFile("a.json", 700, "a" * 64), LockedFile("b.safetensors", 2 * 10**7, "b" * 64))
    layers = (
        LockedLayer(LARGE, layer_size([("b.safetensors", 2 * 10**7)]), LARGE, ("b.safetensors",)),
        LockedLayer(SMALL, layer_size([("a.json", 700)]), SMALL, ("a.json",)),
    )
    return Lock("tiny", FolderSource("data/x"), "MIT", "none", files, layers)


def test_the_demos_image_is_the_one_that_was_pushed() -> None:
    committed = read_lock(PROJECT / "modelcar/models/tiny-qwen2/model.lock")
    assert [layer.digest for layer in committed.layers] == [LAYER]
    assert modelcar_image(committed, AMD64).digest == PUSHED


def test_configuration_is_compact_and_in_the_order_of_gos_types() -> None:
    locked = lock()
    assert modelcar_image(locked, AMD64).config.decode() == (
        '{"architecture":"amd64","config":{"Env":'
        '["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],'
        '"Cmd":["ls","-lR","/models"],"Labels":{'
        f'"io.modelcar.lock.digest":"{locked.digest}",'
        '"org.opencontainers.image.licenses":"MIT","org.opencontainers.image.title":"tiny"}},'
        '"created":"1970-01-01T00:00:00Z","history":['
        '{"created":"1970-01-01T00:00:00Z","created_by":"modelcar: bin/busybox"},'
        '{"created":"1970-01-01T00:00:00Z","created_by":"modelcar: b.safetensors"},'
        '{"created":"1970-01-01T00:00:00Z","created_by":"modelcar: a.json"}],'
        '"os":"linux","rootfs":{"type":"layers","diff_ids":['
        f'"{AMD64.layer.digest}","{LARGE}","{SMALL}"]}}}}'
    )


def test_manifest_is_indented_as_buildkit_does() -> None:
    locked = lock()
    image = modelcar_image(locked, AMD64)
    layer = '    {{\n      "mediaType": "application/vnd.oci.image.layer.v1.tar",\n'
    layer += '      "digest": "{}",\n      "size": {}\n    }}'
    blobs = [(AMD64.layer.digest, AMD64.layer.size), (LARGE, 20_002_304), (SMALL, 3072)]
    assert image.manifest.decode() == (
        '{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.manifest.v1+json",\n'
        '  "config": {\n    "mediaType": "application/vnd.oci.image.config.v1+json",\n'
        f'    "digest": "{sha256_digest(image.config)}",\n    "size": {len(image.config)}\n  }},\n'
        '  "layers": [\n' + ",\n".join(layer.format(*blob) for blob in blobs) + "\n  ],\n"
        '  "annotations": {\n'
        f'    "io.modelcar.lock.digest": "{locked.digest}",\n'
        '    "org.opencontainers.image.licenses": "MIT",\n'
        '    "org.opencontainers.image.title": "tiny"\n  }\n}'
    )
    assert image.digest == sha256_digest(image.manifest)
    assert image.size == len(image.manifest) + len(image.config) + sum(size for _, size in blobs)


def test_strings_are_written_as_go_writes_them() -> None:
    """Go escapes what HTML would act on, and two line ends; all else stays as it is."""
    image = modelcar_image(dataclasses.replace(lock(), license='<a> & "b" été 東京 \u2028'), AMD64)
    said = rb'"\u003ca\u003e \u0026 \"b\" ' + "été 東京 ".encode() + rb'\u2028"'
    assert said in image.manifest
    assert said in image.config
    read_back = json.loads(image.manifest)["annotations"]["org.opencontainers.image.licenses"]
    assert read_back == '<a> & "b" été 東京 \u2028'


def test_the_digest_is_bound_to_the_lock_and_to_the_processor() -> None:
    locked = lock()
    other_file = dataclasses.replace(locked.files[0], sha256="c" * 64)
    others = [
        locked,
        dataclasses.replace(locked, files=(other_file, locked.files[1])),
        dataclasses.replace(locked, name="other"),
        dataclasses.replace(locked, license=None),
        dataclasses.replace(locked, source=FolderSource("elsewhere")),
    ]
    digests = {modelcar_image(other, AMD64).digest for other in others}
    digests.add(modelcar_image(locked, base.read_base("arm64")).digest)
    assert len(digests) == 6


def test_compressed_layers_have_their_type_and_the_digest_of_their_content() -> None:
    plain = lock()
    layers = tuple(
        dataclasses.replace(layer, digest=f"sha256:{number}".ljust(71, "0"), size=10)
        for number, layer in enumerate(plain.layers)
    )
    image = modelcar_image(dataclasses.replace(plain, compression="zstd", layers=layers), AMD64)
    types = [layer["mediaType"] for layer in json.loads(image.manifest)["layers"]]
    tar = "application/vnd.oci.image.layer.v1.tar"
    assert types == [tar, f"{tar}+zstd", f"{tar}+zstd"], "the programs are not compressed"
    assert json.loads(image.config)["rootfs"]["diff_ids"] == [AMD64.layer.digest, LARGE, SMALL]


def test_annotations_of_a_folder_name_no_place() -> None:
    locked = dataclasses.replace(lock(), license=None, source=FolderSource("/home/somebody/model"))
    assert annotations_of(locked) == {
        LOCK_ANNOTATION: locked.digest,
        "org.opencontainers.image.title": "tiny",
    }


def test_annotations_are_sorted_as_go_sorts_maps() -> None:
    locked = dataclasses.replace(lock(), source=HubSource("a/b", "c" * 40))
    image = modelcar_image(locked, AMD64)
    assert list(json.loads(image.manifest)["annotations"]) == sorted(image.annotations)
    assert len(image.annotations) == 5
    assert list(json.loads(image.config)["config"]["Labels"]) == sorted(image.annotations)
