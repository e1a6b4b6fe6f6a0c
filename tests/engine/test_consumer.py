"""Another team's program against a real stack: what it reads is what is served."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema

from tests.conftest import PROJECT
from tests.engine.conftest import Project
from tests.engine.package import install

SCHEMA = json.loads((PROJECT / "docs/outputs.schema.json").read_text())


def consumer(project: Project, folder: Path) -> Path:
    """Put the example into a folder of its own, where the package is installed."""
    folder.mkdir()
    for part in ("Pulumi.yaml", "__main__.py"):
        (folder / part).symlink_to(PROJECT / "examples/consumer" / part)
    (folder / ".venv").symlink_to(install(folder))
    document = "config:\n  chat-frontend:modelStack: organization/modelcar/test\n"
    (folder / "Pulumi.dev.yaml").write_text(document)
    return folder


def run(
    project: Project, folder: Path, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    # The same backend as the stack that it reads.
    result = subprocess.run(
        ["pulumi", *arguments, "--stack", "dev", "--non-interactive"],
        cwd=folder,
        env=project.platform.pulumi_env(project.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def test_a_consumer_reads_a_real_stack_by_the_schema(project: Project, tmp_path: Path) -> None:
    folder = consumer(project, tmp_path / "consumer")
    run(project, folder, "stack", "init")
    early = run(project, folder, "preview", check=False)
    assert early.returncode
    assert "has no outputs of a modelcar stack: deploy it first" in early.stdout + early.stderr
    assert "Traceback" not in early.stdout + early.stderr

    outputs = project.up()
    jsonschema.Draft202012Validator(SCHEMA).validate(outputs)

    run(project, folder, "up", "--yes", "--skip-preview")
    found: dict[str, Any] = json.loads(run(project, folder, "stack", "output", "--json").stdout)
    [told] = outputs["models"].values()
    assert found["routes"] == {
        told["servedModelName"]: {"url": f"{told['endpoint']}/v1", "digest": told["modelDigest"]}
    }
    assert found["largestModelBytes"] == told["modelBytes"]

    # The address is the one that KServe itself says.
    service = project.platform.kubectl(
        *("-n", project.namespace, "get", "inferenceservice", told["serviceName"], "-o", "json")
    )
    assert told["endpoint"] == json.loads(service)["status"]["address"]["url"]
    run(project, folder, "destroy", "--yes")


def test_nothing_of_the_outputs_is_a_secret_or_holds_one(project: Project) -> None:
    project.up()
    state = json.loads(project.pulumi("stack", "export").stdout)
    [stack] = [r for r in state["deployment"]["resources"] if r["type"] == "pulumi:pulumi:Stack"]
    assert "4dabf18193072939515e22adb298388d" not in json.dumps(stack["outputs"]), "Pulumi's mark of a secret"
