"""Threads that share the objects of several batches, as many at a time as a level allows."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cachefs.concurrency import BatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from cachefs.filesystems.level import Level

T = TypeVar("T")
R = TypeVar("R")

CANCEL_TIMEOUT: Final = 2.0
"""Seconds that a cancelled batch waits for the calls that its threads are in."""

TURN: Final = 64
"""Objects after which a thread returns its permit, because others may wait for it."""


class Crew:
    """Works off batches; used in one event loop.

    Args:
        threads: where the work runs.
        level: how many threads work at a time.
        permits: each thread holds one of these.
    """

    def __init__(
        self, threads: Executor, level: Level, permits: asyncio.Semaphore | None = None
    ) -> None:
        self._threads = threads
        self._level = level
        self._permits = permits
        self._lock = threading.Lock()
        self._waiting: deque[tuple[_Batch[Any, Any], int]] = deque()
        self._hired = 0
        self._turns: set[asyncio.Future[None]] = set()

    async def each(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """Call ``work`` for each item. Returns the results in order. Raises BatchError.

        After an error, and if this is cancelled, nothing more is begun, and what was begun is
        awaited, but not for long.
        """
        if not items:
            return []
        batch = _Batch(items, work)
        with self._lock:
            self._waiting.extend((batch, index) for index in range(len(items)))
        self._hire(batch.loop)
        try:
            return await asyncio.shield(batch.results)
        except BaseException:
            batch.stop()
            await asyncio.wait({batch.left}, timeout=CANCEL_TIMEOUT)
            raise

    def _hire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let more threads begin, if there is something to do for them. Runs in the loop."""
        with self._lock:
            more = min(self._level.limit - self._hired, len(self._waiting))
            self._hired += max(0, more)
        for _ in range(more):
            if self._permits is None:
                self._threads.submit(self._work, loop)
            else:
                turn = asyncio.ensure_future(self._turn(loop, self._permits))
                self._turns.add(turn)
                turn.add_done_callback(self._turns.discard)

    async def _turn(self, loop: asyncio.AbstractEventLoop, permits: asyncio.Semaphore) -> None:
        async with permits:
            await loop.run_in_executor(self._threads, self._work, loop)
        self._hire(loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work off what waits. Runs in a thread."""
        done = 0
        while True:
            with self._lock:
                limit = self._level.limit
                turn_ends = self._permits is not None and done == TURN
                if turn_ends or not self._waiting or self._hired > limit:
                    self._hired -= 1
                    return
                batch, index = self._waiting.popleft()
                could_be_more = self._waiting and self._hired < limit
            if could_be_more:
                loop.call_soon_threadsafe(self._hire, loop)
            batch.work_off(index)
            done += 1


class _Batch(Generic[T, R]):
    """Items that belong together: all have a result, or one has an error."""

    def __init__(self, items: Sequence[T], work: Callable[[T], R]) -> None:
        self.loop = asyncio.get_running_loop()
        self.results: asyncio.Future[list[R]] = self.loop.create_future()
        self.left: asyncio.Future[None] = self.loop.create_future()
        # So that asyncio does not warn if no one waits any more.
        self.results.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._items = items
        self._work = work
        self._found: dict[int, R] = {}
        self._lock = threading.Lock()
        self._running = 0
        self._stopped = False

    def work_off(self, index: int) -> None:
        """Do the work for one item, unless the batch was stopped."""
        with self._lock:
            if self._stopped:
                return
            self._running += 1
        try:
            found = self._work(self._items[index])
        except Exception as error:  # noqa: BLE001 - it is raised where the batch is awaited
            failure = BatchError(index, error)
            failure.__cause__ = error
            self._end(failure)
        else:
            self._found[index] = found
            if len(self._found) == len(self._items):
                self._end(None)
        with self._lock:
            self._running -= 1
            is_left = self._stopped and not self._running
        if is_left:
            self.loop.call_soon_threadsafe(self._leave)

    def stop(self) -> None:
        """Begin nothing more. Runs in the loop."""
        with self._lock:
            self._stopped = True
            is_left = not self._running
        if is_left:
            self._leave()

    def _end(self, error: BatchError | None) -> None:
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self.loop.call_soon_threadsafe(self._deliver, error)

    def _deliver(self, error: BatchError | None) -> None:
        if self.results.done():
            return
        if error is not None:
            self.results.set_exception(error)
        else:
            self.results.set_result([self._found[index] for index in range(len(self._items))])

    def _leave(self) -> None:
        if not self.left.done():
            self.left.set_result(None)
