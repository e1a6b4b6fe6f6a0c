"""Threads for work that waits: builds, signatures, rollouts.

Not asyncio's own: Pulumi's SDK registers resources in those, each for as long as it takes to make it. With as
many images as there are such threads, each would wait in one of them for a hook that no thread is left for.
And not an executor's: Python waits for those before it ends, so that a program that is cancelled would go on
until the last rollout is over.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that blocks, and return what it returns, or raise what it raises.

    The program can end before the function does.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if done.done() else set_it())

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            raised = error
            tell(lambda: done.set_exception(raised))
        else:
            tell(lambda: done.set_result(result))

    threading.Thread(target=run, name=f"modelcar-{function}", daemon=True).start()
    return await done
