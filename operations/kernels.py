"""Save what a stack's servers compiled, note it in the model's lock, bring it elsewhere, list and remove it.

`make kernels STACK=…`, `python -m operations kernels save|add|list|remove`. Only a stack's own pods are read,
and only where they are what the stack declares: what comes of it is code that every later pod runs.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from components.cluster.access import JSON, Cluster
from components.cluster.pods import is_ready, pods_of
from components.config import command_line
from components.config.secrets import Secrets
from components.config.settings import Settings
from components.manifests import kernels as fitting
from components.manifests.image_volume import model_image
from components.manifests.server_arguments import server_arguments
from components.manifests.service import CONTAINER
from modelcar import kernel_store as store
from modelcar.errors import InputError, Problem, refuse
from modelcar.kernel_cleaning import clean, compiled, is_code, is_needless, is_temporary
from modelcar.kernels import Kernels, Target, basis, pack, with_entry
from modelcar.lock import Lock, write_lock
from modelcar.lock_reader import check_lock, read_lock
from modelcar.manifest import sha256_digest
from modelcar.oci_layout import replace_file
from modelcar.progress import amount
from modelcar.registry import Registry
from modelcar.registry import Target as Repository
from operations.kernel_reading import Caches, ask, read

Say = Callable[[str], None]
NO_SECRETS = Secrets()

#: Times that caches are read while their server writes to them, and seconds between two.
TRIES, PAUSE = 4, 5.0
#: Seconds that a temporary file has to be old to be one that nobody writes any more.
SETTLED = 60.0


#: Characters of a secret that is looked for, and what is taken for none.
_SHORTEST = 8
_PLAIN = re.compile(r"-*[A-Za-z_,.:-]+|[0-9.,:]+|/\S*")
#: What is an option's name, and no value that begins with a dash.
_OPTION = re.compile(r"--[a-z][a-z0-9.-]*|-[a-z]{1,3}")


@dataclass(frozen=True)
class Saved:
    """What was saved of one kind of device. pod: that it is from. changed: whether the lock had it not."""

    entry: Kernels
    content: bytes
    pod: str
    changed: bool


def save(
    cluster: Cluster,
    settings: Settings,
    project: Path,
    storage_uri: str | None,
    *,
    pod: str | None = None,
    out: Path | None = None,
    push: bool = True,
    say: Say = lambda _: None,
    secrets: Secrets = NO_SECRETS,
) -> tuple[Saved, ...]:
    """Take what a model's servers compiled out of their pods, and note it in the model's lock.

    Args:
        cluster: that the model is served on.
        settings: of the model.
        project: the program's folder.
        storage_uri: that the stack says it serves.
        pod: name of the pod to take; each kind of device's newest where None.
        out: write an archive, for a machine that the registry is not reached from.
        push: send the layers to the image's repository.
        say: told what happens.
        secrets: of the stack: none of them gets into the lock or the layer.

    Raises:
        InputError: no pod is fit to be read, or its caches are not.
        ClusterError: the API server went away, or exec is not allowed.
    """
    lock = read_lock(project / settings.lock_path)
    if settings.runtime == "custom":
        fix = "only vLLM's kernels are known; a server of your own keeps its caches itself"
        raise refuse("modelcar:runtime", "custom", allowed="vllm", fix=fix)
    found = []
    for chosen, target in _chosen(cluster, settings, _pods(cluster, settings, storage_uri, pod), named=pod):
        name = str(chosen["metadata"]["name"])
        say(f"{name}: answering prompts, so that what compiles at the first answer is there too")
        if fault := ask(cluster, settings, chosen):
            say(
                f"{name}: prompts were not answered ({fault}): what compiles at the first answer is not in it"
            )
        caches = _read(cluster, settings, chosen, say, secrets)
        target = replace(target, arguments=fitting.written(fitting.arguments_of(settings), secrets))
        _tell_others(name, target, lock, say)
        content, diff_id = pack(target, _cleaned(name, caches, target.count, say), caches.times)
        entry = _entry(target, caches, content, diff_id)
        found.append(Saved(entry, content, name, entry not in lock.kernels))
    for one in found:
        store.keep(project, one.content)
    if out:
        store.write_archive(out, [(one.entry, one.content) for one in found], basis_of(lock))
    if push:
        push_all(settings, [(one.entry, one.content) for one in found])
    for one in found:
        lock = replace(lock, kernels=with_entry(lock.kernels, one.entry))
    write(project / settings.lock_path, lock)
    return tuple(found)


def _entry(target: Target, caches: Caches, content: bytes, diff_id: str) -> Kernels:
    return Kernels(
        target, sha256_digest(content), len(content), diff_id, caches.vllm, caches.torch, caches.driver
    )


# --- which pods -------------------------------------------------------------------------------------


def _pods(cluster: Cluster, settings: Settings, storage_uri: str | None, name: str | None) -> list[JSON]:
    """Return the ready pods that are what the stack declares, newest first."""
    service = f"{settings.namespace}/{settings.service_name}"
    pods = pods_of(cluster, settings.namespace, settings.service_name)
    if name:
        pods = [pod for pod in pods if pod["metadata"]["name"] == name]
    ready = [pod for pod in pods if is_ready(pod)]
    if not ready:
        found = f"no pod {name or ''} of it is ready".replace("  ", " ")
        fix = "pulumi up, or make wake; wait until it serves, and run it again"
        raise refuse(service, found, allowed="a pod that serves", fix=fix)
    faults = {str(pod["metadata"]["name"]): _otherwise(pod, settings, storage_uri) for pod in ready}
    current = [pod for pod in ready if faults[pod["metadata"]["name"]] is None]
    if not current:
        problems = [
            Problem(
                f"pod {pod}",
                str(fault),
                "a pod of the stack's current declaration",
                "pulumi up first: kernels of another declaration fit no pod that comes",
            )
            for pod, fault in faults.items()
        ]
        raise InputError(problems)
    return sorted(current, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def _otherwise(pod: JSON, settings: Settings, storage_uri: str | None) -> str | None:
    """Return what of a pod is not as the stack declares it; None where it is."""
    spec = pod["spec"]
    box = next((box for box in spec["containers"] if box["name"] == CONTAINER), None)
    if box is None:
        return f"has no container {CONTAINER}"
    weights = model_image(pod)
    if storage_uri and weights != storage_uri.removeprefix("oci://"):
        return f"serves {weights}, and the stack {storage_uri}"
    if box["image"] != settings.server_image:
        return f"runs {box['image']}, and the stack {settings.server_image}"
    if (found := list(box.get("args") or [])) != (wanted := server_arguments(settings)):
        return f"runs with other arguments than the stack says: {_differing(found, wanted)}"
    told = {entry["name"]: entry.get("value") for entry in box.get("env") or []}
    for entry in settings.server_env:
        name, _, value = entry.partition("=")
        if told.get(name) != value:
            return f"has another value of {name} than the stack says"
    return None


def _differing(found: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the options that two command lines do not share, by name: a value may be a secret."""
    one, other = (Counter(command_line.options(line)) for line in (found, wanted))
    names = {name for name, _ in (one - other) + (other - one) if _OPTION.fullmatch(name)}
    return ", ".join(sorted(names)) or "their order, or words that are no options"


def _chosen(
    cluster: Cluster, settings: Settings, pods: Sequence[JSON], *, named: str | None
) -> Iterator[tuple[JSON, Target]]:
    """Yield the newest pod of each kind of device, with what its kernels are good for.

    Raises:
        InputError: pods of one kind have compiled for different keys, so that one of them does not fit.
    """
    groups: dict[str, list[tuple[JSON, Caches]]] = {}
    for pod in pods:
        seen = read(cluster, settings, pod, contents=False)
        groups.setdefault(seen.place, []).append((pod, seen))
    problems = []
    for place, group in groups.items():
        keys = {str(pod["metadata"]["name"]): sorted(compiled(seen.files)) for pod, seen in group}
        if len({tuple(key) for key in keys.values()}) > 1 and not named:
            shown = "; ".join(
                f"{pod} {', '.join(key.rpartition('/')[2][:12] for key in key_list) or 'nothing'}"
                for pod, key_list in keys.items()
            )
            problems.append(
                Problem(
                    f"pods on {place}",
                    f"compiled under different keys: {shown}",
                    "pods that are alike",
                    "see what differs between them (server, variables), or choose one: --pod NAME",
                )
            )
    if problems:
        raise InputError(problems)
    for place, group in groups.items():
        yield group[0][0], _target(settings, place)


def _target(settings: Settings, place: str) -> Target:
    kind, capability, count, device = [*place.split(" ", 3), "", "", "", ""][:4]
    number = count.removeprefix("x")
    if kind not in {"gpu", "cpu"} or capability == "0.0" or not number.isdigit() or not device:
        found = f"{place or 'nothing'!r}"
        fix = "see that nvidia-smi runs in the pod, and that its cards are alike"
        raise refuse("the pod's device", found, allowed="cards of one kind, or a processor", fix=fix)
    return Target(fitting.server_of(settings), kind, device, capability, int(number), ())


# --- their caches -----------------------------------------------------------------------------------


def _read(cluster: Cluster, settings: Settings, pod: JSON, say: Say, secrets: Secrets) -> Caches:
    """Read the caches of a pod that nobody writes to meanwhile.

    Raises:
        InputError: it never compiled, still does, or a secret stands in its caches.
    """
    name = str(pod["metadata"]["name"])
    for number in range(TRIES):
        caches = read(cluster, settings, pod, contents=True)
        writing = [path for path in caches.changed if not is_needless(path)]
        fresh = caches.age is not None and caches.age < SETTLED
        unfinished = [path for path in caches.files if is_temporary(path)] if fresh else []
        if not writing and not unfinished:
            break
        if number + 1 < TRIES:
            say(f"{name}: {(writing or unfinished)[0]} is being written; once more in {PAUSE:.0f} s")
            time.sleep(PAUSE)
    else:
        raise refuse(
            f"pod {name}",
            f"its server still compiles: {(writing or unfinished)[0]} changes while it is read",
            allowed="caches that are whole",
            fix="wait until it is quiet, and run it again",
        )
    if sum(caches.files.values()) and not caches.contents:
        raise refuse(
            f"pod {name}",
            f"{amount(sum(caches.files.values()))} in its caches",
            allowed="what one model compiles",
            fix="delete the pod, so that its caches begin anew",
        )
    found = {*caches.secret, *_with_secrets(caches.contents, secrets)}
    if secret := sorted(path for path in found if not is_needless(path)):
        raise refuse(
            f"pod {name}",
            f"{secret[0]} holds a secret of the server's arguments or variables (not shown)",
            allowed="caches without secrets: their layer goes into the image",
            fix="give the server its secret by a file, or let a gateway before it ask for one: vLLM compiles "
            "this setting in",
        )
    return caches


def _with_secrets(contents: Mapping[str, bytes], secrets: Secrets) -> Iterator[str]:
    """Yield the paths of files with a text of the stack's secrets.

    Pulumi does not say which entry of a list is secret. Words, numbers and paths, which the other entries
    are made of (`FLASHINFER`), stand in caches in any case.
    """
    values = [
        text.encode()
        for text in secrets.texts
        if len(text) >= _SHORTEST
        and not _PLAIN.fullmatch(text)
        and not _PLAIN.fullmatch(text.partition("=")[2])
    ]
    for path, content in contents.items():
        if any(value in content for value in values):
            yield path


def _tell_others(name: str, target: Target, lock: Lock, say: Say) -> None:
    """Tell of entries that such a pod has copied too, so that they are in its caches for a second time."""
    others = [
        entry.name
        for entry in lock.kernels
        if (entry.target.server, entry.target.place) == (target.server, target.place)
        and entry.name != target.name
    ]
    if others:
        say(
            f"{name}: its caches may hold what {', '.join(others)} brought, for other arguments; where no "
            "stack needs that any more: `kernels remove`, pulumi up, and save again"
        )


def _cleaned(name: str, caches: Caches, count: int, say: Say) -> dict[str, bytes]:
    """Return what of the caches travels.

    Raises:
        InputError: nothing of them was compiled, or no model wholly.
    """
    files = clean(caches.contents)
    if not any(map(is_code, files)):
        half = sorted(compiled(caches.files))
        found = (
            f"{half[0]} in its caches is not finished: the compilation broke off"
            if half
            else f"its server compiled nothing ({len(caches.files)} files in its caches)"
        )
        fix = (
            "delete the pod; the next one compiles anew"
            if half
            else "take enforceEager (or --enforce-eager) and TORCH_COMPILE_DISABLE out, and pulumi up"
        )
        raise refuse(f"pod {name}", found, allowed="a server that compiled its model", fix=fix)
    for folder, ranks in compiled(files).items():
        if ranks != count:
            say(f"{name}: {folder[-64:][:12]} is there for {ranks} of {count} ranks")
    say(f"{name}: {amount(sum(map(len, files.values())))} in {len(files)} of {len(caches.contents)} files")
    return files


# --- the lock, the registry, archives ---------------------------------------------------------------


def basis_of(lock: Lock) -> str:
    """Return what kernels of a model depend on in it: a digest of its configuration."""
    return basis({file.path: file.sha256 for file in lock.files})


def write(path: Path, lock: Lock) -> None:
    """Write a model's lock, once it is one that is read back."""
    check_lock(lock, path)
    replace_file(path, write_lock(lock))


def push_all(settings: Settings, entries: Sequence[tuple[Kernels, bytes]]) -> None:
    """Send layers to the repository of a model's image."""
    target = Repository(settings.registry, settings.repository, settings.registry_insecure)
    with Registry(target, write=True) as registry:
        for entry, content in entries:
            store.push(registry, entry, content)
