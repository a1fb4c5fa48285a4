"""How many calls of a kind run at a time: a number that is found, because no one can know it.

It depends on the round trip, on the server and on this machine. In a time in which as many calls
run as are allowed, throughput times the time of an undisturbed call is the number that would have
been enough; this is Little's law. Twice that number is allowed next. So the number doubles as long
as throughput does, and ends where more calls would only wait for one another: at four on the same
machine, at a hundred behind a line of 20 ms.

A server that says that it has too much to do (503, 429) halves the number, and from then on it
grows by an eighth at a time. If the server refuses as many of an eighth of the calls, it does not
refuse them for their number, which is then as before.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from cachefs.concurrency import LOOKUP_PARALLELISM, map_concurrently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")
R = TypeVar("R")

PARALLELISM: Final = 4
"""How many large objects are sent or fetched at a time by default, as builders do."""

START: Final = 16
LEAST: Final = 4
"""Calls that are allowed whatever is measured, unless the server refuses them."""

GAIN: Final = 2.0
FALL: Final = 0.7
"""What is left of the number at least after one measurement: a single pause is no congestion."""

REFUSED: Final = 0.1
"""The share of refused calls above which the number is halved."""

HALVINGS: Final = 3
"""After so many in a row that did not help, calls are not refused for their number."""

MEASURED: Final = 16
"""Calls after which the number is adjusted, at least."""

MEASURED_REFUSALS: Final = 32
"""The same if some were refused: fewer say little about their share."""

AGAIN_AFTER: Final = 10.0
"""Seconds after which the undisturbed time is measured again, with a quarter of the calls."""


class Level:
    """How many calls of one kind may run at a time. Safe for threads.

    Args:
        most: the number is never higher.
        start: the number at the beginning.
        least: the number is lower only if the server refuses calls.
        clock: seconds.

    Attributes:
        limit: the number now.
        most: as given.
    """

    def __init__(
        self,
        most: int,
        start: int = START,
        least: int = LEAST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.limit = min(start, most)
        self._least = min(least, most)
        self._clock = clock
        self._lock = Lock()
        self._ceiling = most
        self._undisturbed = float("inf")
        self._measured_at = clock()
        self._resumes_at: int | None = None
        self._halvings: list[tuple[int, float]] = []
        self._usual_share = 0.0
        self._valid_from = -float("inf")
        self._running = 0
        self._begin()
        self._idle_since = self._since

    @classmethod
    def fixed(cls, number: int) -> Level:
        """A level that never changes."""
        return cls(number, number, number)

    def call(self) -> Call:
        """Note that a call begins."""
        now = self._clock()
        with self._lock:
            if not self._running:
                self._since += now - self._idle_since  # a time without calls says nothing
            self._running += 1
        return Call(self, now)

    def _refused(self, began: float) -> None:
        """Note that the server refused a request that was sent at this time."""
        with self._lock:
            if began >= self._valid_from:
                self._refusals += 1
                self._adjust_if_due(self._clock())

    def _ended(self, began: float, sent: float) -> None:
        """Note the end of a call, and when its last request was sent."""
        now = self._clock()
        with self._lock:
            self._running -= 1
            self._idle_since = now
            self._busy += now - began
            if sent < self._valid_from:
                return
            self._calls += 1
            if sent == began:
                self._undelayed += 1
                self._seconds += now - began
            self._adjust_if_due(now)

    def _adjust_if_due(self, now: float) -> None:
        enough = MEASURED_REFUSALS if self._refusals else MEASURED
        if self._calls + self._refusals >= max(self.limit, enough):
            self._adjust(now - self._since)
            self._begin()

    def _begin(self) -> None:
        self._since = self._clock()
        self._busy = self._seconds = 0.0
        self._calls = self._undelayed = self._refusals = 0
        if self._resumes_at is not None or self._halvings:
            self._valid_from = self._since  # what began before shows what more calls did

    def _adjust(self, elapsed: float) -> None:
        share = self._refusals / (self._calls + self._refusals)
        if self._backs_off(share) or not self._undelayed:
            return
        mean = self._seconds / self._undelayed
        if self._resumes_at is not None:
            self._undisturbed, self._measured_at = mean, self._since
            self.limit, self._resumes_at = min(self._resumes_at, self._ceiling), None
            return
        if self._undisturbed == float("inf"):
            self._measured_at = self._since
        self._undisturbed = min(self._undisturbed, mean)
        used = min(float(self.limit), self._busy / elapsed if elapsed else float(self.limit))
        if used < self.limit / 2:
            return  # nothing had to wait for a call to end
        if self._since - self._measured_at > AGAIN_AFTER:
            self._resumes_at, self.limit = self.limit, max(self._least, self.limit // 4)
            return
        enough = GAIN * used * (self._undisturbed / mean if mean else 1.0)
        self.limit = self._within(int(max(enough, self.limit * FALL)))

    def _within(self, number: int) -> int:
        return min(self._ceiling, max(self._least, number))

    def _backs_off(self, share: float) -> bool:
        """Whether the number was changed because calls were refused."""
        usual = self._usual_share
        by_chance = 2 * math.sqrt(usual * (1 - usual) / (self._calls + self._refusals))
        if share <= REFUSED + usual + by_chance:
            self._halvings.clear()
            self._usual_share = 0.9 * usual + 0.1 * share if usual else 0.0
            self._ceiling = min(self.most, self._ceiling + 1 + self._ceiling // 8)
            return False
        if len(self._halvings) == HALVINGS:
            limit, share_before = self._halvings[0]
            shares = [share, *(each for _, each in self._halvings)]
            self._halvings.clear()
            if share > share_before / 2:
                self._usual_share = min(0.5, sum(shares) / len(shares))
                self._ceiling, self.limit = self.most, limit
                return True
        self._halvings.append((self.limit, share))
        self._ceiling = self.limit = max(1, self.limit // 2)
        return True


class Call:
    """A call that runs at a level."""

    def __init__(self, level: Level, began: float) -> None:
        self._level = level
        self._began = self._sent = began

    def refused(self, pause: float) -> None:
        """Note that the server refused its request, which is sent again after so many seconds."""
        self._level._refused(self._sent)
        self._sent = self._level._clock() + pause

    def ended(self) -> None:
        """Note its end."""
        self._level._ended(self._began, self._sent)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def refused(pause: float) -> None:
    """Note that the server refused a request of the call that runs in this context."""
    call = _current.get()
    if call is not None:
        call.refused(pause)


def _most() -> int:
    """Calls of a kind at a time that leave most of the open files that a process may have."""
    try:
        import resource  # noqa: PLC0415 - Windows does not have it
    except ImportError:
        return 256
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else max(LEAST, min(256, soft // 4))


MOST: Final = _most()
"""Calls of a kind at a time, whatever is measured."""


def max_concurrent_calls(parallelism: int) -> int:
    """The maximum number of concurrent calls to one filesystem, small and large."""
    return MOST + 2 * parallelism


class Levels(NamedTuple):
    """The levels of the calls to a store that concern one small object each."""

    look_ups: Level
    reads: Level
    writes: Level
    touches: Level

    @classmethod
    def fixed(cls, parallelism: int) -> Levels:
        """Levels that never change, for stores that are no servers of many clients."""
        numbers = LOOKUP_PARALLELISM, parallelism, parallelism, LOOKUP_PARALLELISM
        return cls(*map(Level.fixed, numbers))

    @classmethod
    def found(cls, bound: int | None) -> Levels:
        """Levels that are found; that of writes begins with ``bound`` and is never higher."""
        look_ups, touches = (Level(MOST, LOOKUP_PARALLELISM) for _ in range(2))
        writes = Level(MOST) if bound is None else Level(bound, bound)
        return cls(look_ups, Level(MOST), writes, touches)


REFUSALS: Final = 16
"""How often a refused call is repeated, which takes 20 seconds."""


def pause_after(refusals: int) -> float:
    """Seconds to wait after so many refusals in a row; random, so that not all return at once."""
    return random.uniform(0.5, 1.0) * min(2.0, 0.05 * 1.6 ** (refusals - 1))  # noqa: S311


class Gate:
    """Lets as many coroutines run at a time as a level allows.

    Args:
        level: how many.
        permits: each needs one of these as well.
    """

    def __init__(self, level: Level, permits: asyncio.Semaphore | None = None) -> None:
        self._level = level
        self._permits = permits
        self._size = level.limit
        self._free = asyncio.Semaphore(self._size)

    async def each(self, items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
        """Call ``work`` for each item. Returns the results in order. Raises BatchError."""

        async def one(item: T) -> R:
            async with self._pass():
                return await work(item)

        return await map_concurrently(items, one, self._level.most)

    @asynccontextmanager
    async def _pass(self) -> AsyncIterator[None]:
        permits: AbstractAsyncContextManager[Any] = self._permits or nullcontext()
        await self._free.acquire()
        try:
            async with permits:
                call = self._level.call()
                token = _current.set(call)
                try:
                    yield
                finally:
                    _current.reset(token)
                    call.ended()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Let others in: as many as fit by now."""
        if self._size > self._level.limit:
            self._size -= 1
            return
        self._free.release()
        while self._size < self._level.limit:
            self._size += 1
            self._free.release()
