"""A real Chromium without a window, driven by its DevTools protocol: opens a page and notes what fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import websocket

from local.debian import unpack_debian
from local.instance import cache_root
from modelcar.errors import refuse

#: Programs that speak the protocol, as machines name them.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: Debian's package of the smallest of them: it has no window, and needs fewer libraries.
PACKAGE = "chromium-headless-shell"
#: Patience in seconds, for an answer and for a condition.
SECONDS = 30.0

_FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none; it opens this project's own pages only
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-port=0",
    # Whatever a page asks of another host fails here, and is told.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def command() -> tuple[list[str], dict[str, str]]:
    """Return how to start a browser, and its environment: one on PATH, else Debian's in the cache.

    Raises:
        InputError: there is none, and none can be unpacked here.
    """
    if found := next(filter(None, map(shutil.which, PROGRAMS)), None):
        return [found], {}
    root = cache_root() / "browser"
    program = root / "usr/lib/chromium" / PACKAGE
    if not program.exists():
        unpack_debian(_lacking(), root)
    # Also those that lie one folder deeper, as pulseaudio's.
    folders = [*root.glob("usr/lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu/*/")]
    libraries = ":".join(map(str, folders))
    return [str(program)], {"LD_LIBRARY_PATH": libraries}


def _lacking() -> list[str]:
    """Ask apt what it would install for it: the names of libraries differ between Debian's versions."""
    simulated = ["apt-get", "--simulate", "-o", "Debug::NoLocking=1", "install", "--no-install-recommends"]
    found: list[str] = []
    if shutil.which("apt-get"):
        said = subprocess.run([*simulated, PACKAGE], capture_output=True, text=True, check=False).stdout
        found = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
    if not found:
        raise refuse(
            "a browser",
            "not on PATH, and apt-get has none",
            allowed=", ".join(PROGRAMS),
            fix="install Chromium or Chrome, then run the test again",
        )
    return found


@dataclass
class Browser:
    """One page of a running browser."""

    socket: websocket.WebSocket
    requests: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    loaded: bool = False
    _last: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer; events that come before it are noted."""
        self._last += 1
        self.socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = self._next()
            if message.get("id") == self._last:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the window's size, and whether the reader's system is dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Open a page and wait until it has loaded; forget what was noted of the page before."""
        self.act(lambda: self.call("Page.navigate", url=url))

    def act(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait until that has loaded."""
        self.requests.clear()
        self.faults.clear()
        self.loaded = False
        act()
        while not self.loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """Return what an expression gives in the page; a promise is waited for."""
        said = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise AssertionError(f"{expression[:80]}: {said['exceptionDetails']}")
        return said["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true in the page, looked at with each of its pictures."""
        self.value(
            "new Promise((good, bad) => { const end = performance.now() + "
            f"{SECONDS * 900}; const look = () => ({condition}) ? good(true) : performance.now() > end ? "
            f"bad(new Error('never: ' + {json.dumps(condition)})) : requestAnimationFrame(look); look() }})"
        )

    def _next(self) -> Mapping[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv())
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, event: Mapping[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self.loaded = True
            case "Network.requestWillBeSent":
                self.requests[event["requestId"]] = event["request"]["url"]
            case "Network.responseReceived" if event["response"]["status"] >= 400:
                self.faults.append(f"{event['response']['status']} of {event['response']['url']}")
            case "Network.loadingFailed" if not event.get("canceled"):
                url = self.requests.get(event["requestId"], "a request")
                self.faults.append(f"{url}: {event['errorText']}")
            case "Runtime.exceptionThrown":
                details = event["exceptionDetails"]
                self.faults.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if event["type"] in {"error", "assert"}:
                shown = [str(arg.get("value", arg.get("description"))) for arg in event["args"]]
                self.faults.append(f"console.{event['type']}: {' '.join(shown)}")
            case "Log.entryAdded" if event["entry"]["level"] == "error":
                self.faults.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser and yield its page.

    Raises:
        InputError: there is none (`command`).
        RuntimeError: it does not start; with its last words.
    """
    program, variables = command()
    with tempfile.TemporaryDirectory(prefix="modelcar-browser-") as folder:
        process = subprocess.Popen(
            [*program, *_FLAGS, f"--user-data-dir={folder}/profile", "about:blank"],
            env={**os.environ, **variables, "HOME": folder},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield from _connected(process)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _connected(process: subprocess.Popen[str]) -> Iterator[Browser]:
    errors = process.stderr
    assert errors is not None
    said: list[str] = []
    for line in errors:
        said.append(line.strip())
        if port := re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            break
    else:
        raise RuntimeError(f"the browser does not start: {' | '.join(said[-5:])}")
    # What it says later is read and dropped: a full pipe would stop it.
    threading.Thread(target=errors.read, daemon=True).start()
    targets = httpx.get(f"http://127.0.0.1:{port[1]}/json/list", timeout=SECONDS, trust_env=False).json()
    [address] = [target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"]
    page = Browser(websocket.create_connection(address, timeout=SECONDS, suppress_origin=True))
    try:
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        page.socket.close()
