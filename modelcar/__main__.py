"""Command line for models: `python -m modelcar lock|fetch|verify|diff|digest|check|tiny|made-up|base …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx

from modelcar import fetching, lock_diff, locking, signing
from modelcar.base import BASE_LOCK, LOCKED_ARCHITECTURES, lock_base, read_base
from modelcar.build_options import export_options, image_tag
from modelcar.builder_push import push_by_builder
from modelcar.demo_model import make_demo_model
from modelcar.errors import InputError, refuse
from modelcar.evidence import attach_sbom
from modelcar.extra import parse_option
from modelcar.image import modelcar_image
from modelcar.inspect_image import describe, differences, inspect, to_document
from modelcar.layer_format import LARGE_FILE
from modelcar.layouts import LAYOUTS
from modelcar.lock import Lock, lock_path
from modelcar.lock_reader import COMPRESSIONS, read_lock
from modelcar.made_up import PRESETS, make_made_up_model
from modelcar.made_up import size_of as made_up_size
from modelcar.manifest import Image
from modelcar.mirrors import mirror_targets, name_of
from modelcar.oci_layout import context_of, replace_file
from modelcar.paths import printable
from modelcar.progress import amount, bar, say, working
from modelcar.promote import promote
from modelcar.push import layers_there, push_layers
from modelcar.push_from import push_from
from modelcar.registry import Registry, Target, parse
from modelcar.sbom import sbom
from modelcar.signing import SCHEME, Trust
from modelcar.tiny_model import make_tiny_model
from modelcar.version import version
from modelcar.weights import read_weights

#: Folder that models, locks and layouts are below.
PROJECT = Path(__file__).absolute().parent.parent
#: How a model gets kernels again.
RENEW = "once it serves, `make kernels STACK=…` saves new ones"
#: Exit code of a command that the user stopped: 128 and SIGINT, as a shell has it.
STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0; 1 for differences and the machine's errors; 2 for bad input; 130 when it was stopped.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int | None] = options.run
    try:
        return run(options) or 0
    except InputError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' * (count != 1)} with the input:\n{error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; running the same command again continues", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelcar", description="Lock, fetch and check models.")
    parser.add_argument("--version", action="version", version=f"modelcar {version()}")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lock = commands.add_parser("lock", help="resolve a model, pack it, and write its lock")
    lock.set_defaults(run=_lock)
    lock.add_argument("name", metavar="NAME", help="of the model; modelcar/models/NAME/model.lock is written")
    source = lock.add_mutually_exclusive_group()
    source.add_argument("--hub", metavar="OWNER/NAME", help="repository of a model hub")
    source.add_argument("--folder", metavar="PATH", help="folder with config.json, safetensors, a tokenizer")
    lock.add_argument("--revision", help="branch, tag or commit of the repository (default: main)")
    _choice_options(lock)
    lock.add_argument(
        "--extra",
        action="append",
        metavar="PATH=URL#sha256=…",
        help="a file that a hub's model gets; repeatable. Those of modelcar/models/NAME/extra/ are taken too",
    )
    lock.add_argument("--license", help="SPDX identifier, where the hub does not say the right one")
    lock.add_argument("--compression", choices=COMPRESSIONS, help="of the layers (default: none)")
    lock.add_argument(
        "--allow-pickle",
        action="store_true",
        default=None,
        help="take pickled weights: loading runs code",
    )
    _fetch_options(lock)

    fetch = commands.add_parser("fetch", help="bring a locked model onto this machine; resumes")
    fetch.set_defaults(run=_fetch)
    fetch.add_argument("name", metavar="NAME", help="of the model")
    fetch.add_argument(
        "--architecture", default="amd64", choices=LOCKED_ARCHITECTURES, help="of the image (default: amd64)"
    )
    _fetch_options(fetch)
    _mirror_options(fetch)

    verify = commands.add_parser("verify", help="read a fetched model again and compare it with its lock")
    verify.set_defaults(run=_verify)
    verify.add_argument("name", metavar="NAME", help="of the model")

    difference = commands.add_parser("diff", help="compare two locks; exit code 1 where they differ")
    difference.set_defaults(run=_diff)
    difference.add_argument("old", metavar="OLD", help="name of a model, or path of a lock")
    difference.add_argument("new", metavar="NEW", help="name of a model, or path of a lock")

    digest = commands.add_parser("digest", help="tell the image's digest, without the weights")
    digest.set_defaults(run=_digest)
    digest.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    digest.add_argument(
        "--architecture", default="amd64", choices=LOCKED_ARCHITECTURES, help="of the image (default: amd64)"
    )

    push = commands.add_parser("push", help="send a model's layers to a registry, for an `up` from elsewhere")
    push.set_defaults(run=_push)
    push.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    push.add_argument("repository", metavar="REPOSITORY", help="HOST/PATH to push to")
    push.add_argument("--insecure", action="store_true", help="push over plain HTTP")
    push.add_argument("--builder", metavar="NAME", help="let this buildx builder fetch and push them")
    push.add_argument("--endpoint", metavar="URL", help="of the hub or a mirror, as the builder reaches it")
    _mirror_options(push)

    options = commands.add_parser(
        "options", help="print buildx's options for the very image that is predicted"
    )
    options.set_defaults(run=_options)
    options.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    options.add_argument("repository", metavar="REPOSITORY", help="HOST/PATH to push to")
    options.add_argument("--insecure", action="store_true", help="push over plain HTTP")
    options.add_argument(
        "--architecture", default="amd64", choices=LOCKED_ARCHITECTURES, help="of the image (default: amd64)"
    )

    bill = commands.add_parser("sbom", help="print a model's bill of materials (CycloneDX)")
    bill.set_defaults(run=_sbom)
    bill.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")

    attach = commands.add_parser("attach", help="attach a model's bill of materials to its image")
    inspecting = commands.add_parser("inspect", help="tell what is inside of an image, without pulling it")
    verifying = commands.add_parser("verify-image", help="compare an image in a registry with a lock")
    attach.set_defaults(run=_attach)
    inspecting.set_defaults(run=_inspect)
    verifying.set_defaults(run=_verify_image)
    for command in (attach, verifying):
        command.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    for command in (attach, inspecting, verifying):
        command.add_argument("reference", metavar="IMAGE", help="HOST/PATH[:TAG][@sha256:…], or oci://…")
        command.add_argument("--insecure", action="store_true", help="plain HTTP")
    inspecting.add_argument("--json", action="store_true", help="for programs")

    sign = commands.add_parser("sign", help="sign an image with cosign, unless its signature is there")
    signed = commands.add_parser("verify-signature", help="tell whether an image's signature counts")
    sign.set_defaults(run=_sign)
    signed.set_defaults(run=_verify_signature)
    sign.add_argument("--key", metavar="KEY", help="private key: a file, or gcpkms://…, env://…, …")
    for command in (sign, signed):
        command.add_argument("reference", metavar="IMAGE", help="HOST/PATH@sha256:…, or oci://…")
        command.add_argument("--public-key", metavar="KEY", help="that counts: a file, or gcpkms://…, …")
        command.add_argument("--identity", metavar="WHO", help="that counts: an e-mail or workflow's address")
        command.add_argument("--issuer", metavar="URL", help="of the identity")
        command.add_argument("--transparency-log", action="store_true", help="use Sigstore's public log")
        command.add_argument("--insecure", action="store_true", help="plain HTTP")

    check = commands.add_parser("check", help="say what is in a folder of weights, and what is wrong with it")
    check.set_defaults(run=_check)
    check.add_argument("folder", type=Path, metavar="FOLDER", help="folder with config.json and safetensors")
    _choice_options(check)

    tiny = commands.add_parser("tiny", help="make a tiny Qwen2 model, of random weights or that says a text")
    tiny.set_defaults(run=_tiny)
    tiny.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    tiny.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    tiny.add_argument(
        "--by-heart", action="store_true", help="the model of `make up`, whose answer is a text"
    )

    made_up = commands.add_parser("made-up", help="make a model of true dimensions with random weights")
    made_up.set_defaults(run=_made_up)
    made_up.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    made_up.add_argument("--like", required=True, metavar="MODEL", help=f"one of {', '.join(PRESETS)}")
    made_up.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")

    base = commands.add_parser("base", help="pin another release of the programs beside the weights")
    base.set_defaults(run=_base)
    base.add_argument("release", metavar="RELEASE", help="of Debian's busybox-static")
    return parser


def _choice_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow", action="append", metavar="PATTERN", help="take only these; repeatable")
    parser.add_argument("--ignore", action="append", metavar="PATTERN", help="leave these out; repeatable")
    parser.add_argument(
        "--layout", choices=LAYOUTS, help="any: take a layout that vLLM may not load (default: auto)"
    )


def _fetch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", metavar="URL", help="of the hub or a mirror (default: HF_ENDPOINT)")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help="files at a time (default: 4, of a folder 2)")


def _mirror_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="mirrors",
        action="append",
        default=[],
        metavar="HOST/PATH",
        help="repository that layers come from, before anything else; repeatable",
    )
    parser.add_argument("--from-insecure", action="store_true", help="read those over plain HTTP")


def _jobs(text: str) -> int:
    if text.isdigit() and 0 < int(text) <= 64:
        return int(text)
    raise argparse.ArgumentTypeError("a number from 1 to 64")


def _say(line: str) -> None:
    say(line)


def _note(line: str) -> None:
    say(line, sys.stderr)


def _tiny(options: argparse.Namespace) -> None:
    made = make_demo_model if options.by_heart else partial(make_tiny_model, seed=options.seed)
    _say(str(made(options.destination)))


def _made_up(options: argparse.Namespace) -> None:
    with bar(f"make {options.destination.name}", made_up_size(options.like)) as progress:
        made = make_made_up_model(options.destination, options.like, seed=options.seed, progress=progress)
    _say(str(made))


def _check(options: argparse.Namespace) -> None:
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
        _say(f"{file.path:<{width}}  {amount(file.size):>10}  {own}".rstrip())
    _say(f"{'in all':<{width}}  {amount(weights.total_size):>10}  {len(weights.files)} files")
    if config:
        name = ", ".join(config.architectures) or config.model_type
        _say(f"{name}, {weights.parameters:,} parameters, {config.dtype or 'type of the numbers not said'}")


def _lock(options: argparse.Namespace) -> None:
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
        _note("note: the folder is not below the project, so only this machine can fetch the model")
    for warning in locking.warnings(lock):
        _note(f"warning: {warning}")
    if former and former.kernels:
        names = ", ".join(entry.name for entry in former.kernels)
        if lock.kernels:
            _say(f"kept: kernels {names}, as the model's configuration is the same")
        else:
            _note(f"warning: the model's configuration changed: kernels {names} are dropped; {RENEW}")
    if former:
        for line in lock_diff.describe(lock_diff.diff(former, lock)):
            _say(line)
    _say(f"{lock_path(project, name)}: commit it; every preview then shows this digest")
    _say(modelcar_image(lock, read_base("amd64")).digest)


def _say_left_out(skipped: Sequence[tuple[str, str]], doubts: Sequence[str]) -> None:
    for path, why in skipped:
        _note(f"left out: {printable(path)} ({why})")
    for doubt in doubts:
        _note(f"warning: {doubt}")


def _description(options: argparse.Namespace) -> locking.Description:
    """Return what is to be locked: as it is kept, and as the command line says otherwise."""
    path = locking.description_path(options.project, options.name)
    if options.hub:
        description = locking.Description(hub=options.hub)
    elif options.folder:
        description = locking.Description(folder=_relative(options.project, options.folder))
    else:
        description = locking.read_description(path)
    if options.revision and description.folder:
        raise refuse("--revision", options.revision, allowed="with a hub's repository", fix="leave it out")
    said = {
        "revision": options.revision,
        "allow": tuple(options.allow) if options.allow else None,
        "ignore": tuple(options.ignore) if options.ignore else None,
        "license": options.license,
        "compression": options.compression,
        "allow_pickle": options.allow_pickle,
        "layout": options.layout,
        "extra": tuple(map(parse_option, options.extra)) if options.extra else None,
    }
    return replace(description, **{key: value for key, value in said.items() if value is not None})


def _relative(project: Path, folder: str) -> str:
    """Return a folder as it is kept in a lock: below the project, it is the same in every checkout."""
    path, root = Path(folder).resolve(), project.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _former(path: Path) -> Lock | None:
    try:
        return read_lock(path)
    except InputError:
        return None


def _summary(lock: Lock, written: int, seconds: float) -> None:
    width = max(len(_files(layer.files)) for layer in lock.layers)
    for layer in lock.layers:
        _say(f"{_files(layer.files):<{width}}  {amount(layer.size):>10}  {layer.digest}")
    _say(
        f"{len(lock.files)} files, {amount(lock.total_size)}, license {lock.license or 'not said'}; "
        f"{amount(written)} written in {seconds:.1f} s"
    )


def _files(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return printable(paths[0]) + more


def _locked(options: argparse.Namespace, name: str) -> Lock:
    path = Path(name)
    return read_lock(path if path.name.endswith(".lock") else lock_path(options.project, name))


def _fetch(options: argparse.Namespace) -> None:
    lock = _locked(options, options.name)
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
            note=_note,
        )
    _say_origins(fetched.origins)
    _say(f"{amount(fetched.written)} fetched in {time.monotonic() - started:.1f} s, as the lock says")
    _say(fetched.layout.context)


def _verify(options: argparse.Namespace) -> int:
    lock = _locked(options, options.name)
    if not locking.layout_path(options.project, lock.name).is_dir():
        raise _not_fetched(lock)
    with bar(f"verify {lock.name}", lock.layers_size) as progress:
        problems = fetching.verify(lock, locking.layout_path(options.project, lock.name), progress=progress)
    for problem in problems:
        _note(str(problem))
    count = len(lock.layers) + len(lock.kernels)
    _say(f"{count - len(problems)} of {count} layers are as the lock says")
    return 1 if problems else 0


def _not_fetched(lock: Lock) -> InputError:
    fix = f"python -m modelcar fetch {lock.name}"
    return refuse(lock.name, "not fetched", allowed="a fetched model", fix=fix)


def _diff(options: argparse.Namespace) -> int:
    found = lock_diff.diff(_locked(options, options.old), _locked(options, options.new))
    for line in lock_diff.describe(found):
        _say(line)
    return 1 if found else 0


def _digest(options: argparse.Namespace) -> None:
    _say(modelcar_image(_locked(options, options.name), read_base(options.architecture)).digest)


def _push(options: argparse.Namespace) -> int:
    lock = _locked(options, options.name)
    image = modelcar_image(lock, read_base("amd64"))
    layout = locking.layout_path(options.project, lock.name)
    registry, _, name = options.repository.rpartition("/")
    target = Target(registry, name, options.insecure)
    mirrors = mirror_targets(options.mirrors, target, insecure=options.from_insecure)
    if options.builder:
        return _push_by_builder(options, lock, image, target, mirrors)
    if not mirrors and fetching.missing_bytes(lock, layout):
        raise _not_fetched(lock)
    origins: dict[str, str] = {}
    try:
        with bar(f"push {lock.name}", sum(layer.size for layer in image.layers)) as progress:
            if mirrors:
                base = read_base("amd64")
                origins, sent = push_from(lock, base, layout, target, mirrors, progress=progress, note=_note)
            else:
                sent = push_layers(image, layout, target, progress)
    except httpx.HTTPError as error:
        _note(f"error: {options.repository}: {error}")
        return 1
    _say_origins(origins)
    copied = sum(layer.size for layer in image.layers if layer.digest in origins)
    from_mirrors = f"{amount(copied)} from mirrors, " if mirrors else ""
    _say(f"{from_mirrors}{amount(sent)} sent; the registry has every layer of {image.digest}")
    return 0


def _say_origins(origins: Mapping[str, str]) -> None:
    for digest, origin in origins.items():
        _note(f"{digest}: {origin}")


def _push_by_builder(
    options: argparse.Namespace, lock: Lock, image: Image, target: Target, mirrors: Sequence[Target]
) -> int:
    for mirror in mirrors:
        if mirror.host != target.host:
            raise refuse(
                "--from",
                f"{name_of(mirror)}, beside --builder: a copy from another registry passes this machine",
                allowed=f"repositories of {target.host}, which it mounts without a copy",
                fix="leave --builder out, or --from: the builder fetches from the hub",
            )
    try:
        there = layers_there(image, target)
        if mirrors:
            mounted = promote(image.layers, target, mirrors, there=there, mounts_only=True, note=_note)
            _say_origins(mounted)
            there |= mounted.keys()
        missing = [layer for layer in lock.layers if layer.digest not in there]
        if missing:
            with working(f"push {lock.name} by {options.builder}"):
                push_by_builder(lock, missing, target, options.builder, endpoint=options.endpoint, note=_note)
        there = layers_there(image, target)
    except httpx.HTTPError as error:
        _note(f"error: {options.repository}: {error}")
        return 1
    if lacking := [layer.digest for layer in lock.layers if layer.digest not in there]:
        _note(f"{options.builder} made other layers than the lock says: {', '.join(lacking)} did not come")
        return 1
    size = amount(sum(layer.size for layer in missing))
    _say(f"{size} sent by {options.builder}; the registry has every layer of weights of {image.digest}")
    return 0


def _sbom(options: argparse.Namespace) -> None:
    _say(sbom(_locked(options, options.name)).decode())


def _attach(options: argparse.Namespace) -> None:
    lock = _locked(options, options.name)
    target, reference = parse(options.reference, insecure=options.insecure)
    with Registry(target, write=True) as registry:
        _, manifest = inspect(registry, reference)
        _say(f"attached {attach_sbom(registry, manifest, lock)}")


def _inspect(options: argparse.Namespace) -> None:
    target, reference = parse(options.reference, insecure=options.insecure)
    with Registry(target) as registry:
        found, _ = inspect(registry, reference)
    if options.json:
        _say(json.dumps(to_document(found), indent=1))
        return
    for line in describe(found):
        _say(line)


def _verify_image(options: argparse.Namespace) -> int:
    lock = _locked(options, options.name)
    target, reference = parse(options.reference, insecure=options.insecure)
    with Registry(target) as registry:
        found, _ = inspect(registry, reference)
    problems = list(differences(found, lock))
    for problem in problems:
        _note(f"{found.digest}: {problem}")
    if not problems:
        _say(f"{found.digest} is what {lock.name}'s lock says")
    return 1 if problems else 0


def _trust(options: argparse.Namespace) -> Trust:
    """Return whose signature counts; a key management service's key is its own public key."""
    key: str | None = getattr(options, "key", None)
    public = options.public_key or (key if key and SCHEME in key else None)
    if bool(public) == bool(options.identity) or bool(options.identity) != bool(options.issuer):
        raise refuse(
            "signature",
            "not one that it is verified by",
            allowed="--public-key KEY, or --identity WHO --issuer URL",
            fix="name one of these",
        )
    return Trust(public, options.identity, options.issuer, options.transparency_log)


def _sign(options: argparse.Namespace) -> None:
    trust = _trust(options)
    made = signing.ensure_signed(options.reference, trust, options.key, insecure=options.insecure)
    _say(f"{'signed' if made else 'signed before'}: {options.reference} ({trust.shown})")


def _verify_signature(options: argparse.Namespace) -> int:
    trust = _trust(options)
    fault = signing.verify(options.reference, trust, insecure=options.insecure)
    if fault:
        _note(f"{options.reference}: {fault}")
        return 1
    _say(f"{options.reference} is signed by {trust.shown}")
    return 0


def _options(options: argparse.Namespace) -> None:
    lock = _locked(options, options.name)
    image = modelcar_image(lock, read_base(options.architecture))
    layout = locking.layout_path(options.project, lock.name)
    export = export_options(image, insecure=options.insecure)
    name = f"{options.repository}:{image_tag(image.digest)}"
    for option in (
        "--provenance=false",
        "--build-arg=SOURCE_DATE_EPOCH=0",
        f"--build-context=weights={context_of(layout, image.digest)}",
        f"--output={export},name={name}",
        str(options.project / "modelcar"),
    ):
        _say(option)


def _base(options: argparse.Namespace) -> None:
    replace_file(BASE_LOCK, lock_base(options.release))
    _say(f"{BASE_LOCK}: commit it; the digest of every image changes")


if __name__ == "__main__":
    status = main()
    if status == STOPPED:  # Python would wait for threads, and those for a server that hangs
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
