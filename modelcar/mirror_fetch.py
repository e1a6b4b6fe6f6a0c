"""Bring layers from mirrors into a layout on this machine. Resumes what a killed run began."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from modelcar.errors import InputError
from modelcar.mirror_blob import PIECE, MirrorError, Strikes, read_blob
from modelcar.mirrors import JOBS, Blob, Plan, look, name_of, reader, said
from modelcar.oci_layout import LayoutStore, require_space
from modelcar.packing import DISK_FULL, MARGIN, Progress, disk_full
from modelcar.registry import Target
from modelcar.registry_http import RegistryClient
from modelcar.side_by_side import Work

#: Ends the names of unfinished layers in a layout's `ingest`; those of a hub's have none.
SUFFIX = ".mirror"


def fetch_from_mirrors(
    store: LayoutStore,
    layers: Sequence[Blob],
    mirrors: Sequence[Target],
    *,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> dict[str, str]:
    """Bring the layers that mirrors have into a layout; return how each came, by digest.

    Args:
        store: the layout.
        layers: that it lacks.
        mirrors: repositories to take them from, the first one first.
        progress: told of bytes as they come.
        note: told of mirrors that cannot be used, and of layers that they do not bring.
        jobs: layers at a time.

    Raises:
        InputError: the disk is too full.
    """
    note = note or (lambda _: None)
    plan = look(layers, mirrors)
    for name, fault in plan.faults.items():
        note(f"mirror {name} is not used: it {fault}")
    wanted = [layer for layer in layers if plan.having.get(layer.digest)]
    if not wanted:
        return {}
    parts = [part for layer in wanted if (part := _part(store, layer)).exists()]
    for part in set(store.ingest.glob(f"*{SUFFIX}")) - set(parts):
        part.unlink()  # of layers that nobody wants any more
    needed = sum(layer.size for layer in wanted) - sum(part.stat().st_size for part in parts)
    require_space(store.path, max(needed, 0) + MARGIN, "the image's layers")
    work = Work(jobs or JOBS)
    with ExitStack() as opened:
        readers: dict[Target, RegistryClient] = {}
        for mirror in dict.fromkeys(mirror for layer in wanted for mirror in plan.having[layer.digest]):
            try:
                readers[mirror] = opened.enter_context(reader(mirror))
            except InputError as error:
                note(f"mirror {name_of(mirror)} is not used: {said(error)}")
        one = _Fetch(store, plan, readers, work, progress or (lambda _: None), note)
        found = work.all(one.fetch, wanted)
    return {layer.digest: origin for layer, origin in zip(wanted, found, strict=True) if origin}


def _part(store: LayoutStore, layer: Blob) -> Path:
    return store.ingest / f"{layer.digest.removeprefix('sha256:')}{SUFFIX}"


class _Fetch:
    """Fetches one layer after the other into one layout."""

    def __init__(
        self,
        store: LayoutStore,
        plan: Plan,
        readers: dict[Target, RegistryClient],
        work: Work,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self._store = store
        self._plan = plan
        self._readers = readers
        self._work = work
        self._progress = progress
        self._strikes = Strikes(note)

    def fetch(self, layer: Blob) -> str | None:
        """Return how a layer came; None where no mirror brings it."""
        part = _part(self._store, layer)
        for mirror in self._plan.having[layer.digest]:
            if mirror not in self._readers or self._strikes.out(mirror):
                continue
            try:
                if part.exists():
                    try:
                        self._write(mirror, layer, part)
                    except MirrorError:  # the part may be what is wrong: damaged by a power cut
                        part.unlink(missing_ok=True)
                if not part.exists():
                    self._write(mirror, layer, part)
            except MirrorError as error:
                part.unlink(missing_ok=True)
                self._strikes.add(mirror, layer, error)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                raise disk_full(self._store, error) from None
            else:
                self._store.adopt(part, layer.digest)
                return f"fetched from {name_of(mirror)}"
        return None

    def _write(self, mirror: Target, layer: Blob, part: Path) -> None:
        """Write a layer to its part, after what is there."""
        hasher, there = hashlib.sha256(), 0
        with part.open("a+b", buffering=0) as file:
            file.seek(0)
            while there < layer.size and (data := file.read(min(PIECE, layer.size - there))):
                hasher.update(data)
                there += len(data)
            file.truncate(there)
            written = there
            self._progress(there)
            try:
                client = self._readers[mirror]
                pieces = read_blob(client, mirror, layer, start=there, hasher=hasher)
                for piece in self._work.while_wanted(pieces):
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
                    written += len(piece)
                    self._progress(len(piece))
            except MirrorError:
                self._progress(-written)
                raise
