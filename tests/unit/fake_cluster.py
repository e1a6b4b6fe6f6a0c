"""An API server that answers what a test puts there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.cluster.access import Cluster, ClusterError


class FakeCluster(Cluster):
    """lists, found, refusals: by path. texts: logs by container; texts_before: of the one before it.

    said: of commands by pod. said_of: the same by pod and a part of the command. read: by each from stdin.
    """

    def __init__(self) -> None:
        self.name = "https://cluster.example"
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.texts: dict[str, str] = {}
        self.texts_before: dict[str, str] = {}
        self.refusals: dict[str, ClusterError] = {}
        self.said: dict[str, str] = {}
        self.said_of: dict[tuple[str, str], str] = {}
        self.read: list[str] = []
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.deleted: list[str] = []

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        if path in self.refusals:
            raise self.refusals[path]
        if path in self.lists:
            items = self.lists[path]
            if query.get("fieldSelector", "").startswith("spec.nodeName="):
                node = query["fieldSelector"].partition("=")[2]
                items = [item for item in items if item["spec"].get("nodeName") == node]
            return {"items": items}
        return self.found.get(path)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        *,
        timeout: float = 0,
    ) -> dict[str, Any]:
        if path in self.refusals:
            raise self.refusals[path]
        if method == "POST" and path not in self.found:
            self.made.append((path, dict(body or {})))
            return {}
        if method == "DELETE":
            self.deleted.append(path)
            return {}
        return self.found[path]

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        lines: int | None = 200,
        *,
        stamped: bool = False,
        previous: bool = False,
    ) -> str:
        return (self.texts_before if previous else self.texts).get(container, "")

    def execute(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        timeout: float = 0,
        text: str = "",
    ) -> str:
        self.read.append(text)
        for (asked, part), text in self.said_of.items():
            if asked == pod and part in " ".join(command):
                return text
        return self.said[pod]


def pod(
    name: str,
    namespace: str,
    metadata: Mapping[str, Any] | None = None,
    box: Mapping[str, Any] | None = None,
    phase: str = "Running",
) -> dict[str, Any]:
    """Return a pod of one container."""
    return {
        "metadata": {"name": name, "namespace": namespace, **(metadata or {})},
        "spec": {"containers": [{"name": "main", **(box or {})}]},
        "status": {"phase": phase},
    }
