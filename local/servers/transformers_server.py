"""A small OpenAI-compatible server over transformers on a CPU, with the flags and paths of vLLM's.

It serves one model from a local folder, one request at a time, and never looks for anything on the
network. What it does not do (streaming, log probabilities, penalties, …) it refuses with a message.

It runs on its own with a Python that has torch and transformers; nothing else of this project is there.
Start: python3 transformers_server.py --model /mnt/models --served-model-name NAME --port 8080
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, cast

MAX_BODY_BYTES = 1 << 20
MAX_PROMPTS = 16
MAX_WAITING = 32
#: A client that sends or reads nothing for so long is dropped.
CLIENT_SECONDS = 30
#: OpenAI's own default for /v1/completions.
DEFAULT_MAX_TOKENS = 16


class RequestError(Exception):
    """A request that cannot be answered: HTTP status, message, and the field that is wrong."""

    def __init__(self, status: HTTPStatus, message: str, param: str | None = None) -> None:
        """Keep what the answer says."""
        self.status, self.message, self.param = status, message, param
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """Return the error as the OpenAI API writes it."""
        kind = {
            HTTPStatus.NOT_FOUND: "NotFoundError",
            HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailableError",
            HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
        }.get(self.status, "BadRequestError")
        error = {"message": self.message, "type": kind, "param": self.param, "code": int(self.status)}
        return {"error": error}


def bad(message: str, param: str | None = None) -> RequestError:
    """Return a 400 for one field."""
    return RequestError(HTTPStatus.BAD_REQUEST, message, param)


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. temperature 0 takes the likeliest token, so the answer repeats."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Generated:
    """A continuation: its text, how many tokens were made, and `stop` or `length`."""

    text: str
    tokens: int
    finish_reason: str


class Engine(Protocol):
    """A loaded model."""

    name: str
    max_model_len: int
    vocabulary: int

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ...

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """Return the tokens of a conversation, or None where the model has no chat template."""
        ...

    def generate(self, prompt: list[int], sampling: Sampling) -> Generated:
        """Continue a prompt."""
        ...


# --- the model -------------------------------------------------------------------------------------


class TransformersEngine:
    """A causal language model in a local folder, loaded with transformers."""

    def __init__(self, folder: Path, *, dtype: str = "float32", max_model_len: int | None = None) -> None:
        """Load the model.

        Raises:
            ValueError: the model's length is shorter than the one asked for.
            OSError: the folder has no model.
        """
        self._torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
        self.name = f"transformers-{transformers.__version__}"
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
        kind = dtype if dtype == "auto" else getattr(self._torch, dtype)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind, **local)
        self._model = model.eval()
        self._configuration: Any = transformers.GenerationConfig
        self._reading = threading.Lock()  # tokenizers refuse to be used by two threads at once
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        longest = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        if max_model_len is not None and max_model_len > longest:
            raise ValueError(f"--max-model-len {max_model_len}: the model's own limit is {longest} tokens")
        self.max_model_len = max_model_len or longest
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        self._ends: list[int] = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, with the special ones that the tokenizer adds by itself."""
        with self._reading:
            return [int(token) for token in self._tokenizer(text)["input_ids"]]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """Return the tokens of a conversation up to where the answer begins."""
        if not self._tokenizer.chat_template:
            return None
        with self._reading:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
            return [int(token) for token in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def generate(self, prompt: list[int], sampling: Sampling) -> Generated:
        """Continue a prompt. One call at a time: torch's seed is global."""
        if sampling.seed is not None:
            self._torch.manual_seed(sampling.seed)
        how: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            how = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
            }
        configuration = self._configuration(
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
            stop_strings=list(sampling.stop) or None,
            **how,
        )
        tokens = self._torch.tensor([prompt])
        with self._torch.inference_mode():
            result = self._model.generate(
                tokens,
                attention_mask=self._torch.ones_like(tokens),
                generation_config=configuration,
                tokenizer=self._tokenizer if sampling.stop else None,
            )
        made = [int(token) for token in result[0][len(prompt) :]]
        with self._reading:
            text = str(self._tokenizer.decode(made, skip_special_tokens=True))
        cuts = [text.index(stop) for stop in sampling.stop if stop in text]
        ended = bool(cuts) or (bool(made) and made[-1] in self._ends)
        return Generated(text[: min(cuts, default=len(text))], len(made), "stop" if ended else "length")


# --- requests --------------------------------------------------------------------------------------

#: Fields of the API that this server does not act on, and the values that ask for nothing. `user` is for
#: the caller's own records: any value will do.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "stream": (None, False),
    "stream_options": (None,),
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "suffix": (None, ""),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "user": (),
}
_COMMON = {"model", "max_tokens", "temperature", "top_p", "seed", "stop", *_NEUTRAL}


def check_fields(body: Mapping[str, Any], own: set[str]) -> None:
    """Refuse fields that are unknown or that ask for something this server does not do."""
    for name, value in body.items():
        if name not in _COMMON | own:
            raise bad(f"unknown field {name!r}", name)
        neutral = _NEUTRAL.get(name, ())
        if neutral and not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral
        ):
            raise bad(f"{name}={value!r} is not supported by this server", name)


def number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """Return a number within bounds, or the default where it is absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise bad(f"{name} must be a number from {low:g} to {high:g}, not {value!r}", name)
    return float(value)


def integer(body: Mapping[str, Any], name: str, low: int) -> int | None:
    """Return a whole number, or None where it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
        raise bad(f"{name} must be a whole number, {low} or more, not {value!r}", name)
    return value


def read_sampling(body: Mapping[str, Any], prompt: int, limit: int, default: int | None) -> Sampling:
    """Read how to sample, and see to it that prompt and answer fit the model.

    Args:
        body: the request.
        prompt: tokens of the longest prompt.
        limit: tokens that the model can hold.
        default: tokens to make where the request does not say; None for all that fit.
    """
    asked = integer(body, "max_tokens", 1)
    if asked is None:
        asked = min(default, limit - prompt) if default is not None else limit - prompt
    if prompt >= limit or prompt + asked > limit:
        raise bad(
            f"this model holds {limit} tokens; the prompt has {prompt} and max_tokens asks for "
            f"{max(asked, 1)} more: shorten the prompt or lower max_tokens",
            "max_tokens" if prompt < limit else "prompt",
        )
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(stops, list)
        or len(stops) > 4
        or not all(isinstance(one, str) and one for one in stops)
    ):
        raise bad("stop must be a text or a list of at most 4 texts, none empty", "stop")
    return Sampling(
        max_tokens=asked,
        temperature=number(body, "temperature", 1.0, 0, 2),
        top_p=number(body, "top_p", 1.0, 1e-6, 1),
        seed=integer(body, "seed", 0),
        stop=tuple(stops),
    )


def read_prompts(engine: Engine, value: object) -> list[list[int]]:
    """Return the tokens of each prompt: a text, a list of texts, token ids, or a list of token ids."""
    wrong = bad("prompt must be a text, a list of texts, a list of token ids or a list of those", "prompt")
    if value is None:
        raise bad("prompt is missing", "prompt")
    if isinstance(value, str):
        prompts: list[object] = [value]
    elif isinstance(value, list) and value and all(type(one) is int for one in value):
        prompts = [value]
    elif isinstance(value, list):
        prompts = value
    else:
        raise wrong
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise bad(f"prompt must hold 1 to {MAX_PROMPTS} prompts, not {len(prompts)}", "prompt")
    found = []
    for prompt in prompts:
        if isinstance(prompt, str):
            tokens = engine.encode(prompt)
        elif isinstance(prompt, list) and all(type(one) is int for one in prompt):
            tokens = prompt
            if any(not 0 <= one < engine.vocabulary for one in tokens):
                raise bad(f"token ids must be from 0 to {engine.vocabulary - 1}", "prompt")
        else:
            raise wrong
        if not tokens:
            raise bad("prompt is empty", "prompt")
        found.append(tokens)
    return found


def read_messages(value: object) -> list[dict[str, str]]:
    """Return the messages of a conversation; contents other than text are refused."""
    if not isinstance(value, list) or not value:
        raise bad("messages must be a list with at least one message", "messages")
    for message in value:
        if (
            not isinstance(message, dict)
            or set(message) != {"role", "content"}
            or not all(isinstance(part, str) for part in message.values())
        ):
            raise bad("each message must have a role and a content, both texts, and nothing else", "messages")
    return value


class Service:
    """What the server answers, apart from HTTP."""

    def __init__(self, names: Sequence[str]) -> None:
        """Serve a model under these names; the first one is in the answers."""
        self.names = list(names)
        self.engine: Engine | None = None
        self._created = int(time.time())
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_WAITING)

    def ready(self) -> Engine:
        """Return the model, or refuse while it is being loaded."""
        if self.engine is None:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "the model is being loaded")
        return self.engine

    def health(self) -> None:
        """Answer /health: an error until the model is loaded."""
        self.ready()

    def models(self) -> dict[str, Any]:
        """Answer /v1/models."""
        engine = self.ready()
        common = {"object": "model", "created": self._created, "owned_by": "transformers"}
        data = [{"id": name, **common, "max_model_len": engine.max_model_len} for name in self.names]
        return {"object": "list", "data": data}

    def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer /v1/completions."""
        engine = self._engine_for(body)
        check_fields(body, {"prompt"})
        prompts = read_prompts(engine, body.get("prompt"))
        longest = max(map(len, prompts))
        sampling = read_sampling(body, longest, engine.max_model_len, DEFAULT_MAX_TOKENS)
        made = self._generate(engine, prompts, sampling)
        choices = [
            {"index": index, "text": one.text, "logprobs": None, "finish_reason": one.finish_reason}
            for index, one in enumerate(made)
        ]
        return self._answer("cmpl", "text_completion", engine, choices, prompts, made)

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer /v1/chat/completions."""
        engine = self._engine_for(body)
        check_fields(body, {"messages", "max_completion_tokens"})
        prompt = engine.encode_chat(read_messages(body.get("messages")))
        if prompt is None:
            raise bad("this model has no chat template: use /v1/completions", "messages")
        if body.get("max_completion_tokens") is not None:
            integer(body, "max_completion_tokens", 1)
            body = {**body, "max_tokens": body["max_completion_tokens"]}
        sampling = read_sampling(body, len(prompt), engine.max_model_len, None)
        made = self._generate(engine, [prompt], sampling)
        message = {"role": "assistant", "content": made[0].text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": made[0].finish_reason}
        return self._answer("chatcmpl", "chat.completion", engine, [choice], [prompt], made)

    def _engine_for(self, body: Mapping[str, Any]) -> Engine:
        engine = self.ready()
        name = body.get("model")
        if name is None:
            raise bad("model is missing", "model")
        if name not in self.names:
            raise RequestError(HTTPStatus.NOT_FOUND, f"the model {name!r} does not exist", "model")
        return engine

    def _generate(self, engine: Engine, prompts: list[list[int]], sampling: Sampling) -> list[Generated]:
        if not self._places.acquire(blocking=False):
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_WAITING} requests are waiting already")
        try:
            with self._turn:
                return [engine.generate(prompt, sampling) for prompt in prompts]
        finally:
            self._places.release()

    def _answer(
        self,
        prefix: str,
        kind: str,
        engine: Engine,
        choices: list[dict[str, Any]],
        prompts: list[list[int]],
        made: list[Generated],
    ) -> dict[str, Any]:
        asked, answered = sum(map(len, prompts)), sum(one.tokens for one in made)
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.names[0],
            "choices": choices,
            "usage": usage,
            "system_fingerprint": engine.name,
        }


# --- HTTP ------------------------------------------------------------------------------------------


PATHS = {"/health": "GET", "/v1/models": "GET", "/v1/completions": "POST", "/v1/chat/completions": "POST"}


class Server(ThreadingHTTPServer):
    """The HTTP server. Closing it waits for the requests that are being answered."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], service: Service) -> None:
        """Bind the address (an IPv6 one if it has a colon)."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.service = service
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One request a connection: an idle connection must not hold up the end of the server."""

    protocol_version = "HTTP/1.1"
    server_version = "modelcar-transformers"
    sys_version = ""
    timeout = CLIENT_SECONDS

    _unread = 0

    def do_GET(self) -> None:
        """Answer /health and /v1/models."""
        service = cast("Server", self.server).service
        self._serve({"/health": service.health, "/v1/models": service.models})

    def do_POST(self) -> None:
        """Answer /v1/completions and /v1/chat/completions."""
        service = cast("Server", self.server).service
        self._serve(
            {
                "/v1/completions": lambda: service.completions(self._body()),
                "/v1/chat/completions": lambda: service.chat(self._body()),
            }
        )

    def _serve(self, paths: Mapping[str, Callable[[], dict[str, Any] | None]]) -> None:
        self.close_connection = True
        try:
            length = self.headers.get("Content-Length", "")
            self._unread = int(length) if length.isdecimal() else 0
            status, answer = self._answer(paths)
            self._discard()
            self._send(status, answer)
        except (TimeoutError, ConnectionError) as error:
            self.log_message("client gone: %s", error)

    def _answer(
        self, paths: Mapping[str, Callable[[], dict[str, Any] | None]]
    ) -> tuple[HTTPStatus, dict[str, Any] | None]:
        path = self.path.partition("?")[0]
        try:
            if path not in PATHS:
                raise RequestError(HTTPStatus.NOT_FOUND, f"there is no {path}")
            if path not in paths:
                raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {PATHS[path]} requests")
            return HTTPStatus.OK, paths[path]()
        except RequestError as error:
            return error.status, error.body()
        except (TimeoutError, ConnectionError):
            raise
        except Exception as error:  # the next request may well succeed, so the server stays up
            self.log_message("failed: %r", error)
            failure = RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
            return failure.status, failure.body()

    def _body(self) -> Mapping[str, Any]:
        if not self.headers.get("Content-Length", "").isdecimal():
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if self._unread > MAX_BODY_BYTES:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a request may have {MAX_BODY_BYTES} bytes, not {self._unread}",
            )
        wanted, self._unread = self._unread, 0
        text = self.rfile.read(wanted)
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise bad(f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise bad("the body must be a JSON object")
        return body

    def _discard(self) -> None:
        """Read what the client still sends, within reason: closing on it would lose it our answer."""
        left = min(self._unread, 16 * MAX_BODY_BYTES)
        while left > 0:
            chunk = self.rfile.read(min(left, 1 << 16))
            if not chunk:
                break
            left -= len(chunk)

    def _send(self, status: HTTPStatus, body: dict[str, Any] | None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write one line for a request, but none for the probes that come every few seconds."""
        if getattr(self, "path", None) != "/health":  # a broken request line has no path
            super().log_request(code, size)

    def log_message(self, format: str, *args: Any) -> None:
        """Write one line to standard output."""
        print(f"{self.address_string()} {format % args}", flush=True)


# --- the program -----------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def tokens_or_auto(text: str) -> int | None:
    """Read a length in tokens, or `auto` for the model's own."""
    return None if text == "auto" else positive(text)


def read_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags; an unknown one ends the program with status 2, as argparse does."""
    parser = argparse.ArgumentParser(
        description="OpenAI-compatible server over transformers", allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, required=True, help="folder with the model")
    parser.add_argument("--served-model-name", nargs="+", help="names of the model (default: the folder)")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 (a pod's server)
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--max-model-len", type=tokens_or_auto, default=None, help="tokens, or auto")
    # vLLM's: this server always finishes what it has begun.
    parser.add_argument("--shutdown-timeout", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 1 where the model cannot be loaded."""
    arguments = read_arguments(argv)
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"  # a folder, and nothing else
    service = Service(arguments.served_model_name or [str(arguments.model)])
    try:
        server = Server((arguments.host, arguments.port), service)
    except OSError as error:
        print(f"error: cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 1
    failed = threading.Event()

    def load() -> None:
        started = time.monotonic()
        try:
            if not (arguments.model / "config.json").is_file():
                raise OSError(f"{arguments.model}/config.json cannot be read")
            service.engine = TransformersEngine(
                arguments.model, dtype=arguments.dtype, max_model_len=arguments.max_model_len
            )
        except Exception as error:
            print(f"error: cannot load {arguments.model}: {error}", file=sys.stderr, flush=True)
            failed.set()
            server.shutdown()
            return
        print(f"serving {service.names[0]}, loaded in {time.monotonic() - started:.1f} s", flush=True)

    def stop(_signal: int, _frame: object) -> None:
        # In a thread: shutdown() waits for serve_forever(), which this very thread runs.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"listening on {arguments.host}:{arguments.port}, loading {arguments.model} …", flush=True)
    threading.Thread(target=load, daemon=True).start()
    with server:
        server.serve_forever(poll_interval=0.1)
    print("stopped", flush=True)
    return 1 if failed.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
