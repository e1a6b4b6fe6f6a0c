"""`make gpu-report`: bounded steps that go on after a failure, and ratios of what belongs together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from components.manifests.server_arguments import server_arguments
from components.manifests.service import start_script
from local import gpu
from local.gpu_report import __main__ as command
from local.gpu_report import imports, kernels, load
from local.gpu_report.bare import as_user, command_of, limit, moved
from local.gpu_report.children import Children, Failed
from local.gpu_report.evidence import evidence
from local.gpu_report.page import page, with_goals
from local.gpu_report.runner import Found, Runner, Step, read_document
from local.gpu_report.site import Model, Site
from local.gpu_report.steps import reasons, steps
from modelcar import locking
from modelcar.lock import lock_path, write_lock
from modelcar.tiny_model import make_tiny_model
from tests.served import served
from tests.unit.kernel_entries import entry
from tests.unit.test_components_settings import load as load_settings

# --- steps ----------------------------------------------------------------------------------------


def failing() -> Found:
    raise Failed("it did not work")


def run(*steps: Step, seconds: float = 60, document: Found | None = None) -> tuple[bool, Found, list[str]]:
    told: Found = {} if document is None else document
    saved: list[str] = []
    runner = Runner(told, lambda: saved.append(json.dumps(told)), lambda _: None, time.monotonic() + seconds)
    passed = runner.run(steps, (), ())
    return passed, told["steps"], saved


def test_a_failure_is_written_down_and_what_does_not_rest_on_it_is_still_done() -> None:
    passed, outcomes, saved = run(
        Step("a", failing, 10),
        Step("b", lambda: {"x": 1}, 10, needs=("a",)),
        Step("c", lambda: {"x": 2}, 10),
        Step("d", lambda: {"x": 3}, 10, unfit="no GPU"),
    )
    assert not passed
    assert [outcomes[name]["state"] for name in "abcd"] == ["failed", "not run", "passed", "not run"]
    assert (outcomes["a"]["why"], outcomes["b"]["why"]) == ("it did not work", "needs a")
    assert outcomes["c"]["found"] == {"x": 2}
    assert outcomes["d"]["why"] == "no GPU"
    assert [len(json.loads(text)["steps"]) for text in saved] == [1, 2, 3, 4], "a killed run keeps each"


def test_a_step_ends_at_its_bound() -> None:
    began = time.monotonic()

    def slow() -> Found:
        time.sleep(30)
        return {}

    passed, outcomes, _ = run(Step("slow", slow, 0.2, least=0.1), Step("next", dict, 10))
    assert time.monotonic() - began < 5
    assert not passed
    assert (outcomes["slow"]["state"], outcomes["next"]["state"]) == ("failed", "passed")
    assert "not over after" in outcomes["slow"]["why"]


def test_nothing_begins_that_cannot_end_in_time() -> None:
    _, outcomes, _ = run(Step("long", dict, 100, least=50), seconds=20)
    assert outcomes["long"]["state"] == "not run"
    assert "20 s are left, and it takes 50 s or more" in outcomes["long"]["why"]


def test_a_report_goes_on_where_it_stood() -> None:
    done: list[str] = []

    def doing(name: str) -> Callable[[], Found]:
        def do() -> Found:
            done.append(name)
            return {}

        return do

    former = {"steps": {name: {"state": "passed", "found": {}} for name in "ab"} | {"c": {"state": "failed"}}}
    steps = [
        Step("a", doing("a"), 10),
        Step("b", doing("b"), 10, standing=lambda: False),  # another machine
        Step("c", doing("c"), 10, needs=("a", "b")),
    ]
    passed, outcomes, _ = run(*steps, document=former)
    assert passed
    assert done == ["b", "c"]
    assert [outcomes[name]["state"] for name in "abc"] == ["passed"] * 3


def test_what_is_gone_is_made_again_for_whom_needs_it_and_for_nobody_else() -> None:
    done: list[str] = []

    def step(name: str, *needs: str, gone: bool = True, unfit: str = "") -> Step:
        def do() -> Found:
            done.append(name)
            return {}

        return Step(name, do, 10, needs=needs, standing=lambda: not gone, unfit=unfit)

    everything = [
        step("pushed"),
        step("served", "pushed"),
        step("bare 1", "served"),
        step("bare 2", "served"),
        step("saved", "served"),
        step("kernels 1", "saved", unfit="no GPU"),
        step("other"),
        step("of other", "other"),
    ]
    states = {one.name: {"state": "passed", "found": {}} for one in everything}
    states["bare 2"] = {"state": "failed"}
    states["kernels 1"] = {"state": "not run"}
    passed, _, _ = run(*everything, document={"steps": states})
    assert passed
    assert done == ["pushed", "served", "bare 2"], "the node has no pod of it, and nobody asks for the others"
    run(*everything, document={"steps": states})
    assert len(done) == 3, "all has passed by now"


def test_only_and_skip_take_steps_and_groups() -> None:
    names = ("up", "m/pushed", "m/pod 1")
    outcomes: Found = {}
    runner = Runner(outcomes, lambda: None, lambda _: None, time.monotonic() + 60)
    assert runner.run([Step(name, dict, 9) for name in names], ("m",), ("m/pod 1",))
    states = [outcomes["steps"][name]["state"] for name in names]
    assert states == ["not run", "passed", "not run"]


def test_what_is_no_report_is_not_gone_on_with(tmp_path: Path) -> None:
    assert read_document(tmp_path / "none.json") == {}
    (tmp_path / "other.json").write_text('{"steps": 3}')
    with pytest.raises(ValueError, match="no report of make gpu-report"):
        read_document(tmp_path / "other.json")


# --- programs -------------------------------------------------------------------------------------


def test_what_a_program_said_is_kept_and_told_where_it_fails(tmp_path: Path) -> None:
    children = Children(tmp_path / "logs")
    assert (
        children.run("good", ["sh", "-c", "echo well; echo there >&2"], folder=tmp_path).said
        == "well\nthere\n"
    )
    with pytest.raises(Failed, match=r"(?s)exit status 3.*the reason"):
        children.run("bad", ["sh", "-c", "echo the reason; exit 3"], folder=tmp_path)
    assert (tmp_path / "logs" / "bad.log").read_text() == "the reason\n"


def test_nothing_outlives_a_report_that_is_stopped(tmp_path: Path) -> None:
    """Ctrl-C ends the program that is running, and all that this has started."""
    script = (
        "import sys; from pathlib import Path; from local.gpu_report.children import Children\n"
        "from local.gpu_report.runner import stop_on_signals\n"
        "from local.gpu_report import children\n"
        "children.GRACE = 0.5\n"  # sh waits for what it has started
        "stop_on_signals()\n"
        "folder = Path(sys.argv[1])\n"
        "Children(folder).run('x', ['sh', '-c', 'sleep 600 & echo $!; wait'], folder=folder)\n"
    )
    report = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.DEVNULL)
    log = tmp_path / "x.log"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sleeper = psutil.Process(int(log.read_text()))
    report.send_signal(signal.SIGTERM)
    assert report.wait(30) != 0
    # It is killed by now; the kernel may take a moment until it is gone.
    with suppress(psutil.NoSuchProcess):
        psutil.wait_procs([sleeper], timeout=10)
        assert not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("kind", ["background", "service"])
def test_what_is_just_being_started_does_not_outlive_a_report_that_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def stopped_meanwhile(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, stop)
    monkeypatch.setattr(subprocess, "Popen", stopped_meanwhile)
    try:
        start = getattr(Children(tmp_path), kind)
        with pytest.raises(KeyboardInterrupt), start("x", ["sleep", "60"], folder=tmp_path, env=os.environ):
            pass
    finally:
        signal.signal(signal.SIGTERM, former)
    [process] = started
    assert process.returncode is not None, "it was stopped, and its exit code taken"


def test_a_servers_lines_have_their_times_and_a_killed_reports_server_is_found(tmp_path: Path) -> None:
    children = Children(tmp_path)
    with children.service(
        "s", ["sh", "-c", "echo up; exec sleep 600"], folder=tmp_path, env=os.environ
    ) as server:
        deadline = time.monotonic() + 10
        while " up" not in children.said("s"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert children.said("s")[:2] == "20"
        assert children.end_leftovers() == ["sleep"]
        assert server.wait(10) == -signal.SIGKILL
    assert Children(tmp_path / "another").end_leftovers() == []


# --- tokens ---------------------------------------------------------------------------------------


class _Clock:
    """What the client takes for the time; only the server moves it on. noted: the client has looked since."""

    def __init__(self) -> None:
        self.now, self.noted = 0.0, threading.Event()

    def monotonic(self) -> float:
        self.noted.set()
        return self.now

    def move(self, seconds: float) -> None:
        self.noted.clear()
        self.now += seconds


class _Streams(ThreadingHTTPServer):
    request_queue_size = 64
    clock = _Clock()


class _Server(BaseHTTPRequestHandler):
    """Streams as vLLM does, the first token after a second and the last after three.

    Asked for 13 tokens it says fewer, for 99 it fails.
    """

    def do_POST(self) -> None:
        clock = cast("_Streams", self.server).clock
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["max_tokens"] == 99:
            self.send_error(400, "no such model")
            return
        tokens = 7 if body["max_tokens"] == 13 else body["max_tokens"]
        self.send_response(200)
        self.end_headers()
        clock.move(1)
        if not body.get("stream"):
            self.wfile.write(json.dumps({"usage": {"completion_tokens": tokens}}).encode())
            return
        for _ in range(tokens):
            self.wfile.write(b'data: {"choices":[{"text":"a"}],"usage":null}\n\n')
        self.wfile.flush()
        clock.noted.wait(10)
        clock.move(2)
        self.wfile.write(
            b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % tokens
        )

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = _Streams(("127.0.0.1", 0), _Server)
    server.clock = _Clock()
    both = SimpleNamespace(monotonic=server.clock.monotonic, process_time=time.process_time)
    monkeypatch.setattr(load, "time", both)
    with served(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("full", [True, False])
def test_tokens_are_counted_as_the_server_counts_them(url: str, full: bool) -> None:
    server = load.Server(url, "m", full)
    found = load.rate(server, tokens=20, streams=1, repeats=3)
    assert found["each"] == [round(20 / (3 if full else 1), 1)] * 3
    assert found["firstTokenSeconds"] == 1, "the first token, not the last"
    answers, _, _ = load.ask(server, 20, 4)
    assert [answer.tokens for answer in answers] == [20] * 4


def test_an_answer_of_another_length_is_no_measurement(url: str) -> None:
    with pytest.raises(Failed, match="2 of 2 answers have not 13 tokens"):
        load.rate(load.Server(url, "m", True), tokens=13, streams=2, repeats=1)


def test_a_server_that_refuses_or_is_not_there_is_told(url: str) -> None:
    with pytest.raises(Failed, match="400"):
        load.ask(load.Server(url, "m", True), 99, 1)
    with pytest.raises(Failed, match=r"127\.0\.0\.1:9"):
        load.first_token(load.Server("http://127.0.0.1:9", "m", True))


# --- the server without a pod ---------------------------------------------------------------------

POD = {
    "spec": {
        "containers": [
            {"name": "modelcar"},
            {
                "name": "kserve-container",
                "command": ["sh", "-c", start_script(load_settings()), "server", "python3", "-m", "vllm"],
                "args": ["--model", "/mnt/models", "--port", "8080", "--x=/tmp/y"],
                "env": [{"name": "HOME", "value": "/tmp"}, {"name": "PATH", "value": "/tmpfoo:/bin"}],
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
            },
        ]
    }
}


def test_a_bare_server_is_the_pods_own() -> None:
    command, env, limits = command_of(POD)
    places = {"/tmp": "/scratch", "/mnt/models": "/weights"}
    assert [moved(part, places) for part in command] == [
        *("python3", "-m", "vllm", "--model", "/weights", "--port", "8080", "--x=/scratch/y")
    ]
    assert {name: moved(value, places) for name, value in env.items()} == {
        "HOME": "/scratch",
        "PATH": "/tmpfoo:/bin",
    }
    assert limits["memory"] == "64Mi"
    other = {"spec": {"containers": [{"name": "kserve-container", "command": ["python3"]}]}}
    with pytest.raises(Failed, match="command is another one"):
        command_of(other)


@pytest.mark.skipif(os.getuid() != 0, reason="takes root, as the embedded platform does")
def test_it_has_the_pods_user_and_limits_and_reads_what_the_kubelet_would_mount(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "secret").write_text("weights")
    path = str(tmp_path / "secret")
    script = f"import os; print(os.getuid(), open({path!r}).read(), flush=True); bytearray(200 << 20)"
    with limit({"cpu": "1500m", "memory": "64Mi"}) as groups:
        if not groups:
            pytest.skip("no cgroups can be made here")
        done = subprocess.run(
            [*as_user(groups), "/usr/bin/env", "python3", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == ["1010", "weights"], done.stderr
        assert done.returncode != 0, "200 MiB in a limit of 64"
        assert all(group.exists() for group in groups)
    assert not any(group.exists() for group in groups)


# --- the models' stacks ---------------------------------------------------------------------------


def card(index: int) -> gpu.Card:
    return gpu.Card(
        index, "NVIDIA H100", f"GPU-{index}", 80 << 30, 79 << 30, (9, 0), Path(f"/dev/nvidia{index}")
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A machine with two cards, and the platform's settings as `make up` writes them there."""
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    found = Site(gpu.Gpus((card(0), card(1)), "580.1", "13.0", None), lambda _: None)
    found.instance.state.mkdir(parents=True)
    found.project.mkdir(parents=True)
    told = {
        "registry": "127.0.0.1:5000/models",
        "registryInsecure": True,
        "serverImage": f"127.0.0.1:5000/busybox@sha256:{'0' * 64}",
        "serverCommand": ["/env/bin/python3", "-m", "vllm.entrypoints.openai.api_server"],
        "serverArgs": ["--max-model-len=auto", "--attention-backend=TRITON_ATTN"],
        "memory": "32Gi",
    }
    found.instance.settings_file.write_text(json.dumps(told))
    return found


def test_a_stack_of_the_report_is_the_platforms_with_one_window_for_all(site: Site) -> None:
    site.configure("qwen2-5-7b", Model("qwen2.5-7b"), gpuCount=2)
    settings = site.settings("qwen2-5-7b")
    assert (settings.gpu_count, settings.memory, settings.namespace) == (2, "32Gi", "gpu-report-qwen2-5-7b")
    arguments = server_arguments(settings)
    assert arguments[-1] == "--attention-backend=TRITON_ATTN"
    assert [one for one in arguments if "max-model-len" in one] == ["--max-model-len=4096"]
    assert "--tensor-parallel-size=2" in arguments
    assert site.stacks() == ["qwen2-5-7b"]
    assert site.full


def test_what_a_machine_cannot_do_is_said(site: Site) -> None:
    models = [Model("qwen2.5-0.5b"), Model("qwen2.5-7b")]
    both = {step.name: step for step in steps(site, models, 2)}
    assert not any(step.unfit for step in both.values())
    assert both["two-gpus"].needs == ("qwen2.5-7b/pushed",)
    assert both["filled-card"].needs == ("qwen2.5-0.5b/pushed",)
    order = [name for name in both if name.startswith("qwen2.5-7b/")]
    assert [name.partition("/")[2] for name in order] == [
        "pushed",
        "served",
        "saved",
        *("bare 1", "pod 1", "kernels 1", "ahead 1", "all 1"),
        *("bare 2", "pod 2", "kernels 2", "ahead 2", "all 2"),
        "in turn",
    ]
    without = steps(Site(None, lambda _: None), models, 1)
    compiles = "without a GPU the server compiles nothing here"
    assert {step.name: step.unfit for step in without if step.unfit} == {
        **{f"{model.like}/{name}": compiles for model in models for name in ("saved", "kernels 1", "all 1")},
        "two-gpus": "this machine has no GPU",
        "two-gpus-kernels": "this machine has no GPU",
        "filled-card": "this machine has no GPU",
    }


def test_what_a_report_that_ended_has_removed_is_not_taken_for_standing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`finish` removes the kept pods and the project with its locks; --resume went on without them."""
    model = Model("qwen2.5-0.5b")
    standing = {step.name.rpartition("/")[2]: step.standing for step in steps(site, [model], 1)}
    there: set[str] = set()
    monkeypatch.setattr(Site, "ready", lambda _: None)
    monkeypatch.setattr(Site, "architecture", "amd64")
    monkeypatch.setattr("local.gpu_report.steps.layers_there", lambda *_: there)
    assert not any(standing[name]() for name in ("up", "pushed", "served", "saved", "two-gpus"))

    weights = make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder=str(weights), license="Apache-2.0")
    resolved = locking.resolve(description, site.project)
    locked = locking.lock_model(model.name, description, resolved, site.project)[0]
    there.update(layer.digest for layer in locked.layers)
    assert standing["pushed"]()
    assert not standing["served"](), "the node has not unpacked it"
    store = site.instance.state / "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/models"
    shutil.copytree(weights, store)
    assert not standing["served"](), "its pod was not kept"
    site.keep_pod(model.stack, POD)
    assert standing["served"]()

    made, _ = entry()
    both, _ = entry(replace(made.target, count=2))
    lock_path(site.project, model.name).write_bytes(write_lock(replace(locked, kernels=(made, both))))
    assert not standing["saved"](), "their layer is not in this machine's registry"
    there.add(made.digest)
    assert standing["saved"]()
    assert not standing["two-gpus"]()
    there.add(both.digest)
    assert standing["two-gpus"]()


SEEN = """smi 0 nvidia-smi
said 0, NVIDIA H100, GPU-a, 580.159.04, 81559, 75000
said 1, NVIDIA H100, GPU-b, 580.159.04, 81559, {second}
uses 15 /dev/nvidia0 python3
uses 160 /dev/nvidia1 VLLM::Worker_TP1
end
"""


class Inside:
    """A cluster whose pods answer what is run in them."""

    def __init__(self, second: int) -> None:
        self.second = second

    def execute(self, namespace: str, pod: str, container: str, command: list[str]) -> str:
        return "tmpfs 2.0G 4.0K /dev/shm" if "df -h" in command[-1] else SEEN.format(second=self.second)


TWO_CARDS = {
    "metadata": {"namespace": "n", "name": "p"},
    "spec": {"containers": [{"name": "kserve-container", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
}


def test_a_pod_that_is_on_its_cards_is_shown_from_inside() -> None:
    found = evidence(cast("Any", Inside(75000)), TWO_CARDS)
    assert [one["uuid"] for one in found["cards"]] == ["GPU-a", "GPU-b"]
    assert [one["name"] for one in found["processes"]] == ["python3", "VLLM::Worker_TP1"]
    assert found["sharedMemory"].endswith("/dev/shm")
    with pytest.raises(Failed, match=r"3 of 81559 MiB in use on GPU 1.*fewer GPUs than the pod pays for"):
        evidence(cast("Any", Inside(3)), TWO_CARDS)


def test_of_a_failed_up_the_reason_and_the_fix_are_told_once() -> None:
    said = """
 +  pulumi:pulumi:Stack modelcar-x creating (83s) error: reason: the pod asks for 2 GPUs, and the node has 1
Diagnostics:
  pulumi:pulumi:Stack (modelcar-x):
    warning: using pulumi-language-python from $PATH
    error: 6 errors occurred:
    error: m-predictor-1: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.
    error: reason: the pod asks for 2 GPUs, and the node has 1
    error:   fix: lower modelcar:gpuCount to 1
    error: reason: the pod asks for 2 GPUs, and the node has 1
    error: update failed
"""
    assert reasons(said) == [
        "error: m-predictor-1: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        "error: reason: the pod asks for 2 GPUs, and the node has 1",
        "error:   fix: lower modelcar:gpuCount to 1",
    ]


# --- the page -------------------------------------------------------------------------------------


def start(first: float, one: float, many: float) -> Found:
    rates = [
        {"streams": streams, "tokensPerSecond": value, "each": [value]}
        for streams, value in ((1, one), (64, many))
    ]
    return {
        "state": "passed",
        "seconds": 9,
        "bound": 10,
        "found": {"health": first, "firstToken": first, "rates": rates},
    }


def document(**more: Any) -> Found:
    steps = {
        "up": {"state": "passed", "seconds": 9.0, "bound": 10, "found": {}},
        "m/pushed": {
            "state": "passed",
            "seconds": 9.0,
            "bound": 10,
            "found": {"bytes": 10**9, "digest": "sha256:1", "seconds": {"made-up": 1.5, "push": 2.5}},
        },
        "m/bare 1": start(100, 400, 10_000),
        "m/pod 1": start(104, 396, 9_900),
        "m/bare 2": start(10, 1, 1),
        "m/pod 2": {"state": "not run", "why": "3 s are left"},
        "two-gpus": {"state": "not run", "why": "this machine has 1 GPU"},
    }
    facts = {
        "cards": [{"name": "NVIDIA H100", "memoryGiB": 79.6, "freeGiB": 79.0, "capability": "9.0"}],
        **{"driver": "580.1", "cuda": "13.0", "system": "Debian", "kernel": "6.1", "processors": 16},
        **{
            "processor": "Xeon",
            "memoryGiB": 125.0,
            "cgroup": "v2",
            "python": "3.12.3",
            "versions": {"vLLM": "0.23.0"},
        },
    }
    return {
        "name": "gpu-report",
        "cpu": False,
        "models": ["m"],
        "commands": ["make gpu-report"],
        "machines": [{"id": "x", "facts": facts}],
        "steps": steps,
        **more,
    }


def test_ratios_are_of_starts_that_have_their_other_half() -> None:
    found = {goal["name"]: goal for goal in with_goals(document())["goals"]}
    latency = found["first token of a pod, on top of bare vLLM's"]
    assert (latency["value"], latency["met"]) == ("+4.0 s", True)
    assert found["tokens/s of a pod over bare vLLM, 1 stream"]["value"] == "0.990"
    assert found["tokens/s of a pod over bare vLLM, 64 streams"]["met"]


def test_a_goal_that_is_missed_is_told_so() -> None:
    slow = document()
    slow["steps"]["m/pod 1"] = start(120, 300, 9_900)
    found = with_goals(slow)["goals"]
    assert [goal["met"] for goal in found] == [False, False, True]
    assert "| +20.0 s | **missed** |" in page(with_goals(slow))


@pytest.mark.parametrize(
    ("pod", "shown"),
    [
        ([990.0, 991.0, 992.0], "0.991, 0.99 to 0.99 by 3 turns | met |"),
        ([900.0, 901.0, 902.0], "0.901, 0.90 to 0.90 by 3 turns | **missed** |"),
        ([700.0, 1000.0, 1300.0], "0.969, 0.68 to 1.39 by 3 turns: they differ too much to tell |  |"),
    ],
)
def test_a_ratio_of_turns_says_no_more_than_they_allow(pod: list[float], shown: str) -> None:
    told = document()
    turns = [{"streams": 1, "tokens": 512, "pod": pod, "bare": [1000.0, 1000.0, 1000.0]}]
    told["steps"]["m/in turn"] = {"state": "passed", "found": {"turns": turns}}
    text = page(with_goals(told))
    assert f"| tokens/s of a pod over bare vLLM, 1 stream, asked in turn | at least 0.98 | {shown}" in text


def with_kernels(cache: str = "hit", text: str = "same", **whose: Any) -> Found:
    told = document()
    phases = [
        {"name": "weights", "seconds": 3.0, "read": 2.2, "cache": None},
        {"name": "compile", "seconds": 4.0, "read": None, "cache": cache},
    ]
    cold = {**start(110, 400, 10_000)["found"], "ready": 100.0, "answers": "same"}
    warm = {**cold, "ready": 55.0, "firstToken": 56.0, "answers": text, "coldstart": {"server": phases}}
    told["steps"] |= {
        "m/pod 1": {"state": "passed", "found": cold},
        "m/saved": {
            "state": "passed",
            "found": {
                "layer": {"name": "k-1", "bytes": 900_000},
                "weightsReadDirectly": 2.0,
                "readers": 8,
                **whose,
            },
        },
        "m/kernels 1": {"state": "passed", "found": warm},
        "m/ahead 1": {"state": "passed", "found": {**warm, "ready": 50.0}},
        "m/all 1": {"state": "passed", "found": {**warm, "ready": 40.0}},
    }
    return told


def test_what_kernels_are_worth_is_held_to_goals() -> None:
    found = {goal["name"]: (goal["value"], goal["met"]) for goal in with_goals(with_kernels())["goals"]}
    assert found["ready with kernels that this machine saved, over ready without"] == ("0.55", True)
    assert found["ready with kernels, read ahead, over ready without"] == ("0.50", True)
    assert found["ready with kernels, read ahead, one import, over ready without"] == ("0.40", True)
    assert found["first token after ready, with kernels over without"] == ("0.10", True)
    assert found["answers at temperature 0, with and without"] == ("equal", True)
    assert found["bytes added to the image"] == ("0.90 MB", True)
    assert found["reading the weights, over the disk's own floor (8 readers at once)"] == ("1.10", True)
    former = {goal["name"]: goal["met"] for goal in with_goals(with_kernels(readers=None))["goals"]}
    assert former["reading the weights, over one reader past the page cache"] is None, "which was no floor"
    other = with_goals(with_kernels(text="another"))["goals"]
    assert [goal["value"] for goal in other if "temperature" in goal["name"]] == ["differ"]
    assert not [goal for goal in with_goals(document())["goals"] if "kernels" in goal["name"]], "not measured"


def test_kernels_answer_as_a_start_that_compiles_does_though_those_may_differ() -> None:
    told = with_kernels()
    told["steps"]["m/pod 2"] = deepcopy(told["steps"]["m/pod 1"])
    told["steps"]["m/pod 2"]["found"]["answers"] = "of other sums"
    found = {goal["name"]: (goal["value"], goal["met"]) for goal in with_goals(told)["goals"]}
    seen = found["answers at temperature 0, with and without"]
    assert seen == ("as a start that compiles; those differ (2)", True)


def conditions(told: Found, **so: bool) -> Found:
    """Return a report whose starts have recorded these conditions."""
    for name, one in told["steps"].items():
        if name.startswith("m/") and "found" in one:
            one["found"] |= so
    return with_goals(told)


def test_starts_whose_page_cache_was_not_dropped_are_held_to_no_goal() -> None:
    told = conditions(with_kernels(), pageCacheDropped=False, limited=True)
    found = {goal["name"]: (goal["value"], goal["met"]) for goal in told["goals"]}
    for name, value in (
        ("first token of a pod, on top of bare vLLM's", "+10.0 s"),
        ("ready with kernels that this machine saved, over ready without", "0.55"),
        ("ready with kernels, read ahead, over ready without", "0.50"),
        ("ready with kernels, read ahead, one import, over ready without", "0.40"),
        ("reading the weights, over the disk's own floor (8 readers at once)", "1.10"),
    ):
        assert found[name] == (f"{value}: the page cache was not dropped", None)
    assert found["tokens/s of a pod over bare vLLM, 1 stream"] == ("1.000", True), "it is in memory by then"
    text = page(told)
    assert "after the page cache was dropped" not in text
    assert "Not so in every start: the page cache was not dropped" in text


def test_a_bare_server_without_the_pods_limits_is_held_to_no_goal() -> None:
    told = document()
    turns = [{"streams": 1, "tokens": 512, "pod": [990.0] * 3, "bare": [1000.0] * 3}]
    told["steps"]["m/in turn"] = {"state": "passed", "found": {"turns": turns}}
    told = conditions(told, pageCacheDropped=True, limited=False)
    without = "bare vLLM did not have the pod's limits"
    assert [goal["met"] for goal in told["goals"]] == [None] * 4
    assert all(goal["value"].endswith(without) for goal in told["goals"])
    text = page(told)
    assert "user and limits" not in text
    assert "after the page cache was dropped" in text
    assert f"Not so in every start: {without}" in text


def test_the_page_says_which_conditions_held() -> None:
    text = page(conditions(document(), pageCacheDropped=True, limited=True))
    assert "variables, user and limits and" in text
    assert "after the page cache was dropped" in text
    assert "Not so in every start" not in text


def test_kernels_of_another_machine_are_told_so() -> None:
    told = with_goals(with_kernels(ofMachine="abc", ofCards=["NVIDIA H200"]))
    assert "ready with kernels that another machine saved, over ready without" in page(told)
    assert "those that another machine, NVIDIA H200 saved, `k-1`, 878.9 KiB" in page(told)
    assert "those that this machine saved" in page(with_goals(with_kernels()))


class Kernels:
    """A site whose lock gets an entry by each command on kernels. cards: of the machine."""

    def __init__(self, folder: Path, cards: str) -> None:
        self.kernels, self.project, self.variables = folder, folder, dict[str, str]()
        self.gpus = SimpleNamespace(cards=[SimpleNamespace(name="NVIDIA H200", uuid=cards)])
        self.children, self.ran = self, list[str]()

    def run(self, log: str, command: Sequence[str], **_: Any) -> SimpleNamespace:
        self.ran = list(command)
        if "--out" in command:
            Path(command[command.index("--out") + 1]).write_bytes(b"archive")
        return SimpleNamespace(seconds=1.0, said="")

    def lock(self, _: Model) -> SimpleNamespace:
        return SimpleNamespace(kernels=[SimpleNamespace(name="k-1", digest="sha256:1", size=5)])

    def unpacked(self, _: Model) -> Path:
        return self.project


def test_what_one_machine_saves_another_one_takes(tmp_path: Path) -> None:
    model = Model("qwen2.5-0.5b")
    here = cast(Site, Kernels(tmp_path, "GPU-a"))
    assert kernels.given(tmp_path, model) is kernels.given(None, model) is None
    kernels.save(here, model)
    archive = kernels.given(tmp_path, model)
    assert archive == tmp_path / "qwen2-5-0-5b.tar"
    with pytest.raises(Failed, match="was saved on this machine"):
        kernels.add(here, model, archive)
    there = Kernels(tmp_path / "other", "GPU-b")
    there.project.mkdir()
    found = kernels.add(cast(Site, there), model, archive)
    assert found["ofCards"] == ["NVIDIA H200"]
    assert there.ran[-4:] == ["add", str(archive), "--stack", "qwen2-5-0-5b"]


@pytest.mark.parametrize(("cache", "passes"), [("hit", True), ("partly", False), ("miss", False)])
def test_a_start_that_compiled_all_the_same_is_none_with_kernels(cache: str, passes: bool) -> None:
    found = with_kernels(cache)["steps"]["m/kernels 1"]["found"]
    if passes:
        kernels.require_hit(found)
    else:
        with pytest.raises(Failed, match=f"compiled all the same: .*cache {cache}"):
            kernels.require_hit(found)


def test_weights_are_read_past_the_page_cache_to_their_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x" * (kernels._BLOCK + 5_000))
    (tmp_path / "b.safetensors").write_bytes(b"")
    read: list[int] = []
    real = os.preadv

    def preadv(*arguments: Any) -> int:
        read.append(real(*arguments))
        return read[-1]

    monkeypatch.setattr(os, "preadv", preadv)
    if kernels.read_directly(tmp_path):
        assert sum(read) == kernels._BLOCK + 5_000
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError("no O_DIRECT here")))
    assert kernels.read_directly(tmp_path) == 0.0


def test_the_disk_is_asked_for_several_blocks_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reader waits for each block, and takes longer than the disk does: vLLM itself was faster."""
    (tmp_path / "a.safetensors").write_bytes(bytes(2 * kernels._BLOCK))
    together = threading.Barrier(2)
    opened, read = os.open, os.preadv

    def preadv(file: int, buffers: Sequence[Any], place: int) -> int:
        if place in {0, kernels._BLOCK}:
            together.wait(30)
        return read(file, buffers, place)

    monkeypatch.setattr(os, "open", lambda path, flags, *mode: opened(path, flags & ~os.O_DIRECT, *mode))
    monkeypatch.setattr(os, "preadv", preadv)
    assert kernels.read_directly(tmp_path) > 0
    assert not together.broken


def test_imports_are_timed_alone_and_beside_what_is_read(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []

    def settle() -> bool:
        dropped.append(True)
        return len(dropped) < 8  # the last time it could not

    monkeypatch.setattr(imports, "settle", settle)
    monkeypatch.setattr(imports, "_LIST", imports._LIST.replace(imports.MODULE, "xml.dom.minidom"))
    monkeypatch.setattr(imports, "MODULE", "xml.dom.minidom")
    monkeypatch.setattr(imports, "PIECE", 2**20)
    weights = tmp_path / "a model"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"x" * 1000)
    found = imports.imports(
        site.children, sys.executable, dict(os.environ), tmp_path, tmp_path / "scratch", 2, weights
    )
    each = {kind: len(seconds) for kind, seconds in found["seconds"].items()}
    assert each == dict.fromkeys(["cold", "ahead", "warm", "weights", "ahead, weights"], 2)
    assert {kind: len(seconds) for kind, seconds in found["read"].items()} == dict.fromkeys(
        ["ahead", "weights", "ahead, weights"], 2
    )
    assert len(dropped) == 8, "before each start that is not out of memory"
    assert not found["pageCacheDropped"]
    assert found["weights"] == 1000
    text = page(with_goals(document(steps={"imports": {"state": "passed", "found": found}})))
    assert f"`import xml.dom.minidom` reads {found['files']:,} files" in text
    assert "a model of 1000 B" in text
    assert "the page cache was not dropped" in text
    found["read"] = found["read"]["ahead"]  # as reports of before have it
    assert f"| ahead | {found['seconds']['ahead'][0]:.1f}" in page(
        with_goals(document(steps={"imports": {"state": "passed", "found": found}}))
    )


def test_of_what_is_imported_all_is_read_and_no_reader_has_the_large_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "PIECE", 2**20)
    monkeypatch.setattr(imports, "TOGETHER", 2)
    sizes = {"a's.py": 3, "libtorch.so": 2 * 2**20 + 5, "b.py": 2**20, "c.py": 7}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    jobs = list(imports._reads([tmp_path / name for name in sizes]))
    assert ["libtorch.so" in job for job in jobs] == [True, True, True, False, False], "the large one first"
    read = [
        subprocess.run(
            ["sh", "-c", job.replace("of=/dev/null", "").replace("> /dev/null", "")],
            capture_output=True,
            check=True,
        ).stdout
        for job in jobs
    ]
    assert [len(one) for one in read] == [2**20, 2**20, 5, 3 + 2**20, 7]


def test_a_server_that_cannot_be_imported_is_told(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_LIST", "import no_such_server")
    with pytest.raises(Failed, match="No module named 'no_such_server'"):
        imports.imports(site.children, sys.executable, dict(os.environ), tmp_path, tmp_path / "scratch", 1)


def test_the_page_shows_how_much_starts_differ() -> None:
    text = page(with_goals(document()))
    assert "- m, 1 stream, tokens/s of each start: bare 400, 1; pod 396\n" in text


def test_the_page_says_on_what_by_what_and_what_was_not_run() -> None:
    text = page(with_goals(document()))
    for told in ("NVIDIA H100", "580.1", "CUDA 13.0", "vLLM 0.23.0", "`make gpu-report`", "953.7 MiB"):
        assert told in text
    assert "m/pod 2, two-gpus. GKE itself" in text
    assert "this machine has 1 GPU" in text


def test_steps_that_nobody_asked_for_are_counted_only() -> None:
    told = document()
    told["steps"]["smoke"] = {"state": "not run", "why": "not asked for"}
    text = page(with_goals(told))
    assert "smoke" not in text
    assert "m/pod 2, two-gpus. Not asked for: 1 more. GKE" in text


def test_without_a_gpu_the_page_claims_nothing() -> None:
    told = with_goals(document(cpu=True))
    assert told["goals"] == []
    assert "says nothing of a GPU" in page(told)


# --- the command ----------------------------------------------------------------------------------


def test_a_machine_without_a_gpu_is_told_what_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "look", lambda: gpu.Finding(None, "no NVIDIA card"))
    monkeypatch.setattr(command, "stop_on_signals", lambda: None)
    assert command.main([]) == 2
    said = capsys.readouterr().err
    assert "no NVIDIA card" in said
    assert "--cpu" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--models", "qwen2.5-9b"], "qwen2.5-0.5b, qwen2.5-7b"),
        (["--only", "qwen2.5-7b/bar"], "qwen2.5-7b/bare 1"),
        (["--skip", "smok"], "smoke"),
    ],
)
def test_wrong_names_are_told_with_the_right_ones(
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path))
    monkeypatch.setattr(command, "stop_on_signals", lambda: None)
    monkeypatch.setattr(gpu, "look", lambda: gpu.Finding(None, "no NVIDIA card"))
    assert command.main(["--list", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_another_machines_half_of_a_model_is_forgotten_and_its_whole_one_kept() -> None:
    told = document()
    told["models"] = ["m", "n"]
    told["steps"]["n/pod 1"] = start(1, 1, 1)
    command._drop_halves(told)
    assert not [name for name in told["steps"] if name.startswith("m/")]
    assert "n/pod 1" in told["steps"]
