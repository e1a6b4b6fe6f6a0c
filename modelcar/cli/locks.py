"""Commands on models and their locks; none of them changes a registry."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from modelcar import fetching, lock_diff, locking
from modelcar.base import BASE_LOCK, lock_base, read_base
from modelcar.build_options import export_options, image_tag
from modelcar.cli.common import locked, not_fetched, note, note_unused, repository, say, say_origins
from modelcar.demo_model import make_demo_model
from modelcar.errors import InputError, refuse
from modelcar.extra import parse_option
from modelcar.image import modelcar_image
from modelcar.layer_format import LARGE_FILE
from modelcar.layouts import LAYOUTS
from modelcar.lock import EXTRA, Lock, lock_path
from modelcar.lock_reader import read_lock
from modelcar.made_up import make_made_up_model
from modelcar.made_up import size_of as made_up_size
from modelcar.mirrors import mirror_targets
from modelcar.oci_layout import context_of, replace_file
from modelcar.paths import printable
from modelcar.progress import amount, bar, working
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import read_weights

#: How a model gets kernels again.
RENEW = "once it serves, `make kernels STACK=…` saves new ones"


def run_tiny(options: argparse.Namespace) -> None:
    """Make a tiny model."""
    made = make_demo_model if options.by_heart else partial(make_tiny_model, seed=options.seed)
    say(str(made(options.destination)))


def run_made_up(options: argparse.Namespace) -> None:
    """Make a model of true dimensions with random weights."""
    with bar(f"make {options.destination.name}", made_up_size(options.like)) as progress:
        made = make_made_up_model(options.destination, options.like, seed=options.seed, progress=progress)
    say(str(made))


def run_check(options: argparse.Namespace) -> None:
    """Say what is in a folder of weights."""
    weights = read_weights(
        options.folder,
        allow=options.allow or (),
        ignore=options.ignore or (),
        layout=options.layout or LAYOUTS[0],
    )
    _say_left_out(weights.skipped, weights.doubts)
    config = weights.config
    width = max(len(file.path) for file in weights.files)
    for file in weights.files:
        own = "own layer" if file.size >= LARGE_FILE else ""
        say(f"{file.path:<{width}}  {amount(file.size):>10}  {own}".rstrip())
    say(f"{'in all':<{width}}  {amount(weights.total_size):>10}  {len(weights.files)} files")
    if config:
        name = ", ".join(config.architectures) or config.model_type
        dtype = config.dtype or "type of the numbers not said"
        say(printable(f"{name}, {weights.parameters:,} parameters, {dtype}"))


def run_lock(options: argparse.Namespace) -> None:
    """Resolve a model, pack it and write its lock."""
    project: Path = options.project
    name = locking.check_name(options.name)
    description = _description(options)
    with working(f"looking at {description.hub or description.folder}"):
        resolved = locking.resolve(description, project, endpoint=options.endpoint, name=name)
    _say_left_out(resolved.skipped, resolved.doubts)
    former = _former(lock_path(project, name))
    total = sum(resolved.files.sizes.values())
    started = time.monotonic()
    with bar(f"lock {name}", total) as progress:
        lock, written = locking.lock_model(
            name, description, resolved, project, progress=progress, jobs=options.jobs
        )
    locking.write_description(project, name, description)
    _summary(lock, written, time.monotonic() - started)
    if description.folder and Path(description.folder).is_absolute():
        note("note: the folder is not below the project, so only this machine can fetch the model")
    for warning in locking.warnings(lock):
        note(f"warning: {warning}")
    if former and former.kernels:
        names = ", ".join(entry.name for entry in former.kernels)
        if lock.kernels:
            say(f"kept: kernels {names}, as the model's configuration is the same")
        else:
            note(f"warning: the model's configuration changed: kernels {names} are dropped; {RENEW}")
    if former:
        for line in lock_diff.describe(lock_diff.diff(former, lock)):
            say(line)
    say(f"{lock_path(project, name)}: commit it; every preview then shows this digest")
    say(modelcar_image(lock, read_base("amd64")).digest)


def _say_left_out(skipped: Sequence[tuple[str, str]], doubts: Sequence[str]) -> None:
    for path, why in skipped:
        note(f"left out: {printable(path)} ({why})")
    for doubt in doubts:
        note(f"warning: {doubt}")


def _description(options: argparse.Namespace) -> locking.Description:
    """Return what is to be locked: as it is kept, and as the command line adds to it or says otherwise.

    A source on the command line starts anew, and what is no longer said then is told.
    """
    path = locking.description_path(options.project, options.name)
    for option, value in (("--hub", options.hub), ("--folder", options.folder)):
        if value is not None and not value.strip():
            fix = f"set the shell variable that you gave, or leave {option} out to lock what model.yaml says"
            raise refuse(option, "empty", allowed="OWNER/NAME" if option == "--hub" else "a folder", fix=fix)
    if options.hub:
        description = locking.Description(hub=options.hub)
    elif options.folder:
        description = locking.Description(folder=_relative(options.project, options.folder))
    else:
        description = locking.read_description(path)
    if options.revision and description.folder:
        raise refuse("--revision", options.revision, allowed="with a hub's repository", fix="leave it out")
    extra = {file.path: file for file in (*description.extra, *map(parse_option, options.extra or ()))}
    said = {
        "revision": options.revision,
        "license": options.license,
        "compression": options.compression,
        "allow_pickle": options.allow_pickle,
        "layout": options.layout,
    }
    description = replace(
        description,
        allow=tuple(dict.fromkeys([*description.allow, *(options.allow or ())])),
        ignore=tuple(dict.fromkeys([*description.ignore, *(options.ignore or ())])),
        extra=tuple(extra.values()),
        **{key: value for key, value in said.items() if value is not None},
    )
    if (options.hub or options.folder) and path.exists():
        _say_dropped(path, description, {key for key, value in said.items() if value is not None})
    return description


def _say_dropped(path: Path, description: locking.Description, said: Collection[str]) -> None:
    """Tell what a model.yaml says that the one that takes its place will not; said: by an option."""
    try:
        former = locking.document_of(locking.read_description(path))
    except InputError:
        note(f"warning: {path} cannot be read: nothing of it will be kept")
        return
    following = locking.document_of(description)
    dropped = []
    for key, value in former.items():
        if key in {"hub", "folder", *said} or (key == "revision" and description.folder):
            continue
        kept = following.get(key)
        if isinstance(value, list):
            entries = [entry for entry in value if entry not in (kept or ())]
            dropped += [f"{key}: {entry['path'] if key == EXTRA else entry}" for entry in entries]
        elif kept != value:
            dropped.append(f"{key}: {value}")
    for text in dropped:
        note(f"warning: {path} will no longer say {printable(text)}")
    if dropped:
        note("--hub and --folder start anew: say these again, or leave --hub and --folder out to keep all")


def _relative(project: Path, folder: str) -> str:
    """Return a folder as it is kept in a lock: below the project, it is the same in every checkout."""
    path, root = Path(folder).resolve(), project.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _former(path: Path) -> Lock | None:
    """Return the lock that is replaced; one that cannot be read is told before it is gone."""
    try:
        return read_lock(path)
    except InputError:
        if path.exists():
            note(f"warning: {path} cannot be read: it is written anew, without the kernels that it had")
            note(f"to keep them, stop, and restore it first: git checkout {path}; or {RENEW}")
        return None


def _summary(lock: Lock, written: int, seconds: float) -> None:
    width = max(len(_files(layer.files)) for layer in lock.layers)
    for layer in lock.layers:
        say(f"{_files(layer.files):<{width}}  {amount(layer.size):>10}  {layer.digest}")
    say(
        f"{len(lock.files)} files, {amount(lock.total_size)}, license {lock.license or 'not said'}; "
        f"{amount(written)} written in {seconds:.1f} s"
    )


def _files(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return printable(paths[0]) + more


def run_fetch(options: argparse.Namespace) -> None:
    """Bring a locked model onto this machine."""
    note_unused(options)
    lock = locked(options, options.name)
    destination = locking.layout_path(options.project, lock.name)
    missing = fetching.missing_bytes(lock, destination)
    started = time.monotonic()
    base = read_base(options.architecture)
    mirrors = mirror_targets(options.mirrors, insecure=options.from_insecure)
    with bar(f"fetch {lock.name}", missing) as progress:
        fetched = fetching.fetch(
            lock,
            base,
            options.project,
            destination,
            endpoint=options.endpoint,
            progress=progress,
            jobs=options.jobs,
            mirrors=mirrors,
            note=note,
        )
    say_origins(fetched.origins)
    if fetched.written:
        say(f"{amount(fetched.written)} fetched in {time.monotonic() - started:.1f} s, as the lock says")
    if there := lock.layers_size - missing:
        say(f"{amount(there)} were there and were not read: python -m modelcar verify {lock.name} reads them")
    say(fetched.layout.context)


def run_verify(options: argparse.Namespace) -> int:
    """Compare a fetched model with its lock; 1 where a layer differs."""
    lock = locked(options, options.name)
    if not locking.layout_path(options.project, lock.name).is_dir():
        raise not_fetched(lock)
    with bar(f"verify {lock.name}", lock.layers_size) as progress:
        problems = fetching.verify(lock, locking.layout_path(options.project, lock.name), progress=progress)
    for problem in problems:
        note(str(problem))
    count = len(lock.layers) + len(lock.kernels)
    say(f"{count - len(problems)} of {count} layers are as the lock says")
    return 1 if problems else 0


def run_diff(options: argparse.Namespace) -> int:
    """Compare two locks; 1 where they differ."""
    found = lock_diff.diff(locked(options, options.old), locked(options, options.new))
    for line in lock_diff.describe(found):
        say(line)
    return 1 if found else 0


def run_digest(options: argparse.Namespace) -> None:
    """Print the image's digest."""
    say(modelcar_image(locked(options, options.name), read_base(options.architecture)).digest)


def run_options(options: argparse.Namespace) -> None:
    """Print buildx's options for the image that is predicted."""
    lock = locked(options, options.name)
    image = modelcar_image(lock, read_base(options.architecture))
    layout = locking.layout_path(options.project, lock.name)
    export = export_options(image, insecure=options.insecure)
    target = repository(options)
    name = f"{target.registry}/{target.name}:{image_tag(image.digest)}"
    for option in (
        "--provenance=false",
        "--build-arg=SOURCE_DATE_EPOCH=0",
        f"--build-context=weights={context_of(layout, image.digest)}",
        f"--output={export},name={name}",
        str(BASE_LOCK.parent),  # with the Dockerfile, also where the program is installed
    ):
        say(option)


def run_base(options: argparse.Namespace) -> None:
    """Pin another release of the programs beside the weights."""
    replace_file(BASE_LOCK, lock_base(options.release))
    say(f"{BASE_LOCK}: commit it; the digest of every image changes")
