"""A model server that wants its API key is asked from inside of its pod, where the key is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.cluster.access import ClusterError, NoJSONError, TooSlowError
from components.cluster.pods import pods_of
from local import ask as local_ask
from operations import asking, kernel_reading
from operations.asking import KeyWantedError, ask
from operations.chat import chat
from tests.served import served
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_cluster_exec import cluster_at
from tests.unit.test_components_settings import load

SETTINGS = load(namespace="models", serviceName="m", servedModelName="m")
POD: dict[str, Any] = {"metadata": {"name": "m-1", "namespace": "models"}}
PATH = "/v1/completions"
PROXY = "/api/v1/namespaces/models/pods/m-1:8080/proxy/v1/completions"
KEY = "key-of-the-server"


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster whose server wants a key."""
    made = FakeCluster()
    made.refusals[PROXY] = ClusterError(401, '{"error": "Unauthorized"}')
    return made


def answering(cluster: FakeCluster, status: int, text: str) -> None:
    cluster.said["m-1"] = f"some warning\nANSWER {json.dumps([status, text])}\n"


def test_without_a_key_it_is_asked_by_the_api_server_alone(cluster: FakeCluster) -> None:
    del cluster.refusals[PROXY]
    cluster.found[PROXY] = {"choices": []}
    assert ask(cluster, SETTINGS, POD, PATH, {}) == {"choices": []}
    assert cluster.read == []


def test_with_one_it_is_asked_in_the_pod(cluster: FakeCluster) -> None:
    answering(cluster, 200, '{"choices": [1]}')
    assert ask(cluster, SETTINGS, POD, PATH, {"prompt": "x"}) == {"choices": [1]}
    assert cluster.read == ['{"prompt": "x"}\n']


def test_a_refusal_of_another_kind_is_told_as_it_is(cluster: FakeCluster) -> None:
    answering(cluster, 404, "no such model")
    with pytest.raises(ClusterError, match="no such model") as caught:
        ask(cluster, SETTINGS, POD, PATH, {})
    assert caught.value.status == 404
    cluster.refusals[PROXY] = ClusterError(503, "no endpoints available")
    cluster.read.clear()
    with pytest.raises(ClusterError, match="no endpoints available"):
        ask(cluster, SETTINGS, POD, PATH, {})
    assert cluster.read == [], "a key does not help there"


def test_an_answer_that_is_no_object_is_none(cluster: FakeCluster) -> None:
    for text in ("[]", "<html>"):
        answering(cluster, 200, text)
        with pytest.raises(ClusterError, match="answers no JSON object"):
            ask(cluster, SETTINGS, POD, PATH, {})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('ANSWER [401, "no"]', "takes none that its pod has"),
        ("exec: python3: not found", "did not answer: exec: python3: not found"),
        ("", "nothing was said"),
    ],
)
def test_a_key_that_cannot_be_had_is_told_in_words(cluster: FakeCluster, said: str, words: str) -> None:
    cluster.said["m-1"] = said
    with pytest.raises(KeyWantedError, match="the server wants its API key") as caught:
        ask(cluster, SETTINGS, POD, PATH, {})
    assert words in str(caught.value)


def test_nor_without_the_right_to_exec(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> str:
        raise ClusterError(403, "pods/exec is forbidden")

    monkeypatch.setattr(cluster, "execute", refused)
    with pytest.raises(KeyWantedError, match="pods/exec is forbidden"):
        ask(cluster, SETTINGS, POD, PATH, {})


# --- through a real connection

READY = json.dumps({"items": [{**POD, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]})


@contextmanager
def api_server(answer: Callable[[str], str], pods: str = READY) -> Iterator[str]:
    """Run an API server that has the pod, and hands what is posted on to its server: `answer` of the path."""

    class ApiServer(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            self.tell(pods)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.tell(answer(self.path))

        def tell(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            with suppress(OSError):  # it waits no longer
                self.wfile.write(text.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    with served(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


def test_a_model_has_its_own_time_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one of the API server's own answers: a long one takes minutes."""
    monkeypatch.setattr(asking, "ANSWER", 1)
    over = threading.Event()

    def slow(_: str) -> str:
        over.wait(60)
        return "{}"

    with api_server(slow) as url:
        try:
            with pytest.raises(TooSlowError, match=r"the model did not answer within 1 s$"):
                ask(cluster_at(url), SETTINGS, POD, PATH, {})
            with pytest.raises(TooSlowError, match=r'within 1 s; .*ARGS="--tokens 100"'):
                chat(cluster_at(url), SETTINGS, ["What are you?"], print, tokens=400)
        finally:
            over.set()


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
def test_the_api_servers_clock_is_read_off_its_answers(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    def its_time(*_: Any) -> str:
        return formatdate(time.time() + ahead, usegmt=True)

    monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", its_time)
    with api_server(str) as url:
        cluster = cluster_at(url)
        pods_of(cluster, "models", "m")
    assert abs((cluster.now() - datetime.now(UTC)).total_seconds() - ahead) < 5


@pytest.mark.parametrize("text", ["hello", "<html>log in</html>", "[]"])
def test_a_server_that_speaks_no_json_is_told_by_its_path(text: str) -> None:
    with (
        api_server(lambda _: text) as url,
        pytest.raises(NoJSONError, match=r"^/v1/chat/completions answers no JSON object$"),
    ):
        chat(cluster_at(url), SETTINGS, ["What are you?"], print)


@pytest.mark.parametrize("text", ["<html>log in</html>", "[]"])
def test_what_is_no_api_server_is_told_in_words(text: str) -> None:
    with api_server(str, text) as url:
        with pytest.raises(ClusterError) as caught:
            pods_of(cluster_at(url), "models", "m")
        assert str(caught.value) == (
            f"{url} sends no JSON object: {text!r}; see that no proxy asks you to log in"
        )


# --- the program that runs in the pod, run here against a server


class Handler(BaseHTTPRequestHandler):
    """Answers, to who has the key, what it was sent."""

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        models = {"data": [{"max_model_len": 64}]}
        content = json.dumps({**models, "sent": body.decode()} if right else {"error": "Unauthorized"})
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # 32 prompts come at once


@pytest.fixture
def port() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Handler)
    with served(server):
        yield str(server.server_address[1])


def in_pod(
    tmp_path: Path, program: str, arguments: list[str], command: list[str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of the pod's beside a server with this command line."""
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cmdline").write_bytes("".join(f"{word}\0" for word in command).encode())
    return subprocess.run(
        [sys.executable, "-c", program.replace("/proc/", f"{tmp_path}/proc/"), *arguments],
        input='{"prompt": "x"}\n',
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


WAYS = [
    (["vllm"], {"VLLM_API_KEY": KEY}, True),
    (["python3", "-m", "vllm", "--api-key", KEY, "--port", "8080"], {}, True),
    (["vllm", f"--api-key={KEY}"], {"VLLM_API_KEY": "another"}, True),
    (["vllm", f"--api_key={KEY}"], {}, True),
    (["vllm"], {}, False),
    (["vllm", "--api-key"], {}, False),
]


@pytest.mark.parametrize(("command", "variables", "right"), WAYS)
def test_the_key_is_found_as_vllm_reads_it(
    tmp_path: Path, port: str, command: list[str], variables: dict[str, str], right: bool
) -> None:
    done = in_pod(tmp_path, asking._SEND, [port, PATH], command, **variables)
    assert done.stdout.startswith("ANSWER ")
    status, text = json.loads(done.stdout.removeprefix("ANSWER "))
    assert status == (200 if right else 401)
    assert json.loads(text).get("sent") == ('{"prompt": "x"}\n' if right else None)
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(("command", "variables", "right"), WAYS)
def test_kernels_are_warmed_up_with_it_too(
    tmp_path: Path, port: str, command: list[str], variables: dict[str, str], right: bool
) -> None:
    done = in_pod(tmp_path, kernel_reading._ASK, [port, "m"], command, **variables)
    assert bool(json.loads(done.stdout)["asked"]) == right


def test_nobody_listens_is_told(tmp_path: Path) -> None:
    done = in_pod(tmp_path, asking._SEND, ["1", PATH], ["vllm"])
    assert json.loads(done.stdout.removeprefix("ANSWER "))[0] == 0


def test_make_up_asks_with_the_key_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def post(url: str, **options: Any) -> httpx.Response:
        sent.append(options.get("headers"))
        return httpx.Response(200, json={"choices": [{"text": "a"}], "model": "m"})

    monkeypatch.setattr(httpx, "post", post)
    for key in (KEY, None):
        assert local_ask.ask("http://x", "m", key=key).text == "a"
    assert sent == [{"Authorization": f"Bearer {KEY}"}, {}]
