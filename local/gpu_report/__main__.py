"""`make gpu-report`: see `local.gpu_report`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local import gpu, up
from local.failed_command import in_words
from local.gpu_report.machine import facts, identity
from local.gpu_report.page import page, with_goals
from local.gpu_report.runner import EXPECTED, PASSED, Found, Runner, Step, read_document, stop_on_signals
from local.gpu_report.site import Model, Site
from local.gpu_report.steps import steps
from local.instance import PROJECT, cache_root, state_root
from modelcar.errors import InputError, refuse
from modelcar.made_up import PRESETS

#: What is measured where nothing else is said: with a GPU, and without one.
MODELS, SMALL = ("qwen2.5-0.5b", "qwen2.5-7b"), ("small",)
#: Seconds at the end of the time for stopping what was started.
TIDYING = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the report; 0 where all that could be run has passed, 1 where something failed, 2 for bad input."""
    options = _parser().parse_args(arguments)
    stop_on_signals()
    began = time.monotonic()
    try:
        return _report(options, began + options.minutes * 60 - TIDYING, began)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except EXPECTED as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was measured is kept, and --resume goes on from there", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make gpu-report ARGS=…", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="without a GPU: a small model, and no goals")
    parser.add_argument(
        "--models", type=_names, metavar="A,B", help=f"of {', '.join(PRESETS)} (default: {','.join(MODELS)})"
    )
    parser.add_argument("--pairs", type=int, metavar="N", help="starts of each kind (default: 2; --cpu: 1)")
    parser.add_argument(
        "--repeats",
        type=_positive,
        metavar="N",
        help="measurements of tokens/s after a start (default: 5)",
    )
    parser.add_argument(
        "--minutes", type=float, default=25.0, metavar="N", help="for all of it (default: 25)"
    )
    parser.add_argument("--only", type=_names, default=(), metavar="A,B", help="steps, or groups of them")
    parser.add_argument("--skip", type=_names, default=(), metavar="A,B", help="leave these out")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of gpu-report.md and .json (default: docs)"
    )
    parser.add_argument(
        "--name", default="gpu-report", help="of the files, for one more report in a folder (gpu-report)"
    )
    parser.add_argument(
        "--kernels", type=Path, metavar="FOLDER", help="that another machine's report saved, to be used here"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the report that is there")
    parser.add_argument(
        "--keep", action="store_true", help="leave platform and models for another part of it"
    )
    parser.add_argument("--list", action="store_true", help="only show the steps")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _report(options: argparse.Namespace, deadline: float, began: float) -> int:
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # `make up` would take a card that is there
    found = gpu.look()
    if found.gpus is None and not options.cpu and not options.list:
        raise refuse(
            "this machine's GPU",
            found.found,
            allowed="an NVIDIA GPU that can be used",
            fix=found.fix or "run it on a machine with one; ARGS=--cpu tries the way without one",
        )
    models = [Model(name) for name in _models(options)]
    pairs = options.pairs if options.pairs is not None else 1 if options.cpu else 2

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)

    site = Site(found.gpus, say)
    if options.kernels and not options.kernels.is_dir():
        raise refuse(
            "--kernels",
            options.kernels,
            allowed="a folder that a report of another machine left",
            fix="copy its .local/gpu-report/kernels to here",
        )
    all_steps = steps(site, models, pairs, options.kernels, options.repeats)
    _known(options, all_steps)
    if options.list:
        for step in all_steps:
            print(f"{step.name:<24} at most {step.bound:.0f} s  {step.unfit}".rstrip())
        return 0
    out: Path = options.out or (state_root() / "gpu-report" if options.cpu else PROJECT / "docs")
    out.mkdir(parents=True, exist_ok=True)
    document = _document(options, out, site, models)

    def save() -> None:
        whole = with_goals(document)
        _write(out / f"{options.name}.json", json.dumps(whole, indent=1) + "\n")
        _write(out / f"{options.name}.md", page(whole))

    say(found.found if not options.cpu else "without a GPU, as told")
    for name in site.children.end_leftovers():
        say(f"stopped {name}, left by a report that was killed")
    try:
        site.begin()
        passed = Runner(document, save, say, deadline).run(all_steps, options.only, options.skip)
    finally:
        save()
        if not options.keep:
            site.finish()
        say(f"report: {out / options.name}.md, logs: {site.children.logs}")
    for goal in with_goals(document)["goals"]:
        say(f"{goal['model']}: {goal['name']}: {goal['value']} (goal: {goal['goal']})")
    return 0 if passed else 1


def _models(options: argparse.Namespace) -> tuple[str, ...]:
    names: tuple[str, ...] = (
        options.models if options.models is not None else SMALL if options.cpu else MODELS
    )
    for name in names:
        if name not in PRESETS:
            raise refuse("--models", name, allowed=", ".join(PRESETS), fix="choose of these")
    return names


def _known(options: argparse.Namespace, all_steps: Sequence[Step]) -> None:
    names = [step.name for step in all_steps]
    groups = list(dict.fromkeys(name.partition("/")[0] for name in names))
    for option in ("only", "skip"):
        for name in getattr(options, option):
            if name not in names and name not in groups:
                allowed = ", ".join(dict.fromkeys([*groups, *names]))
                raise refuse(f"--{option}", name, allowed=allowed, fix="choose of these (--list)")


def _document(options: argparse.Namespace, out: Path, site: Site, models: Sequence[Model]) -> Found:
    """Return the report that is begun, or gone on with; what was found on another machine stays if whole."""
    former = read_document(out / f"{options.name}.json") if options.resume else {}
    document: Found = {
        "name": options.name,
        "cpu": options.cpu,
        "began": former.get("began") or datetime.now(UTC).isoformat(timespec="seconds"),
        "commands": list(dict.fromkeys([*former.get("commands", []), _command()])),
        "models": list(dict.fromkeys([*former.get("models", []), *(model.like for model in models)])),
        "machines": former.get("machines", []),
        "steps": former.get("steps", {}),
    }
    machines: list[dict[str, Any]] = document["machines"]
    here = identity(site.gpus)
    if not machines or machines[-1]["id"] != here:
        if machines:
            _drop_halves(document)
        machines.append({"id": here, "facts": facts(site.gpus, site.folder)})
    return document


def _drop_halves(document: Found) -> None:
    """Forget a model of which another machine has measured a part: ratios hold on one machine only."""
    outcomes: dict[str, Found] = document["steps"]
    for model in document["models"]:
        parts = [name for name in outcomes if name.startswith(f"{model}/")]
        if any(outcomes[name]["state"] != PASSED for name in parts):
            for name in parts:
                del outcomes[name]


def _command() -> str:
    given = sys.argv[1:]
    if "--out" in given:  # where it is written to is nobody else's business
        place = given.index("--out")
        given = given[:place] + given[place + 2 :]
    if "--kernels" in given:
        given[given.index("--kernels") + 1] = "FOLDER"
    told = " ".join(given)
    return f'make gpu-report ARGS="{told}"' if told else "make gpu-report"


def _without_places(text: str) -> str:
    """Return a text without this machine's folders: a report is meant for others."""
    for folder, name in ((cache_root(), ".cache"), (state_root(), ".local"), (PROJECT, ".")):
        text = text.replace(str(folder), name)
    return text


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(_without_places(text))
    part.replace(path)


if __name__ == "__main__":
    up.say(f"gpu-report, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    sys.exit(main())
