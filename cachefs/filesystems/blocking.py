"""Families whose library answers a thread that waits sooner than an event loop.

A call that is handed to a thread or to a library's own loop, and its answer back, costs more than
most small objects do. So threads share a group: each takes the next object, until none is left.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from cachefs.concurrency import LOOKUP_PARALLELISM, BatchError, for_each, max_concurrent_calls
from cachefs.filesystems.base import Filesystem, Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)

LAST_CALL: Final = 2.0
"""Seconds that a cancelled group waits for the calls that its threads are in."""


class BlockingFilesystem(Filesystem):
    """A filesystem with blocking calls for small objects, whose names end in ``_now``.

    They are called in threads of its own: asyncio's have no place for as many as wait for a server.
    """

    side_by_side = True
    """Whether several threads share a group; one does where they only wait for the interpreter."""

    @abstractmethod
    def stat_now(self, path: str) -> Stat | None:
        """As :meth:`stat`."""

    @abstractmethod
    def read_now(self, item: tuple[str, int]) -> bytes:
        """All bytes of an object with its size, or one more where it is longer."""

    @abstractmethod
    def put_now(self, item: tuple[str, bytes]) -> None:
        """As :meth:`put`, but it lasts only after :meth:`settle`."""

    @abstractmethod
    def touch_now(self, stat: Stat) -> None:
        """As :meth:`touch`."""

    async def stat(self, path: str) -> Stat | None:
        """What is at the path, None where nothing is."""
        return await self._in_thread(self.stat_now, path)

    async def touch(self, stat: Stat) -> None:
        """Renew the object's time without sending its bytes. Raises FileNotFoundError."""
        await self._in_thread(self.touch_now, stat)

    async def stat_batch(self, paths: Sequence[str]) -> Sequence[Stat | None]:
        """What is at each path, None where nothing is."""
        return await self._shared(paths, self.stat_now, LOOKUP_PARALLELISM)

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | Exception]:
        """Objects with their sizes: the bytes of each, or the error that it failed with."""
        read = _returning(Exception, self.read_now)
        return await self._shared(objects, read, self.parallelism, self.permits)

    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects, each seen whole or not at all."""
        await self._shared(objects, self.put_now, self.parallelism, self.permits)

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the time of each, or the error of those that are gone."""
        return await self._shared(
            stats, _returning(FileNotFoundError, self.touch_now), LOOKUP_PARALLELISM
        )

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            max_concurrent_calls(self.parallelism), thread_name_prefix="cachefs"
        )

    async def _in_thread(self, work: Callable[[T], R], item: T) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, item)

    async def _shared(
        self,
        items: Sequence[T],
        work: Callable[[T], R],
        at_a_time: int,
        permits: asyncio.Semaphore | None = None,
    ) -> list[R]:
        """As :func:`cachefs.concurrency.map_concurrently`; each thread holds one of the places."""
        found: dict[int, R] = {}
        waiting = deque(enumerate(items))

        def take_turns(waiting: deque[tuple[int, T]]) -> None:
            while waiting:
                try:
                    index, item = waiting.popleft()
                except IndexError:
                    return  # another thread was quicker
                try:
                    found[index] = work(item)
                except Exception as error:
                    waiting.clear()
                    raise BatchError(index, error) from error

        async def turns(_: int) -> None:
            async with permits or nullcontext():
                turn = asyncio.ensure_future(self._in_thread(take_turns, waiting))
                # Its error is nobody's when another thread's came first.
                turn.add_done_callback(lambda done: done.cancelled() or done.exception())
                try:
                    await asyncio.shield(turn)
                except asyncio.CancelledError:
                    waiting.clear()
                    await asyncio.wait({turn}, timeout=LAST_CALL)
                    raise

        threads = min(at_a_time, len(items)) if self.side_by_side else 1
        await for_each(range(threads), turns, threads)
        return [found[index] for index in range(len(items))]


def _returning(kind: type[E], work: Callable[[T], R]) -> Callable[[T], R | E]:
    """The work, which returns errors of this kind in place of raising them."""

    def caught(item: T) -> R | E:
        try:
            return work(item)
        except kind as error:
            return error

    return caught
