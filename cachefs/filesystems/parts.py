"""Pieces of any size cut into parts of one size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import ended
from cachefs.filesystems.base import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


MAX_PARTS: Final = 10_000
"""S3 takes no more parts than this for one object."""


def part_size(size: int) -> int:
    """Bytes a part, for an object of this many bytes."""
    return max(PIECE, math.ceil(size / MAX_PARTS))


async def in_parts(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in parts of ``size`` bytes, the last one shorter; no bytes are no part."""
    held: list[bytes] = []
    count = 0
    async with ended(pieces):
        async for piece in pieces:
            if not held and len(piece) == size:
                yield piece
                continue
            held.append(piece)
            count += len(piece)
            if count >= size:
                whole = b"".join(held)
                full = count - count % size
                for start in range(0, full, size):
                    yield whole[start : start + size]
                held = [whole[full:]] if full < count else []
                count -= full
    if count:
        yield b"".join(held)
