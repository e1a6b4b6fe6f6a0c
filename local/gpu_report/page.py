"""The report as a page: what was measured, on what, by which commands, and what was not run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local.gpu_report.runner import FAILED, NOT_ASKED_FOR, NOT_RUN, PASSED, Found
from modelcar.progress import amount

#: Tokens per second of a pod, as a share of bare vLLM's.
THROUGHPUT = 0.98
#: Seconds that a pod's way to its first token may take on top of bare vLLM's, where the node has the image.
ON_TOP = 6.0


@dataclass(frozen=True)
class Goal:
    """One goal of a model. value: what was measured; met: None where it was not measured."""

    model: str
    name: str
    goal: str
    value: str
    met: bool | None


#: What starts record of their conditions, and what is said where one was not so.
_CONDITIONS = {
    "pageCacheDropped": "the page cache was not dropped",
    "limited": "bare vLLM did not have the pod's limits",
}


def _lacking(runs: Sequence[Mapping[str, Any]], *conditions: str) -> str:
    """Return which conditions of a goal did not hold in all of these starts; nothing where all did."""
    return ", ".join(_CONDITIONS[one] for one in conditions if any(run.get(one) is False for run in runs))


def _goal(model: str, name: str, goal: str, value: str, met: bool, lacking: str) -> Goal:
    """Return a goal; the figure alone where a condition of it did not hold."""
    return Goal(model, name, goal, f"{value}: {lacking}" if lacking else value, None if lacking else met)


def with_goals(document: Found) -> Found:
    """Return the report with what its figures come to."""
    found = [goal for model in document["models"] for goal in goals(document, model)]
    found += [goal for model in document["models"] for goal in kernel_goals(document, model)]
    return {**document, "goals": [] if document["cpu"] else [asdict(goal) for goal in found]}


def goals(document: Found, model: str) -> Iterator[Goal]:
    """Yield a model's goals, from the medians of all starts by itself and as a pod on one machine."""
    yield from _in_turn_goals(document, model)
    if not any(name.startswith(f"{model}/bare ") for name in document["steps"]):
        return
    bare, pod = _runs(document, model, "bare"), _runs(document, model, "pod")
    name = "first token of a pod, on top of bare vLLM's"
    if bare and pod:
        seconds = _median(pod, "firstToken") - _median(bare, "firstToken")
        lacking = _lacking([*bare, *pod], "pageCacheDropped", "limited")
        yield _goal(model, name, f"at most {ON_TOP:.0f} s", f"{seconds:+.1f} s", seconds <= ON_TOP, lacking)
    else:
        yield Goal(model, name, f"at most {ON_TOP:.0f} s", "not measured", None)
    for streams in sorted({one["streams"] for run in [*bare, *pod] for one in run["rates"]}) or (1, 64):
        title = f"tokens/s of a pod over bare vLLM, {_streams(streams)}"
        if bare and pod:
            ratio = rate(pod, streams) / rate(bare, streams)
            goal, lacking = f"at least {THROUGHPUT}", _lacking(bare, "limited")
            yield _goal(model, title, goal, f"{ratio:.3f}", ratio >= THROUGHPUT, lacking)
        else:
            yield Goal(model, title, f"at least {THROUGHPUT}", "not measured", None)


def _in_turn_goals(document: Found, model: str) -> Iterator[Goal]:
    """Yield tokens per second of a pod over bare vLLM's where both served at once.

    Turns differ: the mean of their ratios has an interval (two standard errors), which the goal may lie in.
    """
    found = document["steps"].get(f"{model}/in turn", {}).get("found", {})
    for one in found.get("turns", ()):
        logs = [math.log(pod / bare) for pod, bare in zip(one["pod"], one["bare"], strict=True)]
        error = 2 * statistics.stdev(logs) / math.sqrt(len(logs))
        low, mean, high = (math.exp(statistics.mean(logs) + part * error) for part in (-1, 0, 1))
        differ = "" if low >= THROUGHPUT or high < THROUGHPUT else "they differ too much to tell"
        lacking = _lacking([found], "limited") or differ
        shown = f"{mean:.3f}, {low:.2f} to {high:.2f} by {len(logs)} turns"
        title = f"tokens/s of a pod over bare vLLM, {_streams(one['streams'])}, asked in turn"
        yield _goal(model, title, f"at least {THROUGHPUT}", shown, low >= THROUGHPUT, lacking)


def kernel_goals(document: Found, model: str) -> Iterator[Goal]:
    """Yield what a start with the kernels of the model's image comes to, beside starts that compile.

    Nothing where it was not measured. Both kinds start on one machine; where its page cache could not be
    dropped, what read the weights is held to nothing.
    """
    outcomes = document["steps"]
    saved = outcomes.get(f"{model}/saved", {}).get("found")
    runs = {
        kind: [
            one["found"]
            for name, one in outcomes.items()
            if name.startswith(f"{model}/{kind} ") and one.get("state") == PASSED
        ]
        for kind in ("pod", "kernels", "ahead", "all")
    }
    if not (saved and runs["pod"] and runs["kernels"]):
        return

    def goal(
        name: str, goal: str, value: float, most: float, kinds: Sequence[str] = (), shown: str = "{:.2f}"
    ) -> Goal:
        lacking = _lacking([run for kind in kinds for run in runs[kind]], "pageCacheDropped")
        return _goal(model, name, goal, shown.format(value), value <= most, lacking)

    def median(kind: str, ends: str, begins: str | None = None) -> float:
        return float(statistics.median(run[ends] - (run[begins] if begins else 0) for run in runs[kind]))

    ready = median("kernels", "ready") / median("pod", "ready")
    whose = "another machine" if saved.get("ofMachine") else "this machine"
    name = f"ready with kernels that {whose} saved, over ready without"
    yield goal(name, "at most 0.60", ready, 0.6, ("pod", "kernels"))
    if runs["ahead"]:
        ready = median("ahead", "ready") / median("pod", "ready")
        name = "ready with kernels, read ahead, over ready without"
        yield goal(name, "at most 0.60", ready, 0.6, ("pod", "ahead"))
    if runs["all"]:
        ready = median("all", "ready") / median("pod", "ready")
        name = "ready with kernels, read ahead, one import, over ready without"
        yield goal(name, "at most 0.45", ready, 0.45, ("pod", "all"))
    first = median("kernels", "firstToken", "ready") / median("pod", "firstToken", "ready")
    yield goal("first token after ready, with kernels over without", "at most 0.2", first, 0.2)
    compiling, loading = ({run["answers"] for kind in kinds for run in runs[kind]} for kinds in _ANSWERS)
    alike = "equal" if len(compiling) == 1 else f"as a start that compiles; those differ ({len(compiling)})"
    same = loading <= compiling
    yield Goal(
        model, "answers at temperature 0, with and without", "equal", alike if same else "differ", same
    )
    megabytes = saved["layer"]["bytes"] / 1e6
    yield goal("bytes added to the image", "at most 5 MB", megabytes, 5, shown="{:.2f} MB")
    reads = [
        one["read"]
        for run in runs["kernels"]
        for one in run["coldstart"].get("server") or []
        if one.get("read")
    ]
    if reads and saved.get("weightsReadDirectly"):
        over = float(statistics.median(reads)) / saved["weightsReadDirectly"]
        if readers := saved.get("readers"):
            name = f"reading the weights, over the disk's own floor ({readers} readers at once)"
            yield goal(name, "at most 1.15", over, 1.15, ("kernels",))
        else:  # a report from before: one request in flight is no floor
            name = "reading the weights, over one reader past the page cache"
            yield Goal(model, name, "", f"{over:.2f}", None)


#: Kinds of starts whose answers are compared: those that compile, and those that load kernels.
_ANSWERS = (("pod",), ("kernels", "ahead", "all"))


def rate(runs: Sequence[Mapping[str, Any]], streams: int) -> float:
    """Return the median of the tokens per second of several starts, each of several measurements."""
    each = [
        value for run in runs for one in run["rates"] if one["streams"] == streams for value in one["each"]
    ]
    return float(statistics.median(each))


def _runs(document: Found, model: str, what: str) -> list[Found]:
    """Return what was found of each start; only of starts that have their other half."""
    outcomes = document["steps"]
    names = [name for name in outcomes if name.startswith(f"{model}/{what} ")]
    halves = {"bare": "pod", "pod": "bare"}
    return [
        outcomes[name]["found"]
        for name in names
        if all(
            outcomes.get(one, {}).get("state") == PASSED
            for one in (name, name.replace(f"/{what} ", f"/{halves[what]} "))
        )
    ]


def _median(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


def page(document: Found) -> str:
    """Return the page in Markdown."""
    return "\n".join(
        [*_head(document), *_goals(document), *_models(document), *_others(document), *_steps(document)]
    )


def _head(document: Found) -> Iterator[str]:
    yield "# On a GPU: what was run and measured"
    yield ""
    yield "Written by `make gpu-report`, which runs the commands that anyone runs, and takes models of true"
    yield "dimensions with random weights from their lock to their tokens. All figures:"
    yield f"`{document['name']}.json`."
    yield ""
    if document["cpu"]:
        yield "**Run with `--cpu`: this shows that the way works, and says nothing of a GPU.**"
        yield ""
    for number, machine in enumerate(document["machines"], 1):
        facts = machine["facts"]
        cards = [f"{card['name']} ({card['memoryGiB']:.0f} GiB)" for card in facts["cards"]]
        driver = f", driver {facts['driver']}, CUDA {facts['cuda']}" if facts["driver"] else ""
        yield f"- Machine {number}: {', '.join(cards) or 'no GPU'}{driver};"
        yield f"  {facts['processors']} processors ({facts['processor']}), {facts['memoryGiB']:.0f} GiB;"
        yield f"  {facts['system']}, Linux {facts['kernel']}, cgroup {facts['cgroup']},"
        yield f"  Python {facts['python']}."
    versions = document["machines"][-1]["facts"]["versions"] if document["machines"] else {}
    yield f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."
    yield f"- Commands: {', '.join(f'`{one}`' for one in document['commands'])}."
    yield ""


def _goals(document: Found) -> Iterator[str]:
    if document["cpu"]:
        return
    yield "## Goals"
    yield ""
    yield from _table(
        ("model", "what", "goal", "measured", ""),
        (
            (
                one["model"],
                one["name"],
                one["goal"],
                one["value"],
                {True: "met", False: "**missed**"}.get(one["met"], ""),
            )
            for one in document["goals"]
        ),
    )
    yield ""
    runs = [one["found"] for one in document["steps"].values() if isinstance(one.get("found"), dict)]
    user = "variables and user and" if _lacking(runs, "limited") else "variables, user and limits and"
    cold = "" if _lacking(runs, "pageCacheDropped") else ", after the page cache was dropped"
    yield f"Bare vLLM is the pod's own program, with the pod's arguments, {user}"
    yield "the files that the node has unpacked, without a container. Both start in turn on one machine,"
    yield f"with empty caches{cold}. A pod's time begins when the API server has"
    yield "it, on a node that has its image; it ends with the first token after Kubernetes calls it ready."
    if lacking := _lacking(runs, "pageCacheDropped", "limited"):
        yield f"Not so in every start: {lacking} (it takes root, and cgroups)."
        yield "No goal is held to a figure of those."
    yield "Asked in turn: both serve at the same time, on one card, so that a slow minute of the machine"
    yield "meets both."
    yield ""
    yield from _starts_differ(document)


def _starts_differ(document: Found) -> Iterator[str]:
    """Yield the figures of each start: they differ, and a ratio says no more than they allow."""
    kinds = {"bare": ("bare ",), "pod": ("served", "pod ")}
    for model in document["models"]:
        for streams in sorted(
            {one["streams"] for run in _runs(document, model, "pod") for one in run["rates"]}
        ):
            told = []
            for kind, names in kinds.items():
                each = [
                    f"{statistics.median(one['each']):,.0f}"
                    for name, outcome in document["steps"].items()
                    if name.startswith(tuple(f"{model}/{start}" for start in names)) and "found" in outcome
                    for one in outcome["found"]["rates"]
                    if one["streams"] == streams
                ]
                told.append(f"{kind} {', '.join(each)}")
            yield f"- {model}, {_streams(streams)}, tokens/s of each start: {'; '.join(told)}"
    yield ""


def _models(document: Found) -> Iterator[str]:
    for model in document["models"]:
        found = {name: one["found"] for name, one in document["steps"].items() if "found" in one}
        pushed, served = found.get(f"{model}/pushed"), found.get(f"{model}/served")
        if not pushed:
            continue
        yield f"## {model}"
        yield ""
        yield f"{amount(pushed['bytes'])}, locked as `{pushed['digest']}`, the digest that was served."
        yield ""
        times = list(pushed["seconds"].items())
        times += [("pulumi up, image to pull", served["up"])] if served else []
        yield from _table(("step", "seconds"), ((what, f"{seconds:.1f}") for what, seconds in times))
        yield ""
        yield from _starts(document, model)


def _starts(document: Found, model: str) -> Iterator[str]:
    rows = []
    for name, one in document["steps"].items():
        kinds = tuple(f"{model}/{kind}" for kind in ("bare", "pod", "served", "kernels", "ahead", "all"))
        if name.startswith(kinds) and "found" in one:
            told = one["found"]
            cells = [f"{told[key]:.1f}" if key in told else "" for key in ("health", "ready", "firstToken")]
            rows.append(
                (
                    name.partition("/")[2],
                    *cells,
                    *(f"{rate['tokensPerSecond']:,.1f}" for rate in told["rates"]),
                )
            )
    if not rows:
        return
    streams = [f"tokens/s, {_streams(one['streams'])}" for one in _any_rates(document, model)]
    yield from _table(("start", "answers, s", "ready, s", "first token, s", *streams), rows)
    yield ""
    if saved := document["steps"].get(f"{model}/saved", {}).get("found"):
        whose = (
            ", ".join(["another machine", *saved["ofCards"]]) if saved.get("ofMachine") else "this machine"
        )
        layer = saved["layer"]
        yield f"`kernels`: with those that {whose} saved, `{layer['name']}`, {amount(layer['bytes'])};"
        yield "`ahead`: and with `modelcar:readAhead`; `all`: and with `VLLM_WORKER_MULTIPROC_METHOD=fork`."
        yield ""
    for name, one in document["steps"].items():
        told = one.get("found", {})
        start = told.get("coldstart") or {"server": told.get("server") or []}
        if name.startswith(f"{model}/") and (line := phases(start)):
            yield f"{name.partition('/')[2]}: {line}."
            yield ""


def _any_rates(document: Found, model: str) -> list[Found]:
    found: list[Found] = next(
        one["found"]["rates"]
        for name, one in document["steps"].items()
        if name.startswith(f"{model}/") and "rates" in one.get("found", {})
    )
    return found


def phases(cold_start: Mapping[str, Any]) -> str:
    """Return what `python -m operations coldstart` told, in one line."""
    parts = [f"{name} {value:.1f} s" for name, value in cold_start.items() if isinstance(value, float)]
    for one in cold_start.get("server") or []:
        note = f" ({one['cache']})" if one.get("cache") else ""
        parts.append(f"{one['name']} {one['seconds']:.1f} s{note}")
    return ", ".join(parts)


#: How the lines begin that a command's evidence stands in.
_TELLING = {
    "validate": ("PASS", "FAIL", "????"),
    "runbook": ("PASS", "FAIL"),
    "smoke": ("servingRuntime ", "storageUriEnv ", "storageUris ", "podAnnotation "),
}


def _others(document: Found) -> Iterator[str]:
    found = {name: one["found"] for name, one in document["steps"].items() if "found" in one}
    if evidence := found.get("up", {}).get("evidence"):
        yield "## The pod is on the GPU"
        yield ""
        yield from _seen(evidence)
    for name in ("validate", "runbook", "smoke"):
        if name in found:
            yield f"## `make {name}`"
            yield ""
            yield from _code([line for line in found[name]["said"] if line.startswith(_TELLING[name])])
    if told := found.get("imports"):
        yield from _imports(told)
    if two := found.get("two-gpus"):
        yield "## Two GPUs"
        yield ""
        yield f"{two['model']} with `gpuCount: 2` and nothing else said: `{' '.join(two['arguments'])}`"
        yield ""
        if evidence := two.get("evidence"):
            yield from _seen(evidence)
        for one in two["rates"]:
            yield f"- {_streams(one['streams'])}: {one['tokensPerSecond']:,.1f} tokens/s"
        yield ""
        again = found.get("two-gpus-kernels")
        for title, one in (("first start", two), ("with the kernels of both ranks", again)):
            if one and (line := phases(one["coldstart"])):
                yield f"{title}: {line}."
                yield ""
    refused = {name: found[name] for name in ("too-many-gpus", "filled-card") if name in found}
    if refused:
        yield "## Bad input"
        yield ""
    for name, told in refused.items():
        yield f"{name}: `pulumi up` ended after {told['seconds']:.0f} s and said"
        yield ""
        yield from _code(told["said"])


def _imports(told: Found) -> Iterator[str]:
    yield "## A server's imports"
    yield ""
    files = f"{told['files']:,} files of {amount(told['bytes'])}"
    read = told["read"] if isinstance(told["read"], dict) else {"ahead": told["read"]}
    yield f"`import {told['module']}` reads {files}. In turn: with an empty page cache"
    yield f"(`cold`), with an empty one while those files were read, {told['lanes']} at a time (`ahead`), out"
    if weights := told.get("weights"):
        yield f"of memory (`warm`), with an empty one while a model of {amount(weights)} was read as pods"
        yield "with `modelcar:readAhead` do (`weights`), and while first those files and then the model were"
        yield "read (`ahead, weights`)."
    else:
        yield "of memory (`warm`)."
    if lacking := _lacking([told], "pageCacheDropped"):
        yield f"Not so: {lacking} (it takes root)."
    yield ""
    rows = [(kind, _each(each), _each(read.get(kind, ()))) for kind, each in told["seconds"].items()]
    yield from _table(("imports", "seconds", "all read after, s"), rows)
    yield ""


def _each(seconds: Sequence[float]) -> str:
    return ", ".join(f"{one:.1f}" for one in seconds)


def _seen(evidence: Found) -> Iterator[str]:
    """Yield what is seen from inside of a pod."""
    cards = [
        f"card {one['index']}: {one['name']}, driver {one['driver']}, {one['used']}/{one['total']} MiB used"
        for one in evidence["cards"]
    ]
    users = [f"process {one['name']}: {' '.join(one['nodes'])}" for one in evidence["processes"]]
    yield from _code([*cards, *users, evidence["sharedMemory"]])


def _steps(document: Found) -> Iterator[str]:
    yield "## Steps"
    yield ""
    rows = []
    asked = {name: one for name, one in document["steps"].items() if one.get("why") != NOT_ASKED_FOR}
    for name, one in asked.items():
        why = str(one.get("why", "")).splitlines()
        seconds = f"{one['seconds']:.0f} of {one['bound']}" if "seconds" in one else ""
        told = (why[0] if why else "").replace("|", "/")[:160]
        rows.append((name, one["state"], seconds, str(one.get("machine", "")), told))
    yield from _table(("step", "", "seconds", "machine", ""), rows)
    yield ""
    missing = [name for name, one in asked.items() if one["state"] in {NOT_RUN, FAILED}]
    others = len(document["steps"]) - len(asked)
    left = f" Not asked for: {others} more." if others else ""
    yield f"Not run, or failed: {', '.join(missing) or 'nothing'}.{left} GKE itself has not been run."
    yield ""


def _streams(count: int) -> str:
    return f"{count} stream{'s' * (count != 1)}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _code(lines: Sequence[str]) -> Iterator[str]:
    yield "```"
    yield from lines
    yield "```"
    yield ""
