"""Asks a model server, and counts tokens: the same client for a pod and for bare vLLM.

It speaks HTTP over a socket and looks for events as bytes, so that it takes a small part of one processor
where the server streams 20,000 tokens a second; httpx takes all of one there. `clientShare` in the figures
tells.

`vllm bench serve` would be the peers' tool; it needs the server's environment with packages that serving
does not (pandas, datasets), and a tokenizer's own idea of prompt lengths. Prompts here are fixed texts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from local.gpu_report.children import Failed

#: Seconds for one request.
PATIENCE = 300.0
#: Of the byte-level tokenizer of made-up models, each has about 100 tokens.
PROMPT = (
    "Model {number:02} is asked to write about containers, registries, digests and the nodes that pull them. "
)

_EVENT = re.compile(rb"(?:^|\n)data: \{")
_COMPLETION = re.compile(rb'"completion_tokens": ?(\d+)')
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(frozen=True)
class Server:
    """Where a model is asked, and what its server can do.

    full: it is vLLM, which streams and can be told to ignore the end of a text.
    """

    url: str
    model: str
    full: bool


@dataclass(frozen=True)
class Answer:
    """One answer.

    tokens: as the server counts them. first: seconds until the first one. seconds: until the last.
    """

    tokens: int
    first: float
    seconds: float


def ask(server: Server, tokens: int, streams: int) -> tuple[list[Answer], float, float]:
    """Ask so many times at once; return the answers, the seconds in all, and what the client took of them.

    Raises:
        Failed: the server does not answer as it should.
    """
    began, worked = time.monotonic(), time.process_time()
    answers = asyncio.run(_all(server, tokens, streams))
    seconds = time.monotonic() - began
    return answers, seconds, (time.process_time() - worked) / seconds


def rate(server: Server, tokens: int, streams: int, repeats: int) -> dict[str, Any]:
    """Return tokens per second, measured several times.

    Args:
        server: that is asked.
        tokens: of each answer.
        streams: requests at once.
        repeats: how often that is measured.

    Raises:
        Failed: the server does not answer as it should, or with another number of tokens.
    """
    rates, firsts, shares = [], [], []
    for _ in range(repeats):
        answers, seconds, share = ask(server, tokens, streams)
        short = [answer.tokens for answer in answers if answer.tokens != tokens]
        if short and server.full:
            raise Failed(f"{len(short)} of {streams} answers have not {tokens} tokens, but {short[:3]}")
        rates.append(sum(answer.tokens for answer in answers) / seconds)
        firsts += [answer.first for answer in answers]
        shares.append(share)
    return {
        "streams": streams,
        "tokens": tokens,
        "tokensPerSecond": round(statistics.median(rates), 1),
        "each": [round(one, 1) for one in rates],
        "firstTokenSeconds": round(statistics.median(firsts), 4),
        "clientShare": round(max(shares), 2),
    }


def rates(server: Server, streams: Sequence[int], tokens: int, repeats: int) -> list[dict[str, Any]]:
    """Warm the server up, which compiles what a first batch needs, and measure each number of streams."""
    for count in streams:
        ask(server, 16, count)
    return [rate(server, tokens, count, repeats) for count in streams]


def first_token(server: Server) -> float:
    """Ask one question and return the seconds until its first token.

    Raises:
        Failed: the server does not answer as it should.
    """
    answers, _, _ = ask(server, 1, 1)
    return answers[0].first


def answers(server: Server, prompts: int) -> str:
    """Return a digest of the texts of answers at temperature 0, one prompt after the other.

    Raises:
        Failed: the server does not answer as it should.
    """
    texts = []
    for number in range(prompts):
        prompt = PROMPT.format(number=number)
        body = {"model": server.model, "prompt": prompt, "max_tokens": 16, "temperature": 0}
        try:
            url = f"{server.url}/v1/completions"
            answer = httpx.post(url, json=body, timeout=PATIENCE, trust_env=False)  # a pod, or this machine
            texts.append(answer.raise_for_status().json()["choices"][0]["text"])
        except (httpx.HTTPError, LookupError, ValueError) as error:
            raise Failed(f"{server.url}: {error or 'no answer in time'}") from None
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


async def _all(server: Server, tokens: int, streams: int) -> list[Answer]:
    requests = [_one(server, tokens, PROMPT.format(number=number)) for number in range(streams)]
    try:
        return list(await asyncio.wait_for(asyncio.gather(*requests), PATIENCE))
    except (TimeoutError, OSError, EOFError) as error:
        raise Failed(f"{server.url}: {error or 'no answer in time'}") from None


async def _one(server: Server, tokens: int, prompt: str) -> Answer:
    body = {"model": server.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    if server.full:
        body |= {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    content = json.dumps(body).encode()
    place = urlsplit(server.url)
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + content)
        first, said = 0.0, bytearray()
        while part := await reader.read(2**16):
            said += part
            if not first and (_EVENT.search(said) or not server.full):
                first = time.monotonic() - began
        seconds = time.monotonic() - began
    finally:
        writer.close()
    return Answer(_tokens(bytes(said)), first or seconds, seconds)


def _tokens(said: bytes) -> int:
    """Return the tokens of an answer by the server's own account, which comes last."""
    status = _STATUS.match(said)
    counts = _COMPLETION.findall(said)
    if status is None or status[1] != b"200" or not counts:
        text = said.partition(b"\r\n\r\n")[2] or said
        raise Failed(f"no completion: {(status or [b'', b'no HTTP'])[1].decode()} {text[:300]!r}")
    return int(counts[-1])
