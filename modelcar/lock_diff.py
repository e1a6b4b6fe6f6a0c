"""What changes from one lock to another, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelcar.lock import HubSource, Lock, LockedFile
from modelcar.paths import printable
from modelcar.progress import amount


@dataclass(frozen=True)
class LockDiff:
    """Files by path: added, removed, changed (old, new). upload: bytes of layers that the old image lacks."""

    old: Lock
    new: Lock
    added: tuple[LockedFile, ...]
    removed: tuple[LockedFile, ...]
    changed: tuple[tuple[LockedFile, LockedFile], ...]
    upload: int

    def __bool__(self) -> bool:
        """Tell whether anything differs that the image depends on."""
        return self.old.digest != self.new.digest


def diff(old: Lock, new: Lock) -> LockDiff:
    """Compare two locks."""
    before = {file.path: file for file in old.files}
    after = {file.path: file for file in new.files}
    there = {layer.digest for layer in old.all_layers}
    return LockDiff(
        old,
        new,
        tuple(file for path, file in after.items() if path not in before),
        tuple(file for path, file in before.items() if path not in after),
        tuple(
            (before[path], file) for path, file in after.items() if path in before and before[path] != file
        ),
        sum(layer.size for layer in new.all_layers if layer.digest not in there),
    )


def describe(found: LockDiff) -> Iterator[str]:
    """Yield the lines for a reader."""
    if not found:
        yield "no difference"
        return
    for name, old, new in (
        ("source", _source(found.old), _source(found.new)),
        ("license", found.old.license, found.new.license),
        ("compression", found.old.compression, found.new.compression),
        ("extra files", _extra(found.old), _extra(found.new)),
    ):
        if old != new:
            yield f"~ {name}: {old} → {new}"
    for file in found.removed:
        yield f"- {printable(file.path)}  {amount(file.size)}"
    for file in found.added:
        yield f"+ {printable(file.path)}  {amount(file.size)}  {file.sha256[:12]}"
    for before, after in found.changed:
        sizes = (
            amount(after.size)
            if before.size == after.size
            else f"{amount(before.size)} → {amount(after.size)}"
        )
        yield f"~ {printable(after.path)}  {sizes}  {before.sha256[:12]} → {after.sha256[:12]}"
    yield from _kernels(found.old, found.new)
    total = amount(found.new.layers_size)
    yield f"to upload: {amount(found.upload)} of {total}, where the registry has the old image"


def _kernels(old: Lock, new: Lock) -> Iterator[str]:
    before = {entry.name: entry for entry in old.kernels}
    after = {entry.name: entry for entry in new.kernels}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            mark = "+" if name not in before else "-" if name not in after else "~"
            entry = after.get(name) or before[name]
            yield f"{mark} kernels {name}  {amount(entry.size)}  vLLM {entry.vllm}, {entry.target.place}"


def _source(lock: Lock) -> str:
    if isinstance(lock.source, HubSource):
        return f"{lock.source.repository}@{lock.source.revision[:12]}"
    return lock.source.path


def _extra(lock: Lock) -> str:
    return ", ".join(f"{printable(file.path)} ({file.url or 'folder'})" for file in lock.extra) or "none"
