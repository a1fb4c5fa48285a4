"""Reading a large object in ranges, in order, with the next ones prefetched."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Get = Callable[[int, int], Awaitable[bytes]]


async def in_ranges(
    get: Get, size: int, length: int, prefetch: asyncio.Semaphore
) -> AsyncIterator[bytes]:
    """Read the first ``size`` bytes of an object in ranges. A short range is the last one.

    If only one byte would be left for the last range, the range before it is longer by that byte.
    So a caller that requests one byte more than expected causes no further request.

    Args:
        get: returns the bytes from a start to before an end, fewer if the object is shorter.
        size: the maximum number of bytes to read.
        length: the number of bytes in a range.
        prefetch: permits for prefetched ranges, shared by all readers. The range being awaited
            needs no permit, so readers cannot deadlock.
    """
    requested: deque[tuple[int, asyncio.Future[bytes]]] = deque()
    start = 0

    async def request() -> None:
        nonlocal start
        while start < size and not (requested and prefetch.locked()):
            if requested:
                await prefetch.acquire()
            end = size if size - start <= length + 1 else start + length
            requested.append((end - start, asyncio.ensure_future(get(start, end))))
            start = end

    try:
        await request()
        while requested:
            wanted, task = requested[0]
            chunk = await task
            _pop_first(requested, prefetch)
            if len(chunk) == wanted:
                await request()
            if chunk:
                yield chunk
            if len(chunk) < wanted:
                return
    finally:
        left = [task for _, task in requested]
        while requested:
            _pop_first(requested, prefetch)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _pop_first(
    requested: deque[tuple[int, asyncio.Future[bytes]]], prefetch: asyncio.Semaphore
) -> None:
    """Remove the first range, and release the permit of the next, which is awaited from now on."""
    requested.popleft()
    if requested:
        prefetch.release()
