"""One case after the other: the fault, what the tool does about it, and whether all is as without it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from components.cluster.pods import restarts
from tests.campaign import sameness
from tests.campaign.faults import DESTROY, REST, UP, UPDATE, Kind, Missed
from tests.campaign.journal import LOST, MISSED, SAME, Case, Result, kind_of
from tests.campaign.prober import Prober
from tests.campaign.world import BYSTANDER, SUBJECT, Run, World, until

#: Controllers take a moment to remove what a deleted or replaced object owned, in seconds.
SETTLED = 60.0
COMMANDS = {
    UP: ("up", "--yes", "--skip-preview", "--continue-on-error"),
    UPDATE: ("up", "--yes", "--skip-preview", "--continue-on-error"),
    DESTROY: ("destroy", "--yes", "--skip-preview"),
}
#: What a run may say for itself; anything else of this kind is a mistake of the program.
TRACEBACK = "Traceback (most recent call last)"


class Runner:
    """Runs cases in a world whose subject is either served (by `up`) or absent (by `destroy`)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wanted: dict[bool, dict[str, Any]] = {}
        self.timelines: dict[str, list[float]] = {}
        self.there = False
        self.broken = False

    def learn(self) -> None:
        """Do each operation without any fault: what there is then, and when the engine says what."""
        for operation in (UP, UPDATE, DESTROY):
            if operation != DESTROY:
                self.world.lock(SUBJECT)
            run = self.world.begin(*COMMANDS[operation], "--stack", SUBJECT)
            moments: list[float] = []
            while not run.over():
                moments += [time.monotonic() - run.started] * (run.events() - len(moments))
                run.await_more(len(moments))
            if run.wait():
                raise RuntimeError(f"{operation} fails without any fault: {run.said()}")
            self.timelines[operation] = [*moments, time.monotonic() - run.started]
            self.world.say(f"{operation}: {self.timelines[operation][-1]:.1f} s, {len(moments)} events")
            served = operation != DESTROY
            found = self._settled(served)
            found += sameness.other_than_locked(self.world) if served else []
            if found:
                raise RuntimeError(f"{operation} twice does not end the same: {found}")
        self.there = False

    def _settled(self, served: bool) -> list[str]:
        """Wait until all is as wanted, and return what is not; the first time that it is still defines it."""
        if served not in self.wanted:
            last: dict[str, Any] = {}

            def still() -> bool:
                nonlocal last
                before, last = last, sameness.fingerprint(self.world)
                going = any('"going": true' in row[2] for row in last["objects"])
                return before == last and not going

            if not until(still, SETTLED, 1.0):
                raise RuntimeError("the cluster does not come to rest")
            self.wanted[served] = last
        found: list[str] = []

        def same() -> bool:
            nonlocal found
            found = sameness.differences(sameness.fingerprint(self.world), self.wanted[served])
            return not found

        until(same, SETTLED, 1.0)
        return found

    def run(self, case: Case) -> Result:
        """Try one case; whatever goes wrong in it is its result."""
        started = time.monotonic()
        kind = kind_of(case)
        result = Result(case, SAME)
        try:
            self._prepare(case)
            pod = self.world.pod(BYSTANDER)
            prober = Prober(pod["status"]["podIP"], 8080).start()
            try:
                self._try(case, kind, result)
            finally:
                prober.stop()
                result.requests, result.failed = prober.sent, prober.failed
                result.longest = round(prober.longest, 2)
            if not kind.touches_pod:
                result.found += self._bystander(pod, prober)
        except Missed as error:
            result.verdict, result.said = MISSED, str(error)
            self._restore(result)
        except Exception as error:
            result.found.append(f"{type(error).__name__}: {error}"[-1500:])
        if result.found:
            result.verdict = LOST
            self._restore(result)
        result.seconds = round(time.monotonic() - started, 1)
        return result

    def _prepare(self, case: Case) -> None:
        if case.operation == UP and self.there:
            self.world.pulumi(*COMMANDS[DESTROY], "--stack", SUBJECT)
            self.there = False
        elif case.operation != UP and not self.there:
            self.world.lock(SUBJECT)
            self.world.pulumi(*COMMANDS[UP], "--stack", SUBJECT)
            self.there = True
        if case.operation in {UP, UPDATE}:
            self.world.lock(SUBJECT)

    def _try(self, case: Case, kind: Kind, result: Result) -> None:
        run: Run | None = None
        with ExitStack() as stack:
            if kind.during:
                stack.enter_context(kind.fault(self.world, None))
            if case.operation != REST:
                run = self.world.begin(*COMMANDS[case.operation], "--stack", SUBJECT)
            if not kind.during:
                if run:
                    self._await(case, run)
                stack.enter_context(kind.fault(self.world, run))
            if run:
                result.ended = run.wait()
                result.said = _end_of(run.said())
                if TRACEBACK in run.said():
                    result.found.append("the run ended with a traceback")
        self.world.await_platform()
        # A reference to what was never whole would be there before anything is put right.
        if not kind.spoils_state:
            result.found += [f"referred to, and not whole: {fault}" for fault in self._incomplete()]
        self._again(case, kind, result)

    def _incomplete(self) -> list[str]:
        return sameness.incomplete_images(self.world)

    def _again(self, case: Case, kind: Kind, result: Result) -> None:
        """The next run, after what the tool does first; then all is as if nothing had happened."""
        result.recovered = self.world.recover()
        command = COMMANDS[UP if case.operation == REST else case.operation]
        self.world.pulumi(*command, *kind.repair, "--stack", SUBJECT)
        self.there = case.operation != DESTROY
        result.found += self._settled(self.there)
        if self.there:  # the same as before may be the former image everywhere
            result.found += sameness.other_than_locked(self.world)
        result.found += [f"referred to, and not whole: {fault}" for fault in self._incomplete()]

    def _await(self, case: Case, run: Run) -> None:
        """Wait for the case's moment: as many events of the engine as without a fault, then the rest."""
        timeline = self.timelines[case.operation]
        moment = case.moment * timeline[-1]
        events = sum(1 for event in timeline[:-1] if event <= moment)
        until(lambda: run.over() or run.events() >= events, 120, 0.01)
        rest = moment - (timeline[events - 1] if events else 0.0)
        until(run.over, rest, 0.01)

    def _bystander(self, before: dict[str, Any], prober: Prober) -> list[str]:
        found = []
        if prober.failed:
            found.append(
                f"{prober.failed} of {prober.sent} requests to a served model failed: {prober.reasons}"
            )
        after = self.world.pod(BYSTANDER)
        if after["metadata"]["uid"] != before["metadata"]["uid"]:
            found.append("the served model's pod was replaced")
        elif restarts(after) > restarts(before):  # it is older than the case: a node's reboot starts it again
            found.append("a container of the served model's pod was started again")
        return found

    def _restore(self, result: Result) -> None:
        """After a case that went wrong: from nothing again, by force; else in a new world."""
        self.there = False
        try:
            self.world.rules.set()
            self.world.await_platform()
            self.world.reset_subject()
        except Exception as error:
            result.found.append(f"nothing could be deployed after it: {error}"[-1500:])
            result.verdict, self.broken = LOST, True


def _end_of(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-12:])[-1500:]
