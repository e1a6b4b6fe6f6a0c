"""Threads for work that waits: builds, signatures, rollouts.

Not asyncio's own: Pulumi's SDK registers resources in those, each for as long as it takes to make it. With as
many images as there are such threads, each would wait in one of them for a hook that no thread is left for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: At most so many at once; most of them sleep.
_THREADS = ThreadPoolExecutor(max_workers=256, thread_name_prefix="modelcar")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that blocks, and return what it returns, or raise what it raises."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(function, *args, **kwargs))
