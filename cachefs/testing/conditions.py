"""The part of the filesystem contract about writes on the condition that nothing has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cachefs.concurrency import run
from cachefs.errors import NotFoundError
from cachefs.filesystems.conditions import UNLIKE
from cachefs.testing.checks import MIB, expect, noise

if TYPE_CHECKING:
    from cachefs.store import Store

WRITERS = 8
"""How many writers compete for one object."""


class ConditionsContract:
    """Of writers that have read the same, one writes. Where nothing compares, nothing is tested."""

    @pytest.fixture
    def comparing(self, store: Store) -> Store:
        """The store, if it compares before it writes."""
        if not run(store.keeps_conditions("names/")):
            pytest.skip("this filesystem does not compare before it writes")
        return store

    def test_trying_conditions_leaves_nothing(self, comparing: Store) -> None:
        expect(run(comparing.list("")), [], "the object that was tried with is deleted")
        expect(run(comparing.unfinished("names/")), [], "nothing temporary is left")

    def test_a_write_compares(self, comparing: Store) -> None:
        store = comparing

        async def work() -> None:
            with pytest.raises(NotFoundError):
                await store.read_versioned("names/one", 100)
            expect(await store.put_if("names/one", b"first", UNLIKE), False, "there is no object")
            expect(await store.put_if("names/one", b"first", ""), True, "nothing was there")
            expect(await store.put_if("names/one", b"again", ""), False, "something is there")
            data, version = await store.read_versioned("names/one", 100)
            expect(data, b"first", "a write whose condition does not hold changes nothing")
            expect(await store.put_if("names/one", b"second", UNLIKE), False, "another version")
            expect(await store.put_if("names/one", b"second", version), True, "it is unchanged")
            expect(await store.put_if("names/one", b"third", version), False, "it has changed")
            expect(await store.read("names/one", 100), b"second", "the last write is read")
            await store.delete("names/one")
            expect(await store.put_if("names/one", b"third", version), False, "it is deleted")
            expect(await store.list(""), [], "nothing comes back")

        run(work())

    def test_a_large_write_compares(self, comparing: Store) -> None:
        store, data = comparing, noise(17 * MIB)

        async def work() -> None:
            expect(await store.put_if("names/one", data, ""), True, "nothing was there")
            found, version = await store.read_versioned("names/one", len(data))
            expect(found, data, "what was written is read")
            expect(await store.put_if("names/one", data, UNLIKE), False, "another version")
            expect(await store.put_if("names/one", data[:-1], version), True, "it is unchanged")
            expect(await store.read("names/one", len(data)), data[:-1], "the last write is read")

        run(work())

    @pytest.mark.parametrize("there", [False, True])
    def test_one_of_many_writers_is_first(self, comparing: Store, *, there: bool) -> None:
        store = comparing

        async def work() -> None:
            version = ""
            if there:
                await store.put("names/one", b"before")
                _, version = await store.read_versioned("names/one", 100)
            written = await asyncio.gather(
                *(store.put_if("names/one", bytes([n]), version) for n in range(WRITERS))
            )
            expect(sum(written), 1, "one write is made")
            found = await store.read("names/one", 100)
            expect(found, bytes([written.index(True)]), "the object has its bytes")

        run(work())
