"""`make runbook`: the runbook from its first step to its last, here, with a line of evidence for each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from local import platform, stack
from local.argocd import ArgoError
from local.foreground import run_to_end
from local.instance import PROJECT, Instance
from local.runbook_addons import Addons, StepFailedError
from local.tool_list import Progress
from local.tools import Toolbox
from local.up import stack_settings
from modelcar.errors import InputError


@dataclass(frozen=True)
class Step:
    """What the runbook calls it, whether it went as it should, and what shows it."""

    name: str
    passed: bool
    evidence: str


#: What a step fails with.
EXPECTED = (
    *(StepFailedError, ArgoError, InputError, platform.PlatformError, stack.PulumiError),
    *(subprocess.CalledProcessError, httpx.HTTPError, OSError, ValueError, KeyError),
)


def runbook(instance: Instance, tools: Toolbox, progress: Progress, others: Sequence[str] = ()) -> bool:
    """Walk through the runbook, with the local stack; return whether every step went as it should.

    A step that fails ends the walk: those after it rest on it. others: addons, each with a step of its own.
    """
    walk = _Walk(instance, tools)
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("1 registry", walk.registry),
        ("2 image, pinned by digest", walk.image),
        ("3 smoke test of the placement", walk.smoke),
        ("4 deployment", walk.deployment),
        ("5 validation, offline", walk.validation),
        ("6 scale to zero, and back", walk.scale),
        *Addons(instance, tools, progress, walk.local).steps(others).items(),
    )
    for name, run in steps:
        progress(f"── {name}")
        try:
            found = Step(name, True, run())
        except EXPECTED as error:
            found = Step(name, False, str(error))
        walk.done.append(found)
        if not found.passed:
            break
    for step in walk.done:
        progress(f"{'PASS' if step.passed else 'FAIL'}  {step.name:<30}  {step.evidence}")
    return len(walk.done) == len(steps) and all(step.passed for step in walk.done)


class _Walk:
    """The steps, each returning its evidence."""

    def __init__(self, instance: Instance, tools: Toolbox) -> None:
        self.instance, self.tools = instance, tools
        self.done: list[Step] = []
        self.digest = ""

    def registry(self) -> str:
        self.local("platform")
        httpx.get(f"http://{self.instance.registry}/v2/", trust_env=False).raise_for_status()
        return f"{self.instance.registry} answers, and the node's containerd pulls from it"

    def image(self) -> str:
        settings = stack_settings()
        # The platform says it where the stack does not.
        offered = json.loads(self.instance.settings_file.read_text()) | settings
        model, processor = str(settings["model"]), str(offered["architecture"])
        command = (sys.executable, "-m", "modelcar", "digest", model, "--architecture", processor)
        self.digest = self._run(*command).strip()
        return f"{model} will be {self.digest}: known from the lock, before the build"

    def smoke(self) -> str:
        found = json.loads(self.local("operate", "smoke", stack.STACK, "--json"))
        working = [entry["placement"] for entry in found["outcomes"] if entry["verdict"] == "works"]
        return f"{found['placement']}; this KServe honours {', '.join(working)}"

    def deployment(self) -> str:
        self.local("up")
        uri = str(stack.outputs(self.instance, self.tools)["storageUri"])
        if not uri.endswith(self.digest):
            raise StepFailedError(f"{uri} is deployed, and {self.digest} was predicted")
        return f"{uri}, as predicted"

    def validation(self) -> str:
        found = json.loads(self.local("operate", "validate", stack.STACK, "--json"))
        return "; ".join(_short(found["lines"]))

    def scale(self) -> str:
        idle = self.local("idle", stack.STACK)
        if "pods of the model: none" not in idle:
            raise StepFailedError(idle)
        self.local("wake", stack.STACK)
        self.local("operate", "validate", stack.STACK, "--json")
        return "no pod while idle; serves again, and passes validation again"

    def local(self, *arguments: str) -> str:
        """Run a command of `python -m local`; return what it printed."""
        return self._run(sys.executable, "-m", "local", "--name", self.instance.name, *arguments)

    def _run(self, *command: str) -> str:
        result = run_to_end(command, cwd=PROJECT, capture_output=True)
        if result.returncode:
            said = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
            raise StepFailedError(" | ".join(said[-4:]))
        return result.stdout


def _short(lines: list[dict[str, Any]]) -> Iterator[str]:
    for line in lines:
        if line["name"] in {"answers a prompt", "GPU seen", "GPU in use", "egress impossible"}:
            yield str(line["evidence"])
        else:
            yield str(line["name"])
