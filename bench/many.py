"""`python -m bench.many`: preview and `up` of stacks with 1 to 100 models, beside Pulumi's own cost.

The peer is a bare program that registers the same resources, of the same types and with the same inputs, out
of the stack's state: what Pulumi itself takes for them, with nothing of ours. Models are idle: their images
are built and pushed and their InferenceServices made, and no pod is, as 100 would fill any one machine.

Takes the embedded platform, which has to be running (`make platform`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import yaml

from bench.machine import EXPECTED
from bench.peers import peers
from local.failed_command import in_words
from local.foreground import waited_for
from local.instance import PROJECT, load
from local.stack import environment
from local.tools import collect
from modelcar import locking
from modelcar.tiny_model import make_tiny_model

COUNTS = (1, 10, 50, 100)
PARTS = ("Pulumi.yaml", "__main__.py", "components", "operations", ".venv", "pyproject.toml")
#: The namespace of the measured stack; removed at the end.
NAMESPACE = "bench-many"

BARE = '''"""The same resources as the stack's state has, and nothing else."""
import json, os, pulumi

known = {}
for row in json.load(open(os.environ["BENCH_STATE"]))["deployment"]["resources"]:
    kind, name = row["type"], row["urn"].rpartition("::")[2]
    if kind == "pulumi:pulumi:Stack" or name.startswith("default_"):
        continue
    parent = known.get(row.get("parent"))
    if row.get("external"):
        there = pulumi.ResourceOptions(id=row["id"], provider=known["cluster"])
        known[row["urn"]] = pulumi.CustomResource(kind, name, None, there)
    elif kind.startswith("pulumi:providers:"):
        known["cluster"] = known[row["urn"]] = pulumi.ProviderResource(
            kind.rpartition(":")[2], name, row.get("inputs", {}))
    elif row["custom"]:
        provider = known["cluster"] if kind.startswith("kubernetes:") else None
        known[row["urn"]] = pulumi.CustomResource(
            kind, name, row.get("inputs", {}), pulumi.ResourceOptions(parent=parent, provider=provider))
    else:
        known[row["urn"]] = pulumi.ComponentResource(kind, name, None, pulumi.ResourceOptions(parent=parent))
'''


@dataclass
class Run:
    """One command. seconds: wall clock. program_mib, engine_mib: peak resident memory of each."""

    models: int
    what: str
    seconds: float
    program_mib: float
    engine_mib: float
    resources: int


class Bench:
    """A stack in a folder of its own, and the bare program beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        instance = load("local")
        self.variables = {**os.environ, **environment(instance, collect(lambda _: None))}
        self.variables |= {"PULUMI_BACKEND_URL": (folder / "state").as_uri(), "PULUMI_CONFIG_PASSPHRASE": ""}
        self.variables["BENCH_STATE"] = str(folder / "state.json")
        (folder / "state").mkdir()
        self.ours, self.bare = folder / "ours", folder / "bare"
        self.ours.mkdir()
        self.bare.mkdir()
        for part in PARTS:
            (self.ours / part).symlink_to(PROJECT / part)
        shutil.copytree(
            PROJECT / "modelcar",
            self.ours / "modelcar",
            ignore=shutil.ignore_patterns("data", "__pycache__"),
        )
        (self.bare / "__main__.py").write_text(BARE)
        for part in ("Pulumi.yaml", ".venv"):
            (self.bare / part).symlink_to(PROJECT / part)
        (self.bare / "modelcar").symlink_to(self.ours / "modelcar")
        self.settings = instance.settings_file

    def lock(self, number: int) -> str:
        """Lock a small model with weights of its own, and return its name."""
        name = f"m{number:03}"
        weights = make_tiny_model(self.folder / "weights" / name, seed=number)
        description = locking.Description(folder=str(weights), license="Apache-2.0")
        locking.lock_model(name, description, locking.resolve(description, self.ours), self.ours)
        return name

    def configure(self, names: Sequence[str]) -> None:
        """Let the stack have these models."""
        config = {
            "platformFile": str(self.settings),
            "namespace": NAMESPACE,
            "gpuCount": 0,
            "idle": True,
            "awaitReady": False,
            "parallelBuilds": 4,
            "models": [{"name": name} for name in names],
        }
        document = {"config": {f"modelcar:{key}": value for key, value in config.items()}}
        (self.ours / "Pulumi.bench.yaml").write_text(yaml.safe_dump(document))
        shutil.copy(self.ours / "Pulumi.bench.yaml", self.bare)

    def pulumi(self, folder: Path, *arguments: str) -> tuple[float, dict[str, float]]:
        """Run the CLI; return its seconds, and the peak memory of engine and program in MiB.

        Raises:
            RuntimeError: it failed.
            KeyboardInterrupt: Ctrl-C came meanwhile; it has ended, and so the stack can be destroyed.
        """
        peaks = {"engine": 0.0, "program": 0.0}
        started = time.monotonic()
        with waited_for("pulumi"), (self.folder / "said").open("w") as said:
            process = psutil.Popen(
                ["pulumi", *arguments, "--stack", "bench", "--non-interactive"],
                cwd=folder,
                env=self.variables,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            watcher = threading.Thread(target=_watch, args=(process, peaks))
            watcher.start()
            status = process.wait()
            seconds = time.monotonic() - started
            watcher.join()
        if status:
            raise RuntimeError(f"pulumi {' '.join(arguments)}\n{(self.folder / 'said').read_text()[-3000:]}")
        return seconds, peaks

    def resources(self) -> int:
        """Keep the stack's state for the bare program, and count its resources."""
        self.pulumi(self.ours, "stack", "export", "--file", self.variables["BENCH_STATE"])
        return len(
            json.loads(Path(self.variables["BENCH_STATE"]).read_text())["deployment"].get("resources", [])
        )


def _watch(process: psutil.Popen, peaks: dict[str, float]) -> None:
    with suppress(psutil.NoSuchProcess):  # it may end between two looks
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            with suppress(psutil.Error):  # one of its children, likewise
                _look(process, peaks)
            time.sleep(0.05)


def _look(process: psutil.Popen, peaks: dict[str, float]) -> None:
    for member in [process, *process.children(recursive=True)]:
        size = member.memory_info().rss / 2**20
        command = " ".join(member.cmdline()[:4])
        kind = "program" if "program_runner" in command or "language-python-exec" in command else None
        kind = "engine" if member.pid == process.pid else kind
        if kind:
            peaks[kind] = max(peaks[kind], size)


def measure(counts: Sequence[int], repeats: int) -> list[Run]:
    """Run all of it, and leave nothing of it in the cluster; where that fails, keep the state and name it."""
    runs: list[Run] = []
    with _deployed() as bench:
        names: list[str] = []

        def note(what: str, folder: Path, *arguments: str) -> None:
            found = [bench.pulumi(folder, *arguments) for _ in range(repeats if "preview" in what else 1)]
            seconds, peaks = min(found, key=lambda one: one[0])
            count = bench.resources()
            run = Run(
                len(names), what, round(seconds, 2), round(peaks["program"]), round(peaks["engine"]), count
            )
            runs.append(run)
            print(
                f"  {run.models:4} models  {what:22} {seconds:7.2f} s  program {run.program_mib:5.0f} MiB  "
                f"engine {run.engine_mib:5.0f} MiB  {count} resources",
                flush=True,
            )

        for count in counts:
            names += [bench.lock(number) for number in range(len(names), count)]
            bench.configure(names)
            note("preview of new", bench.ours, "preview")
            note("up", bench.ours, "up", "--yes", "--skip-preview")
            note("preview, no change", bench.ours, "preview", "--expect-no-changes")
            note("bare preview", bench.bare, "preview", "--expect-no-changes")
            note("up, no change", bench.ours, "up", "--yes", "--skip-preview", "--expect-no-changes")
    return runs


@contextmanager
def _deployed() -> Iterator[Bench]:
    """Yield a stack in a folder of its own; destroy it at the end, and remove the folder after that."""
    folder = Path(tempfile.mkdtemp(prefix="bench-many-"))
    try:
        bench = Bench(folder)
        bench.configure(["m000"])
        bench.pulumi(bench.ours, "stack", "init")
    except BaseException:  # nothing is deployed yet
        shutil.rmtree(folder)
        raise
    try:
        yield bench
    finally:
        try:
            bench.pulumi(bench.ours, "destroy", "--yes", "--skip-preview")
        except BaseException:
            print(
                f"error: namespace {NAMESPACE} is still in the cluster. Its state is kept; to remove both:\n"
                f"  cd {bench.ours} && PULUMI_BACKEND_URL={(folder / 'state').as_uri()} "
                "PULUMI_CONFIG_PASSPHRASE= pulumi destroy --yes --stack bench && "
                f"rm -r {folder}",
                file=sys.stderr,
            )
            raise
        shutil.rmtree(folder)


def report(runs: Sequence[Run]) -> list[str]:
    """Return the figures as a table, with slopes and ratios."""
    kinds = list(dict.fromkeys(run.what for run in runs))
    counts = sorted({run.models for run in runs})
    table = {(run.models, run.what): run for run in runs}
    lines = [
        "| models | resources | "
        + " | ".join(f"{kind}, s" for kind in kinds)
        + " | ours / bare | program, MiB |"
    ]
    lines.append("|---" * (len(kinds) + 4) + "|")
    for count in counts:
        row = [table[count, kind] for kind in kinds]
        ratio = table[count, "preview, no change"].seconds / table[count, "bare preview"].seconds
        memory = table[count, "preview, no change"].program_mib
        cells = [
            count,
            row[2].resources,
            *(f"{run.seconds:.1f}" for run in row),
            f"{ratio:.2f}",
            f"{memory:.0f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines.append("")
    for kind in kinds:
        seconds = [table[count, kind].seconds for count in counts]
        if len(counts) > 1:
            slope, start = np.polyfit(counts, seconds, 1)
            off = max(abs(start + slope * n - s) for n, s in zip(counts, seconds, strict=True))
            lines.append(
                f"{kind}: {start:.1f} s + {slope * 1000:.0f} ms a model (off the line by at most {off:.1f} s)"
            )
    return lines


#: Runs in the benchmark's own environment, which has matplotlib.
_PLOT = """
import json, sys
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "modelcar"
import matplotlib.pyplot as plt
series = json.load(sys.stdin)
figure, (times, memory) = plt.subplots(1, 2, figsize=(10, 4))
for name, points in series["seconds"].items():
    style = {"linestyle": ":" if name.startswith("bare") else "-", "marker": "o"}
    times.plot(*zip(*points), label=name, **style)
for name, points in series["mib"].items():
    memory.plot(*zip(*points), label=name, marker="o")
times.set_ylabel("seconds")
memory.set_ylabel("peak memory, MiB")
for axes in (times, memory):
    axes.set_xlabel("models")
    axes.set_ylim(bottom=0)
    axes.grid(True, alpha=0.3)
    axes.legend()
figure.tight_layout()
figure.savefig(sys.argv[1], metadata={"Date": None})
"""


def plot(runs: Sequence[Run], image: Path) -> None:
    """Draw seconds and memory over the number of models; a first `up` is too long for the same picture."""
    series: dict[str, dict[str, list[tuple[int, float]]]] = {"seconds": {}, "mib": {}}
    for run in runs:
        if run.what != "up":
            series["seconds"].setdefault(run.what, []).append((run.models, run.seconds))
        if run.what == "preview, no change":
            series["mib"].setdefault("program", []).append((run.models, run.program_mib))
            series["mib"].setdefault("engine", []).append((run.models, run.engine_mib))
    command = [str(peers(print) / "bin/python"), "-c", _PLOT, str(image)]
    subprocess.run(command, input=json.dumps(series), text=True, check=True)


def main() -> int:
    """Measure, print the report, and keep the figures where asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="of models, separated by commas")
    parser.add_argument("--repeats", type=int, default=2, help="of previews; the fastest counts")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="file to draw them in")
    parser.add_argument(
        "--from", type=Path, metavar="JSON", dest="kept", help="figures of before, not measured"
    )
    options = parser.parse_args()
    if options.kept:
        runs = [Run(**row) for row in json.loads(options.kept.read_text())]
    else:
        try:
            runs = measure([int(part) for part in options.counts.split(",")], options.repeats)
        except EXPECTED as error:
            print(f"error: {in_words(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
    print("\n".join(report(runs)))
    if options.json:
        options.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    if options.plot:
        plot(runs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
