"""Ask a model server, through the API server; where it wants its API key, from inside of its pod.

The API server keeps the header `Authorization` for itself, so no key gets to a server through its proxy. In
the pod the key is at hand, and it does not leave it.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError, NoJSONError, TooSlowError
from components.cluster.pods import proxied
from components.config.model_spec import ModelSpec
from components.manifests.service import CONTAINER

#: Seconds for an answer, and for all that is done in a pod: a large model answers 40 prompts in less.
ANSWER, PATIENCE = 240, 300.0

#: Defines `ask(port, path, data)`, which sends to the pod's own server, with its key: as vLLM has it, the
#: argument goes before the variable.
CLIENT = f"""
import glob, json, os, urllib.request
def server_key():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file: words = file.read().decode(errors="replace").split("\\0")
        except OSError: continue
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name.replace("_", "-") == "--api-key":
                value = value if equals else "".join(words[place + 1:place + 2])
                if value: return value
    return os.environ.get("VLLM_API_KEY")
key = server_key()
# The pod may have a proxy, for the server's own downloads: it leads not to this pod itself.
web = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
def ask(port, path, data=None):
    head = {{"Content-Type": "application/json"}}
    if key: head["Authorization"] = "Bearer " + key
    request = urllib.request.Request("http://127.0.0.1:" + port + path, data, head)
    return web.open(request, timeout={ANSWER}).read()
"""

#: Sends what comes by stdin, one line, to a path of the server. No part of an exec's address: that is kept in
#: the API server's audit log, and has to be short.
_SEND = (
    CLIENT
    + """
import sys, urllib.error
try:
    status, text = 200, ask(*sys.argv[1:3], sys.stdin.readline().encode()).decode(errors="replace")
except urllib.error.HTTPError as error:
    status, text = error.code, error.read().decode(errors="replace")
except Exception as error:
    status, text = 0, str(error)
print("ANSWER " + json.dumps([status, text]))
"""
)


class KeyWantedError(ClusterError):
    """The server wants its API key, and could not be asked with it."""

    def __init__(self, message: str) -> None:
        super().__init__(401, f"the server wants its API key, and {message}")


def ask(cluster: Cluster, settings: ModelSpec, pod: JSON, path: str, body: JSON) -> JSON:
    """Send a request to the server of a pod, and return its answer.

    Args:
        cluster: of the pod.
        settings: of the model.
        pod: that is asked.
        path: of the server's API.
        body: what is sent.

    Raises:
        KeyWantedError: the server wants a key that could not be had.
        TooSlowError: it does not answer in time.
        NoJSONError: it answers no JSON object.
        ClusterError: the server or the API server refuses.
    """
    try:
        return cluster.request("POST", f"{proxied(pod, settings.server_port)}{path}", body, timeout=ANSWER)
    except TooSlowError:
        raise TooSlowError(0, f"the model did not answer within {ANSWER} s") from None
    except NoJSONError:
        raise NoJSONError(0, f"{path} answers no JSON object") from None
    except ClusterError as error:
        if error.status != 401:
            raise
    status, text = _inside(cluster, settings, pod, path, body)
    if status == 401:
        raise KeyWantedError("takes none that its pod has (VLLM_API_KEY, --api-key)")
    if status != 200:
        raise ClusterError(status, text.strip()[:500])
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoJSONError(0, f"{path} answers no JSON object")
    return answer


def _inside(cluster: Cluster, settings: ModelSpec, pod: JSON, path: str, body: JSON) -> tuple[int, str]:
    """Return the status and the text of an answer that was asked for with the key of the pod."""
    line = json.dumps(body) + "\n"
    try:
        said = python(cluster, settings, pod, _SEND, str(settings.server_port), path, text=line)
    except ClusterError as error:
        raise KeyWantedError(f"cannot be asked from inside of its pod: {error}") from None
    for found in reversed(said.splitlines()):
        if found.startswith("ANSWER "):
            status, text = json.loads(found.removeprefix("ANSWER "))
            return int(status), str(text)
    seen = said.strip()[-200:] or "nothing was said"
    raise KeyWantedError(f"Python in its container, which sends it, did not answer: {seen}")


def python(
    cluster: Cluster, settings: ModelSpec, pod: JSON, program: str, *arguments: str, text: str = ""
) -> str:
    """Run a program in the server's container, with its own Python; return what it says.

    Args:
        cluster: of the pod.
        settings: of the model.
        pod: whose server it is.
        program: its text.
        arguments: what it is told.
        text: what it reads from stdin.

    Raises:
        ClusterError: exec is not allowed, or it was not run to its end.
    """
    first = settings.server_command[0]
    name = first if PurePosixPath(first).name.startswith("python") else "python3"
    metadata = pod["metadata"]
    command = [name, "-c", program, *arguments]
    more: dict[str, Any] = {"text": text} if text else {}
    return cluster.execute(
        metadata["namespace"], metadata["name"], CONTAINER, command, timeout=PATIENCE, **more
    )
