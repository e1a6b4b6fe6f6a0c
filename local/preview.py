"""`make preview STACK=dev`: what `pulumi up` would do, with the policy pack, on a machine without an account.

Where a Pulumi backend is set up (PULUMI_BACKEND_URL, PULUMI_ACCESS_TOKEN, `pulumi login`), its stack is
previewed as it is.
The local stack is compared with its own state, where `make up` has deployed it.
Otherwise there is no state to compare with, and everything shows as to be created; that runs in a folder of
its own, so that the stack's committed file stays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local.backend import LOGIN, URL, chosen_backend
from local.foreground import run_to_end
from local.instance import PROJECT, Instance, state_root
from local.stack import STACK, process_environment
from local.tool_list import Progress
from local.tools import Toolbox
from modelcar.errors import refuse

#: What a program needs of the project.
PARTS = (
    "Pulumi.yaml",
    "__main__.py",
    "components",
    "modelcar",
    "operations",
    "policy",
    "pyproject.toml",
    ".venv",
)


def preview(
    instance: Instance, tools: Toolbox, stack: str, arguments: Sequence[str], progress: Progress
) -> int:
    """Preview a stack and return Pulumi's exit status.

    Raises:
        InputError: the project has no such stack.
    """
    config = PROJECT / f"Pulumi.{stack}.yaml"
    if not config.exists():
        known = sorted(path.name.split(".")[1] for path in PROJECT.glob("Pulumi.*.yaml"))
        raise refuse(
            "STACK",
            f"{stack!r}: there is no {config.name}",
            allowed=", ".join(known),
            fix="choose one of these, or copy Pulumi.dev.yaml to a file of that name and change it",
        )
    variables = process_environment(instance, tools, stack)
    folder, reason = PROJECT, _nothing_to_compare(tools, variables, stack)
    if reason:
        folder = scratch_project(f"preview-{stack}")
        shutil.copy(config, folder)
        variables |= scratch_variables(folder)
        progress(f"{reason}: {stack} is previewed as a stack that has nothing yet")
        run(tools, folder, variables, "stack", "init", stack, quiet=True)
    command = [*PREVIEW, "--stack", stack, "--policy-pack", str(PROJECT / "policy"), *arguments]
    return run(tools, folder, variables, *command)


def _nothing_to_compare(tools: Toolbox, variables: dict[str, str], stack: str) -> str:
    """Return why a stack has no state to compare with; empty where it has."""
    if stack == STACK:
        own = any((state_root() / "pulumi").glob(f".pulumi/stacks/*/{STACK}.json"))
        return "" if own or URL in chosen_backend() else "`make up` has not deployed it yet"
    chosen = chosen_backend()
    if chosen != [LOGIN]:
        return "" if chosen else "no Pulumi backend is set up"
    # Who has logged in for something else sees the preview too.
    command = [tools["pulumi"], "stack", "--show-name", "--stack", stack, "--non-interactive"]
    found = run_to_end(command, cwd=PROJECT, env=variables, capture_output=True)
    missing = found.returncode and "no stack named" in found.stderr
    return f"the backend of `{LOGIN}` has no stack {stack}" if missing else ""


def on_backend(
    instance: Instance, tools: Toolbox, stack: str, arguments: Sequence[str], *, policy: bool = True
) -> int:
    """Run a Pulumi command on a stack of the backend that is set up, with the policy pack where it has one.

    Raises:
        InputError: no backend is set up.
    """
    if not chosen_backend():
        raise refuse(
            "PULUMI_BACKEND_URL",
            "not set to a backend of yours; PULUMI_ACCESS_TOKEN and `pulumi login` name none either",
            allowed="a backend that keeps the stack's state for everybody who deploys it",
            fix="for example: export PULUMI_BACKEND_URL=gs://BUCKET (docs/google-cloud.md)",
        )
    variables = process_environment(instance, tools, stack)
    command = [*arguments, "--stack", stack]
    command += ["--policy-pack", str(PROJECT / "policy")] if policy else []
    return run(tools, PROJECT, variables, *command)


#: What `up` would do, as a pull request shows it.
PREVIEW = ("preview",)
#: `pulumi up`, as main and a release run it. With its preview: policies that look at the whole stack would
#: otherwise speak only after everything has been made. One model's failure does not keep others from coming.
DEPLOY = ("up", "--yes", "--continue-on-error")
#: The setting that `make rollback` changes.
ROLLBACK = "rollbackTo"
#: What somebody changed past the program, field by field; any difference is an error.
DRIFT = ("preview", "--refresh", "--diff", "--expect-no-changes")


def scratch_project(name: str) -> Path:
    """Make a folder with links to the program and an empty backend (`.state`), anew; return it."""
    folder = state_root() / name
    if folder.exists() and not (folder / ".state").is_dir():
        raise refuse(
            "MODELCAR_STATE",
            f"{folder} holds files of somebody else's",
            allowed="a folder in which this one is new",
            fix="set MODELCAR_STATE to another folder, or move these files away",
        )
    shutil.rmtree(folder, ignore_errors=True)
    (folder / ".state").mkdir(parents=True)
    for part in PARTS:
        (folder / part).symlink_to(PROJECT / part)
    return folder


def scratch_variables(folder: Path) -> dict[str, str]:
    """Return the variables that keep all of a run's state in such a folder, Google's stand-in included."""
    return {
        "PULUMI_BACKEND_URL": (folder / ".state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "MODELCAR_GCP_STANDIN": str(folder / "google.json"),
    }


def told(tools: Toolbox, folder: Path, variables: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run Pulumi in a folder, show what it says, and return its exit status and that."""
    command = [tools["pulumi"], *arguments, "--non-interactive"]
    result = run_to_end(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(result.stdout, flush=True)
    return result.returncode, result.stdout


def run(tools: Toolbox, folder: Path, variables: dict[str, str], *arguments: str, quiet: bool = False) -> int:
    """Run Pulumi in a folder and return its exit status; a quiet run is shown only where it fails."""
    command = [tools["pulumi"], *arguments, "--non-interactive"]
    result = run_to_end(command, cwd=folder, env=variables, capture_output=quiet)
    if quiet and result.returncode:
        print(result.stdout, result.stderr, sep="\n", file=sys.stderr)
    return result.returncode
