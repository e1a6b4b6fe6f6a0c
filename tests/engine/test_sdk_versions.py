"""The oldest of Pulumi's SDKs that pyproject.toml allows, and the locked one: users see no difference."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from local.tools import collect
from tests.conftest import PROJECT, copied

#: Of the oldest one's wheel; the lock has those of the newest.
OLDEST_HASH = "bdcf1f417828e2ef41040d4b90db87d1a50661b85bad4ab4935b05612c7f18e8"
LOCKED = re.compile(r"^pulumi==(?P<version>\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)

#: Three models out of the engine's own resources, and one error for what fails.
PROGRAM = """
import sys
from types import SimpleNamespace

import pulumi

sys.path.insert(0, PROJECT)
from components.stack import outcomes


def model(name, refused=(), check=str):
    def made(part, value, **options):
        async def refuse(_):
            raise Exception(f"{name} has no {part}")

        hooks = [pulumi.ResourceHook(f"{name}-{part}", refuse)] if part in refused else []
        options = {"parent": parent, "hooks": pulumi.ResourceHookBinding(before_create=hooks), **options}
        return pulumi.Stash(f"{name}-{part}", input=value, opts=pulumi.ResourceOptions(**options))

    parent = pulumi.ComponentResource("modelcar:test:Model", name)
    policy, image = made("policy", "x"), made("image", "x")
    checked = image.output.apply(check)
    service = made("service", checked, depends_on=[policy])
    served = pulumi.Output.all(service.urn, checked).apply(lambda found: found[1])
    parent.register_outputs({"served": served})
    return SimpleNamespace(served=served, done=pulumi.Output.all(served), outputs={"served": served})


def differs(_):
    raise ValueError("another digest")


async def main():
    registrations = outcomes.Registrations()
    models = {
        "refused": model("refused", refused=("policy", "image")),
        "differs": model("differs", check=differs),
        "good": model("good"),
    }
    pulumi.Stash("after", input=models["good"].served)
    found, failed = await outcomes.outcomes(models)
    await registrations.settled()
    pulumi.export("models", found)
    outcomes.end_with("\\n".join(f"{name}: {error}" for name, error in failed.items()))


pulumi.run(main)
"""


def oldest() -> str:
    """Return the oldest SDK of the range that the project allows."""
    [version] = re.findall(r'"pulumi>=([\d.]+),<4"', (PROJECT / "pyproject.toml").read_text())
    return str(version)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment out of the lock, with the oldest SDK in place of the locked one."""
    folder = tmp_path_factory.mktemp("oldest")
    lock, changes = LOCKED.subn(
        f"pulumi=={oldest()} \\\\\n    --hash=sha256:{OLDEST_HASH}\n",
        (PROJECT / "requirements.lock").read_text(),
    )
    assert changes == 1
    (folder / "requirements.lock").write_text(lock)
    cache = Path(os.environ.get("MODELCAR_CACHE") or PROJECT / ".cache")
    uv = os.environ.get("UV") or shutil.which("uv") or str(cache / "uv/bin/uv")
    made = str(folder / "venv")
    for command in (
        ["venv", "--quiet", "--no-config", made],
        ["pip", "sync", "--quiet", "--no-config", "--python", made, "--require-hashes", "requirements.lock"],
    ):
        subprocess.run([uv, *command], cwd=folder, check=True)
    Path(made, ".locked").touch()  # as `make env` leaves it
    return Path(made)


def run(program: str, python: Path, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Make a stack `test` of a program; return what runs Pulumi there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELCAR_STATE", str(folder / "local"))
        tools = collect(print, embedded=False, plugins=())
    runtime = {"name": "python", "options": {"toolchain": "uv", "virtualenv": str(python)}}
    (folder / "Pulumi.yaml").write_text(json.dumps({"name": "scratch", "runtime": runtime}))
    (folder / "__main__.py").write_text(program)
    (folder / "state").mkdir()
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")},
        "PATH": tools.path,
        "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def pulumi(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [tools["pulumi"], *arguments, "--non-interactive", "--stack", "test"]
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    assert pulumi("stack", "init").returncode == 0
    return pulumi


@pytest.mark.parametrize("sdk", ["locked", pytest.param("oldest", marks=pytest.mark.extended)])
def test_all_failures_are_told_at_the_end_and_nothing_else(
    sdk: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    python = PROJECT / ".venv" if sdk == "locked" else request.getfixturevalue("environment")
    pulumi = run(f"PROJECT = {str(PROJECT)!r}\n{PROGRAM}", python, tmp_path)
    failed = pulumi("up", "--yes", "--skip-preview", "--continue-on-error", "--color=never")
    said = failed.stdout + failed.stderr
    assert failed.returncode
    refused = (
        "refused: as the engine says above, unless this run leaves it out; `pulumi up` goes on from here"
    )
    told = f"{refused}\n    differs: another digest\n"
    assert said.count(f"error: {told}") == 1, said
    assert "refused has no policy" in said
    assert "refused has no image" in said
    assert "Traceback" not in said

    # What failed is not made of something unknown, what did not is all there, and the stack's outputs too.
    made = json.loads(pulumi("stack", "export").stdout)["deployment"]["resources"]
    names = {resource["urn"].rpartition("::")[2] for resource in made if "Stash" in resource["type"]}
    others = {"good-policy", "good-image", "good-service", "after"}
    assert names == others | {"differs-policy", "differs-image"}
    assert json.loads(pulumi("stack", "output", "--json").stdout) == {"models": {"good": {"served": "x"}}}


@pytest.mark.extended
def test_a_preview_of_the_program_with_its_policies_runs_on_the_oldest(
    environment: Path, tmp_path: Path
) -> None:
    checkout = copied(tmp_path / "checkout")
    (checkout.folder / ".venv").unlink()
    (checkout.folder / ".venv").symlink_to(environment)
    version = "import importlib.metadata as found; print(found.version('pulumi'))"
    command = [".venv/bin/python", "-c", version]
    shown = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == oldest()

    said = checkout.make("preview", "STACK=dev").stdout
    assert "to create" in said
    assert "Policies:" in said
    assert "InferenceService" in said
    assert "error" not in said, said
