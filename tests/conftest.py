"""A checkout of the project with a running platform of its own, shared by the engine and local tiers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import direct

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def past_proxies() -> Iterator[None]:
    """Behind a proxy, ask what the tests serve past it, as all does that make starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in direct.variables(None).items():
            patch.setenv(name, value)
        yield


@dataclass(frozen=True)
class Checkout:
    """A copy of the project in a folder of its own, as a user has after `git clone`."""

    folder: Path
    environment: dict[str, str]

    def make(self, *targets: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run make there; its output is captured, and shown where the run fails."""
        result = subprocess.run(
            ["make", "--no-print-directory", *targets],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"make {' '.join(targets)}: {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def shell(self) -> dict[str, str]:
        """Return the variables of `python -m local env`."""
        said = [".venv/bin/python", "-m", "local", "env"]
        exports = subprocess.check_output(said, cwd=self.folder, env=self.environment, text=True)
        lines = (line.removeprefix("export ").partition("=") for line in exports.splitlines())
        return {name: value.strip("'") for name, _, value in lines}


@dataclass(frozen=True)
class Platform:
    """The running platform, as tests see it."""

    checkout: Checkout
    settings: dict[str, Any]
    shell: dict[str, str]

    @property
    def kubeconfig(self) -> str:
        """Path of the administrator's kubeconfig."""
        return str(self.settings["kubeconfig"])

    @property
    def registry_host(self) -> str:
        """`HOST:PORT` of the platform's registry."""
        return str(self.settings["registry"]).partition("/")[0]

    @property
    def host(self) -> str:
        """Address of this machine, as the platform's pods reach it: the other end of its link."""
        return f"{self.registry_host.rpartition('.')[0]}.1"

    @property
    def server_image(self) -> str:
        """A small image by digest (busybox) for containers of tests."""
        return str(self.settings["serverImage"])

    def pulumi_env(self, stack_dir: Path) -> dict[str, str]:
        """Return an environment for the real CLI, with its state in `stack_dir`."""
        backend = stack_dir / ".state"
        backend.mkdir(parents=True, exist_ok=True)
        own = {"PULUMI_BACKEND_URL": backend.as_uri(), "PULUMI_CONFIG_PASSPHRASE": ""}
        return {**self.checkout.environment, **self.shell, **own}

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        """Run kubectl as the administrator."""
        result = subprocess.run(
            ["kubectl", *arguments],
            env={**self.checkout.environment, **self.shell},
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: {result.stderr}")
        return result.stdout + ("" if check else result.stderr)


def copied(folder: Path) -> Checkout:
    """Copy what git knows of the project; tools and environments come from the real checkout's cache."""
    folder.mkdir(exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not (PROJECT / name).exists():
            continue  # deleted in the work tree, not yet in git
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, target)
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    return _checkout(folder)


def _checkout(folder: Path) -> Checkout:
    cache = os.environ.get("MODELCAR_CACHE") or str(PROJECT / ".cache")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
    environment |= {"MODELCAR_CACHE": cache, "MODELCAR_STATE": str(folder / ".local")}
    return Checkout(folder, environment)


def _clean(made: Checkout) -> None:
    """Stop the platform and remove what it wrote; what stays of it is a fault of `make clean`."""
    made.make("clean")
    state = made.folder / ".local/local"
    links = [alias.read_text().strip() for alias in Path("/sys/class/net").glob("*/ifalias")]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    left = [line for line in [*links, *mounts] if f"{made.folder}/" in line]
    if state.exists():
        left += [str(state), *map(str, state.iterdir())]
    if left:
        pytest.fail(f"make clean left {left}")


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Let one worker at a time into the block."""
    with (folder / "checkout.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
        yield


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Checkout]:
    """Copy the project; workers of one run (pytest -n) share the copy, and so its platform."""
    if worker_id == "master":
        made = copied(tmp_path_factory.mktemp("checkout"))
        yield made
        _clean(made)
        return
    run = tmp_path_factory.getbasetemp().parent
    folder, users = run / "checkout", run / "checkout.users"
    with _in_turn(run):
        made = _checkout(folder) if folder.exists() else copied(folder)
        users.mkdir(exist_ok=True)
        (users / worker_id).touch()
    yield made
    with _in_turn(run):
        (users / worker_id).unlink()
        if not any(users.iterdir()):
            _clean(made)
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def platform(checkout: Checkout) -> Platform:
    """Start the platform of the checkout; `checkout` stops it, also after a failure."""
    with _in_turn(checkout.folder):
        checkout.make("platform")
    settings = json.loads((checkout.folder / ".local/local/platform.json").read_text())
    shell = checkout.shell()
    # With the platform's addresses. Python's libraries know no networks there: tests ask pods by themselves.
    os.environ.update({name: shell[name] for name in ("NO_PROXY", "no_proxy") if name in shell})
    return Platform(checkout, settings, shell)


def write_stack(folder: Path, name: str, config: dict[str, Any]) -> None:
    """Write a stack's configuration file."""
    document = {"config": {f"modelcar:{key}": value for key, value in config.items()}}
    (folder / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump(document))
