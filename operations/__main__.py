"""Operations on a deployed stack: `python -m operations smoke …`."""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import yaml

from components.cluster import nodes as gpu_nodes
from components.cluster import smoke as smoke_test
from components.cluster.access import ClusterError
from components.cluster.probe_image import NAME, push_probe
from components.config.arguments import validated
from components.config.gitops import GitOpsSettings
from components.config.secrets import Secrets
from components.config.settings import Settings
from components.config.stack import Stack
from components.manifests import gitops
from components.manifests.yaml_texts import TextDumper
from modelcar.base import read_base
from modelcar.errors import InputError, UnansweredError, refuse
from modelcar.lock_reader import read_lock
from modelcar.progress import say, silent, working
from modelcar.registry import Target, in_words
from operations import admission, admission_builtin, monitoring, validation_report
from operations import chat as chatting
from operations import cold_start as start_phases
from operations import kernel_entries as entries
from operations import kernels as compiled
from operations import prune as pruning
from operations import revisions as served_before
from operations import validate as validation
from operations.arguments import parser
from operations.stack import cluster_of, outputs_of, program_of, stack_of

PROJECT = Path(__file__).absolute().parent.parent
#: What is told of a command that was stopped, where that leaves a question; the others only look.
STOPPED = {
    "smoke": "stopped; what was made in the cluster for this is removed",
    "validate": "stopped; what was made in the cluster for this is removed",
    "prune": "stopped; what is told as deleted is gone, and the rest is still there",
    "render": "stopped; files that were written so far stay: run it again",
    "kernels": "stopped; layers that were sent so far stay in the registry, which does no harm: run it again",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0; 1 where something is not as it should be, or a service went away; 2 for bad input; 130 when stopped.
    """
    options = parser(PROJECT).parse_args(arguments)
    options.secrets = Secrets()
    for stop in (signal.SIGINT, signal.SIGTERM):  # both: a job in the background may have SIGINT ignored
        signal.signal(stop, _stopped)
    try:
        with silent(when=getattr(options, "json", False)):
            return RUN[options.command](options)
    except UnansweredError as error:
        print(options.secrets.hide(f"error: {error}"), file=sys.stderr)
        return 1
    except InputError as error:
        count = len(error.problems)
        told = f"{count} problem{'s' * (count != 1)} with the input:\n{error}"
        print(options.secrets.hide(told), file=sys.stderr)
        return 2
    except (ClusterError, httpx.HTTPError, OSError) as error:
        print(options.secrets.hide(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(STOPPED.get(options.command, "stopped"), file=sys.stderr)
        return 130


def _stopped(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stack(options: argparse.Namespace) -> Stack:
    """Return the stack's settings; what of them is secret is hidden in what a command tells from here on."""
    stack = stack_of(options.stack, options.project)
    options.secrets = stack.secrets
    return stack


def _model(options: argparse.Namespace) -> Settings:
    return _stack(options).model(options.model)


def _note(options: argparse.Namespace, line: str) -> None:
    say(options.secrets.hide(line), sys.stderr)


def _evidence(options: argparse.Namespace, lines: Iterable[str]) -> None:
    """Print what was seen in the cluster: a server's log may have a secret that the stack gave it."""
    print(options.secrets.hide("\n".join(lines)))


def _document(options: argparse.Namespace, found: Any) -> None:
    """Print the same for programs."""
    print(json.dumps(options.secrets.hide_all(found), indent=1))


def _smoke(options: argparse.Namespace) -> int:
    settings = _model(options)
    cluster = cluster_of(settings, options.project)
    target = Target(settings.registry, NAME, settings.registry_insecure)
    try:
        digest = push_probe(read_base(settings.architecture), options.project, target)
    except httpx.HTTPError as error:
        raise in_words(target, error) from None
    with working("waiting for the probes' pods"):
        found = smoke_test.smoke(
            cluster,
            settings,
            f"{settings.registry}/{NAME}@{digest}",
            namespace=options.namespace or settings.smoke_namespace,
            patience=options.patience,
            say=partial(_note, options),
        )
    if options.json:
        _document(options, smoke_test.document(found))
    else:
        _evidence(options, smoke_test.table(found))
    return 0 if found.chosen else 1


def _chat(options: argparse.Namespace) -> int:
    settings = _model(options)
    if options.ask is not None:
        questions: Iterable[str] = [options.ask]
    elif sys.stdin.isatty():
        print(f"{settings.model_name}: ask, and end with Ctrl-D", file=sys.stderr)
        questions = _asked()
    else:
        questions = sys.stdin
    cluster = cluster_of(settings, options.project)

    def tell(said: chatting.Exchange) -> None:
        """Print an answer; for programs each exchange is a line of JSON, as soon as it is there."""
        text = said.answer if said.answer is not None else f"({said.note})"
        print(json.dumps(asdict(said)) if options.json else text, flush=True)

    chatting.chat(cluster, settings, questions, tell, tokens=options.tokens)
    return 0


def _asked() -> Iterator[str]:
    """Yield what a person types, until Ctrl-D."""
    with suppress(EOFError):
        while True:
            yield input("> ")


def _validate(options: argparse.Namespace) -> int:
    stack = _stack(options)
    models = [stack.model(options.model)] if options.model or not stack.listed else list(stack.models)
    outputs = outputs_of(options.stack, options.project).get("models", {})
    cluster = cluster_of(stack.shared, options.project)
    found = {}
    for settings in models:
        uri = (settings.of_last_run(outputs) or {}).get("storageUri")
        with working(f"looking at {settings.service_name}"):
            try:
                lines = validation.validate(cluster, settings, uri, say=partial(_note, options))
            except ClusterError as error:  # what is known of other models is told all the same
                lines = (validation_report.Line("served", None, f"not seen: {error}"),)
            found[settings.key] = lines
    if options.json:
        documents = {name: validation_report.document(lines) for name, lines in found.items()}
        several = stack.listed and not options.model
        _document(options, {"models": documents} if several else next(iter(documents.values())))
    else:
        for name, lines in found.items():
            head = [f"── {name}"] if stack.listed else []
            _evidence(options, [*head, *validation_report.report(lines)])
    return 0 if all(line.passed for lines in found.values() for line in lines) else 1


def _nodes(options: argparse.Namespace) -> int:
    stack = _stack(options)
    models = (stack.model(options.model),) if options.model else stack.models
    found = gpu_nodes.nodes(cluster_of(stack.shared, options.project), models)
    if options.json:
        print(json.dumps(gpu_nodes.document(found), indent=1))
    else:
        print("\n".join(gpu_nodes.report(found)))
    return 0


def _cold_start(options: argparse.Namespace) -> int:
    settings = _model(options)
    cluster = cluster_of(settings, options.project)
    found = start_phases.cold_start(cluster, settings)
    if found is None:
        print(f"no pod of {settings.namespace}/{settings.service_name} is ready", file=sys.stderr)
        return 1
    if options.json:
        _document(options, start_phases.document(found))
    else:
        _evidence(options, [*start_phases.table(found), *start_phases.caches(cluster, settings)])
    return 0


def _revisions(options: argparse.Namespace) -> int:
    settings = _model(options)
    found = served_before.revisions(cluster_of(settings, options.project), settings)
    if options.json:
        print(json.dumps(served_before.document(found), indent=1))
    else:
        print("\n".join(served_before.table(found)))
    return 0


def _former(options: argparse.Namespace) -> int:
    settings = _model(options)
    cluster = None if options.to else cluster_of(settings, options.project)
    digest = served_before.former(cluster, settings, options.to, partial(_note, options))
    print(json.dumps({"digest": digest}, indent=1) if options.json else digest)
    return 0


def _prune(options: argparse.Namespace) -> int:
    stack = _stack(options)
    outputs = outputs_of(options.stack, options.project)
    today = datetime.date.today()
    cluster = cluster_of(stack.shared, options.project)
    found: list[pruning.Pruned] = []

    def tell(one: pruning.Pruned) -> None:
        found.append(one)
        if not options.json:
            print(pruning.line(one), flush=True)

    ended = False
    try:
        pruning.prune(cluster, stack, outputs, today, delete=options.delete, tell=tell)
        ended = True
    finally:
        if options.json and (ended or found):  # what was deleted is told, however this ends
            print(json.dumps(pruning.document(found), indent=1))
    if not found and not options.json:
        print(pruning.NONE)
    return pruning.status(found)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _render(options: argparse.Namespace) -> int:
    stack = _stack(options)
    settings = stack.shared
    given = {name: getattr(options, name) for name in ("repository", "path", "revision")}
    given["folder"] = str(options.out.absolute()) if options.out else None
    told = {**(settings.gitops.model_dump() if settings.gitops else {}), **_said(given)}
    changed = []
    names = {name: f"--{name}" for name in given if name != "folder"}
    where = validated(GitOpsSettings, told, names) if "folder" in told else None
    name = options.stack.rpartition("/")[2]
    for folder in gitops.folders(stack, options.project, where, name=name):
        work = gitops.changes if options.check else gitops.write
        changed += list(work(folder))
    if options.json:
        print(json.dumps([{"path": str(change.path), "what": change.what} for change in changed], indent=1))
    else:
        for change in changed:
            print(f"{change.what}: {change.path}")
            for line in change.diff:
                print(f"  {line}")
        print(f"{len(changed)} files {'would change' if options.check else 'changed'}")
    return 1 if options.check and changed else 0


def _monitoring(options: argparse.Namespace) -> int:
    stack = _stack(options)
    models = (stack.model(options.model),) if options.model else stack.models
    if options.dashboard:
        one = stack.model(options.model)
        print(json.dumps(monitoring.dashboard(one), indent=1))
        return 0
    kinds = monitoring.GOOGLE if options.google else monitoring.OPERATOR
    found = monitoring.objects(models, kinds)
    if options.json:
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=1))
    else:
        print(yaml.dump_all(found, Dumper=TextDumper, sort_keys=False, width=1000), end="")
    return 0


def _admission(options: argparse.Namespace) -> int:
    stack = _stack(options)
    own, kyverno = [*options.allow, *options.allow_volume], [*options.secret, *options.provider]
    admission.check_options(options.builtin, own, kyverno)
    kind = "modelcars" if options.builtin else "signed-modelcars"
    program = program_of(options.stack, options.project)
    name = admission.object_name(kind, program, stack.shared.namespace, options.stack)
    if options.builtin:
        objects = admission_builtin.policies(stack, name, options.allow, options.allow_volume)
        for line in admission_builtin.notes(stack, options.allow):
            _note(options, line)
    else:
        settings, read = stack.shared, {"secrets": options.secret, "providers": options.provider}
        objects = [
            admission.policy(
                settings, options.project, options.stack, name=name, others=admission.mounted(stack), **read
            )
        ]
        for line in admission.notes(objects[0], settings):
            _note(options, line)
    if options.json:
        several = {"apiVersion": "v1", "kind": "List", "items": objects}
        print(json.dumps(several if len(objects) > 1 else objects[0], indent=1), end="")
    else:
        print(yaml.dump_all(objects, Dumper=TextDumper, sort_keys=False), end="")
    return 0


def _kernels(options: argparse.Namespace) -> int:
    settings = _model(options)
    if settings.image:
        fix = "lock the model, so that its image is built here (modelcar/models/README.md)"
        raise refuse(
            "modelcar:image", settings.image, allowed="a model with a lock, which names them", fix=fix
        )
    path = options.project / settings.lock_path
    if options.action == "list":
        rows = entries.listed(settings, options.project)
        print(json.dumps(rows, indent=1) if options.json else "\n".join(entries.table(rows)))
        return 0
    before = read_lock(path)
    push = not options.no_push
    if options.action == "save":
        outputs = outputs_of(options.stack, options.project).get("models", {})
        uri = settings.of_last_run(outputs) or {}
        with working(f"saving the kernels of {settings.service_name}"):
            compiled.save(
                cluster_of(settings, options.project),
                settings,
                options.project,
                uri.get("storageUri"),
                pod=options.pod,
                out=options.out,
                push=push,
                say=partial(_note, options),
                secrets=options.secrets,
            )
    elif options.action == "remove":
        entries.remove(settings, options.project, options.what, every=options.all)
    else:
        if len(options.what) != 1:
            found = f"{len(options.what)} sources"
            fix = "kernels add SOURCE --stack STACK"
            raise refuse("SOURCE", found, allowed="a file, or HOST/PATH of a repository", fix=fix)
        entries.add(settings, options.project, options.what[0], push=push, insecure=options.insecure)
    changed = entries.differences(before, read_lock(path))
    if options.json:
        print(json.dumps(entries.listed(settings, options.project), indent=1))
        return 0
    print("\n".join(changed))
    if before != read_lock(path):
        print(f"{path}: commit it; `pulumi up` builds the image with its new layer and replaces the pods")
    return 0


#: What each command runs.
RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "smoke": _smoke,
    "validate": _validate,
    "chat": _chat,
    "nodes": _nodes,
    "coldstart": _cold_start,
    "revisions": _revisions,
    "former": _former,
    "prune": _prune,
    "render": _render,
    "admission": _admission,
    "monitoring": _monitoring,
    "kernels": _kernels,
}


if __name__ == "__main__":
    sys.exit(main())
