"""Cloud Build's configuration: as its API describes it, and steps that do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.standins.gcp_provider.discovery import document
from modelcar.__main__ import main
from modelcar.tiny_model import make_tiny_model

PROJECT = Path(__file__).resolve().parent.parent.parent
BUILD: dict[str, Any] = yaml.safe_load((PROJECT / "modelcar/cloudbuild.yaml").read_text())


def problems(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """Yield what a value has that the API's description has not."""
    schemas = (document("cloudbuild.v1") or {})["schemas"]
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = schema["type"]
    kinds: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    fits = isinstance(value, kinds[kind])
    if not fits:
        yield f"{where}: {type(value).__name__}, not {kind}"
    elif kind == "array":
        for number, item in enumerate(value):
            yield from problems(item, schema["items"], f"{where}[{number}]")
    elif kind == "object":
        for name, item in value.items():
            field = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if field is None:
                yield f"{where}.{name}: no such field"
            elif field.get("readOnly"):
                yield f"{where}.{name}: output only"
            else:
                yield from problems(item, field, f"{where}.{name}")
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value} is none of {schema['enum']}"


def test_every_field_is_one_of_the_api() -> None:
    assert list(problems(BUILD, {"$ref": "Build"}, "build")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": []}, "build.step: no such field"),
        ({"options": {"logging": "STDOUT"}}, "build.options.logging: STDOUT is none of"),
        ({"timeout": 7200}, "build.timeout: int, not string"),
        ({"status": "SUCCESS"}, "build.status: output only"),
    ],
)
def test_the_check_finds_what_is_wrong(change: dict[str, Any], said: str) -> None:
    assert any(found.startswith(said) for found in problems({**BUILD, **change}, {"$ref": "Build"}, "build"))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a locked model, and programs that note what they are called with."""
    make_tiny_model(tmp_path / "weights")
    assert main(["--project", str(tmp_path), "lock", "tiny", "--folder", str(tmp_path / "weights")]) == 0
    programs = tmp_path / "bin"
    programs.mkdir()
    wrapper = (
        f'#!/bin/sh\n[ "$2" = pip ] && exit\nshift 2\nexec {sys.executable} -m modelcar --project . "$@"\n'
    )
    (programs / "python").write_text(wrapper)
    (programs / "docker").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done >> docker.txt\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def run(workspace: Path, name: str) -> subprocess.CompletedProcess[str]:
    [step] = [step for step in BUILD["steps"] if step["id"] == name]
    script = workspace / f"step-{name}"
    script.write_text(step["script"])
    script.chmod(0o755)
    path = f"{workspace / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {"MODEL": "tiny", "REPOSITORY": "registry.example/models/tiny", "PYTHONPATH": str(PROJECT)}
    environment = {**os.environ, **variables, "PATH": path}
    return subprocess.run(
        [str(script)], cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )


def test_the_steps_build_the_locked_image_and_no_other(workspace: Path) -> None:
    assert run(workspace, "fetch").returncode == 0
    digest = (workspace / "digest.txt").read_text().strip()
    assert run(workspace, "build").returncode == 0
    words = (workspace / "docker.txt").read_text().splitlines()
    assert words[:2] == ["buildx", "create"]
    assert "--build-arg=SOURCE_DATE_EPOCH=0" in words
    assert f"--build-context=weights=oci-layout://modelcar/data/tiny.oci@{digest}" in words
    [export] = [word for word in words if word.startswith("--output=")]
    assert f"name=registry.example/models/tiny:{digest[7:23]}" in export
    assert words[-1] == str(PROJECT / "modelcar"), "where the Dockerfile is"

    (workspace / "metadata.json").write_text(json.dumps({"containerimage.digest": digest}))
    assert run(workspace, "check").returncode == 0
    (workspace / "metadata.json").write_text(json.dumps({"containerimage.digest": "sha256:" + "0" * 64}))
    refused = run(workspace, "check")
    assert refused.returncode == 1
    assert f"the lock says {digest}" in refused.stderr
