"""`python -m bench.kernels`: how much shorter a start is with the kernels of the model's image.

A stack that serves is started in turn with `modelcar:kernels` off and use, and each time the new pod's log
says what its start took (`python -m operations coldstart`). Then it is asked twice: what compiles at the
first answer is in that one's time only. Only ratios of one machine in one run mean anything. At the end the
key is as it was, and `pulumi up` has run.

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
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import EXPECTED, await_true
from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.pods import is_ready, pods_of
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from local.failed_command import in_words
from local.foreground import run_to_end
from modelcar.errors import refuse
from operations.cold_start import cold_start
from operations.stack import cluster_of, settings_of

PROJECT = Path(__file__).absolute().parent.parent
KEY = f"{NAMESPACE}:kernels"
MODES = ("off", "use")
PROMPT = "Kubernetes is"
#: Seconds after `up` in which the Deployment has made its new pod.
APPEARS = 60.0
#: Seconds between two looks at the pods.
PAUSE = 0.2


@dataclass(frozen=True)
class Start:
    """One start. load: seconds until ready, once the model was there. answer: seconds of the first one.

    second: seconds of the same question, asked again.
    cache: hit, part or miss, by vLLM's own log. text: of the answer, at temperature 0.
    """

    mode: str
    load: float
    answer: float
    second: float
    cache: str | None
    text: str


def _said_by(stack: str) -> str | None:
    """Return what the stack's file says of kernels; None where it says nothing."""
    command = ["pulumi", "config", "--json", "--stack", stack, "--non-interactive"]
    told = run_to_end(command, cwd=PROJECT, check=True, capture_output=True).stdout
    return (json.loads(told).get(KEY) or {}).get("value")


def _pulumi(*arguments: str) -> None:
    run_to_end(["pulumi", *arguments, "--non-interactive"], cwd=PROJECT, check=True, stdout=sys.stderr)


def _ask(cluster: Cluster, settings: Settings, pod: str) -> tuple[float, str]:
    path = f"/api/v1/namespaces/{settings.namespace}/pods/{pod}:{settings.server_port}/proxy/v1/completions"
    body = {"model": settings.model_name, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    began = time.monotonic()
    answer = cluster.request("POST", path, body)
    return time.monotonic() - began, str(answer["choices"][0]["text"])


def start(stack: str, mode: str, *, drop_caches: bool) -> Start:
    """Start the stack's model anew in a mode, and measure it.

    Raises:
        InputError: no pod was started, it is in another mode, or its start cannot be told.
    """
    _pulumi("config", "set", KEY, mode, "--stack", stack)
    settings = settings_of(stack, PROJECT)
    if settings.kernel_mode != mode:
        allowed, fix = "one mode for the stack's model", f"take `kernels` out of {NAMESPACE}:models"
        raise refuse(KEY, f"{mode}, and the model's own is {settings.kernel_mode}", allowed=allowed, fix=fix)
    cluster = cluster_of(settings, PROJECT)
    former = {pod["metadata"]["uid"] for pod in _pods(cluster, settings)}
    if drop_caches:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3")
    _pulumi("up", "--yes", "--skip-preview", "--stack", stack)
    started = _await_new(stack, cluster, settings, former)
    found = cold_start(cluster, settings)
    if found is None or found.pod not in started or found.load is None or found.kernels is None:
        raise refuse(stack, "its start is not told", allowed="a pod of vLLM that is ready", fix="pulumi up")
    if found.kernels.used != (mode == "use"):
        fix = f"make kernels STACK={stack}, and pulumi up" if mode == "use" else "pulumi up"
        allowed = "an image with kernels that fit" if mode == "use" else "a pod that uses none"
        raise refuse(stack, f"kernels: {found.kernels.said}", allowed=allowed, fix=fix)
    first, text = _ask(cluster, settings, found.pod)
    second, _ = _ask(cluster, settings, found.pod)
    return Start(mode, found.load, first, second, found.kernels.cache, text)


def _pods(cluster: Cluster, settings: Settings) -> list[JSON]:
    return pods_of(cluster, settings.namespace, settings.service_name)


def _await_new(stack: str, cluster: Cluster, settings: Settings, former: AbstractSet[str]) -> set[str]:
    """Wait until a pod is ready that was not there before, also where `up` does not (`awaitReady`).

    Returns:
        The names of the new pods that are ready.
    """

    def new() -> list[JSON]:
        return [pod for pod in _pods(cluster, settings) if pod["metadata"]["uid"] not in former]

    def ready() -> set[str]:
        return {str(pod["metadata"]["name"]) for pod in new() if is_ready(pod)}

    allowed = "a pod that was started for this measurement"
    try:
        await_true(lambda: bool(new()), APPEARS, PAUSE)
    except TimeoutError:
        fix = "run pulumi up, and then this again"
        raise refuse(stack, "`pulumi up` started no pod", allowed=allowed, fix=fix) from None
    try:
        await_true(lambda: bool(ready()), settings.start_timeout_seconds, PAUSE)
    except TimeoutError:
        said = f"its new pod was not ready in {settings.start_timeout_seconds} s"
        fix = f"make validate STACK={stack} says why"
        raise refuse(stack, said, allowed=allowed, fix=fix) from None
    return ready()


def measure(stack: str, times: int, *, drop_caches: bool) -> list[Start]:
    """Start in turn without and with kernels; leave the stack as it was set, and deployed so."""
    before = _said_by(stack)
    # `up` starts a pod only where something changes: the first mode is not the one that is served.
    order = MODES[::-1] if settings_of(stack, PROJECT).kernel_mode == "off" else MODES
    found = []
    try:
        for _ in range(times):
            for mode in order:
                found.append(start(stack, mode, drop_caches=drop_caches))
                print(found[-1], file=sys.stderr, flush=True)
    finally:
        change = ("rm", KEY) if before is None else ("set", KEY, before)
        _pulumi("config", *change, "--stack", stack)
        _pulumi("up", "--yes", "--skip-preview", "--stack", stack)
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
    try:
        starts = measure(options.stack, options.times, drop_caches=options.drop_caches)
    except (*EXPECTED, ClusterError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 1
    print(json.dumps({"starts": [asdict(one) for one in starts], **ratios(starts)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
