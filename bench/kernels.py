"""`python -m bench.kernels`: how much shorter a start is with the kernels of the model's image.

A stack that serves is started in turn with `modelcar:kernels` off and use, and each time its pod's log says
what its start took (`python -m operations coldstart`). Then it is asked once: what compiles at the first
answer is in there too. Only ratios of one machine in one run mean anything.

Takes a stack whose image has kernels that fit (`make kernels`), and `pulumi` on PATH (`python -m local env`).
On the embedded platform `--drop-caches` drops the page cache before each start, as root.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from components.cluster.access import Cluster
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from local.foreground import run_to_end
from modelcar.errors import refuse
from operations.cold_start import cold_start
from operations.stack import cluster_of, settings_of

PROJECT = Path(__file__).absolute().parent.parent
KEY = f"{NAMESPACE}:kernels"
MODES = ("off", "use")
PROMPT = "Kubernetes is"


@dataclass(frozen=True)
class Start:
    """One start. load: seconds until ready, once the model was there. answer: seconds of the first one.

    cache: hit, part or miss, by vLLM's own log. text: of the answer, at temperature 0.
    """

    mode: str
    load: float
    answer: float
    second: float
    cache: str | None
    text: str


def _pulumi(*arguments: str) -> None:
    run_to_end(["pulumi", *arguments, "--non-interactive"], cwd=PROJECT, check=True, stdout=sys.stderr)


def _ask(cluster: Cluster, settings: Settings, pod: str) -> tuple[float, str]:
    path = f"/api/v1/namespaces/{settings.namespace}/pods/{pod}:{settings.server_port}/proxy/v1/completions"
    body = {"model": settings.model_name, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    began = time.monotonic()
    answer = cluster.request("POST", path, body)
    return time.monotonic() - began, str(answer["choices"][0]["text"])


def start(stack: str, mode: str, *, drop_caches: bool) -> Start:
    """Start the stack's model anew in a mode, and measure it."""
    _pulumi("config", "set", KEY, mode, "--stack", stack)
    if drop_caches:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3")
    _pulumi("up", "--yes", "--skip-preview", "--stack", stack)
    settings = settings_of(stack, PROJECT)
    cluster = cluster_of(settings, PROJECT)
    found = cold_start(cluster, settings)
    if found is None or found.load is None or found.kernels is None:
        raise refuse(stack, "its start is not told", allowed="a pod of vLLM that is ready", fix="pulumi up")
    if mode == "use" and not found.kernels.used:
        fix = f"make kernels STACK={stack}, and pulumi up"
        raise refuse(
            stack, f"kernels: {found.kernels.said}", allowed="an image with kernels that fit", fix=fix
        )
    first, text = _ask(cluster, settings, found.pod)
    second, _ = _ask(cluster, settings, found.pod)
    return Start(mode, found.load, first, second, found.kernels.cache, text)


def measure(stack: str, times: int, *, drop_caches: bool) -> list[Start]:
    """Start in turn without and with kernels; leave the stack as it was set."""
    before = settings_of(stack, PROJECT).kernels
    found = []
    try:
        for _ in range(times):
            for mode in MODES:
                found.append(start(stack, mode, drop_caches=drop_caches))
                print(found[-1], file=sys.stderr, flush=True)
    finally:
        _pulumi("config", "set", KEY, before, "--stack", stack)
    return found


def ratios(starts: Sequence[Start]) -> dict[str, float | bool]:
    """Return medians with kernels over those without, and whether all answers were the same."""

    def median(name: str, mode: str) -> float:
        return float(statistics.median(getattr(one, name) for one in starts if one.mode == mode))

    return {
        **{f"{name} {mode}": median(name, mode) for name in ("load", "answer") for mode in MODES},
        **{name: median(name, "use") / median(name, "off") for name in ("load", "answer")},
        "same answers": len({one.text for one in starts}) == 1,
    }


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    parser.add_argument("--stack", default="local", help="with one model (default: local)")
    parser.add_argument("--times", type=int, default=3, help="starts of each kind (default: 3)")
    parser.add_argument("--drop-caches", action="store_true", help="drop the page cache before each start")
    options = parser.parse_args()
    starts = measure(options.stack, options.times, drop_caches=options.drop_caches)
    print(json.dumps({"starts": [asdict(one) for one in starts], **ratios(starts)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
