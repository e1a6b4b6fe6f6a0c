"""Programs that Ctrl-C reaches by themselves, and that are waited for: Pulumi, and commands that run it.

`subprocess.run` kills a program a quarter of a second after Ctrl-C. Pulumi takes longer to end the operations
that are under way and to release the stack's lock; killed, it leaves both behind.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def run_to_end(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as `subprocess.run` does, and wait for its end after Ctrl-C too.

    The terminal sends Ctrl-C to the program as well, each time. What it does then is its own matter: Pulumi
    finishes what is under way at the first one, and ends at once at the second.

    Args:
        command: the program and its arguments.
        options: of `subprocess.run`; output is text.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile; the program has ended.
    """
    with waited_for(Path(command[0]).name):
        return subprocess.run(command, **{"text": True, "check": False, **options})


@contextmanager
def waited_for(name: str) -> Iterator[None]:
    """Let Ctrl-C not interrupt the block, in which a program is started and waited for.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile; at the end of the block.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # then nothing interrupts the wait
        yield
        return
    interrupted = False

    def note(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            print(f"interrupted: waiting until {name} has ended", file=sys.stderr, flush=True)
        interrupted = True

    former = signal.signal(signal.SIGINT, note)  # a program that is started has the default one
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
        if interrupted:  # whatever it ended with
            raise KeyboardInterrupt
