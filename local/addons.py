"""What clusters have beside KServe, in pods of the embedded platform, for who asks for it.

The real programs, built from their Go modules, in images of the local registry; and their makers' own objects
with nothing changed but the images: roles, services, webhooks and certificates are as in any cluster.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from local.addon_kinds import ADDONS
from local.instance import Instance
from local.plan import DEFINITION
from local.platform import APPLY, PlatformError, await_definitions, kubectl, restart
from local.processor import architecture
from local.program_image import push_program
from local.tool_list import Progress
from local.tools import Toolbox, find_tool
from modelcar.errors import refuse

#: Kinds by which the API server asks others.
_ASKED = frozenset({"APIService", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"})
#: Seconds until the pods of an addon are ready, on a busy machine.
READY_SECONDS = 180


def install(instance: Instance, tools: Toolbox, names: Sequence[str], say: Progress) -> None:
    """Bring addons to a running platform, with those that they need, and wait until they are ready.

    Raises:
        InputError: there is no addon of a name, or a program cannot be built.
        PlatformError: it does not become ready.
    """
    for name in _in_order(names):
        addon = ADDONS[name]
        images = {
            image: push_program(
                find_tool(program, say),
                instance.registry,
                program,
                architecture(),
            )
            for image, program in addon.programs.items()
        } | addon.images(instance, tools, say)
        documents = [_with_images(document, images) for document in addon.objects(instance, tools)]
        # Definitions and namespaces first: the API server takes nothing of a kind that it does not know yet.
        first = [one for one in documents if one["kind"] in {DEFINITION, "Namespace"}]
        if first:
            kubectl(instance, tools, *APPLY, "-f", "-", documents=first)
            await_definitions(instance, tools)
        rest = [one for one in documents if one not in first]
        kubectl(instance, tools, *APPLY, "-f", "-", documents=rest)
        _await_ready(instance, tools, addon.namespace)
        for process in addon.restarts:
            restart(instance, process)
        say(f"{name} is ready")


def _await_ready(instance: Instance, tools: Toolbox, namespace: str) -> None:
    timeout = f"--timeout={READY_SECONDS}s"
    there = ("-n", namespace)
    try:
        # `kubectl wait` fails where one is so new that it has no conditions at all.
        for one in kubectl(instance, tools, *there, "get", "deployment,statefulset", "-o", "name").split():
            kubectl(instance, tools, *there, "rollout", "status", one, timeout)
    except PlatformError as error:
        pods = kubectl(instance, tools, "-n", namespace, "get", "pods")
        events = kubectl(instance, tools, "-n", namespace, "events", "--types=Warning")
        logs = "".join(
            _last_words(instance, tools, namespace, line.split()) for line in pods.splitlines()[1:]
        )
        raise PlatformError(f"{error}\n{pods}\n{events}\n{logs}") from None


def _last_words(instance: Instance, tools: Toolbox, namespace: str, pod: list[str]) -> str:
    """Return the end of a pod's log. pod: its line of `kubectl get pods`: name, ready of all, …

    Of those that are ready too: what one waits for may be another's fault.
    """
    try:
        said = kubectl(instance, tools, "-n", namespace, "logs", pod[0], "--all-containers", "--tail=10")
    except PlatformError as error:
        said = str(error)
    return f"{pod[0]} said last:\n{said}\n"


def remove(instance: Instance, tools: Toolbox, names: Sequence[str], say: Progress) -> None:
    """Remove addons and all that they keep in the cluster, what needs others first.

    Raises:
        InputError: there is no addon of a name.
        PlatformError: the cluster keeps something of it.
    """
    for name in reversed(_in_order(names)):
        addon = ADDONS[name]
        documents = addon.objects(instance, tools)
        kinds = [one["metadata"]["name"] for one in documents if one["kind"] == DEFINITION]
        for kind in kinds:  # while the programs run, which have to let some of them go
            gone = ("delete", kind, "--all", "--all-namespaces", "--ignore-not-found")
            kubectl(instance, tools, *gone, f"--timeout={READY_SECONDS}s")
        # What the API server asks goes before those who answer, and definitions go last: a namespace whose
        # kinds vanish meanwhile is looked at again after minutes only.
        parts: list[list[dict[str, Any]]] = [[], [], []]
        for one in documents:
            place = 2 if one["kind"] == DEFINITION else 0 if one["kind"] in _ASKED else 1
            parts[place].append(one)
        if any(one["kind"] == "Namespace" for one in documents):  # its pods would drain for ten minutes
            there = ("-n", addon.namespace, "delete")
            kubectl(instance, tools, *there, "deployment,statefulset", "--all")
            kubectl(instance, tools, *there, "pod", "--all", "--grace-period=2")
        for part in filter(None, parts):
            gone = ("delete", "--ignore-not-found", f"--timeout={READY_SECONDS}s", "-f", "-")
            kubectl(instance, tools, *gone, documents=part)
        # Or `kubectl get all` asks for kinds that are gone for hours.
        shutil.rmtree(instance.kubectl_cache, ignore_errors=True)
        say(f"{name} is removed")


def _in_order(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        if name not in ADDONS:
            raise refuse("--with", name, allowed=", ".join(ADDONS), fix="name one of these")
        for one in (*_in_order(ADDONS[name].after), name):
            if one not in found:
                found.append(one)
    return found


def _with_images(part: Any, images: dict[str, str]) -> Any:
    """Return an object with the images of this platform in place of its makers'."""
    if isinstance(part, dict):
        return {key: _with_images(value, images) for key, value in part.items()}
    if isinstance(part, list):
        return [_with_images(one, images) for one in part]
    return images.get(part, images.get(part.rpartition(":")[0], part)) if isinstance(part, str) else part
