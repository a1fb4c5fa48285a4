"""Structured concurrency in fsspec's event loop, and the way into it from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import wait
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cachefs.errors import UsageError
from cachefs.io_loop import io_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence

T = TypeVar("T")
R = TypeVar("R")

LOOKUP_PARALLELISM: Final = 32
"""How many look-ups and listings run at a time: more than uploads, because they hold no bytes."""

SIGNAL_DELAY: Final = 0.5
"""Seconds that a waiting main thread may not notice a signal, if it arrived just before it began to
wait, or in another thread: Python handles signals only between steps of the main thread."""

CLEANUP_TIMEOUT: Final = 30.0
"""Seconds that interrupted work has to abort uploads and remove temporary files."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in fsspec's event loop, wait for it and return its result.

    If the wait is interrupted (Ctrl-C), the coroutine is cancelled, and the interrupt is raised
    once it has ended. Raises UsageError when called from inside that loop, where waiting would
    deadlock.
    """
    loop = io_loop()
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        work.close()
        raise UsageError(
            "a synchronous call would deadlock inside fsspec's IO loop: call it from another thread"
        )
    running_work = _Cancellable(work)
    interruption = _interruption.get()
    if interruption is not None:
        interruption.add(running_work, loop)
    try:
        future = asyncio.run_coroutine_threadsafe(running_work.run(), loop)
        while not wait([future], timeout=SIGNAL_DELAY).done:
            pass
        return future.result()
    except BaseException:
        running_work.cancel(loop)
        raise
    finally:
        if interruption is not None:
            interruption.discard(running_work)


class _Cancellable(Generic[T]):
    """A coroutine in the loop; another thread can cancel it at any moment and wait for its end."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._finished = threading.Event()

    async def run(self) -> T:
        self._task = asyncio.current_task()
        if self._cancelled:
            self._work.close()
            self._finished.set()
            raise asyncio.CancelledError
        try:
            return await self._work
        finally:
            self._finished.set()

    def cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the coroutine, unless it has finished, and wait until it has cleaned up.

        It may not have begun yet. Each side sets its own flag before it reads the other's, so that
        at least one of them sees both.
        """
        if self.ask_to_end(loop):
            self._finished.wait(timeout=CLEANUP_TIMEOUT)

    def ask_to_end(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Cancel the coroutine, and return whether there is something to wait for."""
        self._cancelled = True
        if self._task is None or self._finished.is_set():
            return False
        loop.call_soon_threadsafe(self._task.cancel)
        return True


class Interruption:
    """Ends what another thread waits for in :func:`run`, as Ctrl-C does in the main thread.

    It holds for the context in which :meth:`begin` was called. There, :func:`run` raises
    :class:`concurrent.futures.CancelledError` from then on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[_Cancellable[Any], asyncio.AbstractEventLoop] = {}
        self.interrupted = False

    def begin(self) -> None:
        """Let the calls of this context be interrupted."""
        _interruption.set(self)

    def interrupt(self) -> None:
        """Cancel what runs, and what is yet to run."""
        with self._lock:
            self.interrupted = True
            for work, loop in self._works.items():
                work.ask_to_end(loop)

    def add(self, work: _Cancellable[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Note work that is about to begin."""
        with self._lock:
            self._works[work] = loop
            if self.interrupted:
                work.ask_to_end(loop)

    def discard(self, work: _Cancellable[Any]) -> None:
        """Forget work that has ended."""
        with self._lock:
            self._works.pop(work, None)


_interruption: ContextVar[Interruption | None] = ContextVar("interruption", default=None)


@asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close the iterator when the block ends, as ``contextlib.aclosing`` does.

    Unlike that, it accepts iterators without ``aclose``. Use it for every ``async for`` that may
    stop early or fail: otherwise, files and connections stay open until garbage collection.
    """
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup that raises the first error itself, not inside an exception group."""
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
    """Run the work for every item, at most ``parallelism`` at a time, in the order of the items.

    The first error cancels the others and is raised.
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


async def collected(
    items: Sequence[T], work: Callable[[T], Awaitable[R]], parallelism: int
) -> list[R]:
    """Like :func:`for_each`, but return each item's result, in order."""
    found: dict[int, R] = {}

    async def one(index: int) -> None:
        found[index] = await work(items[index])

    await for_each(range(len(items)), one, parallelism)
    return [found[index] for index in range(len(items))]


class BatchError(Exception):
    """One item of a batch failed, and the rest was cancelled.

    Attributes:
        index: the item's position in the batch.
        error: what it raised.
    """

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


async def map_concurrently(
    items: Sequence[T], work: Callable[[T], Awaitable[R]], parallelism: int
) -> list[R]:
    """Like :func:`collected`, but raise BatchError, which tells the item that failed."""

    async def one(index: int) -> R:
        try:
            return await work(items[index])
        except Exception as error:
            raise BatchError(index, error) from error

    return await collected(range(len(items)), one, parallelism)
