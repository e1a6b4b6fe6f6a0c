"""Look into a server's caches from inside of its pod, and read them: by exec, with its own Python.

Nothing of them is loaded, there or here. What comes back is text: lines of JSON, then the archive in base64.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError
from components.config.settings import Settings
from components.manifests.kernels import PLACE
from components.manifests.service import CONTAINER
from modelcar.kernels import MOST_UNPACKED
from modelcar.tar_members import plain_files
from operations.asking import CLIENT, python

#: Folders as the start script has them (`components/manifests/kernels.py`).
_ROOTS = """
import os
home = os.environ.get("HOME", "/")
get = os.environ.get
roots = {
    "vllm": get("VLLM_CACHE_ROOT") or home + "/.cache/vllm",
    "triton": get("TRITON_CACHE_DIR") or home + "/.triton/cache",
    "torchinductor": get("TORCHINDUCTOR_CACHE_DIR") or home + "/.cache/torchinductor",
    "flashinfer": (get("FLASHINFER_WORKSPACE_BASE") or home) + "/.cache/flashinfer",
}
"""

#: Answers a few prompts, so that what compiles at the first answer is there too: alone and together, short
#: and long, to the end of the model's context.
_ASK = (
    CLIENT
    + """
import sys, threading
port, name = sys.argv[1:3]
def call(path, body=None):
    return json.loads(ask(port, path, json.dumps(body).encode() if body else None))
try:
    served = call("/v1/models")["data"][0]
    room = int(served.get("max_model_len") or 512)
    def complete(words, tokens):
        words = max(1, min(words, (room - tokens) // 3))
        body = {"model": name, "prompt": "one " * words, "max_tokens": tokens, "temperature": 0}
        call("/v1/completions", body)
    asked = 0
    for count, words, tokens in ((1, 3, 16), (1, 600, 16), (8, 3, 16), (8, 100, 16), (32, 20, 8)):
        tokens = min(tokens, max(1, room // 4))
        faults = []
        def one():
            try: complete(words, tokens)
            except Exception as error: faults.append(error)
        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        if faults: raise faults[0]
        asked += count
    print(json.dumps({"asked": asked}))
except Exception as error:
    print(json.dumps({"asked": 0, "fault": str(error)[:200]}))
"""
)

#: Looks at every file twice, before all are read and after, and reads them in between where it is told to.
_READ = (
    _ROOTS
    + """
import base64, importlib.util, io, json, re, sys, tarfile, time, zlib
most, read = int(sys.argv[1]), sys.argv[2] == "read"
def look():
    found = {}
    for part, root in roots.items():
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                try: status = os.lstat(path)
                except OSError: continue
                if os.path.isfile(path) and not os.path.islink(path):
                    name = part + "/" + os.path.relpath(path, root)
                    found[name] = (status.st_size, status.st_mtime_ns, path)
    return found
def version(name, file):
    # As the package itself has it, without importing it: its distribution may be named otherwise.
    try:
        folder = os.path.dirname(importlib.util.find_spec(name).origin)
        with open(os.path.join(folder, file)) as text:
            found = re.search(r'''^__version__ = .*?['"]([^'"]+)['"]''', text.read(), re.M)
            return found[1]
    except Exception: return "unknown"
before = look()
head = {"vllm": version("vllm", "_version.py"), "torch": version("torch", "version.py")}
head["files"] = {k: v[0] for k, v in before.items()}
newest = max((v[1] for v in before.values()), default=0)
head["age"] = time.time() - newest / 1e9 if before else None
packed = io.BytesIO()
if read and sum(v[0] for v in before.values()) <= most:
    hidden = [v.encode() for k, v in os.environ.items()
              if len(v) > 7 and any(w in k for w in ("KEY", "TOKEN", "SECRET", "PASSWORD"))]
    secret, vanished = [], []
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(before):
            try:
                with open(before[name][2], "rb") as file: content = file.read()
            except OSError:
                vanished.append(name); continue
            if any(value in content for value in hidden): secret.append(name)
            member = tarfile.TarInfo(name); member.size = len(content)
            member.mtime = before[name][1] // 10**9
            archive.addfile(member, io.BytesIO(content))
    after = look()
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    head.update(secret=secret, changed=sorted(set(changed + vanished)), read=True)
print("HEAD " + json.dumps(head))
if head.get("read"):
    text = base64.b64encode(zlib.compress(packed.getvalue(), 6)).decode()
    for start in range(0, len(text), 65536): print("DATA " + text[start:start + 65536])
print("END")
"""
)


_TELL_DRIVER = "file=/proc/driver/nvidia/version; if [ -r $file ]; then cat $file; fi"


@dataclass(frozen=True)
class Caches:
    """What a pod's server has in its caches.

    place: what the pod has, as `modelcar.kernels.Target.place`. driver: of its cards.
    files: bytes by path. age: seconds since the newest was written.
    changed: paths that were written while they were read. secret: those that hold a secret of the server's.
    contents, times (seconds since 1970): by path; empty where only looked at.
    """

    place: str
    vllm: str
    torch: str
    driver: str
    files: Mapping[str, int]
    age: float | None = None
    changed: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)


def ask(cluster: Cluster, settings: Settings, pod: JSON) -> str | None:
    """Let the server answer a few prompts; return why it did not, None where it did."""
    try:
        said = python(cluster, settings, pod, _ASK, str(settings.server_port), settings.model_name)
    except ClusterError as error:  # too slow; what it compiled so far can be read
        return str(error)
    for line in reversed(said.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "asked" in found:
            return None if found["asked"] else str(found.get("fault") or "it answers nothing")
    return said.strip()[-200:] or "it said nothing"


def read(cluster: Cluster, settings: Settings, pod: JSON, *, contents: bool) -> Caches:
    """Look at the caches of a pod's server, or read them.

    Raises:
        ClusterError: exec is not allowed, the image has no Python, or what came back is damaged.
    """
    said = python(cluster, settings, pod, _READ, str(MOST_UNPACKED), "read" if contents else "look")
    lines = said.splitlines()
    if not lines or lines[-1] != "END":
        raise ClusterError(
            0, f"the caches were not read to their end: {said.strip()[-200:] or 'nothing came'}"
        )
    head: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("HEAD "))[5:])
    data = "".join(line[5:] for line in lines if line.startswith("DATA "))
    metadata = pod["metadata"]
    shell = f"{PLACE}modelcar_place\n{_TELL_DRIVER}"
    told = cluster.execute(
        metadata["namespace"], metadata["name"], CONTAINER, ["sh", "-c", shell]
    ).splitlines()
    return Caches(
        told[0].strip() if told else "",
        str(head["vllm"]),
        str(head["torch"]),
        _driver(told[1:]),
        {str(path): int(size) for path, size in head["files"].items()},
        head.get("age"),
        tuple(head.get("changed") or ()),
        tuple(head.get("secret") or ()),
        *(_unpacked(data) if head.get("read") else ({}, {})),
    )


def _driver(lines: list[str]) -> str:
    """Return the driver's version, of which kernels may depend on the branch."""
    for word in " ".join(lines[:1]).split():
        if word.count(".") >= 1 and word.replace(".", "").isdigit():
            return word
    return ""


def _unpacked(data: str) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the files of the archive, and their times. It comes from a pod: nothing of it is trusted."""
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(base64.b64decode(data, validate=True), 2 * MOST_UNPACKED)
        if not inflater.eof:
            raise ValueError("larger than kernels are, or cut off")
        contents, times = {}, {}
        for member, file in plain_files(io.BytesIO(content), len(content)):
            contents[member.name], times[member.name] = file, int(member.mtime)
        return contents, times
    except (ValueError, OverflowError, binascii.Error, zlib.error, tarfile.TarError) as error:
        raise ClusterError(0, f"the caches came damaged: {error}") from None
