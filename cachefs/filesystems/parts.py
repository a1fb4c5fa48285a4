"""Cutting chunks of any size into the parts of a multipart upload, all of the same size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import closing
from cachefs.filesystems.base import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


MAX_PARTS: Final = 10_000
"""The maximum number of parts that S3 accepts for one object."""


def part_size(size: int) -> int:
    """Bytes per part, for an object of this many bytes."""
    return max(CHUNK_SIZE, math.ceil(size / MAX_PARTS))


async def in_parts(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[Sequence[bytes]]:
    """Cut the chunks into parts of ``size`` bytes; the last is shorter. No bytes give no parts.

    A part is a list of chunks, which are cut where a part ends and never joined.
    """
    part: list[bytes] = []
    missing = size
    async with closing(chunks):
        async for chunk in chunks:
            rest = chunk
            while len(rest) >= missing:
                yield [*part, rest[:missing]]
                rest = rest[missing:]
                part, missing = [], size
            if rest:
                part.append(rest)
                missing -= len(rest)
    if part:
        yield part
