"""A large object read in ranges: in their order, the next ones on their way meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Get = Callable[[int, int], Awaitable[bytes]]


async def in_ranges(
    get: Get, size: int, length: int, ahead: asyncio.Semaphore
) -> AsyncIterator[bytes]:
    """The first bytes of an object in ranges of one length; the first short one is the last.

    A last range of one byte is none of its own, so that whoever asks for a byte more than there
    should be asks for no range more.

    Args:
        get: gives the bytes from here to before there, fewer where the object ends.
        size: bytes to be read at most.
        length: bytes of a range.
        ahead: places for ranges that are asked for before it is their turn, of all readers
            together. Whose turn it is waits for no place: no reader can hold up another.
    """
    coming: deque[tuple[int, asyncio.Future[bytes]]] = deque()
    start = 0

    async def ask() -> None:
        nonlocal start
        while start < size and not (coming and ahead.locked()):
            if coming:
                await ahead.acquire()
            end = size if size - start <= length + 1 else start + length
            coming.append((end - start, asyncio.ensure_future(get(start, end))))
            start = end

    try:
        await ask()
        while coming:
            wanted, task = coming[0]
            chunk = await task
            _leave(coming, ahead)
            if len(chunk) == wanted:
                await ask()
            if chunk:
                yield chunk
            if len(chunk) < wanted:
                return
    finally:
        left = [task for _, task in coming]
        while coming:
            _leave(coming, ahead)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _leave(coming: deque[tuple[int, asyncio.Future[bytes]]], ahead: asyncio.Semaphore) -> None:
    """Take the first away; it has no place, and the one behind it needs none any more."""
    coming.popleft()
    if coming:
        ahead.release()
