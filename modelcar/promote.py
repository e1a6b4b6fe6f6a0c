"""Bring layers from mirrors into a registry: mounted where it allows that, else copied through this machine.

A copy is streamed: each layer passes in pieces, checked as they come, and none is written to disk. Layers
that no mirror brings are left to whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress

import httpx

from modelcar.errors import InputError
from modelcar.mirror_blob import MirrorError, Strikes, read_blob
from modelcar.mirrors import JOBS, Blob, Plan, look, name_of, reader, said
from modelcar.packing import Progress
from modelcar.push import send_blob
from modelcar.registry import Target, connect
from modelcar.registry_http import RegistryClient, begun_at, checked, has_blob
from modelcar.side_by_side import Work

#: Told what went otherwise than wanted, a line at a time.
Note = Callable[[str], None]


def promote(
    layers: Sequence[Blob],
    target: Target,
    mirrors: Sequence[Target],
    *,
    there: Collection[str] = (),
    mounts_only: bool = False,
    progress: Progress | None = None,
    note: Note | None = None,
) -> dict[str, str]:
    """Bring what the target lacks and mirrors have.

    Args:
        layers: of the image.
        target: repository to bring them to.
        mirrors: repositories to take them from, the first one first; not the target itself.
        there: digests of the layers that the target has.
        mounts_only: let no byte pass this machine.
        progress: told of bytes as they are sent.
        note: told of mirrors that cannot be used, and of layers that they do not bring.

    Returns:
        How each layer came that did, by digest: `mounted from …`, `copied from …`.

    Raises:
        httpx.HTTPError: the target refuses, or cannot be reached.
    """
    missing = [layer for layer in layers if layer.digest not in there]
    usable = [mirror for mirror in mirrors if not mounts_only or mirror.host == target.host]
    plan = look(missing, usable)
    note = note or (lambda _: None)
    for name, fault in plan.faults.items():
        note(f"mirror {name} is not used: it {fault}")
    wanted = [layer for layer in missing if plan.having.get(layer.digest)]
    progress = progress or (lambda _: None)
    origins = _mount(wanted, plan, target, progress, note)
    if not mounts_only:
        left = [layer for layer in wanted if layer.digest not in origins]
        origins |= _Copies(target, progress, note).bring(left, plan)
    return origins


def _mount(
    layers: Sequence[Blob], plan: Plan, target: Target, progress: Progress, note: Note
) -> dict[str, str]:
    """Let the registry take over layers of its own repositories: no byte is sent."""
    origins: dict[str, str] = {}
    mirrors = dict.fromkeys(mirror for layer in layers for mirror in plan.having[layer.digest])
    for mirror in (mirror for mirror in mirrors if mirror.host == target.host):
        wanted = [
            layer for layer in layers if mirror in plan.having[layer.digest] and layer.digest not in origins
        ]
        if not wanted:
            continue
        with connect(target, write=True, mounts_from=mirror.repository) as client:

            def mounted(layer: Blob, client: RegistryClient = client, mirror: Target = mirror) -> str | None:
                return _fault_of_mount(client, target, mirror, layer)

            # One by itself first: a registry that does not mount is asked once.
            faults = [mounted(wanted[0])]
            if faults[0] is None:
                faults += Work(JOBS).all(mounted, wanted[1:])
        for layer, fault in zip(wanted, faults, strict=False):
            if fault is None:
                origins[layer.digest] = f"mounted from {name_of(mirror)}"
                progress(layer.size)
        if told := next((fault for fault in faults if fault), None):
            note(f"layers of {name_of(mirror)} are not mounted: {told}")
    return origins


def _fault_of_mount(client: RegistryClient, target: Target, mirror: Target, layer: Blob) -> str | None:
    """Mount one layer; return why that is not possible.

    OCI distribution specification 1.1: 201 for a blob that is mounted, 202 begins to upload one instead.
    """
    place = f"{target.url}/blobs/uploads/"
    try:
        answer = client.post(place, params={"mount": layer.digest, "from": mirror.repository})
        checked(answer, httpx.codes.CREATED, httpx.codes.ACCEPTED)
        if answer.status_code == httpx.codes.ACCEPTED:
            _cancel(client, target, answer)
            return f"{target.host} answers 202, which asks for their bytes"
        if has_blob(client, target.url, layer.digest, layer.size):
            return None
    except httpx.HTTPError as error:
        return f"{target.host} {said(error)}"
    return f"{target.host} answers 201, and has {layer.digest} not"


def _cancel(client: RegistryClient, target: Target, begun: httpx.Response) -> None:
    """End an upload that nobody wants; a registry that cannot do that forgets it after some time."""
    with suppress(httpx.HTTPError):
        client.delete(begun_at(target.url, begun))


class _Copies:
    """Copies layers from mirrors to a target, several at a time."""

    def __init__(self, target: Target, progress: Progress, note: Note) -> None:
        self._target = target
        self._progress = progress
        self._note = note
        self._strikes = Strikes(note)
        self._work = Work(JOBS)
        self._readers: dict[Target, RegistryClient] = {}

    def bring(self, layers: Sequence[Blob], plan: Plan) -> dict[str, str]:
        """Return how each layer came that did."""
        mirrors = dict.fromkeys(mirror for layer in layers for mirror in plan.having[layer.digest])
        with ExitStack() as opened:
            for mirror in mirrors:
                try:
                    self._readers[mirror] = opened.enter_context(reader(mirror))
                except InputError as error:
                    self._note(f"mirror {name_of(mirror)} is not used: {said(error)}")
            client = opened.enter_context(connect(self._target, write=True))

            def copied(layer: Blob) -> str | None:
                return self._copied(client, layer, plan.having[layer.digest])

            found = self._work.all(copied, layers)
        return {layer.digest: origin for layer, origin in zip(layers, found, strict=True) if origin}

    def _copied(self, client: RegistryClient, layer: Blob, mirrors: Sequence[Target]) -> str | None:
        for mirror in mirrors:
            if mirror not in self._readers or self._strikes.out(mirror):
                continue

            def pieces(mirror: Target = mirror) -> Iterator[bytes]:
                return self._work.while_wanted(read_blob(self._readers[mirror], mirror, layer))

            try:
                send_blob(client, self._target, layer.digest, layer.size, pieces, self._progress)
            except MirrorError as error:
                self._strikes.add(mirror, layer, error)
            else:
                return f"copied from {name_of(mirror)}"
        return None
