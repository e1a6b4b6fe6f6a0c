"""A model without pods until somebody asks for it: real KEDA, its metrics server, and Prometheus."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.pods import is_ready
from local.debian import debian_script
from local.tool_list import tools_folder
from tests.conftest import Platform
from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.local.conftest import until

pytestmark = pytest.mark.extended

#: KEDA's own triggers, as short as they go, so that the test does.
COOLDOWN, POLLING, START = 10, 2, 15
#: Asks past this machine's proxy.
PODS = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Gateway:
    """Stands for a gateway that holds requests while a model has no pod, and says how many it holds."""

    def __init__(self, backend: Callable[[], str | None]) -> None:
        self.backend, self.waiting, self.lock = backend, 0, threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(f"gateway_requests_waiting {gateway.waiting}\n".encode())
                    return
                with gateway.held():
                    body = gateway.ask(self.path)
                self._answer(body)

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def held(self) -> Any:
        """Count a request while it is held."""
        gateway = self

        class Held:
            def __enter__(self) -> None:
                with gateway.lock:
                    gateway.waiting += 1

            def __exit__(self, *_: object) -> None:
                with gateway.lock:
                    gateway.waiting -= 1

        return Held()

    def ask(self, path: str) -> bytes:
        """Ask the model as soon as it has a pod that answers."""
        while True:
            pod = self.backend()
            try:
                if pod:
                    with PODS.open(f"http://{pod}:8080{path}", timeout=5) as answer:
                        return bytes(answer.read())
            except OSError:
                pass  # it has just gone, or does not listen yet
            time.sleep(0.2)


@pytest.fixture(scope="module")
def keda(platform: Platform) -> Iterator[Platform]:
    platform.checkout.make("platform", ARGS="--with keda")
    yield platform
    platform.checkout.make("platform", ARGS="--without keda")


@pytest.fixture
def gateway(keda: Platform, project: Project) -> Iterator[Gateway]:
    def backend() -> str | None:
        return next(iter(ready_pods(keda, project.namespace)), None)

    made = Gateway(backend)
    yield made
    made.server.shutdown()


@pytest.fixture
def prometheus(keda: Platform, gateway: Gateway, tmp_path: Path) -> Iterator[str]:
    """Run Prometheus beside the platform, where pods reach it; it asks the gateway each second."""
    program = debian_script("prometheus", ["prometheus"], tools_folder() / "prometheus")
    host = keda.host
    scrape = {"job_name": "gateway", "static_configs": [{"targets": [gateway.address]}]}
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
    command = [
        *(str(program), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"),
        f"--web.listen-address={host}:19090",
    ]
    with (tmp_path / "prometheus.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{host}:19090"
    finally:
        running.terminate()
        running.wait(20)


def ready_pods(platform: Platform, namespace: str) -> list[str]:
    """Return the addresses of the model's pods that take requests."""
    found = json.loads(platform.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
    return [
        str(pod["status"]["podIP"])
        for pod in found
        if not pod["metadata"].get("deletionTimestamp") and is_ready(pod)
    ]


def replicas(project: Project) -> int:
    said = project.platform.kubectl("-n", project.namespace, "get", "deployment", "-o", "json")
    [deployment] = json.loads(said)["items"]
    return int(deployment["spec"]["replicas"])


def test_a_model_goes_to_zero_by_itself_and_comes_back_with_a_request(
    keda: Platform, project: Project, gateway: Gateway, prometheus: str
) -> None:
    def told() -> str:
        return keda.kubectl("-n", project.namespace, "describe", "scaledobject,hpa,deployment")

    trigger = {"type": "prometheus", "query": "sum(gateway_requests_waiting)", "threshold": 2}
    scaling = {
        "serverAddress": prometheus,
        "triggers": [trigger],
        "pollingInterval": POLLING,
        "cooldownPeriod": COOLDOWN,
    }
    project.configure(minReplicas=0, maxReplicas=2, startTimeoutSeconds=START, autoscaling=scaling)
    project.up()
    assert ready_pods(keda, project.namespace), "the first pod proves that the model serves"
    to_zero = until(lambda: replicas(project) == 0, 120, told)
    until(lambda: not ready_pods(keda, project.namespace), 60, told)

    assert project.preview() == [], "having no pod is no difference"
    began = time.monotonic()
    project.up()
    assert replicas(project) == 0, "up starts nothing that nobody asks for"
    again = time.monotonic() - began

    def ask(_: int) -> float:
        began = time.monotonic()
        address = f"http://{gateway.address}/config.json"
        with urllib.request.urlopen(address, timeout=120) as answer:
            assert json.load(answer)["model_type"] == "qwen2"
        return time.monotonic() - began

    with ThreadPoolExecutor(20) as pool:
        took = sorted(pool.map(ask, range(20)))
    print(
        f"to zero {to_zero:.1f} s (cooldown {COOLDOWN} s), up at zero {again:.1f} s, first of 20 requests "
        f"answered after {took[0]:.1f} s, last after {took[-1]:.1f} s, none failed"
    )

    with gateway.held(), gateway.held(), gateway.held(), gateway.held():
        until(lambda: replicas(project) == 2, 120, told)  # by the HorizontalPodAutoscaler, which asks KEDA
    until(lambda: replicas(project) == 0, 120, told)

    project.configure(idle=True)
    project.up()
    assert "No resources" in keda.kubectl("-n", project.namespace, "get", "scaledobject", check=False)
    project.configure(idle=None)
    project.up()
    assert "True" in keda.kubectl("-n", project.namespace, "get", "scaledobject")
