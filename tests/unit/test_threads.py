"""Work in threads: its result, its error, and a program that ends before it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from components.engine.threads import in_thread
from tests.conftest import PROJECT


def test_results_and_errors_come_back() -> None:
    async def main() -> int:
        with pytest.raises(ValueError, match="nobody"):
            await in_thread(int, "nobody")
        return sum(await asyncio.gather(*(in_thread(int, text, base=2) for text in ("1", "10", "11"))))

    assert asyncio.run(main()) == 6


def test_a_program_that_is_cancelled_does_not_wait_for_them() -> None:
    """Ctrl-C while a rollout is waited for: the thread may sleep for half an hour."""
    program = """
        import asyncio, threading
        from components.engine.threads import in_thread

        async def main():
            await asyncio.wait_for(in_thread(threading.Event().wait), timeout=0.1)

        asyncio.run(main())
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "TimeoutError" in ended.stderr
