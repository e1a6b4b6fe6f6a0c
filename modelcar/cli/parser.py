"""The parser of the command line for models: its commands, their options, and an example of each."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelcar.base import LOCKED_ARCHITECTURES
from modelcar.cli import completion, images, locks
from modelcar.command_help import add_examples
from modelcar.hub_address import fault_of_address, plain
from modelcar.layouts import LAYOUTS
from modelcar.lock_reader import COMPRESSIONS
from modelcar.made_up import PRESETS
from modelcar.version import version

#: What the help of each command shows; a test parses all of them.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "lock": (
        "qwen2.5-0.5b --hub Qwen/Qwen2.5-0.5B",
        "my-model --folder weights --license Apache-2.0",
        "my-model",
    ),
    "fetch": ("my-model", "my-model --from registry.example.com/models/my-model"),
    "verify": ("my-model",),
    "diff": ("old-model new-model", "before/model.lock my-model"),
    "digest": ("my-model", "my-model --architecture arm64"),
    "push": (
        "my-model registry.example.com/models/my-model",
        "my-adapter registry.example.com/models/my-adapter --image",
        "my-adapter registry.example.com/models/my-adapter --image --architecture arm64",
        "my-model registry.example.com/models/my-model --builder in-cluster",
    ),
    "options": ("my-model registry.example.com/models/my-model",),
    "sbom": ("my-model",),
    "attach": ("my-model registry.example.com/models/my-model:v1",),
    "inspect": ("registry.example.com/models/my-model:v1", "registry.example.com/models/my-model:v1 --json"),
    "verify-image": ("my-model registry.example.com/models/my-model:v1",),
    "sign": ("registry.example.com/models/my-model@sha256:… --key cosign.key --public-key cosign.pub",),
    "verify-signature": ("registry.example.com/models/my-model@sha256:… --public-key cosign.pub",),
    "check": ("weights", "weights --ignore 'draft*'"),
    "tiny": ("weights --seed 7", "weights --by-heart"),
    "made-up": ("weights --like qwen2.5-0.5b",),
    "base": ("1:1.35.0-4+deb12u1+b1",),
    "completion": ("bash",),
}


def parser(prog: str, project: Path) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        prog: how the command is called, for the help.
        project: folder that models, locks and layouts are below, unless an option names another.
    """
    parser = argparse.ArgumentParser(prog=prog, description="Lock, fetch, push and check models.")
    parser.add_argument("--version", action="version", version=f"modelcar {version()}")
    parser.add_argument("--project", type=Path, default=project, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lock = commands.add_parser("lock", help="resolve a model, pack it, and write its lock")
    lock.set_defaults(run=locks.run_lock)
    lock.add_argument("name", metavar="NAME", help="of the model; modelcar/models/NAME/model.lock is written")
    source = lock.add_mutually_exclusive_group()
    source.add_argument(
        "--hub", metavar="OWNER/NAME", help="repository of a model hub; --hub and --folder start anew"
    )
    source.add_argument("--folder", metavar="PATH", help="folder with config.json, safetensors, a tokenizer")
    lock.add_argument("--revision", help="branch, tag or commit of the repository (default: main)")
    _choice_options(lock, ", added to what model.yaml has")
    lock.add_argument(
        "--extra",
        action="append",
        metavar="PATH=URL#sha256=…",
        help="a file that a hub's model gets; repeatable, added to what model.yaml has. Those of "
        "modelcar/models/NAME/extra/ are taken too",
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
    fetch.set_defaults(run=locks.run_fetch)
    fetch.add_argument("name", metavar="NAME", help="of the model")
    _architecture_option(fetch)
    _fetch_options(fetch)
    _mirror_options(fetch)

    verify = commands.add_parser("verify", help="read a fetched model again and compare it with its lock")
    verify.set_defaults(run=locks.run_verify)
    verify.add_argument("name", metavar="NAME", help="of the model")

    difference = commands.add_parser("diff", help="compare two locks; exit code 1 where they differ")
    difference.set_defaults(run=locks.run_diff)
    difference.add_argument("old", metavar="OLD", help="name of a model, or path of a lock")
    difference.add_argument("new", metavar="NEW", help="name of a model, or path of a lock")

    digest = commands.add_parser("digest", help="tell the image's digest, without the weights")
    digest.set_defaults(run=locks.run_digest)
    digest.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    _architecture_option(digest)

    push = commands.add_parser("push", help="send a model's layers to a registry, for an `up` from elsewhere")
    push.set_defaults(run=images.run_push)
    push.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    push.add_argument("repository", metavar="REPOSITORY", help="HOST/PATH to push to")
    push.add_argument("--insecure", action="store_true", help="push over plain HTTP")
    push.add_argument(
        "--image",
        action="store_true",
        help="write the image's manifest too, under a tag of its own, and print REPOSITORY@sha256:…",
    )
    _architecture_option(push)
    push.add_argument("--builder", metavar="NAME", help="let this buildx builder fetch and push them")
    push.add_argument(
        "--endpoint", type=_address, metavar="URL", help="of the hub or a mirror, as the builder reaches it"
    )
    _mirror_options(push)

    options = commands.add_parser(
        "options", help="print buildx's options for the very image that is predicted"
    )
    options.set_defaults(run=locks.run_options)
    options.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    options.add_argument("repository", metavar="REPOSITORY", help="HOST/PATH to push to")
    options.add_argument("--insecure", action="store_true", help="push over plain HTTP")
    _architecture_option(options)

    bill = commands.add_parser("sbom", help="print a model's bill of materials (CycloneDX)")
    bill.set_defaults(run=images.run_sbom)
    bill.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")

    attach = commands.add_parser("attach", help="attach a model's bill of materials to its image")
    inspecting = commands.add_parser("inspect", help="tell what is inside of an image, without pulling it")
    verifying = commands.add_parser("verify-image", help="compare an image in a registry with a lock")
    attach.set_defaults(run=images.run_attach)
    inspecting.set_defaults(run=images.run_inspect)
    verifying.set_defaults(run=images.run_verify_image)
    for command in (attach, verifying):
        command.add_argument("name", metavar="NAME", help="name of a model, or path of a lock")
    for command in (attach, inspecting, verifying):
        command.add_argument("reference", metavar="IMAGE", help="HOST/PATH[:TAG][@sha256:…], or oci://…")
        command.add_argument("--insecure", action="store_true", help="plain HTTP")
    inspecting.add_argument("--json", action="store_true", help="for programs")

    sign = commands.add_parser("sign", help="sign an image with cosign, unless its signature is there")
    signed = commands.add_parser("verify-signature", help="tell whether an image's signature counts")
    sign.set_defaults(run=images.run_sign)
    signed.set_defaults(run=images.run_verify_signature)
    sign.add_argument("--key", metavar="KEY", help="private key: a file, or gcpkms://…, env://…, …")
    for command in (sign, signed):
        command.add_argument("reference", metavar="IMAGE", help="HOST/PATH@sha256:…, or oci://…")
        command.add_argument("--public-key", metavar="KEY", help="that counts: a file, or gcpkms://…, …")
        command.add_argument("--identity", metavar="WHO", help="that counts: an e-mail or workflow's address")
        command.add_argument("--issuer", metavar="URL", help="of the identity")
        command.add_argument("--transparency-log", action="store_true", help="use Sigstore's public log")
        command.add_argument("--insecure", action="store_true", help="plain HTTP")

    check = commands.add_parser("check", help="say what is in a folder of weights, and what is wrong with it")
    check.set_defaults(run=locks.run_check)
    check.add_argument("folder", type=Path, metavar="FOLDER", help="folder with config.json and safetensors")
    _choice_options(check)

    tiny = commands.add_parser("tiny", help="make a tiny Qwen2 model, of random weights or that says a text")
    tiny.set_defaults(run=locks.run_tiny)
    tiny.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    tiny.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    tiny.add_argument(
        "--by-heart", action="store_true", help="the model of `make up`, whose answer is a text"
    )

    made_up = commands.add_parser("made-up", help="make a model of true dimensions with random weights")
    made_up.set_defaults(run=locks.run_made_up)
    made_up.add_argument("destination", type=Path, metavar="DEST", help="folder to make")
    made_up.add_argument("--like", required=True, metavar="MODEL", help=f"one of {', '.join(PRESETS)}")
    made_up.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")

    base = commands.add_parser("base", help="pin another release of the programs beside the weights")
    base.set_defaults(run=locks.run_base)
    base.add_argument("release", metavar="RELEASE", help="of Debian's busybox-static")

    shells = commands.add_parser("completion", help="print a shell's completion of `modelcar-kserve`")
    shells.set_defaults(run=completion.run_completion, parser=parser)
    shells.add_argument("shell", choices=completion.SHELLS, help="that the script is for")

    for name, command in commands.choices.items():
        add_examples(command, *EXAMPLES[name])
    return parser


def _architecture_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--architecture", default="amd64", choices=LOCKED_ARCHITECTURES, help="of the image (default: amd64)"
    )


def _choice_options(parser: argparse.ArgumentParser, more: str = "") -> None:
    for option, does in (("--allow", "take only these"), ("--ignore", "leave these out")):
        parser.add_argument(option, action="append", metavar="PATTERN", help=f"{does}; repeatable{more}")
    parser.add_argument(
        "--layout", choices=LAYOUTS, help="any: take a layout that vLLM may not load (default: auto)"
    )


def _fetch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint", type=_address, metavar="URL", help="of the hub or a mirror (default: HF_ENDPOINT)"
    )
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


def _address(text: str) -> str:
    """Return a hub's address. argparse does not show what is refused, which may hold a password."""
    if fault := fault_of_address(text):
        why, allowed, fix = fault
        raise argparse.ArgumentTypeError(f"{why} (allowed: {allowed}; fix: {fix})")
    return plain(text)
