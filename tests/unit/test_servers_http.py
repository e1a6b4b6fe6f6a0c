"""The fallback server's HTTP side, with a model that repeats the prompt."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import httpx
import pytest

from local.servers import transformers_server as server
from tests.served import served


class Parrot:
    """A model whose tokens are bytes, and which answers with its prompt backwards."""

    name = "parrot-1"
    max_model_len = 32
    vocabulary = 256

    def __init__(self) -> None:
        self.seen: list[server.Sampling] = []
        self.running, self.go = threading.Event(), threading.Event()
        self.go.set()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        return list("|".join(f"{one['role']}:{one['content']}" for one in messages).encode())

    def generate(self, prompt: list[int], sampling: server.Sampling) -> server.Generated:
        self.seen.append(sampling)
        if bytes(prompt) == b"crash":
            raise RuntimeError("out of paper")
        self.running.set()
        assert self.go.wait(30)
        made = bytes(reversed(prompt))[: sampling.max_tokens]
        ended = "stop" if len(made) < sampling.max_tokens else "length"
        return server.Generated(made.decode(), len(made), ended)


@pytest.fixture
def service() -> server.Service:
    return server.Service(["tiny", "alias"])


@pytest.fixture
def parrot(service: server.Service) -> Parrot:
    model = Parrot()
    service.engine = model
    return model


@pytest.fixture
def client(service: server.Service) -> Iterator[httpx.Client]:
    running = server.Server(("127.0.0.1", 0), service)
    url = f"http://127.0.0.1:{running.server_address[1]}"
    with served(running), httpx.Client(base_url=url) as found:
        yield found


def complete(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "tiny", "prompt": "abc", **fields})


def test_not_healthy_until_the_model_is_loaded(client: httpx.Client, service: server.Service) -> None:
    for path in ("/health", "/v1/models"):
        assert client.get(path).status_code == 503
    assert complete(client).status_code == 503
    service.engine = Parrot()
    assert client.get("/health").status_code == 200


@pytest.mark.usefixtures("parrot")
def test_models_lists_every_name(client: httpx.Client) -> None:
    answer = client.get("/v1/models").json()
    assert answer["object"] == "list"
    assert [one["id"] for one in answer["data"]] == ["tiny", "alias"]
    assert answer["data"][0]["max_model_len"] == 32


@pytest.mark.usefixtures("parrot")
def test_a_completion_has_text_usage_and_reason(client: httpx.Client) -> None:
    response = complete(client, max_tokens=2)
    assert response.status_code == 200
    answer = response.json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"] == "parrot-1"
    assert answer["choices"] == [{"index": 0, "text": "cb", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert complete(client, model="alias").json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.usefixtures("parrot")
@pytest.mark.parametrize(
    ("prompt", "texts"),
    [(["ab", "cd"], ["ba", "dc"]), ([97, 98], ["ba"]), ([[97, 98], [99]], ["ba", "c"])],
)
def test_prompts_may_be_lists_and_token_ids(client: httpx.Client, prompt: Any, texts: list[str]) -> None:
    choices = complete(client, prompt=prompt).json()["choices"]
    assert [one["text"] for one in choices] == texts


@pytest.mark.usefixtures("parrot")
def test_a_conversation(client: httpx.Client) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 2}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "ih"}
    assert answer["usage"]["total_tokens"] == 9


def test_sampling_reaches_the_model(client: httpx.Client, parrot: Parrot) -> None:
    complete(client, max_tokens=3, temperature=0, top_p=0.5, seed=7, stop=["x"])
    complete(client, temperature=None, stop="y", stream=False, n=1, presence_penalty=0.0, user="me")
    assert parrot.seen[0] == server.Sampling(3, 0.0, 0.5, 7, ("x",))
    assert parrot.seen[1] == server.Sampling(16, 1.0, 1.0, None, ("y",))


@pytest.mark.usefixtures("parrot")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt"),
        ({"prompt": [True, False]}, "prompt"),
        ({"prompt": [256]}, "prompt"),
        ({"prompt": "x" * 32}, "prompt"),
        ({"max_tokens": 30}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"max_tokens": "4"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": 4}, "stop"),
        ({"model": None}, "model"),
        ({"stream": True}, "stream"),
        ({"n": 2}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"temprature": 0}, "temprature"),
    ],
)
def test_bad_fields_are_named(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = complete(client, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, 400, param)
    assert error["type"] == "BadRequestError"
    assert error["message"]


@pytest.mark.usefixtures("parrot")
@pytest.mark.parametrize("messages", [None, [], "hi", [{"role": "user"}], [{"role": "user", "content": [1]}]])
def test_bad_messages_are_named(client: httpx.Client, messages: Any) -> None:
    response = client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


@pytest.mark.usefixtures("parrot")
def test_an_unknown_model_is_not_found(client: httpx.Client) -> None:
    response = complete(client, model="huge")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "the model 'huge' does not exist",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


@pytest.mark.usefixtures("parrot")
def test_wrong_paths_methods_and_bodies(client: httpx.Client) -> None:
    assert client.get("/v2/models").status_code == 404
    assert client.get("/v1/completions").status_code == 405
    assert client.post("/health").status_code == 405
    assert client.post("/v1/completions", content=b"{").status_code == 400
    assert client.post("/v1/completions", content=b"[1]").status_code == 400
    assert client.post("/v1/completions", content=iter([b"{}"])).status_code == 411


@pytest.mark.usefixtures("parrot")
def test_a_body_that_is_too_large_is_refused_with_an_answer(client: httpx.Client) -> None:
    response = client.post("/v1/completions", content=b" " * (server.MAX_BODY_BYTES + 1))
    assert response.status_code == 413


@pytest.mark.usefixtures("parrot")
def test_a_failure_of_the_model_is_told_and_survived(client: httpx.Client) -> None:
    response = complete(client, prompt="crash")
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "RuntimeError: out of paper"
    assert complete(client).status_code == 200


def test_closing_waits_for_the_answer_in_work(service: server.Service, parrot: Parrot) -> None:
    parrot.go.clear()
    running = server.Server(("127.0.0.1", 0), service)
    url = f"http://127.0.0.1:{running.server_address[1]}/v1/completions"

    def close() -> bool:
        running.server_close()
        return parrot.go.is_set()

    with ThreadPoolExecutor() as pool, served(running):
        try:
            asking = pool.submit(httpx.post, url, json={"model": "tiny", "prompt": "abc"})
            assert parrot.running.wait(30)
            running.shutdown()
            closing = pool.submit(close)
            wait([closing], 1)  # one that does not wait for the answer is over by then
        finally:
            parrot.go.set()
        assert closing.result(30), "closed, and the answer was not there yet"
    assert asking.result().status_code == 200


def test_health_answers_while_the_model_is_busy_and_the_queue_is_bounded(
    client: httpx.Client, parrot: Parrot, monkeypatch: pytest.MonkeyPatch, service: server.Service
) -> None:
    parrot.go.clear()
    monkeypatch.setattr(service, "_places", threading.BoundedSemaphore(1))
    with ThreadPoolExecutor() as pool:
        try:
            asking = pool.submit(complete, client)
            assert parrot.running.wait(30)
            assert client.get("/health").status_code == 200
            assert complete(client).status_code == 503
        finally:
            parrot.go.set()
        assert asking.result().status_code == 200


@pytest.mark.parametrize(
    "flags", [["--model", "m", "--tensor-parallel-size", "2"], [], ["--model", "m", "--max-model-len", "0"]]
)
def test_unknown_or_missing_flags_end_the_program(flags: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        server.read_arguments(flags)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_it_takes_the_flags_that_the_product_gives_to_vllm() -> None:
    flags = "--model /mnt/models --served-model-name tiny --port 8080 --max-model-len=auto --dtype=float32"
    arguments = server.read_arguments(flags.split())
    assert (str(arguments.model), arguments.served_model_name) == ("/mnt/models", ["tiny"])
    assert (arguments.port, arguments.max_model_len, arguments.host) == (8080, None, "0.0.0.0")


def test_a_model_that_cannot_be_loaded_ends_the_program(tmp_path: Any, capsys: Any) -> None:
    assert server.main(["--model", str(tmp_path), "--host", "127.0.0.1", "--port", "0"]) == 1
    assert "config.json cannot be read" in capsys.readouterr().err
