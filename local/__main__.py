"""Command line of the local stack: `python -m local up|platform|down|clean|status|env|pulumi|…`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from local import (
    addons,
    backend,
    direct,
    doctor,
    kind,
    own_cluster,
    platform,
    preview,
    rehearse,
    runbook,
    setting,
    stack,
    state_folder,
    up,
)
from local.alone import unless_held
from local.arguments import parser
from local.failed_command import in_words
from local.foreground import run_to_end
from local.instance import OF_THEIR_OWN, Instance, load, run_lock, state_root
from local.tool_list import DEVICE_PLUGIN, Progress
from local.tools import Toolbox, collect, signing_tools, sources
from modelcar.errors import InputError, refuse


def _up(instance: Instance, arguments: argparse.Namespace) -> int:
    up.up(instance, arguments.kind)
    return 0


def _tools(instance: Instance, _: argparse.Namespace) -> int:
    up.say("── tools")
    gpus = up.choose_gpus(instance, up.stack_settings())
    plugin = (DEVICE_PLUGIN,) if gpus else ()
    collected = collect(up.indented, extra=plugin, plugins=("kubernetes", "gcp"))
    up.model_server(gpus)
    up.say("\n".join(sources(collected.programs)))
    return 0


def _platform(instance: Instance, arguments: argparse.Namespace) -> int:
    phases = up.Phases()
    up.start_kind(instance, phases)
    up.prepare(instance, phases)
    for names, work in ((arguments.without, addons.remove), (arguments.addons, addons.install)):
        if names:
            work(instance, collect(up.indented), names.split(","), up.indented)
    return 0


def _down(instance: Instance, _: argparse.Namespace) -> int:
    stack.require_no_run()
    for name in stack.stop_orphans(instance):
        up.say(f"stopped {name}, left by a run that was killed")
    kind.stop(instance, up.say)
    platform.down(instance, up.say)
    for name, commands in OF_THEIR_OWN.items():
        with unless_held(run_lock(name)) as nobody:
            if not nobody:
                up.say(f"{commands} still runs, and keeps its own platform; Ctrl-C there ends both")
            elif (state_root() / name).exists():  # it was killed: it would have removed it
                left = load(name)
                stack.stop_orphans(left)
                platform.down(left, up.say)
                _remove(left.state)
    return 0


def _clean(instance: Instance, arguments: argparse.Namespace) -> int:
    stack.require_nothing_deployed(_settings_of_the_deployed(instance))
    stack.require_no_run()
    kind.remove(instance, up.say)
    _down(instance, arguments)
    of_pulumi = state_root() / "pulumi"
    with platform.alone_with(instance, up.say):
        if _runs(instance):
            up.say("another command has started the platform meanwhile: its data stay")
            return 1
        removed = [instance.state] if _remove(instance.state) else []
        if (of_pulumi / ".pulumi").is_dir():  # else the user's, who may have a folder of this name
            shutil.rmtree(of_pulumi, ignore_errors=True)
            removed.append(of_pulumi)
    if left := [str(folder) for folder in removed if folder.exists()]:
        fix = "run it as the user who owns the files (sudo make clean)"
        raise refuse(", ".join(left), "cannot be removed", allowed="folders of yours", fix=fix)
    if elsewhere := stack.other_backend():
        up.say(f"removed {instance.state}; tools stay in the cache")
        remove = f"pulumi stack rm --stack {stack.STACK}"
        up.say(f"the stack's state stays in {elsewhere}: {remove} (with --force where its cluster is gone)")
    elif removed:
        up.say(f"removed {instance.state} and the stack's state; tools stay in the cache")
    return 0


def _settings_of_the_deployed(instance: Instance) -> dict[str, Any]:
    """Return the local stack's settings; where its file has a mistake, whose registry the last `up` took."""
    try:
        return up.file_settings()
    except InputError as error:
        up.say(f"NOTE: {error}")
    try:
        offered = json.loads(instance.settings_file.read_text())
    except (OSError, ValueError):
        offered = {}
    # A platform's file has its registry; beside a cluster of the user's own it is in the stack's file.
    return {} if "registry" in offered else {"registry": "of the user's own"}


def _remove(state: Path) -> bool:
    """Remove a platform's folder, and say where it is none."""
    if state_folder.remove(state):
        return True
    up.say(f"left {state} alone: it holds files that no platform wrote")
    return False


def _status(instance: Instance, _: argparse.Namespace) -> int:
    services = platform.status(instance)
    if not services:
        up.say("the platform is not running; `make up` starts it")
        return 1
    up.say(f"{'process':<26}{'state':<10}{'pid':>8}{'MiB':>7}{'starts':>8}  last exit")
    for name, service in services.items():
        pid, memory = service["pid"] or "-", service["memoryMiB"] or "-"
        starts = platform.starts(service)
        up.say(f"{name:<26}{service['state']:<10}{pid:>8}{memory:>7}{starts:>8}  {service['lastExit']}")
    up.say(f"registry {instance.registry}, API server {instance.api_server}, logs {instance.logs}")
    return 0 if all(service["state"] == "ready" for service in services.values()) else 1


def _client_tools(
    settings: dict[str, Any], progress: Progress = up.indented, extra: tuple[str, ...] = ()
) -> Toolbox:
    """Return what Pulumi and operations need on the local stack: nothing that the platform itself runs.

    So they work without root, and with settings that are to be put right by them.
    """
    tools = collect(progress, embedded=False, extra=extra)
    return replace(tools, embedded=not own_cluster.is_named(settings))


def _env(instance: Instance, _: argparse.Namespace) -> int:
    tools = _client_tools(up.stack_settings(), lambda line: print(line, file=sys.stderr))
    variables = stack.environment(instance, tools)
    if tools.embedded:
        variables |= {"KUBECONFIG": str(instance.kubeconfig), "KUBECACHEDIR": str(instance.kubectl_cache)}
    if {**os.environ, **variables}.get(backend.URL) == backend.own_backend():
        print(
            f"These settings are for the stack {stack.STACK}. Plain `pulumi` on another stack would keep its "
            f"state in {state_root() / 'pulumi'}, which `make clean` deletes: use `make`, or a new shell",
            file=sys.stderr,
        )
    if os.environ.get(backend.PASSPHRASE):
        print(
            f"{backend.PASSPHRASE} is the empty one of the stack {stack.STACK} now: for other stacks use a "
            "new shell",
            file=sys.stderr,
        )
    for name, value in variables.items():
        up.say(f"export {name}={shlex.quote(value)}")
    return 0


def _pulumi(instance: Instance, arguments: argparse.Namespace) -> int:
    settings, name = up.stack_settings(), _named(arguments.arguments)
    if name == stack.STACK and DEPLOYS & set(arguments.arguments[:1]):
        own_cluster.is_chosen(settings)  # else it may be to say which cluster is
    tools = _client_tools(settings, extra=signing_tools(settings))
    command = [tools["pulumi"], *arguments.arguments]
    environment = stack.process_environment(instance, tools, name)
    return run_to_end(command, env=environment).returncode


#: Commands of Pulumi's that need to know on which cluster the local stack is.
DEPLOYS = {"up", "update", "preview", "pre", "refresh", "destroy", "down", "dn", "import", "watch"}


def _named(arguments: Sequence[str]) -> str:
    """Return the stack that arguments of Pulumi's name; the local one where they name none."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options.add_argument("--stack", "-s", default="")
    try:
        named = options.parse_known_args(list(arguments))[0].stack
    except argparse.ArgumentError:  # Pulumi says what is wrong
        named = ""
    if not named and arguments[:1] == ["stack"] and arguments[1:2] in (["init"], ["select"], ["rm"]):
        named = next((word for word in arguments[2:] if not word.startswith("-")), "")
    return str(named).rpartition("/")[2] or stack.STACK


def _cloud_tools(signing: Sequence[str] = ()) -> Toolbox:
    tools = collect(up.indented, embedded=False, extra=tuple(signing), plugins=("kubernetes", "gcp"))
    up.tell_what_serves(tools, up.indented)
    return tools


def _preview(instance: Instance, arguments: argparse.Namespace) -> int:
    more, tools = arguments.arguments, _cloud_tools()
    if arguments.stack == stack.STACK:
        tools = replace(tools, embedded=not own_cluster.is_chosen(up.stack_settings()))
    return preview.preview(instance, tools, arguments.stack, more, up.indented)


def _deploy(instance: Instance, arguments: argparse.Namespace) -> int:
    tools = _cloud_tools(signing_tools(up.stack_settings(arguments.stack)))
    return preview.on_backend(instance, tools, arguments.stack, [*preview.DEPLOY, *arguments.arguments])


def _drift(instance: Instance, arguments: argparse.Namespace) -> int:
    return preview.on_backend(
        instance, _cloud_tools(), arguments.stack, [*preview.DRIFT, *arguments.arguments]
    )


def _idle(instance: Instance, arguments: argparse.Namespace) -> int:
    return _set_idle(instance, arguments, True)


def _wake(instance: Instance, arguments: argparse.Namespace) -> int:
    return _set_idle(instance, arguments, False)


def _set_idle(instance: Instance, arguments: argparse.Namespace, idle: bool) -> int:
    tools, name = _stack_tools(arguments.stack), arguments.stack
    options = argparse.ArgumentParser(prog="make idle STACK=… ARGS=…", allow_abbrev=False)
    options.add_argument("--model", metavar="NAME", help="of a stack with several (default: all of them)")
    told, more = options.parse_known_args(arguments.arguments)
    settings = up.stack_settings(name)
    changes = setting.idle_changes(settings, told.model, idle=idle)
    if status := _deploy_settings(instance, tools, name, changes, more):
        return status
    if settings.get("delivery") == "gitops":
        up.say("the stack's files say so now: commit and push them, and synchronise in Argo CD")
        return 0
    of_one = ["--model", told.model] if told.model else []
    command = [sys.executable, "-m", "operations", "nodes", "--stack", name, *of_one]
    if run_to_end(command, env=stack.process_environment(instance, tools, name)).returncode:
        up.say(f"{name} is deployed; its pods and the GPU nodes were not seen, for the reason above")
    return 0


def _stack_tools(name: str) -> Toolbox:
    """Return what a command on a stack needs."""
    settings = up.stack_settings(name)
    if name != stack.STACK:
        return _cloud_tools(signing_tools(settings))
    own_cluster.is_chosen(settings)
    return _client_tools(settings, extra=signing_tools(settings))


def _deploy_settings(
    instance: Instance,
    tools: Toolbox,
    name: str,
    changes: Sequence[setting.Change],
    more: Sequence[str] = (),
) -> int:
    """Change the stack's settings, which are then in its file for all to see, and deploy that.

    Whether there is such a stack is asked first: nothing is written where nothing can be deployed.
    """
    there = ("stack", "--show-name")
    if name == stack.STACK:
        stack.pulumi(instance, tools, *there, "--stack", name, capture=True)
        with stack.only_run(up.indented):
            setting.write(stack.config_file(name), changes)
            stack.deploy(instance, tools, *more)
        return 0
    if status := preview.on_backend(instance, tools, name, there, policy=False):
        return status
    setting.write(stack.config_file(name), changes)
    return preview.on_backend(instance, tools, name, [*preview.DEPLOY, *more])


def _rollback(instance: Instance, arguments: argparse.Namespace) -> int:
    options = argparse.ArgumentParser(prog="make rollback STACK=… ARGS=…", allow_abbrev=False)
    choice = options.add_mutually_exclusive_group()
    choice.add_argument(
        "--to", metavar="DIGEST", help="of an image in the registry (default: the one before)"
    )
    choice.add_argument("--end", action="store_true", help="serve the lock's image again")
    options.add_argument("--model", metavar="NAME", help="of a stack with several")
    told, more = options.parse_known_args(arguments.arguments)
    name, tools = arguments.stack, _stack_tools(arguments.stack)
    settings = up.stack_settings(name)
    if told.end:
        where = setting.place(settings, preview.ROLLBACK, told.model, of_one=True)
        return _deploy_settings(instance, tools, name, [(where, None)], more)
    # By itself: what it asks needs the stack's environment, as every operation.
    found = run_to_end(
        [
            *(sys.executable, "-m", "operations", "former", "--stack", name),
            *(["--to", told.to] if told.to else []),
            *(["--model", told.model] if told.model else []),
        ],
        env=stack.process_environment(instance, tools, name),
        stdout=subprocess.PIPE,
    )
    if found.returncode:
        return found.returncode
    digest = found.stdout.strip()
    up.say(f"{name}: back to {digest}")
    where = setting.place(settings, preview.ROLLBACK, told.model, of_one=True)
    return _deploy_settings(instance, tools, name, [(where, digest)], more)


def _operate(instance: Instance, arguments: argparse.Namespace) -> int:
    if arguments.stack == stack.STACK:
        tools = _stack_tools(stack.STACK)
    else:
        tools = collect(up.indented, embedded=False)
    return _become_operation(instance, tools, arguments.operation, arguments.stack, arguments.arguments)


def _become_operation(
    instance: Instance, tools: Toolbox, operation: str, name: str, more: Sequence[str]
) -> NoReturn:
    variables = stack.process_environment(instance, tools, name)
    command = [operation, "--stack", name, *more]
    # In place of this process: it is the operation that Ctrl-C has to reach, to remove what it made.
    os.execve(sys.executable, [sys.executable, "-m", "operations", *command], variables)  # noqa: S606


def _doctor(instance: Instance, arguments: argparse.Namespace) -> int:
    options = argparse.ArgumentParser(prog="make doctor STACK=… ARGS=…", allow_abbrev=False)
    options.add_argument("--json", action="store_true", help="for programs")
    told = options.parse_args(arguments.arguments)
    if not stack.config_file(arguments.stack).exists():
        raise refuse(
            "STACK",
            f"{arguments.stack}: there is no {stack.config_file(arguments.stack).name}",
            allowed="a stack of this project",
            fix="copy Pulumi.dev.yaml to a file of that name and change it",
        )
    found = doctor.doctor(instance, arguments.stack, up.stack_settings(arguments.stack))
    if told.json:
        up.say(json.dumps(doctor.document(found), indent=1))
    else:
        up.say("\n".join(doctor.report(found)))
        up.say(f"next: {doctor.next_command(found, arguments.stack, running=_runs(instance))}")
    return 1 if any(line.state == "missing" for line in found) else 0


def _runs(instance: Instance) -> bool:
    return platform.supervisor(instance) is not None


def _runbook(instance: Instance, arguments: argparse.Namespace) -> int:
    direct.reach(instance)
    tools = collect(up.indented, extra=signing_tools(up.stack_settings()))
    others = arguments.addons.split(",") if arguments.addons else ()
    return 0 if runbook.runbook(instance, tools, up.say, others) else 1


def _cold_start(_: Instance, arguments: argparse.Namespace) -> int:
    from local import cold_start, cold_start_report  # numpy is in no hurry

    sizes = arguments.sizes or cold_start.SIZES
    # A program that reads standard output gets nothing but the document.
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        tools = collect(up.indented)
        chosen = arguments.placements or (cold_start.PLACEMENT,)
        own = not arguments.reader_only
        runs = cold_start.measure(tools, up.indented, sizes, own_server=own, placements=chosen)
    if arguments.json:
        up.say(json.dumps(cold_start_report.document(runs), indent=1))
    else:
        up.say("\n".join(cold_start_report.report(runs)))
    return 0


def _rehearse(instance: Instance, _: argparse.Namespace) -> int:
    up.prepare(instance, up.Phases())
    tools = collect(up.indented, plugins=("kubernetes", "gcp"))
    rehearse.rehearse(instance, tools, up.say)
    return 0


def _pin(_: Instance, arguments: argparse.Namespace) -> int:
    tools = collect(lambda line: print(line, file=sys.stderr), embedded=False)
    up.say(own_cluster.pinned(arguments.image, tools))
    return 0


#: What each command runs.
RUN: dict[str, Callable[[Instance, argparse.Namespace], int]] = {
    "up": _up,
    "tools": _tools,
    "platform": _platform,
    "down": _down,
    "clean": _clean,
    "status": _status,
    "env": _env,
    "pulumi": _pulumi,
    "preview": _preview,
    "deploy": _deploy,
    "drift": _drift,
    "idle": _idle,
    "wake": _wake,
    "rollback": _rollback,
    "coldstart": _cold_start,
    "doctor": _doctor,
    "runbook": _runbook,
    "operate": _operate,
    "rehearse": _rehearse,
    "pin": _pin,
}


#: Whatever a user can cause; said in words.
EXPECTED = (
    InputError,
    platform.PlatformError,
    stack.PulumiError,
    rehearse.RehearsalError,
    LookupError,
    subprocess.CalledProcessError,
    OSError,
)


#: What to do after Ctrl-C, by command.
SAME_COMMAND = "the same command goes on from here"
AFTER_CTRL_C = dict.fromkeys(
    ("up", "platform", "tools"), "`make up` goes on from here, `make down` stops the platform"
)


def main() -> int:
    """Run one command; return its exit status. What went wrong is said in words, without a traceback."""
    arguments = parser().parse_args()
    try:
        return RUN[arguments.command](load(arguments.name), arguments)
    except EXPECTED as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {AFTER_CTRL_C.get(arguments.command, SAME_COMMAND)}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
