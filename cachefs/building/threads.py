"""Blocking calls of a build, in threads that end before files are removed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(
    work: Callable[..., T], *arguments: Any, stop: Callable[[], None] | None = None
) -> T:
    """Run a blocking call in a thread. When cancelled, call ``stop`` and wait for the thread.

    One that can be stopped may take long, so it has a thread of its own: the loop has few.
    """
    if stop is None:
        future = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    else:
        own = ThreadPoolExecutor(1)
        call = partial(copy_context().run, work, *arguments)
        future = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(own, call))
        own.shutdown(wait=False)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        with suppress(Exception):
            await future
        raise
