"""Chunks are verified as they are passed on: hashed while used, trusted only at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs import Digest, IntegrityError
from cachefs.concurrency import closing, run
from cachefs.digest import Verifier
from cachefs.store import HASH_IN_THREAD, verified

LARGE = b"a" * HASH_IN_THREAD


async def _given(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _taken(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


# Some are hashed in a thread, some at once, and their order is one.
@given(st.lists(st.sampled_from([LARGE, b"b" * (HASH_IN_THREAD + 1), b"c", b""])))
def test_what_is_whole_comes_through(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    found = run(_taken(verified(_given(*chunks), Digest.of(whole), len(whole))))
    assert found == whole


@pytest.mark.parametrize("chunk", [LARGE, b"small"])
@pytest.mark.parametrize("size", [-1, 0, 1])
def test_what_is_not_the_blob_ends_in_an_error(chunk: bytes, size: int) -> None:
    digest = Digest.of(chunk if size else b"another")
    with pytest.raises(IntegrityError, match=str(digest)):
        run(_taken(verified(_given(chunk), digest, len(chunk) + size)))


def test_a_large_chunk_is_hashed_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = threading.Event()
    hash_it = Verifier.update

    def after_use(self: Verifier, data: bytes) -> None:
        assert used.wait(30), "the chunk is not given out before it is hashed"
        hash_it(self, data)

    monkeypatch.setattr(Verifier, "update", after_use)

    async def use() -> None:
        async for _ in verified(_given(LARGE), Digest.of(LARGE), len(LARGE)):
            used.set()

    run(use())


def test_who_stops_early_leaves_no_hashing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, hashed = threading.Event(), threading.Event()

    def slow(_: Verifier, __: bytes) -> None:
        go_on.wait(30)
        hashed.set()
        raise IntegrityError("nobody is left to be told")

    monkeypatch.setattr(Verifier, "update", slow)
    complaints: list[object] = []

    async def stop_early() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        async with closing(verified(_given(LARGE), Digest.of(LARGE), None)) as chunks:
            async for _ in chunks:
                threading.Timer(0.05, go_on.set).start()
                break
        assert hashed.is_set()

    asyncio.run(stop_early())
    assert not complaints
