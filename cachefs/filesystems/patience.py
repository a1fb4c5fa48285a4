"""How long a store may go without progress, whatever its library does in the meantime.

Libraries limit single attempts, each in its own way: the silence before a response, between two
packets, or a whole request however much it moves. Here the limit is the silence of the store,
retries included: a slow transfer has all the time it needs, and a dead store has not.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachefs.filesystems.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

PATIENCE: Final = 60.0
"""The default in seconds."""

CHECKS: Final = 16
"""How often the silence is measured before it is too long."""

TRAFFIC_ONLY: Final = 600.0
"""Seconds that packets alone count as progress, because they may be another store's.

S3 takes a request for 15 minutes after it was signed, so a part that takes longer fails anyway.
"""

EXPLAINED: Final = 10.0
"""Seconds that a store has to say why it refused a request."""

CLEANUP: Final = 3.0
"""Seconds that a cancelled write has to abort its upload or to delete its temporary object."""


class NoProgressError(TimeoutError):
    """The store made no progress for as long as the patience lasts.

    Attributes:
        seconds: the patience.
        again: whether nothing was requested, because the store had been given up before.
    """

    def __init__(self, seconds: float, *, again: bool = False) -> None:
        super().__init__(f"no progress for {seconds:g} seconds")
        self.seconds = seconds
        self.again = again


class Patience:
    """Measures the silence of one store, for all calls to it.

    Args:
        seconds: how long a call may go without progress of any call; None for no limit.

    Attributes:
        once: set it to make all calls fail immediately after one that took too long.
        exhausted: whether a call took too long.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.once = False
        self.exhausted = False
        self._progressed = -float("inf")
        self._at_sources = 0
        self._traffic = Traffic()

    @property
    def given_up(self) -> bool:
        """Whether nothing more is requested."""
        return self.once and self.exhausted

    def progressed(self) -> None:
        """Note that bytes were sent or received, or that a request was answered."""
        self._progressed = time.monotonic()

    @contextmanager
    def at_the_source(self) -> Iterator[None]:
        """While the block runs, bytes to be sent are awaited: this is no silence of the store."""
        self._at_sources += 1
        try:
            yield
        finally:
            self._at_sources -= 1
            self.progressed()

    async def bound(self, work: Coroutine[Any, Any, T], more: float = 0.0) -> T:
        """Await the work. It is cancelled, and NoProgressError raised, if nothing progresses.

        ``more`` are seconds in which the store is expected to be silent.
        """
        if self.seconds is None:
            return await work
        if self.given_up:
            work.close()
            raise NoProgressError(self.seconds, again=True)
        # A task of its own, because some libraries ignore that they are cancelled.
        task = asyncio.ensure_future(work)
        began = time.monotonic()
        silence = 0.0
        interval = self.seconds / CHECKS
        try:
            while silence < self.seconds + more:
                checked = time.monotonic()
                await asyncio.wait({task}, timeout=interval)
                if task.done():
                    self.progressed()
                    return task.result()
                # A process that was stopped, or too busy to look, does not know what moved.
                passed = min(time.monotonic() - checked, 2 * interval)
                silence = 0.0 if self._has_moved(checked, began) else silence + passed
            self.exhausted = True
            raise NoProgressError(self.seconds + more)
        finally:
            if not task.done():
                await _cancelled(task)

    async def briefly(self, work: Coroutine[Any, Any, object]) -> None:
        """Await the work, which is not essential, for at most :data:`EXPLAINED` seconds."""
        try:
            async with asyncio.timeout(min(EXPLAINED, self.seconds or EXPLAINED)) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise

    def _has_moved(self, since: float, began: float) -> bool:
        """Whether there was progress since that time, for a call that began at another."""
        if self._at_sources:
            self.progressed()
        moved = self._traffic.last_moved((self.seconds or 0.0) / CHECKS / 2)
        by_traffic = moved > since and since < max(began, self._progressed) + TRAFFIC_ONLY
        return self._progressed > since or by_traffic


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel the task and wait until it has cleaned up, but not for long."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    for _ in range(2):
        task.cancel()
        await asyncio.wait({task}, timeout=CLEANUP)
        if task.done():
            return


async def attempted(work: Coroutine[Any, Any, object]) -> None:
    """Await a cleanup for at most :data:`CLEANUP` seconds, and ignore its errors.

    It goes on if the caller is cancelled meanwhile, and after that time.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({task}, timeout=CLEANUP)
