"""Reading a large object in ranges: bytes in order, memory bounded, and nothing left behind."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.concurrency import closing, run
from cachefs.filesystems.ranges import in_ranges


class Served:
    """An object behind a slow server that counts what it is asked at one time."""

    def __init__(self, content: bytes, *, broken_at: int | None = None) -> None:
        self.content = content
        self.broken_at = broken_at
        self.asked: list[tuple[int, int]] = []
        self.under_way = 0
        self.most = 0

    async def get(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            # Later ranges are answered sooner, so that only the reader can put them in order.
            await asyncio.sleep(0.01 / len(self.asked))
            if start == self.broken_at:
                raise OSError("connection reset")
            return self.content[start:end]
        finally:
            self.under_way -= 1


async def read(served: Served, size: int, length: int, prefetch: asyncio.Semaphore) -> bytes:
    async with closing(in_ranges(served.get, size, length, prefetch)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(1, 12), st.integers(0, 3))
def test_the_bytes_are_those_of_the_object_up_to_what_was_asked_for(
    content: bytes, size: int, length: int, permits: int
) -> None:
    async def tried() -> None:
        served = Served(content)
        prefetch = asyncio.Semaphore(permits)
        assert await read(served, size, length, prefetch) == content[:size]
        assert served.most <= 1 + permits
        assert prefetch._value == permits

    run(tried())


def test_readers_share_the_permits_and_none_waits_for_another() -> None:
    async def tried() -> None:
        served = Served(bytes(range(60)))
        prefetch = asyncio.Semaphore(2)
        found = await asyncio.gather(*(read(served, 60, 5, prefetch) for _ in range(4)))
        assert found == [served.content] * 4
        assert served.most == 4 + 2

    run(tried())


def test_a_reader_that_stops_early_leaves_no_request_and_no_permit_held() -> None:
    async def tried() -> None:
        served = Served(bytes(100))
        prefetch = asyncio.Semaphore(3)
        async with closing(in_ranges(served.get, 100, 5, prefetch)) as chunks:
            async for _ in chunks:
                break
        assert served.under_way == 0
        assert prefetch._value == 3

    run(tried())


def test_an_error_comes_in_its_turn_and_ends_the_others() -> None:
    async def tried() -> None:
        served = Served(bytes(100), broken_at=10)
        prefetch = asyncio.Semaphore(3)
        chunks = in_ranges(served.get, 100, 5, prefetch)
        assert len([await anext(chunks), await anext(chunks)]) == 2
        with pytest.raises(OSError, match="connection reset"):
            await anext(chunks)
        assert served.under_way == 0
        assert prefetch._value == 3

    run(tried())
