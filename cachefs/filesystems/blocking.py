"""Filesystems whose blocking calls are faster than their asynchronous ones.

Handing a call to a thread or to a library's own event loop, and its result back, takes longer than
the work on most small objects. So threads share batches: each takes the next object until none is
left.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.crew import Crew
from cachefs.filesystems.level import Level, max_concurrent_calls, pause_after
from cachefs.filesystems.s3_failures import is_refused
from cachefs.filesystems.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)


class BlockingFilesystem(Filesystem):
    """A filesystem with blocking calls for small objects: methods whose names end in ``_sync``.

    They run in this filesystem's own threads, because asyncio has fewer threads than may wait for a
    server.
    """

    _several_threads = True
    """Whether several threads share a batch; False if they would only wait for the GIL."""

    _at_first: BlockingFilesystem | None = None
    """The same filesystem without the retries of its library, which would hide refusals."""

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

        def look_up(fs: BlockingFilesystem, path: str) -> Stat | None:
            return fs._stat_sync(path)

        return await self._each_sync(self.levels.look_ups, paths, look_up)

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | Exception]:
        """Read objects, given by path and size: the bytes of each, or its error."""

        def read(fs: BlockingFilesystem, item: tuple[str, int]) -> bytes:
            return fs._read_sync(item)

        return await self._each_sync(self.levels.reads, objects, read, Exception)

    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects, each seen whole or not at all."""

        def put(fs: BlockingFilesystem, item: tuple[str, bytes]) -> None:
            fs._put_sync(item)

        await self._each_sync(self.levels.writes, objects, put)

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the times of objects. Returns None or an error for each."""

        def touch(fs: BlockingFilesystem, stat: Stat) -> None:
            fs._touch_sync(stat)

        return await self._each_sync(self.levels.touches, stats, touch, FileNotFoundError)

    async def _stat(self, path: str) -> Stat | None:
        return await self._in_thread(self._stat_sync, path)

    async def _touch(self, stat: Stat) -> None:
        await self._in_thread(self._touch_sync, stat)

    async def _in_thread(self, work: Callable[[T], R], item: T) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, item)

    async def _each_sync(
        self,
        level: Level,
        items: Sequence[T],
        call: Callable[[BlockingFilesystem, T], R],
        returned: type[E] | tuple[()] = (),
    ) -> list[Any]:
        """Call for each item, in threads; errors of the type ``returned`` are its result."""

        def measured(item: T) -> R | E:
            try:
                found = self._measured(level, call, item)
            except returned as error:
                return error
            self.patience.progressed()
            return found

        return await self._crew(level).each(items, measured)

    def _measured(self, level: Level, call: Callable[[BlockingFilesystem, T], R], item: T) -> R:
        """Call, and again after a while if the server says that it has too much to do."""
        running, refusals = level.call(), 0
        try:
            while True:
                try:
                    return call(self._at_first or self, item)
                except Exception as error:
                    if not is_refused(error) or refusals == self.refusals:
                        if self._at_first is None or not self._may_succeed(error):
                            raise
                        return call(self, item)
                refusals += 1
                self.patience.progressed()
                pause = pause_after(refusals)
                running.refused(pause)
                time.sleep(pause)
        finally:
            running.ended()

    def _may_succeed(self, error: Exception) -> bool:  # noqa: ARG002 - for those that try again
        """Whether a call that failed with this error may succeed if it is tried again."""
        return False

    @cached_property
    def _threads(self) -> DaemonThreads:
        return DaemonThreads(max_concurrent_calls(self.parallelism), "cachefs")

    @cached_property
    def _crews(self) -> dict[Level, Crew]:
        return {}

    def _crew(self, level: Level) -> Crew:
        """The threads for the calls of a level."""
        permits = self._permits_of(level)
        if not self._several_threads:
            return Crew(self._threads, Level.fixed(1), permits)
        return self._crews.setdefault(level, Crew(self._threads, level, permits))
