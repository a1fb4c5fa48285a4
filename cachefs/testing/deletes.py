"""The part of the filesystem contract about deletes of what was looked up just before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cachefs.concurrency import run
from cachefs.testing.checks import expect, stat_of

if TYPE_CHECKING:
    from cachefs.store import Store


class DeletesContract:
    """A delete of what was looked up tells the truth, whether it can compare or not."""

    def test_what_is_unchanged_is_deleted(self, store: Store) -> None:
        async def work() -> None:
            for key in ("blobs/one", "blobs/two"):
                await store.put(key, b"bytes")
            seen = await stat_of(store, "blobs/one")
            expect(await store.delete_unchanged(seen), True, "it is unchanged")
            expect(await store.stat("blobs/one"), None, "it is deleted")
            expect(await store.delete_unchanged(seen), True, "it is gone")
            found = [stat.path for stat in await store.list("")]
            expect(found, ["blobs/two"], "only that object is deleted, and nothing is left")
            expect(await store.unfinished("blobs/one"), [], "nothing temporary is left")

        run(work())

    @pytest.mark.parametrize("how", ["touch", "write"])
    def test_what_has_changed_is_left_or_told(
        self, store: Store, clock_step: float, how: str
    ) -> None:
        if how == "touch" and not store.filesystem.touches:
            pytest.skip("no time can be renewed here")

        async def work() -> None:
            await store.put("blobs/one", b"bytes")
            seen = await stat_of(store, "blobs/one")
            await asyncio.sleep(clock_step)
            if how == "touch":
                await store.touch(seen)
            else:
                await store.put("blobs/one", b"other bytes")
            gone = await store.delete_unchanged(seen)
            there = await store.stat("blobs/one")
            expect(gone, there is None, "the report of a delete is true")
            if there is not None:
                data = b"bytes" if how == "touch" else b"other bytes"
                expect(await store.read("blobs/one", 100), data, "what is left is whole")

        run(work())
