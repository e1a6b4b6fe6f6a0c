"""The runbook's steps that need others' programs: zero pods by itself (KEDA), and delivery by Argo CD."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from local import addons, argocd, platform, stack
from local.instance import Instance
from local.tool_list import Progress
from local.tools import Toolbox
from modelcar.errors import refuse

#: Seconds that a pod may take to come or to go, and that the small model's start may take.
PATIENCE, START = 300.0, 120


class StepFailedError(Exception):
    """Something is not as it should be after a step of the runbook; the message says what there is."""


@contextmanager
def settings(**own: Any) -> Iterator[None]:
    """Let the local stack have settings of a step's; its file is as it was afterwards."""
    path = stack.config_file()
    before = path.read_bytes()
    document = yaml.safe_load(before)
    document["config"] |= {f"modelcar:{key}": value for key, value in own.items()}
    try:
        path.write_text(yaml.safe_dump(document))
        yield
    finally:
        path.write_bytes(before)


def _at(moment: datetime) -> str:
    return f"{moment.minute} {moment.hour} * * *"


def _cron(begins: timedelta) -> dict[str, Any]:
    """Return a trigger that holds for two hours of the day, from so long after now."""
    start = datetime.now(UTC) + begins
    end = start + timedelta(hours=2)
    own = {"timezone": "Etc/UTC", "start": _at(start), "end": _at(end), "desiredReplicas": 1}
    return {"type": "cron", **own}


class Addons:
    """The steps.

    Args:
        instance: the platform; tools: its programs; say: gets lines of progress.
        local: runs a command of `python -m local` and returns what it printed.
    """

    def __init__(self, instance: Instance, tools: Toolbox, say: Progress, local: Callable[..., str]) -> None:
        self.instance, self.tools, self.say, self.local = instance, tools, say, local

    def steps(self, names: Sequence[str]) -> dict[str, Callable[[], str]]:
        """Return the steps of addons, by their titles.

        Raises:
            InputError: the runbook has no step for one.
        """
        known = {"keda": ("7 zero pods by itself, KEDA", self.zero), "argocd": ("8 Argo CD", self.argocd)}
        for name in names:
            if name not in known:
                raise refuse("--with", name, allowed=", ".join(known), fix="name one of these")
        return dict(known[name] for name in known if name in names)

    def zero(self) -> str:
        """Let the time of day decide: no pod while nothing asks for one, and one when it does."""
        addons.install(self.instance, self.tools, ["keda"], self.say)
        # KEDA leaves a new model its pod for as long as its start may take.
        told = {"minReplicas": 0, "maxReplicas": 1, "startTimeoutSeconds": START}
        quick = {"cooldownPeriod": 5, "pollingInterval": 2}
        with settings(**told, autoscaling={**quick, "triggers": [_cron(timedelta(hours=12))]}):
            self._up()
            gone = self._until_pods(ready=False)
        with settings(**told, autoscaling={**quick, "triggers": [_cron(timedelta(hours=-1))]}):
            self._up()
            back = self._until_pods(ready=True)
            self.local("operate", "validate", stack.STACK, "--json")
        self._up()
        return (
            f"no pod {gone:.0f} s after `up`, at an hour when nothing asks for one; one {back:.0f} s after "
            "`up` at another hour, which passes validation"
        )

    def argocd(self) -> str:
        """Deliver the same objects from Git: nothing is applied until somebody says so."""
        addons.install(self.instance, self.tools, ["argocd"], self.say)
        name = str(stack.outputs(self.instance, self.tools)["namespace"])
        folder = self.instance.state / "runbook"
        with argocd.deployments(folder, self.instance.host_address) as git:
            argo = argocd.ArgoCD.of(self.instance.kubeconfig, folder)
            place = git.checkout / "apps" / name
            where = ("--out", str(place), "--repository", git.address)
            self.local("operate", "render", stack.STACK, *where)
            git.commit("the model")
            stack.pulumi(
                self.instance, self.tools, "destroy", "--yes", "--skip-preview", "--stack", stack.STACK
            )
            [told] = (place.parent / "argocd").glob("*.yaml")
            app = told.stem  # as the Application is called
            self._kubectl("apply", "-f", str(told))
            try:
                self._until(lambda: argo.status(app)[0] == "OutOfSync", lambda: str(argo.application(app)))
                if self._kubectl("get", "namespace", name, "--ignore-not-found"):
                    raise StepFailedError(f"namespace {name} is there before anybody has synchronised")
                began = time.monotonic()
                first = argo.sync(app)
                served = time.monotonic() - began
                generation = self._generation(name)
                again = argo.sync(app)
                if (first, again) != (("Synced", "Healthy"),) * 2 or self._generation(name) != generation:
                    raise StepFailedError(f"{first} after a sync, {again} after another one")
            finally:
                # What makes pods goes first: a namespace with some is looked at again after minutes only.
                argo("app", "delete", app, "--cascade", "--yes", check=False)
                left = ("-n", name, "get", "pods,isvc", "-o", "name")
                self._until(lambda: not self._kubectl(*left), lambda: self._kubectl(*left))
                self._kubectl("delete", "namespace", name, "--ignore-not-found")
        self._up()
        return (
            f"OutOfSync and not applied after the commit; Synced and Healthy {served:.0f} s after a sync by "
            "hand; a second one changes nothing"
        )

    # --- what they have in common

    def _up(self) -> None:
        stack.deploy(self.instance, self.tools)

    def _kubectl(self, *arguments: str) -> str:
        return platform.kubectl(self.instance, self.tools, *arguments)

    def _generation(self, namespace: str) -> int:
        [found] = json.loads(self._kubectl("-n", namespace, "get", "isvc", "-o", "json"))["items"]
        return int(found["metadata"]["generation"])

    def _until_pods(self, *, ready: bool) -> float:
        """Wait until the model has a ready pod, or none at all; return the seconds."""
        told = stack.outputs(self.instance, self.tools)
        label = f"serving.kserve.io/inferenceservice={told['serviceName']}"
        asked = ("-n", told["namespace"], "get", "pods", "-l", label, "-o", "json")

        def held() -> bool:
            pods = json.loads(self._kubectl(*asked))["items"]
            states = [one for pod in pods for one in pod["status"].get("conditions", [])]
            if ready:
                return any(one["type"] == "Ready" and one["status"] == "True" for one in states)
            return not pods

        return self._until(held, lambda: self._kubectl(*asked[:-2]))

    def _until(self, held: Callable[[], bool], seen: Callable[[], str]) -> float:
        began = time.monotonic()
        while not held():
            if time.monotonic() - began > PATIENCE:
                raise StepFailedError(f"not after {PATIENCE:.0f} s: {seen()}")
            time.sleep(1)
        return time.monotonic() - began
