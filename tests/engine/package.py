"""The package as others install it, and projects of theirs that use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from local.lock import pins
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import STUB_SERVER

#: What the examples say of a server and its pod, and the same for a node without GPUs and vLLM.
ON_THE_PLATFORM = {
    "max_model_len=2048)": f"max_model_len=2048, command={STUB_SERVER!r})",
    'gpus=1, memory="16Gi"': 'gpus=0, cpu="100m", memory="64Mi", shared_memory="16Mi"',
}


def install(folder: Path) -> Path:
    """Build the wheel, install it into a new environment, and return that.

    What it depends on comes from the checkout's own environment, which has the same versions.
    """
    environment, wheel = _environment(folder)
    python = environment / "bin/python"
    run(uv(), "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
    [packages] = environment.glob("lib/python*/site-packages")
    [shared] = (PROJECT / ".venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{shared}\n")
    return environment


def install_alone(folder: Path, *options: str) -> Path:
    """Build the wheel and install it with what it asks for and no more; options: of `uv pip install`.

    The versions are those of the lock, so that nothing new of the index decides whether a test passes.
    """
    environment, wheel = _environment(folder)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins()))
    command = ("pip", "install", "--no-config", "--quiet", "--python", environment / "bin/python")
    run(uv(), *command, *(options or ("--constraints", str(constraints), wheel)))
    if options:
        run(uv(), *command, "--no-deps", wheel)
    return environment


def uv() -> str:
    """Return the path of uv."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "make test says where uv is"
    return found


def _environment(folder: Path) -> tuple[Path, Path]:
    wheels, environment = folder / "wheels", folder / "environment"
    run(uv(), "build", "--quiet", "--wheel", "--out-dir", wheels, PROJECT)
    [wheel] = wheels.glob("*.whl")
    run(uv(), "venv", "--quiet", "--python", sys.executable, environment)
    return environment, wheel


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command and return what it says."""
    parts = [str(part) for part in command]
    result = subprocess.run(parts, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@dataclass
class Elsewhere:
    """Another team's project, beside an installed package."""

    folder: Path
    environment: Path
    platform: Platform
    variables: dict[str, str] = field(default_factory=dict)

    def lock(self, *names: str) -> None:
        """Lock tiny models by the package's own command."""
        make_tiny_model(self.folder / "weights")
        for name in names:
            command = (self.environment / "bin/python", "-m", "modelcar_kserve", "lock", name)
            run(*command, "--folder", "weights", cwd=self.folder)

    def pulumi(self, *arguments: str, check: bool = True) -> str:
        """Run the CLI on the stack `dev`, and return what it says; a failed one says it on both channels."""
        result = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env={**self.platform.pulumi_env(self.folder), **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode == 0) is check, result.stdout + result.stderr
        return result.stdout if check else result.stdout + result.stderr

    def take(self, example: str, config: Mapping[str, Any], changes: Mapping[str, str] | None = None) -> None:
        """Make the project of an example, with its configuration, and a stack.

        Args:
            example: its folder.
            config: values by key; a key without a namespace is of the example's own.
            changes: of its text, by what stands there.
        """
        source = PROJECT / "examples" / example
        shutil.copy(source / "Pulumi.yaml", self.folder)
        text = (source / "__main__.py").read_text()
        for before, after in (changes or {}).items():
            assert before in text, before
            text = text.replace(before, after)
        (self.folder / "__main__.py").write_text(text)
        (self.folder / ".venv").symlink_to(self.environment)
        name = yaml.safe_load((source / "Pulumi.yaml").read_text())["name"]
        keys = {(key if ":" in key else f"{name}:{key}"): value for key, value in config.items()}
        (self.folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": keys}))
        self.pulumi("stack", "init", "dev")
