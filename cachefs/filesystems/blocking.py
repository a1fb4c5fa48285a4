"""Filesystems whose blocking calls are faster than their asynchronous ones.

Handing a call to a thread or to a library's own event loop, and its result back, takes longer than
the work on most small objects. So threads share a batch: each takes the next object until none is
left.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from cachefs.concurrency import LOOKUP_PARALLELISM, BatchError, for_each, max_concurrent_calls
from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)

CANCEL_TIMEOUT: Final = 2.0
"""Seconds that a cancelled batch waits for the calls that its threads are in."""


class BlockingFilesystem(Filesystem):
    """A filesystem with blocking calls for small objects: methods whose names end in ``_sync``.

    They run in this filesystem's own threads, because asyncio has fewer threads than may wait for a
    server.
    """

    _several_threads = True
    """Whether several threads share a batch; False if they would only wait for the GIL."""

    @abstractmethod
    def _stat_sync(self, path: str) -> Stat | None:
        """Look up the path. Returns None if there is no object."""

    @abstractmethod
    def _read_sync(self, item: tuple[str, int]) -> bytes:
        """Read all bytes of an object of this size, or one more if it is longer."""

    @abstractmethod
    def _put_sync(self, item: tuple[str, bytes]) -> None:
        """Write an object; it is seen whole or not at all, and durable after :meth:`settle`."""

    @abstractmethod
    def _touch_sync(self, stat: Stat) -> None:
        """Renew the object's time. Raises FileNotFoundError."""

    async def stat_batch(self, paths: Sequence[str]) -> Sequence[Stat | None]:
        """Look up each path. Returns None for paths without an object."""
        return await self._shared(paths, self._stat_sync, LOOKUP_PARALLELISM)

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | Exception]:
        """Read objects, given by path and size: the bytes of each, or its error."""
        read = _returning(Exception, self._read_sync)
        return await self._shared(objects, read, self.parallelism, self.permits)

    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects, each seen whole or not at all."""
        await self._shared(objects, self._put_sync, self.parallelism, self.permits)

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the times of objects. Returns None or an error for each."""
        touch = _returning(FileNotFoundError, self._touch_sync)
        return await self._shared(stats, touch, LOOKUP_PARALLELISM)

    async def _stat(self, path: str) -> Stat | None:
        return await self._in_thread(self._stat_sync, path)

    async def _touch(self, stat: Stat) -> None:
        await self._in_thread(self._touch_sync, stat)

    @cached_property
    def _threads(self) -> DaemonThreads:
        return DaemonThreads(max_concurrent_calls(self.parallelism), "cachefs")

    async def _in_thread(self, work: Callable[[T], R], item: T) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, item)

    async def _shared(
        self,
        items: Sequence[T],
        work: Callable[[T], R],
        at_a_time: int,
        permits: asyncio.Semaphore | None = None,
    ) -> list[R]:
        """Like :func:`cachefs.concurrency.map_concurrently`, but each thread holds a permit."""
        found: dict[int, R] = {}
        waiting = deque(enumerate(items))

        def work_off(waiting: deque[tuple[int, T]]) -> None:
            while waiting:
                try:
                    index, item = waiting.popleft()
                except IndexError:
                    return  # another thread was faster
                try:
                    found[index] = work(item)
                    self.patience.progressed()
                except Exception as error:
                    waiting.clear()
                    raise BatchError(index, error) from error

        async def one_thread(_: int) -> None:
            async with permits or nullcontext():
                running = asyncio.ensure_future(self._in_thread(work_off, waiting))
                # Retrieve the exception so that asyncio does not warn if another thread failed
                # first.
                running.add_done_callback(lambda done: done.cancelled() or done.exception())
                try:
                    await asyncio.shield(running)
                except asyncio.CancelledError:
                    waiting.clear()
                    await asyncio.wait({running}, timeout=CANCEL_TIMEOUT)
                    raise

        threads = min(at_a_time, len(items)) if self._several_threads else 1
        await for_each(range(threads), one_thread, threads)
        return [found[index] for index in range(len(items))]


def _returning(kind: type[E], work: Callable[[T], R]) -> Callable[[T], R | E]:
    """Wrap the work so that it returns errors of this type instead of raising them."""

    def caught(item: T) -> R | E:
        try:
            return work(item)
        except kind as error:
            return error

    return caught
