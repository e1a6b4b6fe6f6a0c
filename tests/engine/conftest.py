"""A Pulumi project per test, run by the real CLI against the real platform."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelcar import locking
from modelcar.lock import Lock
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT, Platform, write_stack

PARTS = (
    "Pulumi.yaml",
    "__main__.py",
    "components",
    "modelcar",
    "operations",
    ".venv",
    "pyproject.toml",
)

#: A server that starts at once: busybox httpd, with a page for the probes, the weights, and the model's
#: configuration, which it keeps as vLLM does: a pod that goes serves on while its weights have gone already.
#: Where the model has none it serves too: it needs no more of a model than the program waits for.
PAGES = (
    "mkdir -p /tmp/www && echo ok > /tmp/www/health && ln -sfn /mnt/models /tmp/www/models"
    " && { [ ! -r /mnt/models/config.json ] || cp /mnt/models/config.json /tmp/www/; }"
)
STUB_SERVER = ["sh", "-c", f"{PAGES} && exec httpd -f -p 8080 -h /tmp/www", "stub"]

#: Answers what the last run told, and is in the state once a run has asked.
ENGINE = "pulumi:providers:pulumi"


@dataclass
class Project:
    """The program in a folder of its own, with a stack that is called `test` unless said otherwise."""

    folder: Path
    weights: Path
    namespace: str
    platform: Platform
    config: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)
    stack: str = "test"

    def configure(self, **changes: Any) -> None:
        """Change settings of the stack; None removes one."""
        self.config.update(changes)
        kept = {key: value for key, value in self.config.items() if value is not None}
        write_stack(self.folder, self.stack, kept)

    def pulumi(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the CLI on the stack."""
        result = subprocess.run(
            ["pulumi", *arguments, "--stack", self.stack, "--non-interactive"],
            cwd=self.folder,
            env=self.platform.pulumi_env(self.folder) | self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"pulumi {' '.join(arguments)}\n{result.stdout}\n{result.stderr}")
        return result

    def preview(self) -> list[dict[str, Any]]:
        """Return the steps of a preview that change something."""
        shown = json.loads(self.pulumi("preview", "--json").stdout)
        return [step for step in shown["steps"] if step["op"] not in {"same", "read"}]

    def up(self) -> dict[str, Any]:
        """Run `pulumi up` and return the stack's outputs."""
        self.pulumi("up", "--yes", "--skip-preview")
        outputs: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json").stdout)
        return outputs

    def resources(self) -> list[str]:
        """Return the types of the resources in the stack's state, but for the engine's own provider."""
        state = json.loads(self.pulumi("stack", "export").stdout)
        found = [resource["type"] for resource in state["deployment"].get("resources", [])]
        return [kind for kind in found if kind != ENGINE]

    def state_file(self) -> Path:
        """Return the file that the backend keeps the stack's state in."""
        [found] = (self.folder / ".state").glob(f".pulumi/stacks/*/{self.stack}.json")
        return found

    def end(self) -> None:
        """Destroy what a test left of the stack, which works for every state that `up` can leave."""
        if self.has_resources():
            self.pulumi("destroy", "--yes")

    def has_resources(self) -> bool:
        """Tell whether there is anything to destroy, or no telling; asks the state's file, not the CLI."""
        try:
            latest = json.loads(self.state_file().read_text())["checkpoint"].get("latest") or {}
        except (OSError, ValueError):
            return True
        rows = latest.get("resources") or []
        return any(row["type"] not in {"pulumi:pulumi:Stack", ENGINE} for row in rows) or bool(
            latest.get("pending_operations")
        )

    @property
    def layout(self) -> Path:
        """Where the model's layers are."""
        return locking.layout_path(self.folder, self.config["model"])

    def lock(self) -> Lock:
        """Lock the weights as they are now."""
        description = locking.Description(folder=str(self.weights), license="Apache-2.0")
        resolved = locking.resolve(description, self.folder)
        return locking.lock_model(self.config["model"], description, resolved, self.folder)[0]

    def change_weights(self, seed: int) -> None:
        """Put other weights of the same shape in the folder, and lock them."""
        make_tiny_model(self.weights.with_name(f"seed-{seed}"), seed=seed)
        source = self.weights.with_name(f"seed-{seed}") / "model.safetensors"
        (self.weights / "model.safetensors").write_bytes(source.read_bytes())
        self.lock()


@pytest.fixture
def prod(project: Project) -> Iterator[Project]:
    """Make a stack `prod` of the same program, with a repository and namespace of its own, behind `test`."""
    config = {
        **project.config,
        "namespace": f"{project.namespace}-p",
        "registry": f"{project.platform.settings['registry']}-prod",
        "promoteFrom": f"organization/{yaml.safe_load((PROJECT / 'Pulumi.yaml').read_text())['name']}/test",
    }
    made = replace(project, config=config, stack="prod")
    made.configure()
    made.pulumi("stack", "init")
    yield made
    made.end()


@pytest.fixture
def project(platform: Platform, tmp_path: Path) -> Iterator[Project]:
    """Make the project; destroy what a test left of its stack."""
    folder = tmp_path / "project"
    folder.mkdir()
    for part in PARTS:
        (folder / part).symlink_to(platform.checkout.folder / part)
    weights = tmp_path / "weights" / "tiny"
    make_tiny_model(weights)
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    config: dict[str, Any] = {
        "platformFile": str(platform.checkout.folder / ".local/local/platform.json"),
        "model": f"tiny-{namespace}",
        "serviceName": "tiny",
        "namespace": namespace,
        "gpuCount": 0,
        "cpu": "100m",
        "memory": "64Mi",
        "sharedMemory": "16Mi",
        "serverCommand": STUB_SERVER,
        "serverArgs": [],
        "serverEnv": [],
        "serverHostPaths": [],
        "startTimeoutSeconds": 120,
    }
    made = Project(folder, weights, namespace, platform, config)
    made.configure()
    made.lock()
    made.pulumi("stack", "init")
    yield made
    made.end()
