"""The parser of `python -m local`: its commands, their options, and an example of each."""

from __future__ import annotations

import argparse

from local import addon_kinds
from modelcar.command_help import add_examples

DESCRIPTION = "Command line of the local stack: `python -m local up|platform|down|clean|status|env|pulumi|…`."
#: What each command does.
COMMANDS: dict[str, str] = {
    "up": "serve the model: tools, platform, image, service, one request",
    "tools": "find, download or build everything that `up` and `make test` run",
    "platform": "all of that but Pulumi's part",
    "down": "stop the platform; its data stay",
    "clean": "stop it and remove its data and the stack's state",
    "status": "show each process",
    "env": 'print the variables for plain commands: eval "$(python -m local env)"',
    "pulumi": "run a pulumi command with the right environment",
    "preview": "show what `pulumi up` would do to a stack, with the policy pack",
    "deploy": "run `pulumi up` on a stack, with the policy pack",
    "drift": "tell whether somebody changed a stack's resources past the program",
    "idle": "let a stack keep no pod, so that its GPU nodes can go",
    "wake": "let it serve again",
    "rollback": "serve the image that was served before",
    "coldstart": "measure how long models of several sizes take to be served",
    "doctor": "look whether machine, credentials, registry and cluster are ready for a stack",
    "runbook": "walk through the runbook on this machine, with evidence for each step",
    "operate": "run an operation of `python -m operations` on a stack",
    "rehearse": "do what the workflows do to dev, on this machine",
    "pin": "resolve an image's tag to its digest, for settings that take images by digest",
}
#: Of `python -m operations`, whose own parser takes a second to import.
OPERATIONS = (
    *("smoke", "validate", "chat", "nodes", "coldstart", "revisions", "former", "prune", "render"),
    *("admission", "monitoring", "kernels"),
)
#: What the help of each command shows; a test parses all of them.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "up": ("", "--kind 1"),
    "tools": ("",),
    "platform": ("", "--with keda", "--without keda"),
    "down": ("",),
    "clean": ("",),
    "status": ("",),
    "env": ("",),
    "pulumi": ("preview --stack local",),
    "preview": ("dev", "dev --diff"),
    "deploy": ("dev", "dev --yes"),
    "drift": ("dev",),
    "idle": ("local", "dev --model chat"),
    "wake": ("local",),
    "rollback": ("local", "dev --to sha256:…", "dev --end"),
    "coldstart": (
        "--sizes 1 --placements servingRuntime,imageVolume --reader-only",
        "--sizes 0.5,1,2 --json",
    ),
    "doctor": ("dev", "dev --json"),
    "runbook": ("", "--with keda,argocd"),
    "operate": ("validate local", "chat local --ask 'What are you?'"),
    "rehearse": ("",),
    "pin": ("vllm/vllm-openai:v0.23.0",),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; `command` of what it parses is the command's name."""
    parser = argparse.ArgumentParser(prog="python -m local", description=DESCRIPTION)
    parser.add_argument("--name", default="local", help="which platform (its state folder)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        add_examples(command, *EXAMPLES[name])
        if name == "pulumi":
            command.add_argument("arguments", nargs=argparse.REMAINDER)
        if name == "operate":
            command.add_argument("operation", help=f"one of: {', '.join(OPERATIONS)}")
        if name in {"preview", "deploy", "drift", "operate", "idle", "wake", "rollback", "doctor"}:
            command.add_argument("stack", help="local, dev or prod")
            command.add_argument("arguments", nargs=argparse.REMAINDER, help="more for it")
        if name == "up":
            command.add_argument(
                "--kind", default="", metavar="NAME", help="in a cluster made by kind: 1, or a name for it"
            )
        if name == "coldstart":
            command.add_argument("--sizes", type=_sizes, help="of made-up models, in GB, separated by commas")
            command.add_argument(
                "--placements", type=_names, help="how the image comes into the pod, separated by commas"
            )
            command.add_argument("--reader-only", action="store_true", help="leave the model server out")
            command.add_argument("--json", action="store_true", help="for programs")
        if name == "platform":
            command.add_argument(
                "--with",
                dest="addons",
                metavar="NAMES",
                help=f"others' programs: {', '.join(addon_kinds.ADDONS)}",
            )
            command.add_argument("--without", metavar="NAMES", help="remove these again")
        if name == "runbook":
            command.add_argument(
                "--with", dest="addons", metavar="NAMES", help="steps with others' programs: keda, argocd"
            )
        if name == "pin":
            command.add_argument("image", help="IMAGE:TAG")
    return parser


def _names(text: str) -> tuple[str, ...]:
    known = ("servingRuntime", "storageUriEnv", "storageUris", "imageVolume")
    found = tuple(part.strip() for part in text.split(","))
    if unknown := [name for name in found if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    return found


def _sizes(text: str) -> list[float]:
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = [0.0]
    if not all(0.001 <= size <= 1000 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers of GB from 0.001 to 1000, as 0.5,1,2")
    return sizes
