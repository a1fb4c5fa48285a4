"""Structured concurrency in fsspec's IO loop, and the one bridge from synchronous callers to it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from fsspec.asyn import get_loop

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
    from typing import Any

T = TypeVar("T")

INTERRUPT_GRACE: Final = 30.0
"""Seconds that interrupted work has to clean up: to abort uploads and remove temporary files."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in fsspec's IO loop and wait for what it gives.

    When the waiting is interrupted (Ctrl-C), the work is cancelled and has ended before the
    interrupt goes on. Raises UsageError when called from inside the IO loop, where waiting would
    never end.
    """
    loop = get_loop()
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        work.close()
        raise UsageError("a synchronous call from inside fsspec's IO loop would wait for ever")
    over = threading.Event()
    future = asyncio.run_coroutine_threadsafe(_ending(work, over), loop)
    try:
        return future.result()
    except BaseException:
        if not over.is_set():
            future.cancel()
            over.wait(timeout=INTERRUPT_GRACE)
        raise


async def _ending(work: Coroutine[Any, Any, T], over: threading.Event) -> T:
    try:
        return await work
    finally:
        over.set()


@asynccontextmanager
async def ended(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The iterator, closed when the block ends: what it holds open is not left to the collector.

    For every ``async for`` over a stream that may be left early or end in an error.
    """
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup whose first error comes out as itself, not inside a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


async def for_each(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], parallelism: int
) -> None:
    """Do the work for every item, at most ``parallelism`` at a time, in order of the items.

    The first error ends the other workers and comes out.
    """
    todo = list(items)
    waiting = iter(todo)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    if len(todo) == 1:
        await work(todo[0])
        return
    async with task_group() as group:
        for _ in range(min(parallelism, len(todo))):
            group.create_task(worker())
