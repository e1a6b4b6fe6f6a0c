"""The benchmarks: pages claim what was recorded, and one way that fails does not end the others."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bench import __main__ as command
from bench import first_start, kernels, many, pull, ways
from bench.report import from_folder, table
from components.manifests.kernels import OFF, SAID, USED
from modelcar.errors import InputError, refuse
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_cold_start import EVENTS, PODS, served_pod
from tests.unit.test_components_settings import load

DOCS = Path(__file__).parents[2] / "docs"


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "benchmark.json").read_text())
    return found


# --- the report -------------------------------------------------------------------------------------


def test_the_pages_figures_are_the_recorded_ones() -> None:
    assert table(recorded()) in (DOCS / "benchmark.md").read_text()


def entry(way: str, seconds: float, state: str = "cold", **more: Any) -> dict[str, Any]:
    return {"way": way, "state": state, "seconds": seconds, "gib": 4.0, "files": 1, **more}


def test_our_ways_are_timed_from_the_folder_of_weights_as_the_others_are() -> None:
    """The lock hashes and copies the weights: without it ours would start where the floor ends."""
    ours = [entry(way, 20, storeGrewBy=1, memoryMiB={}) for way in ("pulumi up", "remote context")]
    others = [entry(way, 18, storeGrewBy=1) for way in ("floor", "oras")]
    lock, again = entry("lock", 10), entry("pulumi up", 2, "unchanged", storeGrewBy=0)
    lines = table({"results": [lock, *ours, *others, again]}).splitlines()
    assert "| 4 GiB, 1 files | lock and pulumi up | 30.0 | 10.0 | 1.67 |  | 2.0 | 0.0 |" in lines
    assert "| 4 GiB, 1 files | lock and remote context | 30.0 | 10.0 | 1.67 |  |  |  |" in lines
    assert "| 4 GiB, 1 files | oras | 18.0 |  | 1.00 |  |  |  |" in lines
    assert not any("| pulumi up |" in line for line in lines), "it would seem to be faster than it is"


def test_the_goals_are_told_with_the_lock_in_them() -> None:
    page = (DOCS / "benchmark.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| lock and `pulumi up` take at most"))
    told = {
        (float(gib), int(files)): float(ratio)
        for ratio, gib, files in re.findall(r"([\d.]+) \(([\d.]+) GiB, (\d+) files?", row)
    }
    cold = {(one["gib"], one["files"], one["way"]): one["seconds"] for one in from_folder(recorded())}
    later = from_folder({"results": recorded()["later"]})
    cold |= {(one["gib"], one["files"], one["way"]): one["seconds"] for one in later}
    for (gib, files), ratio in told.items():
        measured = cold[gib, files, "lock and pulumi up"] / cold[gib, files, "floor"]
        assert f"{measured:.2f}" == f"{ratio:.2f}", (gib, files)
    assert set(told) == {(8, 16), (4, 16), (8, 1), (4, 1), (1, 1), (1, 16)}


def test_no_figure_claims_to_count_what_was_sent() -> None:
    """What is measured is the growth of a store that keeps each blob once."""
    assert "sent" not in table(recorded()).casefold()
    assert "registry's store grew by" in table(recorded())


# --- one failure does not end the others ------------------------------------------------------------


@pytest.fixture
def nothing_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No services, no weights: only who calls whom, and what is kept of it."""

    @contextmanager
    def machine(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(
            stored=lambda: 0, processes=[], builder_store=tmp_path / "none", registry="r", run=lambda *_: "",
            folder=tmp_path,
        )  # fmt: skip

    for module in (command, pull, first_start):
        monkeypatch.setattr(module, "machine", machine)
        monkeypatch.setattr(module, "settle", lambda: None)
    for module in (command, first_start):
        monkeypatch.setattr(module, "toolbox", lambda: (None, None))
    monkeypatch.setattr(pull, "write_model", lambda *_: tmp_path)
    monkeypatch.setattr(pull, "locking", SimpleNamespace(
        Description=lambda **_: None, resolve=lambda *_: None, lock_model=lambda *_: (None, None)
    ))  # fmt: skip
    monkeypatch.setattr(command.Bench, "locked", lambda *_: None)


def fail(error: BaseException) -> Any:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


def measured(tmp_path: Path, *names: str, gib: float = 2.0) -> tuple[int, list[dict[str, Any]]]:
    options = argparse.Namespace(
        ways=list(names), cases=[(gib, 1)], folder=tmp_path, out=tmp_path / "results.json"
    )
    status = command.run(options)
    found: list[dict[str, Any]] = json.loads(options.out.read_text())["results"]
    return status, found


@pytest.mark.usefixtures("nothing_real")
@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("no route"),
        OSError("no space left"),
        subprocess.TimeoutExpired("buildkitd", 60),
        RuntimeError("oras push\n\nno route"),
    ],
)
def test_a_way_that_fails_is_told_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    more = {"floor": lambda _: None, "oras": fail(error), "layout context": lambda _: None}
    monkeypatch.setattr(ways, "WAYS", more)
    monkeypatch.setattr(command, "peers", lambda _: tmp_path)
    status, found = measured(tmp_path, "floor", "oras", "layout context")
    assert status == 1
    assert {one["way"] for one in found if one["state"] == "cold"} == {"floor", "layout context"}
    assert [one["way"] for one in found if one["state"] == "failed"] == ["oras"]
    assert (
        f"| 2 GiB, 1 files | oras | did not run: {str(error).splitlines()[-1]} |" in capsys.readouterr().out
    )


@pytest.mark.usefixtures("nothing_real")
def test_a_way_that_is_left_out_is_told_with_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ways, "WAYS", {"floor": lambda _: None, "buildx zstd": lambda _: None})
    status, found = measured(tmp_path, "buildx zstd", "floor")
    assert status == 0
    assert [one["state"] for one in found] == ["left out", "cold", "warm"]
    assert (
        "| buildx zstd | left out: above 0.3 GiB it would take most of the run |" in capsys.readouterr().out
    )


@pytest.mark.usefixtures("nothing_real")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_what_was_measured_is_kept_whatever_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException
) -> None:
    monkeypatch.setattr(ways, "WAYS", {"floor": lambda _: None, "layout context": fail(error)})
    with pytest.raises(type(error)):
        measured(tmp_path, "floor", "layout context")
    kept = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [(one["way"], one["state"]) for one in kept] == [("floor", "cold"), ("floor", "warm")]


@pytest.mark.usefixtures("nothing_real")
def test_packages_of_others_are_fetched_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []

    def script(name: str, *_: object) -> Path:
        done.append(f"fetch {name}")
        return tmp_path

    missing = refuse("skopeo", "missing", allowed="on PATH", fix="install it")
    monkeypatch.setattr(ways, "debian_script", script)
    monkeypatch.setattr(command, "peers", fail(missing))
    monkeypatch.setattr(command.Bench, "locked", lambda *_: done.append("lock"))
    _, found = measured(tmp_path, "oras", "buildah", gib=0.3)
    assert done[:2] == ["fetch buildah", "lock"]
    assert [one["why"] for one in found if one["way"] == "oras"] == [str(missing)]
    assert [one["state"] for one in found if one["way"] == "buildah"] == ["cold", "warm"]


@pytest.mark.usefixtures("nothing_real")
def test_a_pull_that_fails_is_told_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ways, "WAYS", dict.fromkeys(pull.PULLED, lambda _: None))
    turns = iter(pull.PULLED)

    def pulled(*_: object) -> tuple[float, int]:
        if next(turns) == "buildx default":
            raise TimeoutError("a service did not start")
        return 1.0, 1

    monkeypatch.setattr(pull, "pull", pulled)
    bench = command.Bench(tmp_path, lambda _: None)
    pull.measure(bench, 1.0)
    assert [(one["way"], one["state"]) for one in bench.results] == [
        ("node pull", "layout context"),
        ("node pull: buildx default", "failed"),
        ("node pull", "buildx zstd"),
    ]


@pytest.mark.usefixtures("nothing_real")
def test_a_first_start_that_this_machine_cannot_make_is_told_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EROFS takes the kernel, and not only the program that makes its files."""

    def start(_: object, __: str, way: first_start.Way, ___: int) -> dict[str, float]:
        if way.name == "parallel":
            raise TimeoutError("a service did not start")
        return {"pull": 2.0, "read": 1.0, "disk": 1e9, "bytes": 1}

    monkeypatch.setattr(ways, "WAYS", {"layout context": lambda _: None})
    monkeypatch.setattr(first_start, "lacking_for_erofs", lambda: ["the kernel has no erofs"])
    monkeypatch.setattr(first_start, "first_start", start)
    found = first_start.measure(0.0001, 1, 2, verity=False, say=lambda _: None)
    assert first_start.table(found)[2:] == [
        "| overlayfs | 2.00 | 1.00 | 1.00 | 1.00 | 1.00 |",
        "parallel: not measured: a service did not start",
        "erofs: not measured: the kernel has no erofs",
        "erofs index: not measured: the kernel has no erofs",
    ]


# --- many models ------------------------------------------------------------------------------------

#: In Pulumi's place: notes what it is asked, and fails at what FAIL names.
PULUMI = """#!/bin/sh
echo "$1 $2" >> "$ASKED"
case " $FAIL " in *" $1 "*) echo "no $1" ; exit 255 ;; esac
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_text(PULUMI)
    program.chmod(0o755)
    file, path = tmp_path / "asked", f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    for name, value in (("PATH", path), ("ASKED", str(file)), ("MODELCAR_STATE", str(tmp_path / "state"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(many, "environment", lambda *_: {})
    monkeypatch.setattr(many, "collect", lambda *_: None)
    folder = SimpleNamespace(mkdtemp=lambda **_: made(tmp_path / "bench-many"))
    monkeypatch.setattr(many, "tempfile", folder)
    return file


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_stack_that_cannot_be_destroyed_keeps_its_state_and_is_named(
    asked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bench-many"
    monkeypatch.setenv("FAIL", "preview destroy")
    monkeypatch.setattr("sys.argv", ["bench.many", "--counts", "1"])
    assert many.main() == 1
    assert asked.read_text().splitlines() == ["stack init", "preview --stack", "destroy --yes"]
    assert (folder / "state").exists()
    said = capsys.readouterr().err
    assert f"cd {folder}/ours && PULUMI_BACKEND_URL=file://{folder}/state" in said
    assert "no destroy" in said


def test_a_stack_that_is_destroyed_leaves_nothing(
    asked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAIL", "preview")
    with pytest.raises(RuntimeError, match="no preview"):
        many.measure([1], 1)
    assert asked.read_text().splitlines()[-1] == "destroy --yes"
    assert not (tmp_path / "bench-many").exists()


@pytest.mark.usefixtures("asked")
def test_the_programs_of_many_models_link_to_what_is_there(tmp_path: Path) -> None:
    bench = many.Bench(made(tmp_path / "bench"))
    links = [path for folder in (bench.ours, bench.bare) for path in folder.iterdir() if path.is_symlink()]
    assert links
    assert [link for link in links if not link.exists()] == []


# --- kernels ----------------------------------------------------------------------------------------


class Serving:
    """A stack that serves, and the commands of Pulumi on it.

    told: what its file says of kernels. own: what its model says, which wins. up: the mode of the pod.
    awaits: whether `up` waits until the new pod is ready. obeys: whether pods do what the mode says.
    """

    def __init__(
        self, told: str | None, own: str | None = None, *, awaits: bool = True, obeys: bool = True
    ) -> None:
        self.told, self.own, self.awaits, self.obeys = told, own, awaits, obeys
        self.up, self.number, self.asked = self.mode, 1, list[str]()
        self.cluster = FakeCluster()
        self.cluster.lists[EVENTS] = []
        self.serve()

    @property
    def mode(self) -> str:
        return self.own or self.told or "use"

    def serve(self, status: str = "True") -> None:
        pod = served_pod()
        name = f"m-{self.number}"
        pod["metadata"] |= {"name": name, "uid": f"uid-{self.number}"}
        pod["status"]["conditions"][1]["status"] = status
        self.cluster.lists[PODS] = [pod]
        used = (self.up == "use") == self.obeys
        line = f"{SAID}{USED} k-1" if used else f"{SAID}{OFF}"
        self.cluster.texts["kserve-container"] = f"2026-01-01T00:00:32Z {line}\n"
        answer = {"choices": [{"text": "good"}]}
        self.cluster.found[f"{PODS}/{name}:8080/proxy/v1/completions"] = answer

    def run(self, command: list[str], **_: object) -> SimpleNamespace:
        self.asked.append(" ".join(command[1:4]))
        if command[1:3] == ["config", "set"]:
            self.told = command[4]
        elif command[1:3] == ["config", "rm"]:
            self.told = None
        elif command[1] == "up" and self.mode != self.up:
            self.up, self.number = self.mode, self.number + 1
            self.serve("True" if self.awaits else "False")
        told = {kernels.KEY: {"value": self.told}} if self.told else {}
        return SimpleNamespace(stdout=json.dumps(told))

    def settings(self, *_: object) -> Any:
        return load(namespace="models", serviceName="m", kernels=self.mode, startTimeoutSeconds=10)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(*told: str | None, **how: Any) -> Serving:
        stack = Serving(*told, **how)
        monkeypatch.setattr(kernels, "run_to_end", stack.run)
        monkeypatch.setattr(kernels, "settings_of", stack.settings)
        monkeypatch.setattr(kernels, "cluster_of", lambda *_: stack.cluster)
        monkeypatch.setattr(kernels, "APPEARS", 0.05)
        return stack

    return of


@pytest.mark.parametrize("told", [None, "use", "off"])
def test_each_start_is_of_a_pod_of_its_own_and_the_stack_ends_as_it_was(
    serving: Any, told: str | None
) -> None:
    stack = serving(told)
    found = kernels.measure("dev", 2, drop_caches=False)
    assert [one.mode for one in found] == (["use", "off"] if told == "off" else ["off", "use"]) * 2
    assert stack.number == 5, "four starts after the one that was there"
    assert (stack.told, stack.up) == (told, told or "use")
    assert stack.asked[-1] == "up --yes --skip-preview", "what is served is what the file says"


def test_a_pod_that_was_there_before_is_not_measured(serving: Any) -> None:
    stack = serving("use")
    stack.up = "off"  # the file was changed, and not deployed
    stack.serve()
    with pytest.raises(InputError, match="`pulumi up` started no pod"):
        kernels.measure("dev", 1, drop_caches=False)


def test_a_pod_that_up_did_not_wait_for_is_waited_for(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = serving("use", awaits=False)
    looks: list[str] = []

    def sleep(_: float) -> None:
        looks.append("")
        stack.serve()

    monkeypatch.setattr("bench.machine.time.sleep", sleep)
    assert len(kernels.measure("dev", 1, drop_caches=False)) == 2
    assert len(looks) == 2, "once for each of the new pods"


def test_a_model_with_a_mode_of_its_own_is_refused(serving: Any) -> None:
    stack = serving("use", "require")
    with pytest.raises(InputError, match="the model's own is require"):
        kernels.measure("dev", 1, drop_caches=False)
    assert stack.told == "use"


def test_a_pod_that_uses_kernels_is_no_start_without_them(serving: Any) -> None:
    serving("use", obeys=False)
    with pytest.raises(InputError, match="a pod that uses none"):
        kernels.measure("dev", 1, drop_caches=False)
