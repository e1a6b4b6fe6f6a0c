"""The kernels that a model's lock names: bring them from elsewhere, take them out, list them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from components.config.settings import Settings
from components.stack import kernel_fit
from modelcar import kernel_store as store
from modelcar import lock_diff
from modelcar.errors import InputError, refuse
from modelcar.kernels import Kernels, with_entry
from modelcar.lock import Lock
from modelcar.lock_reader import read_lock
from modelcar.progress import amount
from modelcar.registry import Registry, parse
from modelcar.registry import Target as Repository
from operations.kernels import basis_of, push_all, write


def add(
    settings: Settings, project: Path, source: str, *, push: bool = True, insecure: bool = False
) -> tuple[Kernels, ...]:
    """Bring kernels to this machine and to the image's repository: out of an archive, or another repository.

    An archive's entries that the lock lacks are noted in it; a repository can only give what the lock names.

    Args:
        settings: of the model.
        project: the program's folder.
        source: path of an archive, or HOST/PATH of a repository.
        push: send them to the image's repository.
        insecure: the other repository speaks plain HTTP.

    Raises:
        InputError: it has none that fit this model, or they are damaged.
    """
    path = project / settings.lock_path
    lock = read_lock(path)
    if Path(source).is_file():
        found, config = store.read_archive(Path(source))
        if config != basis_of(lock):
            fix = "name the model that they were saved for (--model)"
            raise refuse(source, f"kernels of another model than {lock.name}", allowed="its own", fix=fix)
        for entry, _ in found:
            lock = replace(lock, kernels=with_entry(lock.kernels, entry))
    else:
        found = _pulled(lock, source, insecure=insecure)
    for _, content in found:
        store.keep(project, content)
    if push:
        push_all(settings, found)
    write(path, lock)
    return tuple(entry for entry, _ in found)


def _pulled(lock: Lock, source: str, *, insecure: bool) -> tuple[tuple[Kernels, bytes], ...]:
    if not lock.kernels:
        fix = "make kernels STACK=… saves some; a file that `kernels save --out` wrote can be added too"
        raise refuse(lock.name, "its lock names no kernels", allowed="a lock with kernels", fix=fix)
    if "/" not in source or source.startswith(("/", ".")):
        fix = "name a file that `kernels save --out` wrote, or HOST/PATH of a repository"
        raise refuse("SOURCE", f"{source}: there is no such file", allowed="a file, or a repository", fix=fix)
    target, _ = parse(source, insecure=insecure)
    found, problems = [], []
    with Registry(target) as registry:
        for entry in lock.kernels:
            content = store.pull(registry, entry)
            if content is None:
                problems.append(store.nowhere(lock, entry))
            else:
                found.append((entry, content))
    if problems:
        raise InputError(problems)
    return tuple(found)


def remove(
    settings: Settings, project: Path, names: Sequence[str], *, every: bool = False
) -> tuple[str, ...]:
    """Take entries out of a model's lock; their layers stay in the registry, for images that have them.

    Raises:
        InputError: the lock has none of a name, or none was named.
    """
    path = project / settings.lock_path
    lock = read_lock(path)
    there = [entry.name for entry in lock.kernels]
    wanted = there if every else list(names)
    unknown = [name for name in wanted if name not in there]
    if unknown or not (wanted or every):
        found = f"{unknown[0]} is not in {lock.name}'s lock" if unknown else "none is named"
        allowed = ", ".join(there) or "none: the lock has no kernels"
        raise refuse("kernels", found, allowed=allowed, fix="name one of these, or --all")
    write(path, replace(lock, kernels=tuple(entry for entry in lock.kernels if entry.name not in wanted)))
    return tuple(wanted)


def listed(settings: Settings, project: Path) -> list[dict[str, Any]]:
    """Return the entries of a model's lock: what they are for, where their layers are, whether they fit."""
    lock = read_lock(project / settings.lock_path)
    there = _in_registry(settings, lock)
    return [
        {
            "name": entry.name,
            "device": entry.target.place,
            "vllm": entry.vllm,
            "torch": entry.torch,
            "server": entry.target.server,
            "arguments": list(entry.target.arguments),
            "size": entry.size,
            "digest": entry.digest,
            "here": store.kept(project, entry) is not None,
            "registry": there.get(entry.digest),
            "fits": kernel_fit.misfit(settings, replace(lock, kernels=(entry,))) is None,
        }
        for entry in lock.kernels
    ]


def _in_registry(settings: Settings, lock: Lock) -> dict[str, bool]:
    target = Repository(settings.registry, settings.repository, settings.registry_insecure)
    try:
        with Registry(target) as registry:
            return {entry.digest: registry.manifest(store.tag(entry)) is not None for entry in lock.kernels}
    except (InputError, httpx.HTTPError):
        return {}


def differences(before: Lock, after: Lock) -> list[str]:
    """Return what changed in a lock, for people."""
    return list(lock_diff.describe(lock_diff.diff(before, after)))


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a model's kernels for people."""
    if not rows:
        yield "the lock names no kernels; make kernels STACK=… saves what a pod compiled"
    for row in rows:
        where = [word for word, there in (("here", row["here"]), ("registry", row["registry"])) if there]
        fits = "fits the stack" if row["fits"] else "does not fit the stack"
        yield f"{row['name']}  {amount(row['size'])}  {fits}"
        made = f"{row['device']}, vLLM {row['vllm']}, torch {row['torch']}"
        yield f"  {made}; layer: {', '.join(where) or 'nowhere'}"
        yield f"  {row['digest']}"
