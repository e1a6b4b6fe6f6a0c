"""The parser of `python -m operations`: its commands, their options, and an example of each."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from components.cluster import smoke as smoke_test
from components.config.fields import LABEL_NAME, SUBDOMAIN_NAME
from modelcar.command_help import add_examples
from operations import admission, admission_builtin
from operations import chat as chatting

DESCRIPTION = "Operations on a deployed stack: `python -m operations smoke …`."
#: What the help of each command shows; a test parses all of them.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "smoke": ("--stack dev", "--stack dev --namespace try-out --patience 300"),
    "validate": ("--stack dev", "--stack dev --model chat --json"),
    "chat": ("--stack local", "--stack local --ask 'What are you?'"),
    "nodes": ("--stack dev",),
    "coldstart": ("--stack dev --model chat",),
    "revisions": ("--stack dev",),
    "former": ("--stack dev", "--stack dev --to sha256:…"),
    "prune": ("--stack dev", "--stack dev --delete"),
    "render": ("--stack dev --out deploy/dev", "--stack dev --check"),
    "admission": (
        "--stack prod --secret registry",
        "--stack prod --builtin",
        "--stack prod --builtin --allow-volume csi",
    ),
    "monitoring": ("--stack dev", "--stack dev --google", "--stack dev --dashboard"),
    "kernels": (
        "save --stack dev",
        "add registry.example.com/models/chat --stack prod",
        "list --stack dev",
        "remove --all --stack dev",
    ),
}


def _named(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    """Return a type of options that takes names which Kubernetes takes."""

    def name(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return name


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; 1 to 86400 are")
    return value


def _tokens(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; 1 to 9999999 are")
    return int(text)


def _filled(text: str) -> str:
    if not text.strip():  # pulumi would take the selected stack, chat would read stdin
        raise argparse.ArgumentTypeError("it is empty: is the shell's variable set?")
    return text


def parser(project: Path) -> argparse.ArgumentParser:
    """Return the parser of the command line; `command` of what it parses is the operation's name.

    Args:
        project: folder of the Pulumi program, unless an option names another.
    """
    parser = argparse.ArgumentParser(prog="python -m operations", description=DESCRIPTION)
    parser.add_argument("--project", type=Path, default=project, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    smoke = commands.add_parser("smoke", help="find out which placements this cluster's KServe honours")
    smoke.add_argument(
        "--namespace",
        type=_named(LABEL_NAME, "a namespace: lower-case letters, digits and '-', at most 63"),
        help="to work in, made and removed (default: the stack's modelcar:smokeNamespace)",
    )
    smoke.add_argument(
        "--patience", type=_seconds, default=smoke_test.PATIENCE, metavar="SECONDS", help="for a pod"
    )

    validate = commands.add_parser(
        "validate", help="look whether the model is served, offline, and cannot reach a hub"
    )
    talk = commands.add_parser("chat", help="talk to the model, on a terminal or line by line")
    talk.add_argument("--ask", type=_filled, metavar="TEXT", help="this one question, and no others")
    talk.add_argument(
        "--tokens", type=_tokens, default=chatting.ANSWER, help="of an answer, at most (default: 256)"
    )
    nodes = commands.add_parser("nodes", help="tell which GPU nodes are there, and which pods keep them")
    start = commands.add_parser("coldstart", help="tell how long the model's start took, phase by phase")
    revisions = commands.add_parser("revisions", help="list the images that the model was deployed with")
    former = commands.add_parser("former", help="print the digest of the image to roll back to")
    former.add_argument("--to", metavar="DIGEST", help="this one, if the registry has it")
    old = commands.add_parser("prune", help="delete the images of models that the stack no longer has")
    old.add_argument("--delete", action="store_true", help="do it; otherwise only tell")
    render = commands.add_parser("render", help="write the stack's objects as YAML, for Argo CD and Git")
    render.add_argument(
        "--out", type=Path, metavar="FOLDER", help="in a Git checkout (default: modelcar:gitops.folder)"
    )
    render.add_argument(
        "--check", action="store_true", help="write nothing, show the difference, exit 1 for one"
    )
    render.add_argument(
        "--repository", metavar="URL", help="of the Git repository; writes the Application too"
    )
    render.add_argument("--path", metavar="PATH", help="of the folder in it (default: found out)")
    render.add_argument("--revision", help="that Argo CD follows (default: main)")
    admit = commands.add_parser(
        "admission", help="print a Kyverno policy by which no unsigned modelcar of the stack starts"
    )
    admit.add_argument(
        "--builtin",
        action="store_true",
        help="print a ValidatingAdmissionPolicy: pinned images from the stack's own places, in its namespace",
    )
    admit.add_argument(
        admission_builtin.OPTION,
        action="append",
        default=[],
        metavar="REPOSITORY",
        help="with --builtin: HOST/PATH whose images may run in the namespace too; may be repeated",
    )
    admit.add_argument(
        admission_builtin.VOLUME_OPTION,
        action="append",
        default=[],
        choices=sorted(admission_builtin.OTHER_VOLUMES),
        metavar="KIND",
        help="with --builtin: kind of volume that pods may have too, though it can hold a model: "
        f"{', '.join(sorted(admission_builtin.OTHER_VOLUMES))}; may be repeated",
    )
    admit.add_argument(
        "--secret",
        action="append",
        type=_named(SUBDOMAIN_NAME, "a secret's name: lower-case letters, digits, '-' and '.'"),
        default=[],
        metavar="NAME",
        help="pull secret in Kyverno's namespace that it reads the registry with; may be repeated",
    )
    admit.add_argument(
        "--provider",
        action="append",
        default=[],
        choices=["default", *admission.PROVIDERS],
        help="who gives Kyverno credentials (default: by the registry's host)",
    )
    watch = commands.add_parser(
        "monitoring", help="print what collects vLLM's metrics, and alert rules; or a dashboard"
    )
    watch.add_argument("--google", action="store_true", help="for Google Cloud's managed Prometheus")
    watch.add_argument("--dashboard", action="store_true", help="a dashboard for Grafana, as JSON")
    kernels = commands.add_parser("kernels", help="let what vLLM compiled travel with the model's image")
    kernels.add_argument(
        "action", choices=("save", "add", "list", "remove"), help="save: out of the pods, into the lock"
    )
    kernels.add_argument(
        "what", nargs="*", help="of add: a file, or HOST/PATH of a repository; of remove: names"
    )
    kernels.add_argument("--pod", metavar="NAME", help="save this one's (default: the newest of each device)")
    kernels.add_argument("--out", type=Path, metavar="FILE", help="save writes them to a file too")
    kernels.add_argument("--no-push", action="store_true", help="do not send them to the image's repository")
    kernels.add_argument("--insecure", action="store_true", help="add: the other repository has plain HTTP")
    kernels.add_argument("--all", action="store_true", help="remove all of the model's")
    for command in (
        smoke,
        validate,
        talk,
        nodes,
        start,
        revisions,
        former,
        old,
        render,
        admit,
        watch,
        kernels,
    ):
        command.add_argument("--stack", required=True, type=_filled, help="name of the Pulumi stack")
        if command not in {old, render, admit}:
            several = "of a stack with several (modelcar:models)"
            command.add_argument("--model", type=_filled, metavar="NAME", help=several)
        command.add_argument("--json", action="store_true", help="for programs")
    for name, command in commands.choices.items():
        add_examples(command, *EXAMPLES[name])
    return parser
