"""Does the deployed model serve, on its GPU, and can it not reach a hub? Each answer with what was seen.

The environment, the answer to a prompt, the log, and the network: not that nothing is sent to a hub, but that
nothing can be. Connections are tried from inside of the pod's network namespace, and the same ones from a pod
beside it that no policy holds back: only both together prove anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.pods import pods_of, ready_of
from components.cluster.room import asks
from components.config.settings import Settings
from components.manifests.kernels import NONE, OFF
from components.manifests.service import CONTAINER
from components.stack.kernel_fit import renew
from operations import gpu
from operations.asking import KeyWantedError, ask
from operations.kernel_use import describe, fix, kernel_use
from operations.kernel_use import document as document_of_kernels
from operations.next_step import brought
from operations.not_served import not_served
from operations.validate_network import network
from operations.validate_pods import by_digest, name_of, stays_offline
from operations.validate_policy import denied
from operations.validation_report import Line

_NO_HUB = "log without a hub"
PROMPT = "Kubernetes is"
_HUB = r"(?:[\w.-]+\.)?(?:huggingface\.co|hf\.co)"
#: Lines by which clients tell that they ask a hub, or try to: requests, urllib3, httpx, aiohttp and reqwest,
#: the hub's own library, Transformers and what downloads. An address alone is none: Transformers logs some
#: for weights in a folder, such as the page about a tokenizer's pattern.
HUB_LINES = re.compile(
    rf"HTTPS?Connection(?:Pool)?\(host='{_HUB}'"
    rf"|(?<![\w-]){_HUB}:443\b"
    rf"|(?:\b(?:connect to(?: host)?|reach|for url|(?-i:GET|HEAD|POST))|connection \(\d+\))"
    rf"[\s:'\"(]+(?:https?://)?{_HUB}\b"
    r"|Downloading (?:shards|\S+:)|Fetching \d+ files",
    re.IGNORECASE,
)
#: Lines of a log that are searched.
LOG_LINES = 20_000


def validate(
    cluster: Cluster,
    settings: Settings,
    storage_uri: str | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Line, ...]:
    """Look at the stack's model as it is served, and return a line for each thing looked at.

    Args:
        cluster: that it is served on.
        settings: of the stack.
        storage_uri: that the stack says it serves; None where that is not known.
        say: told what happens.

    Raises:
        ClusterError: the API server went away.
    """
    found = pods_of(cluster, settings.namespace, settings.service_name)
    pods = ready_of(found)
    if not pods:
        return (not_served(cluster, settings, found),)
    # What is costly is looked at in the newest pod alone.
    of = f"{name_of(pods[-1])}: " if len(pods) > 1 else ""
    before = [by_digest(cluster, settings, pods, storage_uri), stays_offline(settings, pods)]
    seen = [_of(of, line) for line in _seen_of(cluster, settings, pods[-1])]
    policy = denied(cluster, settings, pods)
    say("trying connections from inside of the pod, and from one beside it")
    tried = [_of(of, line) for line in network(cluster, settings, pods[-1])]
    return (*before, *seen, policy, *tried)


def _of(pod: str, line: Line) -> Line:
    return replace(line, evidence=f"{pod}{line.evidence}")


def _seen_of(cluster: Cluster, settings: Settings, pod: JSON) -> Iterator[Line]:
    yield _answer(cluster, settings, pod)
    yield from _gpu(cluster, settings, pod)
    try:
        log = cluster.logs(pod["metadata"]["namespace"], pod["metadata"]["name"], CONTAINER, None)
    except ClusterError as error:
        yield Line(_NO_HUB, None, f"not seen: {error}", "you need the right to read pods' logs")
    else:
        yield from _kernels(settings, log)
        yield _log(log)


def _answer(cluster: Cluster, settings: Settings, pod: JSON) -> Line:
    path = "/v1/completions"
    body = {"model": settings.model_name, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    started = time.monotonic()
    try:
        answer = ask(cluster, settings, pod, path, body)
        text = str(answer["choices"][0]["text"])
    except KeyWantedError as error:
        right = f"you need the right to use pods/exec in {settings.namespace}"
        fix = f"{right}; or ask the server yourself, with its key"
        return Line("answers a prompt", None, str(error), fix)
    except ClusterError as error:
        fix = "see the server's log"
        if settings.ingress:
            fix += "; where the API server asks by an agent (GKE: kube-system), let that namespace in"
        return Line("answers a prompt", False, f"{path}: {error}", fix)
    except (KeyError, IndexError, TypeError, ValueError):
        return Line("answers a prompt", False, f"{path} answers no completion", "is it an OpenAI server?")
    seconds = time.monotonic() - started
    tokens = (answer.get("usage") or {}).get("completion_tokens")
    details = {"text": text, "tokens": tokens, "seconds": round(seconds, 3)}
    evidence = f"{PROMPT!r} → {text!r} in {seconds:.1f} s"
    return Line("answers a prompt", bool(text), evidence, details=details)


def _gpu(cluster: Cluster, settings: Settings, pod: JSON) -> Iterator[Line]:
    """Look from inside of the pod whether it has its GPUs, and whether what answered above runs on them."""
    asked = asks(pod)
    if not asked and not settings.gpu_count:
        return
    if not asked:
        seen = f"the stack says gpuCount {settings.gpu_count}, and the pod asks for no GPU"
        yield Line("GPU seen", False, seen, brought(settings))
        return
    sees, uses = gpu.verdicts(asked, gpu.look(cluster, pod), pod)
    for name, found in (("GPU seen", sees), ("GPU in use", uses)):
        yield Line(name, found.passed, found.evidence, found.fix, found.details)


def _kernels(settings: Settings, log: str) -> Iterator[Line]:
    """Tell whether the server used the kernels of its image; it fails where the stack requires that."""
    use = kernel_use(log)
    if use is None or not use.said or use.said.startswith((NONE, OFF)):
        return
    what = fix(use, renew(settings, "STACK"))
    missed = use.missed and settings.kernels == "require"
    yield Line("kernels of the image", not missed, describe(use), what, document_of_kernels(use) or {})


def _log(log: str) -> Line:
    lines = log.splitlines()[-LOG_LINES:]
    found = [line for line in lines if HUB_LINES.search(line)]
    if found:
        return Line(_NO_HUB, False, found[0].strip()[:200], "find out what asks, and set it right")
    return Line(_NO_HUB, True, f"{len(lines)} lines, none of a hub or a download")
