"""Runs steps in order, each within a bound of its own, and writes down what became of each at once."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from components.cluster.access import ClusterError
from local.failed_command import in_words
from local.gpu_report.children import Failed
from local.platform import PlatformError
from modelcar.errors import InputError

Say = Callable[[str], None]
Found = dict[str, Any]

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
#: Why a step that --only or --skip leaves out is not run.
NOT_ASKED_FOR = "not asked for"
#: What a step can end with that is told as its failure, and lets the others go on.
EXPECTED = (
    Failed,
    PlatformError,
    ClusterError,
    InputError,
    httpx.HTTPError,
    LookupError,
    OSError,
    ValueError,
    subprocess.CalledProcessError,
)


class OutOfTime(Exception):
    """A step took longer than it may."""


@dataclass(frozen=True)
class Step:
    """One step of the report.

    name: GROUP or GROUP/PART; --only and --skip take either.
    run: does it, and returns what it found.
    bound: seconds that it may take. least: seconds below which it is not begun.
    needs: steps that have to have passed. unfit: why it cannot be done on this machine; empty where it can.
    standing: whether what it made for others is still there, where a former run passed it: a machine may be
        another, and a report that ends removes what it has made.
    """

    name: str
    run: Callable[[], Found]
    bound: float
    least: float = 5.0
    needs: tuple[str, ...] = ()
    standing: Callable[[], bool] = field(default=lambda: True)
    unfit: str = ""

    def is_meant(self, names: Sequence[str]) -> bool:
        """Tell whether one of these names is the step's, or its group's."""
        return any(self.name == name or self.name.startswith(f"{name}/") for name in names)


class Runner:
    """Runs the steps of one report.

    Args:
        document: of the report; a step's outcome goes to `steps`, with the number of the machine, from 1.
        save: is called after each step.
        say: gets lines of progress.
        deadline: of the whole run, by `time.monotonic()`.
    """

    def __init__(self, document: Found, save: Callable[[], None], say: Say, deadline: float) -> None:
        self.document, self.save, self.say, self.deadline = document, save, say, deadline
        self.outcomes: dict[str, Found] = document.setdefault("steps", {})

    def run(self, steps: Sequence[Step], only: Sequence[str], skip: Sequence[str]) -> bool:
        """Run what is meant; return whether every step that was meant has passed.

        Raises:
            KeyboardInterrupt: it was stopped; the step's outcome is written down.
        """
        meant = [step for step in steps if (not only or step.is_meant(only)) and not step.is_meant(skip)]
        again = self._gone(meant)
        for step in steps:
            former = self.outcomes.get(step.name, {})
            if step not in meant:
                if not former:
                    self._note(step, NOT_RUN, NOT_ASKED_FOR)
                continue
            if former.get("state") == PASSED and step.name not in again:
                self.say(f"── {step.name}: passed before")
                continue
            self._one(step)
        return all(self.outcomes[step.name]["state"] == PASSED for step in meant if not step.unfit)

    def _gone(self, meant: Sequence[Step]) -> set[str]:
        """Return the steps that have passed, and whose product is gone and needed by a step that is run."""
        needed: set[str] = set()
        again: set[str] = set()
        for step in reversed(meant):
            passed = self.outcomes.get(step.name, {}).get("state") == PASSED
            if passed and step.name in needed and not step.standing():
                again.add(step.name)
            if not step.unfit and (not passed or step.name in again):
                needed.update(step.needs)
        return again

    def _one(self, step: Step) -> None:
        """Run a step, if it can be."""
        left = self.deadline - time.monotonic()
        lacking = [name for name in step.needs if self.outcomes.get(name, {}).get("state") != PASSED]
        if step.unfit:
            self._note(step, NOT_RUN, step.unfit)
        elif lacking:
            self._note(step, NOT_RUN, f"needs {', '.join(lacking)}")
        elif left < step.least:
            self._note(step, NOT_RUN, f"{left:.0f} s are left, and it takes {step.least:.0f} s or more")
        else:
            self._timed(step, min(step.bound, left))

    def _timed(self, step: Step, bound: float) -> None:
        self.say(f"── {step.name} (at most {bound:.0f} s)")
        began = time.monotonic()
        outcome: Found = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": len(self.document.get("machines", [])),
            "bound": round(bound),
        }
        self.outcomes[step.name] = outcome
        try:
            with within(bound):
                outcome |= {"state": PASSED, "found": step.run()}
        except OutOfTime:
            outcome |= {"state": FAILED, "why": f"not over after {bound:.0f} s"}
        except EXPECTED as error:
            outcome |= {"state": FAILED, "why": in_words(error)}
        except BaseException:
            outcome |= {"state": FAILED, "why": "stopped"}
            raise
        finally:
            outcome["seconds"] = round(time.monotonic() - began, 1)
            self.save()
        told = f": {outcome['why']}" if "why" in outcome else ""
        self.say(f"   {step.name} {outcome['state']} after {outcome['seconds']:.1f} s{told}")

    def _note(self, step: Step, state: str, why: str) -> None:
        self.outcomes[step.name] = {"state": state, "why": why}
        self.say(f"── {step.name} {state}: {why}")
        self.save()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in this, the main thread where the block takes longer than so many seconds."""

    def ring(_: int, __: FrameType | None) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def stop_on_signals() -> None:
    """Let the first of Ctrl-C, SIGTERM and SIGHUP stop the report, and no other keep it from tidying up."""
    stopped = False

    def handle(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def read_document(path: Path) -> Found:
    """Return a report that is there, or nothing.

    Raises:
        ValueError: it is not one.
    """
    if not path.exists():
        return {}
    found: Mapping[str, Any] = json.loads(path.read_text())
    if not isinstance(found.get("steps"), dict):
        raise ValueError(f"{path} is no report of make gpu-report")
    return dict(found)
