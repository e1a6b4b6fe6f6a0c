"""Does the deployed model serve, on its GPU, and can it not reach a hub? Each answer with what was seen.

The environment, the answer to a prompt, the log, and the network: not that nothing is sent to a hub, but that
nothing can be. Connections are tried from inside of the pod's network namespace, and the same ones from a pod
beside it that no policy holds back: only both together prove anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from components.cluster import workload
from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.failures import SEARCHED, cause
from components.cluster.pods import last_log, pods_of, serving_pod, shown, why
from components.cluster.pull_failures import pull_cause
from components.cluster.room import asks, lacks_gpus, why_no_room
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.manifests import autoscaling
from components.manifests.image_volume import model_image
from components.manifests.kernels import NONE, OFF
from components.manifests.service import CONTAINER, OFFLINE
from components.stack.kernel_fit import renew
from operations import gpu
from operations.asking import KeyWantedError, ask
from operations.kernel_use import describe, fix, kernel_use
from operations.kernel_use import document as document_of_kernels
from operations.validate_network import network
from operations.validation_report import Line

_NO_HUB, _DENIED = "log without a hub", "egress denied by policy"
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
    pod = serving_pod(cluster, settings.namespace, settings.service_name)
    if pod is None:
        return (_not_served(cluster, settings),)
    lines = [_served(pod, storage_uri), _offline(pod), _answer(cluster, settings, pod)]
    lines += _gpu(cluster, settings, pod)
    try:
        log = cluster.logs(pod["metadata"]["namespace"], pod["metadata"]["name"], CONTAINER, None)
    except ClusterError as error:
        lines.append(Line(_NO_HUB, None, f"not seen: {error}", "you need the right to read pods' logs"))
    else:
        lines += [*_kernels(settings, log), _log(log)]
    lines.append(_policy(cluster, settings, pod))
    say("trying connections from inside of the pod, and from one beside it")
    lines += network(cluster, settings, pod)
    return tuple(lines)


def _not_served(cluster: Cluster, settings: Settings) -> Line:
    name = f"{settings.namespace}/{settings.service_name}"
    found = pods_of(cluster, settings.namespace, settings.service_name)
    if not found and autoscaling.of(settings) and _size(cluster, settings) == 0:
        seen = f"InferenceService {name} has no pod, as nothing asks for one ({NAMESPACE}:autoscaling)"
        return Line("served", None, seen, "ask it something, as its users do, and look again")
    if not found:
        return Line("served", False, f"InferenceService {name} has no pod", "pulumi up; or make wake")
    pod = found[-1]
    log = last_log(cluster, pod, CONTAINER, SEARCHED)
    state = why(cluster, pod)
    known = why_no_room(cluster, settings, pod) if lacks_gpus(pod) else cause(log) or pull_cause(state)
    said = shown(log)
    seen = f"{pod['metadata']['name']}: {state}"
    if known:
        return Line("served", False, f"{seen}; reason: {known.reason}", known.fix)
    return Line(
        "served", False, seen + (f"; its log ends: {' | '.join(said[-3:])}" if said else ""), "see it"
    )


def _size(cluster: Cluster, settings: Settings) -> int | None:
    """Return how many pods a model is to have now; None where there is nothing that makes any."""
    found = cluster.get(workload.path(settings))
    return None if found is None else int(found["spec"].get("replicas", 1))


def _served(pod: JSON, storage_uri: str | None) -> Line:
    image = model_image(pod)
    seen = f"{pod['metadata']['name']} on {pod['spec'].get('nodeName')}, {image or 'no modelcar'}"
    same = storage_uri is None or image == storage_uri.removeprefix("oci://")
    fix = "" if same else f"the stack says {storage_uri}: pulumi up"
    return Line("served by digest", same and "@sha256:" in (image or ""), seen, fix)


def _server(pod: JSON) -> JSON:
    found: JSON = next(box for box in pod["spec"]["containers"] if box["name"] == CONTAINER)
    return found


def _offline(pod: JSON) -> Line:
    values = {entry["name"]: entry.get("value", "") for entry in _server(pod).get("env", [])}
    seen = ", ".join(f"{name}={values.get(name, 'not set')}" for name in OFFLINE)
    wrong = [name for name, value in OFFLINE.items() if values.get(name) != value]
    return Line("told to stay offline", not wrong, seen, "pulumi up: the program sets them" if wrong else "")


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
        yield Line("GPU seen", False, seen, "pulumi up")
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


def _policy(cluster: Cluster, settings: Settings, pod: JSON) -> Line:
    path = f"/apis/networking.k8s.io/v1/namespaces/{settings.namespace}/networkpolicies"
    labels = pod["metadata"].get("labels") or {}
    names = []
    try:
        policies = (cluster.get(path) or {}).get("items") or []
    except ClusterError as error:
        return Line(_DENIED, None, f"not seen: {error}", "you need the right to list NetworkPolicies")
    for policy in policies:
        spec = policy["spec"]
        selector = spec.get("podSelector") or {}
        wanted = selector.get("matchLabels") or {}
        selects = not selector.get("matchExpressions") and wanted.items() <= labels.items()
        if selects and "Egress" in (spec.get("policyTypes") or []):
            names.append(str(policy["metadata"]["name"]))
    if names:
        return Line(_DENIED, True, f"NetworkPolicy {', '.join(names)}")
    fix = "pulumi config set --path modelcar:egress.restrict true, and pulumi up"
    return Line(_DENIED, False, "no NetworkPolicy holds the pod's egress back", fix)
