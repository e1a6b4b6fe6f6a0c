"""Stand-in for an ingress of Knative Serving: none of its own (Kourier, Istio, Contour) could be had.

It does what an Ingress (networking.internal.knative.dev/v1alpha1) says: requests go by host to the services
of revisions, by percent and with the headers that Knative wants to see, and the Ingress is told that it is
ready. No TLS, no paths, no timeouts, no streaming. It runs beside the cluster and reaches pods by their
addresses.

`python local/standins/knative_ingress.py KUBECONFIG ADDRESS:PORT CLASS`
"""

from __future__ import annotations

import http.client
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes import client, config

GROUP, VERSION, PLURAL = "networking.internal.knative.dev", "v1alpha1", "ingresses"
CLASS_ANNOTATION = "networking.knative.dev/ingress.class"
ENDPOINTS = ("discovery.k8s.io", "v1", "endpointslices")
SERVICE_LABEL = "kubernetes.io/service-name"
#: Names of the ports that revisions take requests on.
PORTS = frozenset({"http", "http1"})
#: Status, headers and text.
Answer = tuple[int, list[tuple[str, str]], bytes]
#: Seconds between two looks at what is to be done, and until a service without pods is given up.
LOOK, PATIENCE = 0.5, 600.0


@dataclass
class Routes:
    """splits: of each host. pods: addresses of each service, as (namespace, name, port's name or number)."""

    splits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pods: dict[tuple[str, str], list[tuple[str, int]]] = field(default_factory=dict)

    def choose(self, host: str) -> dict[str, Any] | None:
        """Return a split of a host's, by their percents."""
        found = self.splits.get(host.partition(":")[0])
        if not found:
            return None
        return random.choices(found, [split.get("percent", 100) for split in found])[0]  # noqa: S311

    def pod_of(self, split: dict[str, Any]) -> tuple[str, int] | None:
        """Return where a pod, or Knative's activator, takes a request for a split."""
        found = self.pods.get((split["serviceNamespace"], split["serviceName"]))
        return random.choice(found) if found else None  # noqa: S311


class Controller(threading.Thread):
    """Reads Ingresses and endpoints, and says of each Ingress that it is ready."""

    def __init__(self, routes: Routes, address: str, ingress_class: str) -> None:
        super().__init__(daemon=True)
        self.routes, self.address, self.ingress_class = routes, address, ingress_class
        self.custom: Any = client.CustomObjectsApi()

    def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                self.look()
            except Exception as error:  # the API server may be away for a moment
                print(f"cannot look: {error}", file=sys.stderr, flush=True)
            time.sleep(LOOK)

    def look(self) -> None:
        """Take over what is declared now."""
        pods: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for entry in self.custom.list_cluster_custom_object(*ENDPOINTS)["items"]:
            service = (entry["metadata"].get("labels") or {}).get(SERVICE_LABEL)
            ports = [port["port"] for port in entry.get("ports") or [] if port.get("name") in PORTS]
            if not service or not ports:
                continue
            ready = [one for one in entry.get("endpoints") or [] if one["conditions"].get("ready")]
            found = [(str(address), int(ports[0])) for one in ready for address in one["addresses"]]
            pods.setdefault((entry["metadata"]["namespace"], service), []).extend(found)
        listed = self.custom.list_cluster_custom_object(GROUP, VERSION, PLURAL)["items"]
        own = [
            ingress
            for ingress in listed
            if (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION) == self.ingress_class
        ]
        self.routes.pods = pods
        self.routes.splits = {
            host: rule["http"]["paths"][0]["splits"]
            for ingress in own
            for rule in ingress["spec"].get("rules") or []
            for host in rule["hosts"]
        }
        # Only now, as real ones do: who is told goes by the new routes.
        for ingress in own:
            try:
                self._tell(ingress)
            except client.ApiException as error:  # it has changed, or is going; the others are told
                print(f"cannot tell {ingress['metadata']['name']}: {error}", file=sys.stderr, flush=True)

    def _tell(self, ingress: dict[str, Any]) -> None:
        generation = ingress["metadata"]["generation"]
        if (ingress.get("status") or {}).get("observedGeneration") == generation:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        balancer = {"ingress": [{"ip": self.address}]}
        status = {
            "observedGeneration": generation,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("LoadBalancerReady", "NetworkConfigured", "Ready")
            ],
            "publicLoadBalancer": balancer,
            "privateLoadBalancer": balancer,
        }
        metadata = ingress["metadata"]
        where = (GROUP, VERSION, metadata["namespace"], PLURAL, metadata["name"])
        self.custom.patch_namespaced_custom_object_status(*where, {"status": status})


def handler(routes: Routes) -> type[BaseHTTPRequestHandler]:
    """Return what answers requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            deadline = time.monotonic() + PATIENCE
            answer: Answer
            while True:
                split = routes.choose(self.headers.get("Host", ""))
                pod = routes.pod_of(split) if split else None
                try:
                    if split and pod:
                        answer = self._ask(split, pod, body)
                        break
                except OSError:
                    pass  # it has just gone
                if split is None or time.monotonic() > deadline:
                    answer = (404 if split is None else 503, [], b"")
                    break
                time.sleep(0.1)
            self._answer(*answer)

        do_GET = do_POST = _pass_on  # the library's names

        def _ask(self, split: dict[str, Any], pod: tuple[str, int], body: bytes) -> Answer:
            connection = http.client.HTTPConnection(*pod, timeout=PATIENCE)
            sent = {**dict(self.headers.items()), **(split.get("appendHeaders") or {})}
            try:
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                text = answer.read()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error
            finally:
                connection.close()
            return answer.status, answer.getheaders(), text

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in {
                    "transfer-encoding",
                    "content-length",
                    "connection",
                    "date",
                    "server",
                }:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


class Server(ThreadingHTTPServer):
    """Takes as many requests at once as come."""

    request_queue_size = 1024
    daemon_threads = True


def main(arguments: list[str]) -> None:
    """Serve until ended."""
    kubeconfig, address, ingress_class = arguments
    config.load_kube_config(kubeconfig)  # type: ignore[no-untyped-call]
    host, _, port = address.rpartition(":")
    routes = Routes()
    Controller(routes, host, ingress_class).start()
    Server((host, int(port)), handler(routes)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
