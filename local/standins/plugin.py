"""What all stand-ins share: being a plugin process of the Pulumi engine.

The engine starts a plugin with its own address as the last argument, reads one line (a port) from the
plugin's standard output, and then speaks gRPC to that port. It ends the plugin with SIGINT, and kills it
five seconds later (`plugin.go`, `ExecPlugin`, of the Pulumi SDK).
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

# Program outputs may be large; the engine's own limit is 400 MiB.
MESSAGE_LIMIT = 400 * 1024 * 1024
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
)
# A resource operation holds a worker while it waits for the cluster, so this bounds operations at a time.
WORKERS = 96
# Seconds for calls in flight to be answered once the engine has asked the plugin to end.
STOP_GRACE = 0.5

DEBUG = engine_pb2.LogSeverity.DEBUG
INFO = engine_pb2.LogSeverity.INFO
WARNING = engine_pb2.LogSeverity.WARNING
ERROR = engine_pb2.LogSeverity.ERROR


def engine_address(arguments: Sequence[str]) -> str:
    """Return the engine's address out of a plugin's arguments, "" where none is given.

    It comes last, after flags such as `--logtostderr`, `-v=9` or `--tracing ENDPOINT`.
    """
    if not arguments or arguments[-1].startswith("-"):
        return ""
    if len(arguments) > 1 and arguments[-2] == "--tracing":
        return ""
    return arguments[-1]


class EngineLog:
    """Messages to the user through the engine, or to standard error where no engine is known."""

    def __init__(self, address: str = "") -> None:
        """Address: where the engine listens, `host:port`; "" where it is not known (yet)."""
        self._lock = threading.Lock()
        self._stub: engine_pb2_grpc.EngineStub | None = None
        self._said: set[str] = set()
        self.connect(address)

    def connect(self, address: str) -> None:
        """Send what follows to the engine at this address (`host:port`); "" changes nothing."""
        if address:
            self._stub = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address, options=CHANNEL_OPTIONS))

    def say(
        self,
        message: str,
        *,
        severity: engine_pb2.LogSeverity.ValueType = INFO,
        urn: str = "",
        passing: bool = False,
    ) -> None:
        """Log one message; a passing one is shown while the resource is worked on and not kept."""
        if self._stub is not None:
            request = engine_pb2.LogRequest(severity=severity, message=message, urn=urn, ephemeral=passing)
            try:
                self._stub.Log(request, timeout=10)
                return
            except grpc.RpcError:
                if passing:
                    return  # the engine is ending; a progress line is of no use on standard error
        if not passing and severity != DEBUG:
            print(message, file=sys.stderr, flush=True)

    def say_once(self, message: str, *, severity: engine_pb2.LogSeverity.ValueType = WARNING) -> None:
        """Log a message the first time this process has it to say."""
        with self._lock:
            if message in self._said:
                return
            self._said.add(message)
        self.say(message, severity=severity)


def serve(add_service: Callable[[grpc.Server], None], on_stop: Callable[[], None]) -> int:
    """Serve until the engine ends this process or goes away itself; returns the exit code.

    on_stop is called once, before calls in flight are cut off, and has to make them return.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    server = grpc.server(ThreadPoolExecutor(max_workers=WORKERS), options=CHANNEL_OPTIONS)
    add_service(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    _watch_engine(stop)
    stop.wait()
    on_stop()
    server.stop(STOP_GRACE).wait()
    sys.stdout.flush()
    sys.stderr.flush()
    # A worker may still sit in a call to a server that does not answer; it must not keep the process.
    os._exit(0)


def _watch_engine(stop: threading.Event) -> None:
    """Set stop when the engine is gone: it holds the other end of our standard input."""
    try:
        if not stat.S_ISFIFO(os.fstat(0).st_mode):
            return  # started by hand or by a debugger: there is no engine at the other end
    except OSError:
        return

    def read() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        stop.set()

    threading.Thread(target=read, name="engine-watch", daemon=True).start()
