"""Bytes in chunks, and chunks as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.concurrency import closing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def cut(data: bytes, size: int) -> AsyncIterator[bytes]:
    """The bytes in chunks of this size; the last is shorter."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def joined(chunks: AsyncIterator[bytes], size: int) -> bytes:
    """Join the chunks. Reading stops once there are more than ``size`` bytes."""
    held = bytearray()
    async with closing(chunks):
        async for chunk in chunks:
            held += chunk
            if len(held) > size:
                break
    return bytes(held)
