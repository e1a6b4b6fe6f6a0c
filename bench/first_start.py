"""From nothing to readable weights on a node, by what containerd is told: `python -m bench.first_start`.

One image of random weights, pulled from a registry on this machine by an empty containerd, in turn:

- overlayfs: as containerd is shipped, one layer is unpacked after the other;
- parallel: overlayfs, several layers are unpacked at once (`max_concurrent_unpacks`);
- erofs: each layer becomes an EROFS file system, of the same tar stream;
- erofs index: only an index is made, over the tar as it is (`enable_tar_index`).

EROFS needs Linux 6.12, and mkfs.erofs 1.8 or newer on PATH (Debian 13, Ubuntu 26.04 have it). With `--verity`
each layer also gets a Merkle tree (dm-verity), so that a changed block is refused when it is read.
A way that this machine cannot go, or that fails, is told with the reason; the others are measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ways
from bench.machine import EXPECTED, Machine, disk_usage, empty_node, machine, toolbox
from local.containerd import EROFS, JOBS, MKFS, OVERLAYFS, erofs_settings, lacking_for_erofs
from local.failed_command import in_words
from local.page_cache import settle
from local.random_weights import write_model
from modelcar import locking

GIB = 2**30
_TRANSFER = 'plugins."io.containerd.transfer.v1.local"'
_PARALLEL = f"[{_TRANSFER}]\nmax_concurrent_unpacks = {JOBS}\n"


@dataclass(frozen=True)
class Way:
    """settings: of containerd. snapshotter: what holds the layers."""

    name: str
    settings: str = ""
    snapshotter: str = OVERLAYFS


def all_ways(*, verity: bool) -> list[Way]:
    """Return all ways, whether this machine can go them or not."""
    tree = "\n  enable_dmverity = true" if verity else ""
    return [
        Way("overlayfs"),
        Way("parallel", _PARALLEL),
        Way("erofs", erofs_settings(MKFS + tree), EROFS),
        Way("erofs index", erofs_settings(f"enable_tar_index = true{tree}"), EROFS),
    ]


def first_start(running: Machine, reference: str, way: Way, number: int) -> dict[str, float]:
    """Pull with an empty containerd, then read every weight once; return seconds and bytes."""
    snapshotter = ("--snapshotter", way.snapshotter)
    folder = running.folder / f"node-{number}"
    try:
        with empty_node(folder, way.settings) as ctr:
            settle()
            began = time.monotonic()
            running.run(*ctr, "images", "pull", "--plain-http", *snapshotter, reference)
            pulled = time.monotonic() - began
            target = folder / "mounted"
            target.mkdir()
            settle()
            began = time.monotonic()
            running.run(*ctr, "images", "mount", *snapshotter, reference, target)
            try:
                read = _read(target / "models")
                seconds = time.monotonic() - began
            finally:
                running.run(*ctr, "images", "unmount", *snapshotter, target)
            return {"pull": pulled, "read": seconds, "disk": disk_usage(folder / "root"), "bytes": read}
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{(folder / 'log').read_text()[-800:]}") from None
    finally:
        _unmount(folder)  # containerd keeps the file systems of layers mounted
        shutil.rmtree(folder, ignore_errors=True)


def _unmount(folder: Path) -> None:
    """Unmount all that is mounted below a folder."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", point], check=False)


def _read(folder: Path) -> int:
    total = 0
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            while block := file.read(2**22):
                total += len(block)
    return total


def measure(
    gib: float, files: int, rounds: int, *, verity: bool, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure each way in turn; return the medians, and of a way that cannot be measured why (`failed`)."""
    tools, debian = toolbox()
    chosen = all_ways(verity=verity)
    results: dict[str, list[dict[str, float]]] = {way.name: [] for way in chosen}
    failed: dict[str, str] = {}
    if lacking := lacking_for_erofs():
        failed = {way.name: ", ".join(lacking) for way in chosen if way.snapshotter == EROFS}
    with tempfile.TemporaryDirectory(prefix="modelcar-first-", dir="/var/tmp") as name:
        folder = Path(name)
        weights = write_model(folder / "weights", round(gib * GIB), files)
        project = folder / "project"
        left_out = shutil.ignore_patterns("data", "__pycache__")
        shutil.copytree(ways.PROJECT / "modelcar", project / "modelcar", ignore=left_out)
        description = locking.Description(folder=str(weights))
        lock, _ = locking.lock_model("m", description, locking.resolve(description, project), project)
        with machine(folder / "machine", tools, debian) as running:
            task = ways.Task(running, weights, "m", lock, project, Path())
            ways.WAYS["layout context"](task)
            for number in range(rounds * len(chosen)):
                way = chosen[number % len(chosen)]
                if way.name in failed:
                    continue
                try:
                    found = first_start(running, f"{task.repository}:latest", way, number)
                except EXPECTED as error:
                    failed[way.name] = in_words(error).strip()[-800:]
                    say(f"   {way.name}: {failed[way.name]}")
                    continue
                results[way.name].append(found)
                say(f"   {way.name}: pull {found['pull']:.2f} s, read {found['read']:.2f} s")
    return [
        {"way": name, "failed": failed[name]} if name in failed else {"way": name, **_medians(runs)}
        for name, runs in results.items()
    ]


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in runs) for key in runs[0]}


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the medians as lines of Markdown, with ratios to the first, and why others were not measured."""
    measured = [entry for entry in results if "failed" not in entry]
    lines = [
        "| | pull and unpack, s | ratio | read once, s | both, ratio | disk, GB |",
        "|---|---|---|---|---|---|",
    ]
    for entry in measured:
        pull, read = entry["pull"], entry["read"]
        first, both = measured[0]["pull"], measured[0]["pull"] + measured[0]["read"]
        lines.append(
            f"| {entry['way']} | {pull:.2f} | {pull / first:.2f} | {read:.2f} | "
            f"{(pull + read) / both:.2f} | {entry['disk'] / 1e9:.2f} |"
        )
    failed = [entry for entry in results if "failed" in entry]
    lines += [f"{entry['way']}: not measured: {entry['failed'].splitlines()[-1]}" for entry in failed]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_start", description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the model (default: 2)")
    parser.add_argument("--files", type=int, default=4, help="files of weights (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="of all ways (default: 3)")
    parser.add_argument("--verity", action="store_true", help="with dm-verity, where EROFS is used")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    say = (lambda line: print(line, file=sys.stderr, flush=True)) if options.json else print
    try:
        found = measure(options.gib, options.files, options.rounds, verity=options.verity, say=say)
    except EXPECTED as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1) if options.json else "\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
