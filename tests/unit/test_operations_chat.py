"""`make chat`: each question goes out with what was said before, and what cannot be is told."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from components.cluster.access import ClusterError
from components.config.stack import Stack
from modelcar.errors import InputError
from operations import __main__ as operations
from operations.chat import Exchange, chat
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_image_and_service import stack
from tests.unit.test_components_settings import load

PODS = "/api/v1/namespaces/models/pods"
PATH = f"{PODS}/tiny-1:8080/proxy/v1/chat/completions"


class Server(FakeCluster):
    """A model that says how many messages it got. instead: what it says once, in place of that."""

    def __init__(self, ready: bool = True) -> None:
        super().__init__()
        conditions = [{"type": "Ready", "status": str(ready)}]
        metadata = {
            "name": "tiny-1",
            "namespace": "models",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"serving.kserve.io/inferenceservice": "tiny"},
        }
        self.lists[PODS] = [{"metadata": metadata, "status": {"conditions": conditions}, "spec": {}}]
        self.asked: list[Any] = []
        self.instead: dict[str, Any] | None = None

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
        assert (method, path) == ("POST", PATH)
        messages = [dict(one) for one in (body or {})["messages"]]
        self.asked.append(messages)
        if choice := self.instead:
            self.instead = None
            return {"choices": [choice]}
        return {"choices": [{"message": {"content": f"{len(messages)} so far"}}]}


def answers(said: list[Exchange]) -> list[str | None]:
    return [one.answer for one in said]


def test_each_question_goes_out_with_what_was_said_before() -> None:
    server, said = Server(), list[Exchange]()
    chat(server, stack(), ["What are you?", "", "And now?\n"], said.append)
    assert answers(said) == ["1 so far", "3 so far"]
    assert [one["content"] for one in server.asked[1]] == ["What are you?", "1 so far", "And now?"]


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize(
    ("reason", "words"), [("length", 'ARGS="--tokens 400"'), ("stop", "the server sent no text")]
)
def test_an_answer_that_ended_within_its_reasoning_is_told_and_not_remembered(
    content: str | None, reason: str, words: str
) -> None:
    server, said = Server(), list[Exchange]()
    server.instead = {"message": {"content": content, "reasoning": "Well, "}, "finish_reason": reason}
    chat(server, stack(), ["What are you?", "And now?"], said.append, tokens=100)
    assert words in said[0].note
    assert answers(said) == [None, "1 so far"]
    assert [one["content"] for one in server.asked[1]] == ["And now?"]


def test_without_a_ready_pod_the_way_to_one_is_told() -> None:
    with pytest.raises(InputError, match=r"none of 1 pods is ready\n(.|\n)*make validate STACK=… tells why"):
        chat(Server(ready=False), stack(), ["x"], print)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"idle": True}, r"as the stack says \(modelcar:idle\)\n(.|\n)*fix: make wake STACK=…$"),
        (
            {"idle": True, "delivery": "gitops", "gitops": {"folder": "x"}},
            r"fix: make wake STACK=…; commit and push what it writes, and synchronise in Argo CD$",
        ),
        (
            {"deploymentMode": "Knative", "minReplicas": 0},
            r"as nothing asks for one(.|\n)*fix: ask it something, as its users do, and look again$",
        ),
        ({}, r"has no pod\n(.|\n)*fix: pulumi up; where that brings none: kubectl -n models get events$"),
    ],
    ids=["idle", "idle in Git", "Knative at zero", "a fault"],
)
def test_without_a_pod_what_is_told_helps(settings: dict[str, Any], words: str) -> None:
    server = Server()
    server.lists[PODS] = []
    server.found["/apis/serving.knative.dev/v1/namespaces/models/services/tiny-predictor"] = {
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}
    }
    with pytest.raises(InputError, match=words):
        chat(server, load(namespace="models", serviceName="tiny", **settings), ["x"], print)


def test_what_the_server_refuses_is_told() -> None:
    server = Server()
    server.refusals[PATH] = ClusterError(404, "no chat template")
    with pytest.raises(ClusterError, match="no chat template"):
        chat(server, stack(), ["x"], print)


def test_a_server_that_wants_its_key_is_asked_in_its_pod() -> None:
    server, said = Server(), list[Exchange]()
    server.refusals[PATH] = ClusterError(401, "Unauthorized")
    text = json.dumps({"choices": [{"message": {"content": "I am m"}}]})
    server.said["tiny-1"] = f"ANSWER {json.dumps([200, text])}\n"
    chat(server, stack(), ["What are you?"], said.append)
    assert answers(said) == ["I am m"]
    server.said["tiny-1"] = 'ANSWER [401, ""]\n'
    with pytest.raises(ClusterError, match="the server wants its API key"):
        chat(server, stack(), ["x"], said.append)


def test_programs_get_a_line_of_json_for_each_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()
    server.instead = {"message": {"content": None}, "finish_reason": "length"}
    settings = load(namespace="models", serviceName="tiny")
    monkeypatch.setattr(operations, "stack_of", lambda *_: Stack((settings,)))
    monkeypatch.setattr(operations, "cluster_of", lambda *_: server)
    monkeypatch.setattr("sys.stdin", io.StringIO("What are you?\nAnd now?\n"))
    assert operations.main(["chat", "--stack", "dev", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["question"], first["answer"]) == ("What are you?", None)
    assert "allow more" in first["note"]
    assert second == {"question": "And now?", "answer": "1 so far", "note": ""}
    assert operations.main(["chat", "--stack", "dev", "--ask", "What are you?"]) == 0
    assert capsys.readouterr().out == "1 so far\n"
