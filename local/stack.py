"""The environment in which Pulumi runs the local stack, and the calls to its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from components.config.loading import PLATFORM_FILE_VARIABLE
from local import backend, direct, recovery
from local.alone import alone, unless_held
from local.foreground import run_to_end
from local.instance import PROJECT, Instance, cache_root, run_lock, state_root
from local.tool_list import Progress
from local.tools import Toolbox
from modelcar.errors import refuse
from modelcar.progress import working

STACK = "local"

#: Marks every process of a Pulumi run with the platform it works for.
RUN_MARK = "MODELCAR_RUN"


#: How the programs of plugins and language hosts are called.
PLUGINS = ("pulumi-resource-", "pulumi-language-")
#: Patience for a plugin that is told to end.
PLUGIN_SECONDS = 3.0


class PulumiError(Exception):
    """Pulumi ended with an error; it has already printed why."""


def environment(instance: Instance, tools: Toolbox, name: str = STACK) -> dict[str, str]:
    """Return the variables that make plain `pulumi` commands work on a stack, without any prompt.

    The local stack's state is in files below the project unless PULUMI_BACKEND_URL says otherwise. Its
    passphrase is always the empty one that the salt in Pulumi.local.yaml goes with: there are no secrets.
    Any other stack is where the user has chosen, by whatever means.
    """
    variables = {
        "PATH": tools.path,
        RUN_MARK: str(instance.state),
        PLATFORM_FILE_VARIABLE: str(instance.settings_file),
        # A program that runs from a copy of the project would look beside itself for what was downloaded.
        "MODELCAR_CACHE": str(cache_root()),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "true",
    }
    variables |= plugin_variables(tools)
    variables |= direct.variables(instance if tools.embedded else None)
    if tools.embedded:
        variables["BUILDX_CONFIG"] = str(instance.buildx_config)  # the platform's builder, not the user's
    chosen = bool(os.environ.get(backend.URL)) if name == STACK else bool(backend.chosen_backend())
    if name == STACK:
        variables[backend.PASSPHRASE] = ""
    if not chosen:
        (state_root() / "pulumi").mkdir(parents=True, exist_ok=True)
        variables |= {backend.URL: backend.own_backend(), backend.PASSPHRASE: ""}
    return variables


def other_backend() -> str:
    """Return the backend that PULUMI_BACKEND_URL gives the local stack; empty where it is our own."""
    url = os.environ.get(backend.URL, "")
    return "" if url == backend.own_backend() else url


def require_nothing_deployed(settings: Mapping[str, Any]) -> None:
    """Refuse to remove the local stack's state while it says what is deployed on a cluster of the user's own.

    Args:
        settings: of the stack, as its own file has them.

    Raises:
        InputError: something is deployed there.
    """
    if not settings.get("registry"):
        return  # what is deployed goes with its cluster
    left = recovery.resources(state_root() / "pulumi", STACK)
    if left:
        raise refuse(
            f"state of stack {STACK}",
            f"has {left} resources on the cluster of modelcar:kubeContext, which `make clean` leaves there",
            allowed="a stack whose resources are gone: the state alone knows them",
            fix=f'make pulumi ARGS="destroy --stack {STACK}", then make clean',
        )


def process_environment(instance: Instance, tools: Toolbox, name: str = STACK) -> dict[str, str]:
    """Return this process's variables with those of a stack, for a program that works on it."""
    variables = {**os.environ, **environment(instance, tools, name)}
    local = variables.get(backend.URL) == backend.own_backend()
    if local and name != STACK and backend.chosen_backend():  # by `eval "$(python -m local env)"`
        del variables[backend.URL]
        if not variables.get(backend.PASSPHRASE):
            variables.pop(backend.PASSPHRASE, None)
    return variables


def plugin_variables(tools: Toolbox) -> dict[str, str]:
    """Return what Pulumi has to be told of its plugins where some of them cannot be downloaded."""
    found: dict[str, str] = {}
    if not tools.downloads_plugins:
        found["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if tools.built_plugins:
        # The SDK asks for its own version, and Pulumi warns of ours before every provider; we say it once
        # (local/up.py). PULUMI_DEV takes that warning away and shows hidden commands; it does no more.
        found["PULUMI_DEV"] = "true"
    return found


def pulumi(instance: Instance, tools: Toolbox, *arguments: str, capture: bool = False) -> str:
    """Run `pulumi` in the project; return its output where it is captured.

    Raises:
        PulumiError: it ended with an error.
    """
    result = run_to_end(
        [tools["pulumi"], *arguments, "--non-interactive"],
        cwd=PROJECT,
        env=process_environment(instance, tools),
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
    )
    if result.returncode:
        if capture:
            print(result.stdout, result.stderr, sep="\n", file=sys.stderr)
        raise PulumiError(f"pulumi {' '.join(arguments)}: exit status {result.returncode}")
    return result.stdout or ""


@contextmanager
def only_run(progress: Progress) -> Iterator[None]:
    """Let one command at a time deploy the local stack: wait for another one, and for Pulumi run by hand."""
    lock = run_lock("pulumi")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with alone(lock, progress) as file:
        os.write(file, str(os.getpid()).encode())
        await_run(progress)
        yield


def await_run(progress: Progress) -> None:
    """Wait while Pulumi works on the local stack."""
    backend = state_root() / "pulumi"
    if pid := recovery.running(backend, STACK):
        progress(f"waiting for pulumi (pid {pid}), which works on the stack {STACK}")
        with working("   waiting"):
            while recovery.running(backend, STACK):
                time.sleep(0.5)


def require_no_run() -> None:
    """Refuse to take the platform away from a run on the local stack.

    Raises:
        InputError: there is one.
    """
    lock = run_lock("pulumi")
    with unless_held(lock) as nobody:
        pid = recovery.running(state_root() / "pulumi", STACK) or ("" if nobody else lock.read_text())
    if pid or not nobody:
        raise refuse(
            f"stack {STACK}",
            f"a run works on it (pid {pid or 'unknown'})",
            allowed="a platform that no run needs",
            fix="wait until it is over, or end it with Ctrl-C" + (f" (kill -INT {pid})" if pid else ""),
        )


def select(instance: Instance, tools: Toolbox) -> None:
    """Create the stack unless it is there, and make it the current one."""
    pulumi(instance, tools, "stack", "select", STACK, "--create", capture=True)


def recover(instance: Instance, tools: Toolbox) -> list[str]:
    """Put right what a killed run left of the local stack; see `recover_stack`."""

    def run(*arguments: str) -> str:
        return pulumi(instance, tools, *arguments, capture=True)

    recovery.forget_old(state_root() / "pulumi", STACK)
    return recover_stack(instance, run, state_root() / "pulumi", STACK)


def recover_stack(instance: Instance, run: Callable[..., str], backend: Path, name: str) -> list[str]:
    """Stop plugins that have no engine, then do as `recovery.recover`; a line for each thing done."""
    orphans = stop_orphans(instance)
    stopped = [f"stopped what a killed run left running: {', '.join(orphans)}"] if orphans else []
    return [*stopped, *recovery.recover(run, backend, name)]


def stop_orphans(instance: Instance) -> list[str]:
    """Stop plugins of this platform's runs whose engine was killed, and return their names.

    An engine that ends in any other way ends its plugins itself. A plugin that works has an engine with the
    same mark as its parent.
    """
    orphans, names = [], []
    for process in processes(instance):
        with suppress(psutil.Error):
            parent = process.parent()
            if is_plugin(process.cmdline()) and (parent is None or not _is_marked(parent, instance)):
                names.append(f"{process.name()} (pid {process.pid})")
                process.terminate()
                orphans.append(process)
    _, left = psutil.wait_procs(orphans, timeout=PLUGIN_SECONDS)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return names


def is_plugin(command: list[str]) -> bool:
    """Tell whether a command is one of Pulumi's plugins or language hosts, official or ours.

    By the program, and not by a word: an editor may have a file of the plugins' open.
    """
    if Path(command[0] if command else "").name.startswith(PLUGINS):
        return True
    # As the launchers in local/standins/bin start ours: PYTHON FOLDER NAME.
    folder, name = (*command[1:3], "", "")[:2]
    ours = PROJECT / "local" / "standins"
    return folder == str(ours) and (ours / "bin" / f"pulumi-{name}").exists()


def processes(instance: Instance) -> Iterator[psutil.Process]:
    """Yield the processes of Pulumi runs that work, or worked, for this platform."""
    return (process for process in psutil.process_iter() if _is_marked(process, instance))


def _is_marked(process: psutil.Process, instance: Instance) -> bool:
    try:
        return bool(process.environ().get(RUN_MARK) == str(instance.state))
    except psutil.Error:
        return False


def deploy(instance: Instance, tools: Toolbox, *more: str) -> None:
    """Run `pulumi up`; one model's failure does not keep others from coming.

    Raises:
        PulumiError: something failed; it has been said.
    """
    flags = ("--yes", "--skip-preview", "--continue-on-error")
    pulumi(instance, tools, "up", *flags, "--stack", STACK, *more)


def outputs(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    """Return the stack's outputs."""
    text = pulumi(instance, tools, "stack", "output", "--json", "--stack", STACK, capture=True)
    found: dict[str, Any] = json.loads(text)
    return found


def config_file(name: str = STACK) -> Path:
    """Return a stack's configuration file."""
    return PROJECT / f"Pulumi.{name}.yaml"
