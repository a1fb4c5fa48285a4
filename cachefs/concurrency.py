"""Structured concurrency in fsspec's IO loop, and the one bridge from synchronous callers to it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from fsspec.asyn import get_loop

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
    from typing import Any

T = TypeVar("T")
R = TypeVar("R")

LOOKUPS: Final = 32
"""Look-ups and listings under way at a time: they hold no bytes, so more than uploads."""

INTERRUPT_GRACE: Final = 30.0
"""Seconds that interrupted work has to clean up: to abort uploads and remove temporary files."""


def calls(parallelism: int) -> int:
    """Calls of one filesystem under way at most: to look up, and to read and to write meanwhile."""
    return LOOKUPS + 2 * parallelism


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
    running_work = _Work(work)
    try:
        return asyncio.run_coroutine_threadsafe(running_work.done(), loop).result()
    except BaseException:
        running_work.end(loop)
        raise


class _Work(Generic[T]):
    """A coroutine in the loop, which a thread can end at any moment and wait for."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._unwanted = False
        self._over = threading.Event()

    async def done(self) -> T:
        self._task = asyncio.current_task()
        if self._unwanted:
            self._work.close()
            raise asyncio.CancelledError
        try:
            return await self._work
        finally:
            self._over.set()

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the work and wait until it has cleaned up; one that is over is left alone.

        The interrupt may come before the work has begun: each side writes its mark before it
        looks at the other's, so that one of them sees both.
        """
        self._unwanted = True
        if self._task is not None and not self._over.is_set():
            loop.call_soon_threadsafe(self._task.cancel)
            self._over.wait(timeout=INTERRUPT_GRACE)


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


class OneFailed(Exception):  # noqa: N818 - it is no error of its own, but says whose it is
    """One of many ended in this error, and so did the rest.

    Attributes:
        index: which one.
        error: what it ended in.
    """

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


async def results(
    items: Sequence[T], work: Callable[[T], Awaitable[R]], parallelism: int
) -> list[R]:
    """What the work gives for each item, in order. Raises OneFailed."""
    found: dict[int, R] = {}

    async def one(index: int) -> None:
        try:
            found[index] = await work(items[index])
        except Exception as error:
            raise OneFailed(index, error) from error

    await for_each(range(len(items)), one, parallelism)
    return [found[index] for index in range(len(items))]
