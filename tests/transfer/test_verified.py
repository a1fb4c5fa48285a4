"""Pieces are verified on their way: hashed while they are used, and believed at the end only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs import Digest, IntegrityError
from cachefs.concurrency import ended, run
from cachefs.digest import Verifier
from cachefs.store import HASH_ASIDE, verified

LARGE = b"a" * HASH_ASIDE


async def _given(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _taken(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


# Some are hashed in a thread, some at once, and their order is one.
@given(st.lists(st.sampled_from([LARGE, b"b" * (HASH_ASIDE + 1), b"c", b""])))
def test_what_is_whole_comes_through(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    found = run(_taken(verified(_given(*pieces), Digest.of(whole), len(whole))))
    assert found == whole


@pytest.mark.parametrize("piece", [LARGE, b"small"])
@pytest.mark.parametrize("size", [-1, 0, 1])
def test_what_is_not_the_blob_ends_in_an_error(piece: bytes, size: int) -> None:
    digest = Digest.of(piece if size else b"another")
    with pytest.raises(IntegrityError, match=str(digest)):
        run(_taken(verified(_given(piece), digest, len(piece) + size)))


def test_a_large_piece_is_hashed_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = threading.Event()
    hash_it = Verifier.update

    def after_use(self: Verifier, data: bytes) -> None:
        assert used.wait(30), "the piece is not given out before it is hashed"
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
        async with ended(verified(_given(LARGE), Digest.of(LARGE), None)) as pieces:
            async for _ in pieces:
                threading.Timer(0.05, go_on.set).start()
                break
        assert hashed.is_set()

    asyncio.run(stop_early())
    assert not complaints
