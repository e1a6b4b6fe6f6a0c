"""Talk to a model of a stack, through the API server: no port-forward, no address of a pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from components.cluster.access import JSON, Cluster, ClusterError, TooSlowError
from components.cluster.pods import pods_of, ready_of
from components.config.settings import Settings
from modelcar.errors import refuse
from operations.asking import ask
from operations.not_served import no_pod

#: Tokens of one answer, where nobody says how many.
ANSWER = 256


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, which is None where the model sent no text; note: why it sent none."""

    question: str
    answer: str | None
    note: str = ""


def chat(
    cluster: Cluster,
    settings: Settings,
    questions: Iterable[str],
    say: Callable[[Exchange], object],
    *,
    tokens: int = ANSWER,
) -> None:
    """Send each question with all that was said before, and say the answer.

    Args:
        cluster: of the stack.
        settings: the model's.
        questions: one after the other; empty ones are passed over.
        say: takes each answer.
        tokens: of one answer, at most.

    Raises:
        InputError: no pod of the model is ready.
        ClusterError: the server refuses a question, takes too long, wants a key that could not be had, or
            does not speak OpenAI's chat API.
    """
    pod = _ready_pod(cluster, settings)
    path = "/v1/chat/completions"
    said: list[dict[str, str]] = []  # questions with their answers
    for question in questions:
        if not question.strip():
            continue
        text = question.strip()
        asked = [*said, {"role": "user", "content": text}]
        body = {"model": settings.model_name, "messages": asked, "max_tokens": tokens}
        try:
            answer = ask(cluster, settings, pod, path, body)
        except TooSlowError as error:
            raise TooSlowError(
                0, f'{error}; shorter answers take less: ARGS="--tokens {tokens // 4}"'
            ) from None
        try:
            content = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ClusterError(0, f"{path} answers no chat: {answer}") from None
        if not content:
            # A model that reasons does so first. Without an answer the next question does not see this one.
            say(Exchange(text, None, _no_answer(answer, tokens)))
            continue
        said = [*asked, {"role": "assistant", "content": str(content)}]
        say(Exchange(text, str(content)))


def _no_answer(answer: JSON, tokens: int) -> str:
    """Return why there is no text: many models spend hundreds of tokens on reasoning before it."""
    if answer["choices"][0].get("finish_reason") == "length":
        more = f'ARGS="--tokens {4 * tokens}"'
        return f"no answer: it ended within its reasoning, after {tokens} tokens; allow more: {more}"
    return "no answer: the server sent no text"


def _ready_pod(cluster: Cluster, settings: Settings) -> JSON:
    found = pods_of(cluster, settings.namespace, settings.service_name)
    if ready := ready_of(found):
        return ready[-1]
    if found:
        seen, fix = f"none of {len(found)} pods is ready", "make validate STACK=… tells why"
    else:
        line = no_pod(cluster, settings)
        seen, fix = line.evidence, line.fix
    name = f"{settings.namespace}/{settings.service_name}"
    raise refuse(name, seen, allowed="a model that serves", fix=fix)
