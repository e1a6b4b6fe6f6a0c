"""The ingress that stands in for Knative's: it routes before it says so."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes import client

from local.standins import knative_ingress
from local.standins.knative_ingress import CLASS_ANNOTATION, ENDPOINTS, Controller, Routes, Server, handler
from tests.served import served


def ingress(name: str, host: str, service: str) -> dict[str, Any]:
    splits = [{"serviceNamespace": "n", "serviceName": service, "percent": 100}]
    return {
        "metadata": {
            "name": name,
            "namespace": "n",
            "generation": 2,
            "annotations": {CLASS_ANNOTATION: "mine"},
        },
        "spec": {"rules": [{"hosts": [host], "http": {"paths": [{"splits": splits}]}}]},
        "status": {"observedGeneration": 1},
    }


class Api:
    """What the API server has. told: of each Ingress, what each host was routed to when it was told."""

    def __init__(self, routes: Routes, *ingresses: dict[str, Any]) -> None:
        self.routes, self.ingresses = routes, ingresses
        self.told: dict[str, dict[str, str]] = {}

    def list_cluster_custom_object(self, *what: str) -> dict[str, Any]:
        return {"items": [] if what == ENDPOINTS else list(self.ingresses)}

    def patch_namespaced_custom_object_status(self, *where: Any) -> None:
        name = where[4]
        if name == "going":
            raise client.ApiException(status=404)
        splits = self.routes.splits
        self.told[name] = {host: split[0]["serviceName"] for host, split in splits.items()}


@pytest.fixture
def controller() -> Controller:
    return Controller(Routes(), "198.18.0.1", "mine")


def test_an_ingress_is_told_that_it_is_ready_once_requests_go_by_it(controller: Controller) -> None:
    before = [{"serviceNamespace": "n", "serviceName": "first", "percent": 100}]
    controller.routes.splits = {"a.example": before}
    controller.custom = api = Api(controller.routes, ingress("a", "a.example", "second"))
    controller.look()
    assert api.told == {"a": {"a.example": "second"}}


def test_one_that_cannot_be_told_keeps_no_other(controller: Controller) -> None:
    listed = ingress("going", "g.example", "gone"), ingress("b", "b.example", "there")
    controller.custom = api = Api(controller.routes, *listed)
    controller.look()
    assert api.told["b"]["b.example"] == "there"


def test_a_client_that_went_away_asks_the_pod_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    over = threading.Event()

    class Pod(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    pod = ThreadingHTTPServer(("127.0.0.1", 0), Pod)
    routes = Routes(
        {"127.0.0.1": [{"serviceNamespace": "n", "serviceName": "s", "percent": 100}]},
        {("n", "s"): [("127.0.0.1", pod.server_port)]},
    )
    passes = handler(routes)

    def broken(*_: Any) -> None:
        if len(asked) > 1:
            over.set()
        raise BrokenPipeError

    monkeypatch.setattr(passes, "_answer", broken)
    monkeypatch.setattr(knative_ingress, "PATIENCE", 1.0)
    running = Server(("127.0.0.1", 0), passes)
    monkeypatch.setattr(running, "handle_error", lambda *_: over.set())
    with served(pod), served(running):
        connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=30)
        connection.request("GET", "/file")
        assert over.wait(30)
        connection.close()
    assert asked == ["/file"]
