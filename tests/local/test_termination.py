"""A pod that goes finishes the answers that it has begun, whatever ends it, and a busy one is left alone."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from components.cluster.pods import restarts
from tests.conftest import Platform

HERE = ("-n", "kserve-demo")
POD = ("-l", "serving.kserve.io/inferenceservice=qwen-oci")
#: All that the tiny model can say after a short prompt.
TOKENS = 1900
#: So many at once, each with two answers, that they take half a minute on two cores.
STREAMS, ANSWERS = 40, 2
#: Seconds after which the server is told to end, where the stack says nothing (`modelcar:termination`).
PRE_STOP = 10
#: Seconds in which requests still come to a pod that goes: proxies learn of it later than the kubelet.
LATE = 8


@pytest.fixture(scope="module")
def served(platform: Platform) -> Iterator[Platform]:
    file = platform.checkout.folder / "Pulumi.local.yaml"
    committed = file.read_bytes()
    platform.checkout.make("up")
    yield platform
    file.write_bytes(committed)


def is_vllm(platform: Platform) -> bool:
    """Tell which server the platform has."""
    return "vllm" in str(platform.settings["serverCommand"][-1])


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of server-sent events; what follows the last line end was cut off, and is left out."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


class Stream:
    """One long answer, token by token."""

    def __init__(self, url: str, model: str, answers: int) -> None:
        self.url, self.model, self.answers = url, model, answers
        self.said: list[dict[str, Any]] = []
        self.error, self.ended = "", 0.0

    def ask(self) -> None:
        """Read it to its end."""
        body = {"model": self.model, "prompt": "Kubernetes is", "max_tokens": TOKENS, "temperature": 1}
        body["ignore_eos"] = True  # the demo model has less to say
        body |= {
            "n": self.answers,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/completions", json=body, timeout=300, trust_env=False
            ) as answer:
                # `iter_lines` also splits at U+2028 and U+0085, which JSON leaves as they are in a token.
                for line in split(answer.iter_bytes()):
                    if line.startswith(b"data: {"):
                        self.said.append(json.loads(line.removeprefix(b"data: ")))
                    elif line == b"data: [DONE]":
                        self.ended = time.time()
        except httpx.HTTPError as error:
            self.error = repr(error)

    @property
    def whole(self) -> bool:
        """Whether the answer came to its own end, with all its tokens."""
        usage = [entry["usage"] for entry in self.said if entry.get("usage")]
        return bool(self.ended and usage and usage[-1]["completion_tokens"] == self.answers * TOKENS)


class Busy:
    """The served pod under load, and what becomes of it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        platform.kubectl(*HERE, "wait", "--for=condition=Ready", "--timeout=120s", "pod", *POD)
        [pod] = json.loads(platform.kubectl(*HERE, "get", "pods", *POD, "-o", "json"))["items"]
        self.name = str(pod["metadata"]["name"])
        self.before = restarts(pod)  # a platform that was stopped has started its pods again
        self.log = subprocess.Popen(
            ["kubectl", *HERE, "logs", "-f", "--tail=0", self.name, "-c", "kserve-container"],
            env={**platform.checkout.environment, **platform.shell},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://{pod['status']['podIP']}:8080"
        self.model = httpx.get(f"{self.url}/v1/models", trust_env=False).json()["data"][0]["id"]
        # The stand-in for vLLM on small machines gives one answer a request, and slowly.
        self.answers = ANSWERS if is_vllm(platform) else 1
        self.streams: list[Stream] = []
        self.late, self.gone, self.restarts, self.weights = threading.Event(), 0.0, 0, ""
        self.loaders = [threading.Thread(target=self._load, args=(n,), daemon=True) for n in range(STREAMS)]
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Busy:
        for thread in (*self.loaders, self.watcher):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing that goes on against the pod, however the test ends."""
        self.over.set()
        self.late.set()
        for thread in (*self.loaders, self.watcher):
            thread.join(300)
        self.log.kill()
        self.log.wait()

    def _load(self, number: int) -> None:
        """Ask again and again, until the pod gets no new requests; not all at the same time."""
        self.late.wait(number / 4)
        while not self.late.is_set():
            stream = Stream(self.url, self.model, self.answers)
            self.streams.append(stream)
            stream.ask()

    def _watch(self) -> None:
        """See that the pod is to go; until then it has to be left alone."""
        try:
            while not self.gone and not self.over.wait(0.5):
                pod = json.loads(self.platform.kubectl(*HERE, "get", "pod", self.name, "-o", "json"))
                self.restarts = restarts(pod) - self.before
                if pod["metadata"].get("deletionTimestamp"):
                    self.gone = time.time()
            self.over.wait(LATE)
        finally:
            self.late.set()
        look = ("exec", self.name, "-c", "kserve-container", "--", "ls", "/mnt/models/config.json")
        self.weights = self.platform.kubectl(*HERE, *look, check=False).strip()

    def finished(self) -> str:
        """Wait for all answers and for the pod to go; return what the server said meanwhile."""
        assert self.late.wait(120), "the pod is not deleted"
        assert self.gone, "nobody saw it being deleted"
        for loader in self.loaders:
            loader.join(300)
        said = self.log.communicate(timeout=60)[0]
        self.platform.kubectl(*HERE, "wait", "--for=delete", "pod", self.name, "--timeout=60s")
        return said


def test_answers_outlive_their_pod_in_a_rollout(served: Platform) -> None:
    check(served, "pulumi", "ARGS=up --yes --skip-preview --stack local -c modelcar:startTimeoutSeconds=500")


@pytest.mark.extended
def test_answers_outlive_their_pod_when_the_model_is_scaled_down(served: Platform) -> None:
    check(served, "idle", "STACK=local")


def check(served: Platform, *targets: str) -> None:
    """Let make end the pod under load: no restart, no answer that is cut, and none that holds it for ever."""
    with Busy(served) as busy:
        served.checkout.make(*targets)
        said = busy.finished()
    assert busy.restarts == 0
    assert [stream.error for stream in busy.streams if stream.error] == []
    assert all(stream.whole for stream in busy.streams)
    last = max(stream.ended for stream in busy.streams) - busy.gone
    print(len(busy.streams), "answers, the last one", round(last, 1), "s after the deletion")
    print("the weights meanwhile:", busy.weights)
    assert last > PRE_STOP, "all had ended when the server was told to: ask for more"
    if is_vllm(served):
        assert re.search(r"draining in-flight requests count=\d+", said), said
