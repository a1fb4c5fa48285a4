"""Limits of how fast bytes go to a store or come from it, for people who share a line."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Rate:
    """Lets bytes pass at a rate, whoever sends or receives them.

    Whoever takes bytes waits until those that were taken before have had their time, and not for
    its own: a small object is not delayed if nothing went before it.

    Args:
        per_second: bytes.
        clock: the time in seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    async def take(self, count: int) -> None:
        """Wait until this many bytes may pass."""
        now = self._clock()
        begin = max(now, self._free_at)
        self._free_at = begin + count / self._per_second
        if begin > now:
            await self._sleep(begin - now)


class Rates(NamedTuple):
    """The rates of one store, None for no limit."""

    up: Rate | None = None
    down: Rate | None = None

    async def send(self, count: int) -> None:
        """Wait until so many bytes may be sent."""
        if self.up is not None:
            await self.up.take(count)

    async def receive(self, count: int) -> None:
        """Wait until so many more bytes may be received."""
        if self.down is not None:
            await self.down.take(count)


_shared: dict[tuple[str, str, int], Rate] = {}


def shared_rates(root: str, up: int | None, down: int | None) -> Rates:
    """The rates for a store, in bytes per second, None for no limit.

    All that this process opens with one root and one limit share it.
    """
    return Rates(_shared_rate(root, "up", up), _shared_rate(root, "down", down))


def _shared_rate(root: str, direction: str, per_second: int | None) -> Rate | None:
    if per_second is None:
        return None
    return _shared.setdefault((root, direction, per_second), Rate(per_second))
