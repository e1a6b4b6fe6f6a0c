"""`python -m tests.campaign.soak`: does anything grow where a model is changed and rolled back 200 times?

One cycle: other weights, `up`, requests whose answers have to be the new weights; then the way back to the
former image, `up`, and requests that have to be answered by the former weights. Another model is asked all
the time. Afterwards many models are served at once, and go again.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from local import recovery
from local.instance import CAMPAIGN, only_run
from modelcar.errors import InputError
from tests.campaign.measures import Measures, count_processes, measure, memory_by_service
from tests.campaign.prober import Prober
from tests.campaign.runner import COMMANDS
from tests.campaign.world import BYSTANDER, SUBJECT, World, campaign_folder, say, stop_on_sigterm, until

MODEL, WEIGHTS = "soaked", "model.safetensors"
#: The stack with many models, and its namespace.
MANY = "many"
#: Requests to the subject after each `up`.
REQUESTS = 20
#: Caches and logs fill up first: cycles that nothing is compared with.
WARM = 0.2
#: Cycles below which nothing is said of growth.
FEWEST = 10
#: What may come on top, late against early, before it is called growth.
TOLERANCE = 1.10


@dataclass
class Cycle:
    """One cycle. up, back: seconds of the runs. requests: to the subject. wrong: answers, or why none."""

    number: int
    up: float
    back: float
    requests: int
    wrong: list[str]
    measures: Measures


@dataclass
class Soak:
    """All that was seen. asked, unanswered: of the other model's clients. many: the models at once."""

    cycles: list[Cycle] = field(default_factory=list)
    asked: int = 0
    unanswered: int = 0
    many: dict[str, Any] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)


class Subject:
    """The model that is changed and rolled back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.digest, self.sha256 = "", ""

    def up(self, **settings: Any) -> float:
        """Run `up` with these settings, and return its seconds."""
        self.world.configure(SUBJECT, model=MODEL, **settings)
        started = time.monotonic()
        self.world.pulumi(*COMMANDS["up"], "--stack", SUBJECT)
        return time.monotonic() - started

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs."""
        found: dict[str, Any] = json.loads(self.world.pulumi("stack", "output", "--json", "--stack", SUBJECT))
        return found

    def wrong_answers(self, sha256: str) -> list[str]:
        """Ask for the weights that are served, and return the answers that were others, or why none came."""
        address = ""

        def alone() -> bool:
            nonlocal address
            with suppress(LookupError, KeyError):
                address = self.world.pod(SUBJECT)["status"]["podIP"]
            return bool(address)

        until(alone, 60, 0.5)  # the former pod takes its leave
        answers = [_served(address) for _ in range(REQUESTS)]
        return [answer for answer in answers if answer != sha256]

    def cycle(self, number: int) -> Cycle:
        """Change, request, roll back, request."""
        former, former_sha256 = self.digest, self.sha256
        sha256 = _weigh(self.world, MODEL)
        up = self.up()
        wrong = self.wrong_answers(sha256)
        self.digest, self.sha256 = self.outputs()["modelDigest"], sha256
        if not former:
            return Cycle(number, up, 0.0, REQUESTS, wrong, measure(self.world))
        back = self.up(rollbackTo=former)
        recovery.forget_old(self.world.backend, SUBJECT)  # as `make up` does
        wrong += self.wrong_answers(former_sha256)
        return Cycle(number, up, back, 2 * REQUESTS, wrong, measure(self.world))


def _weigh(world: World, name: str) -> str:
    """Give a model other weights, and return their SHA-256."""
    return next(file.sha256 for file in world.weigh(name).files if file.path == WEIGHTS)


def _served(address: str) -> str:
    """Return the SHA-256 of the weights that a pod serves, or what it says instead of them."""
    connection = http.client.HTTPConnection(address or "127.0.0.1", 8080, timeout=5)
    try:
        connection.request("GET", f"/models/{WEIGHTS}")
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return hashlib.sha256(content).hexdigest() if answer.status == 200 else f"status {answer.status}"


def _total_memory(world: World) -> int:
    return round(sum(memory_by_service(world).values()))


def many(world: World, count: int) -> dict[str, Any]:
    """Serve so many models at once, ask each of them, and remove them."""
    names = [f"many-{number:02}" for number in range(count)]
    sha256 = {name: _weigh(world, name) for name in names}
    world.pulumi("stack", "init", "--stack", MANY)
    world.configure(MANY, models=[{"name": name} for name in names], startTimeoutSeconds=600)
    memory = {"before": _total_memory(world)}
    processes = {"before": count_processes(world)}
    started = time.monotonic()
    world.pulumi(*COMMANDS["up"], "--stack", MANY)
    seconds = time.monotonic() - started
    memory["during"], processes["during"] = _total_memory(world), count_processes(world)
    served = {
        pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]: pod["status"]["podIP"]
        for pod in world.objects(MANY, "pods")
    }
    right = sum(_served(served.get(name, "")) == sha256[name] for name in names)
    world.pulumi(*COMMANDS["destroy"], "--stack", MANY)
    until(lambda: count_processes(world) <= processes["before"], 120, 2.0)
    memory["after"], processes["after"] = _total_memory(world), count_processes(world)
    return {
        "models": count,
        "seconds": round(seconds, 1),
        "answered": right,
        "memoryMib": memory,
        "processes": processes,
    }


# --- the figures ------------------------------------------------------------------------------------


def rows(cycles: Sequence[Cycle]) -> list[dict[str, Any]]:
    """Return each measure early and late, and what comes on top with each cycle.

    Early and late are medians of a tenth of the cycles, the first of them after the warm ones.
    """
    if len(cycles) < FEWEST:
        return []
    warm = cycles[int(len(cycles) * WARM) :]
    part = max(len(cycles) // 10, 3)
    found = []
    for name, values in _series(warm).items():
        early, late = median(values[:part]), median(values[-part:])
        found.append({"what": name, "early": early, "late": late, "slope": _slope(values)})
    return found


def _series(cycles: Sequence[Cycle]) -> dict[str, list[float]]:
    last = cycles[-1].measures
    series: dict[str, list[float]] = {
        "`up` with other weights, s": [cycle.up for cycle in cycles],
        "`up` back to the former ones, s": [cycle.back for cycle in cycles],
        "memory of all services, MiB": [sum(cycle.measures.memory.values()) for cycle in cycles],
    }
    for service in last.memory:
        series[f"memory of {service}, MiB"] = [cycle.measures.memory.get(service, 0.0) for cycle in cycles]
    series |= {
        "processes": [cycle.measures.processes for cycle in cycles],
        "processes left by Pulumi": [cycle.measures.runs for cycle in cycles],
        "state, kB": [cycle.measures.state / 1000 for cycle in cycles],
        "Pulumi's backend, kB": [cycle.measures.backend / 1000 for cycle in cycles],
        "registry: images, kB": [cycle.measures.images / 1000 for cycle in cycles],
        GARBAGE: [cycle.measures.garbage / 1000 for cycle in cycles],
    }
    for name in last.disk:
        series[f"disk of {name}, kB"] = [cycle.measures.disk.get(name, 0) / 1000 for cycle in cycles]
    return series


def _slope(values: Sequence[float]) -> float:
    """Return the least squares slope: what comes on top with each cycle."""
    middle, average = (len(values) - 1) / 2, mean(values)
    above = sum((n - middle) * (value - average) for n, value in enumerate(values))
    return above / sum((n - middle) ** 2 for n in range(len(values)))


#: What must not grow; everything else holds what each version is, and is told.
GARBAGE = "registry: what no tag leads to, kB"
BOUNDED = ("memory of all services, MiB", "processes", "state, kB", GARBAGE)


def judged(soak: Soak) -> list[str]:
    """Return what is wrong, one line each."""
    found = list(soak.found)
    told = {row["what"]: row for row in rows(soak.cycles)}
    for name in BOUNDED:
        if name in told and told[name]["late"] > told[name]["early"] * TOLERANCE:
            found.append(f"{name}: {told[name]['early']:.1f} became {told[name]['late']:.1f}")
    left = "processes left by Pulumi"
    if left in told and told[left]["late"] > 0:
        found.append(f"{left}: {told[left]['late']:.1f}")
    wrong = Counter(answer for cycle in soak.cycles for answer in cycle.wrong)
    for answer, times in wrong.items():
        found.append(f"{times} requests to the changed model were answered wrongly, or not at all: {answer}")
    if soak.unanswered:
        found.append(f"{soak.unanswered} requests to the other model had no answer")
    if soak.many and soak.many["answered"] != soak.many["models"]:
        found.append(f"{soak.many['answered']} of {soak.many['models']} models answered")
    return found


def report(soak: Soak) -> list[str]:
    """Return the report as Markdown."""
    requests = sum(cycle.requests for cycle in soak.cycles)
    failed = sum(len(cycle.wrong) for cycle in soak.cycles)
    lines = [
        f"{len(soak.cycles)} cycles of change, `up`, requests, way back, `up`, requests.",
        f"The changed model: {requests} requests, {failed} failed. "
        f"The other model, all the time: {soak.asked} requests, {soak.unanswered} failed.",
        "",
        "| what | early | late | with each cycle |",
        "|---|--:|--:|--:|",
    ]
    for row in rows(soak.cycles):
        lines.append(f"| {row['what']} | {row['early']:.1f} | {row['late']:.1f} | {row['slope']:+.3f} |")
    if soak.many:
        told = soak.many
        memory, processes = told["memoryMib"], told["processes"]
        lines += [
            "",
            f"{told['models']} models at once: `up` took {told['seconds']:.0f} s, {told['answered']} "
            "answered with their own weights. "
            f"Memory of the platform's own processes {memory['before']} MiB before, {memory['during']} with "
            f"them, {memory['after']} after `destroy`; processes {processes['before']}, "
            f"{processes['during']}, {processes['after']}.",
        ]
    well = "Nothing grows, nothing is left, nothing is lost."
    if len(soak.cycles) < FEWEST:
        well = "Nothing is lost; so few cycles say nothing of growth."
    lines += ["", *(f"- {line}" for line in judged(soak) or [well])]
    return lines


# --- the command ------------------------------------------------------------------------------------


def main() -> int:
    """Run the cycles and the models at once within the bounds; 1 where something grows or is lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--models", type=int, default=24, help="served at once after the cycles; 0: none")
    parser.add_argument("--minutes", type=float, default=600.0, help="no cycle begins after so many")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="of soak-report.md and soak.json")
    options = parser.parse_args()
    stop_on_sigterm()
    try:
        with only_run(CAMPAIGN):
            return _soak(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _soak(options: argparse.Namespace) -> int:
    soak = Soak()
    world: World | None = None
    try:
        world = World(lambda line: say(f"   {line}"))
        world.start()
        deadline = time.monotonic() + options.minutes * 60
        _cycles(world, soak, options.cycles, deadline)
        if options.models:
            soak.many = many(world, options.models)
    except KeyboardInterrupt:
        soak.found.append(f"interrupted after {len(soak.cycles)} cycles")
    except Exception as error:
        soak.found.append(f"{type(error).__name__}: {error}"[-1500:])
    finally:
        if world:
            world.stop()
    lines = report(soak)
    say("\n".join(lines))
    folder: Path = options.report or campaign_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_text(json.dumps(asdict(soak), indent=1) + "\n")
    (folder / "soak-report.md").write_text("\n".join(["# Report of a soak", "", *lines]) + "\n")
    return 1 if judged(soak) else 0


def _cycles(world: World, soak: Soak, count: int, deadline: float) -> None:
    subject = Subject(world)
    pod = world.pod(BYSTANDER)
    prober = Prober(pod["status"]["podIP"], 8080).start()
    try:
        for number in range(count):
            if time.monotonic() > deadline:
                say("   out of time")
                return
            cycle = subject.cycle(number)
            soak.cycles.append(cycle)
            seen = cycle.measures
            say(
                f"{number:4} up {cycle.up:.1f} s, back {cycle.back:.1f} s, wrong {len(cycle.wrong)}, "
                f"memory {sum(seen.memory.values()):.0f} MiB, {seen.processes} processes, "
                f"state {seen.state} B, garbage {seen.garbage} B"
            )
    finally:
        prober.stop()
        soak.asked, soak.unanswered = prober.sent, prober.failed
    if soak.cycles and not soak.cycles[-1].measures.images:
        soak.found.append("the registry's store was not found, so nothing is known of its garbage")


if __name__ == "__main__":
    sys.exit(main())
