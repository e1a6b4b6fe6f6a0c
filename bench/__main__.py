"""`python -m bench run|table|plot`: build and push, ours and others', in one run on one machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import pull, ways
from bench.machine import EXPECTED, disk_usage, machine, peak_memory, toolbox
from bench.peers import peers
from bench.report import plot, table
from local.failed_command import in_words
from local.page_cache import settle
from local.random_weights import write_model, write_shard
from modelcar import locking
from modelcar.lock import Lock

GIB = 2**30
#: Ways that are left out where a model is larger than so many GiB: they would take most of the run.
LIMITS = {
    "buildx default": 4,
    "buildah": 1,
    "buildx zstd": 0.3,
    "buildx uncompressed": 4,
    "olot + skopeo": 1,
    "remote context": 4,
}

#: (GiB, files)
CASES = ((0.3, 1), (0.3, 16), (1.0, 1), (1.0, 16), (4.0, 1), (4.0, 16), (8.0, 1), (8.0, 16))


def _cases(text: str) -> list[tuple[float, int]]:
    parts = [part.split("x") for part in text.split(",")]
    try:
        cases = [(float(gib), int(files)) for gib, files in parts]
    except ValueError:
        cases = []
    if not cases or not all(gib > 0 and files > 0 for gib, files in cases):
        raise argparse.ArgumentTypeError(f"{text!r}: give GiBxFILES with commas between, as 0.3x1,1x16")
    return cases


def _ways(text: str) -> list[str]:
    names, known = text.split(","), [*ways.WAYS, "pull"]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    return names


@dataclass
class Bench:
    """One run. results: an entry for each way, size and number of files. absent: why ways cannot be run."""

    folder: Path
    say: Callable[[str], None]
    tools: Any = None
    debian: Any = None
    peers: Path = Path()
    results: list[dict[str, Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def fetch(self, wanted: Collection[str]) -> None:
        """Fetch what the wanted ways of others need, before anything is timed; it is large."""

        def environment() -> None:
            self.peers = peers(self.say)

        for theirs, get in ((ways.OF_PEERS, environment), (ways.OF_BUILDAH, ways.buildah_script)):
            if names := theirs & set(wanted):
                try:
                    get()
                except EXPECTED as error:
                    self.absent |= dict.fromkeys(names, in_words(error))

    @contextmanager
    def attempt(self, way: str, common: dict[str, Any]) -> Iterator[None]:
        """Note why a way failed, and let the others be measured."""
        try:
            yield
        except EXPECTED as error:
            self.note(way=way, state="failed", why=in_words(error).strip()[-400:], **common)

    def note(self, **entry: Any) -> None:
        """Keep a result and show it."""
        self.results.append(entry)
        self.say("  " + "  ".join(f"{key} {_shown(value)}" for key, value in entry.items()))

    def case(self, gib: float, files: int, names: list[str]) -> None:
        """Measure every way for one size and number of files."""
        self.say(f"── {gib} GiB, {files} files")
        weights, project = self.folder / "weights", self.folder / "project"
        common = {"gib": gib, "files": files}
        try:
            with self.attempt("lock", common):
                lock = self.locked(weights, project, common)
                for name in names:
                    with self.attempt(name, common):
                        self.way(name, weights, lock, project, common)
        finally:
            shutil.rmtree(weights, ignore_errors=True)
            shutil.rmtree(project, ignore_errors=True)

    def locked(self, weights: Path, project: Path, common: dict[str, Any]) -> Lock:
        """Make a model, and lock it as ours do, timed by itself."""
        write_model(weights, round(common["gib"] * GIB), common["files"])
        shutil.copytree(
            ways.PROJECT / "modelcar",
            project / "modelcar",
            ignore=shutil.ignore_patterns("data", "__pycache__"),
        )
        description = locking.Description(folder=str(weights))
        settle()
        started = time.monotonic()
        lock, _ = locking.lock_model("m", description, locking.resolve(description, project), project)
        self.note(way="lock", state="cold", seconds=time.monotonic() - started, **common)
        return lock

    def way(self, name: str, weights: Path, lock: Lock, project: Path, common: dict[str, Any]) -> None:
        """Measure one way on a machine of its own, or note why it is left out."""
        if name in self.absent:
            raise RuntimeError(self.absent[name])
        if common["gib"] > LIMITS.get(name, 99):
            why = f"above {LIMITS[name]:g} GiB it would take most of the run"
            self.note(way=name, state="left out", why=why, **common)
            return
        with machine(self.folder / "machine", self.tools, self.debian) as running:
            task = ways.Task(running, weights, "m", lock, project, self.peers)
            if name == "pulumi up":
                self.pulumi(task, common)
                return
            for state in ("cold", "warm"):
                self.timed(task, name, ways.WAYS[name], state, common)

    def timed(
        self, task: ways.Task, name: str, way: Callable[[ways.Task], None], state: str, common: dict[str, Any]
    ) -> None:
        """Time one way, and say by how much it let the registry's store grow and what it took."""
        before = task.machine.stored()
        settle()
        with peak_memory(task.machine.processes) as peaks:
            started = time.monotonic()
            way(task)
            seconds = time.monotonic() - started
        grown = task.machine.stored() - before
        memory = {program: round(peak / 2**20) for program, peak in peaks.items() if peak > 20 * 2**20}
        disk = disk_usage(task.machine.builder_store)
        self.note(
            way=name,
            state=state,
            seconds=seconds,
            storeGrewBy=grown,
            builder=disk,
            memoryMiB=memory,
            **common,
        )

    def pulumi(self, task: ways.Task, common: dict[str, Any]) -> None:
        """Ours as it is used: first, again, previewed, with one file changed; and Pulumi's own cost."""
        ways.make_program(task.project, task.machine, "m")
        bare = ways.bare(task.project)
        self.timed(task, "pulumi up", ways.pulumi_up, "cold", common)
        layout = disk_usage(task.layout)
        used = layout + disk_usage(task.machine.builder_store)
        self.note(way="disk", state="layout and builder", bytes=used, **common)
        self.timed(task, "pulumi up", ways.pulumi_up, "unchanged", common)
        for state, folder in (("preview", task.project), ("bare preview", bare), ("bare up", bare)):
            command = ["up", "--yes", "--skip-preview"] if state == "bare up" else ["preview"]
            best = min(self.seconds(lambda: ways.pulumi(folder, task.machine, *command)) for _ in range(3))  # noqa: B023
            self.note(way="pulumi", state=state, seconds=best, **common)
        if common["files"] > 1:
            shard = sorted(task.folder.glob("*.safetensors"))[common["files"] // 2]
            tensor = f"t{common['files'] // 2 + 1}"
            write_shard(shard, tensor, round(common["gib"] * GIB) // common["files"], seed=99)

            def relock(_: ways.Task) -> None:
                description = locking.Description(folder=str(task.folder))
                resolved = locking.resolve(description, task.project)
                locking.lock_model("m", description, resolved, task.project)
                ways.pulumi_up(task)

            self.timed(task, "lock and pulumi up", relock, "one file changed", common)
        ways.pulumi(task.project, task.machine, "destroy", "--yes")

    def seconds(self, action: Callable[[], None]) -> float:
        """Time an action."""
        started = time.monotonic()
        action()
        return time.monotonic() - started


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, int) and value > 10**6:
        return f"{value / 2**20:.0f} MiB"
    return str(value)


def run(options: argparse.Namespace) -> int:
    """Run the benchmark and write its results."""
    wanted = options.ways or [*ways.WAYS, "pull"]
    tools, debian = toolbox()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="modelcar-bench-") as folder:
        bench = Bench(Path(folder), print, tools, debian)
        try:
            bench.fetch(wanted)
            for gib, files in options.cases:
                bench.case(gib, files, [name for name in wanted if name != "pull"])
            if "pull" in wanted:
                pull.measure(bench, 1.0)
        finally:  # what was measured is kept, whatever ends it
            document = {
                "date": time.strftime("%Y-%m-%d"),
                "machine": {
                    "cores": os.cpu_count(),
                    "processor": platform.machine(),
                    "kernel": platform.release(),
                },
                "results": bench.results,
            }
            options.out.write_text(json.dumps(document, indent=1) + "\n")
            print(f"results: {options.out}")
    print(table(document))
    return 1 if any(entry["state"] == "failed" for entry in bench.results) else 0


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure")
    running.add_argument("--cases", default=CASES, type=_cases, help="GiBxFILES, with commas between")
    running.add_argument("--ways", default=None, type=_ways, help="only these")
    running.add_argument("--folder", default=None, help="for weights and stores (default: the system's)")
    running.add_argument("--out", type=Path, default=Path("bench-results.json"))
    for name in ("table", "plot"):
        shown = commands.add_parser(name)
        shown.add_argument("results", type=Path)
        if name == "plot":
            shown.add_argument("image", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        try:
            return run(options)
        except EXPECTED as error:
            print(f"error: {in_words(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
    document = json.loads(options.results.read_text())
    if options.command == "table":
        print(table(document))
    else:
        plot(document, options.image, peers(print))
    return 0


if __name__ == "__main__":
    sys.exit(main())
