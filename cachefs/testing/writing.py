"""The part of the filesystem contract about objects: written, read, touched and deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cachefs.concurrency import run
from cachefs.errors import IntegrityError, NotFoundError
from cachefs.filesystems.base import CHUNK_SIZE, Stat
from cachefs.testing.checks import (
    MIB,
    SourceError,
    check,
    chunks_of,
    expect,
    failing,
    keys,
    noise,
    renewed,
    stat_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cachefs.store import Store

SIZES = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE + 1, 17 * MIB, 40 * MIB]

_BEFORE_THE_ERROR = pytest.mark.parametrize(
    ("sent", "size"), [(MIB, 2 * MIB), (26 * MIB, 40 * MIB)], ids=["whole", "in-parts"]
)


class WritingContract:
    """Objects are seen whole or not at all, and read as they were written."""

    @pytest.mark.parametrize("size", SIZES)
    def test_what_is_written_is_read(self, store: Store, size: int) -> None:
        data = noise(size)

        async def work() -> None:
            await store.put("put", data)
            sent = await store.upload("uploaded", chunks_of(data), size)
            expect(sent, size, "all bytes are sent")
            sizes = [each.size for each in await store.list("")]
            expect(sizes, [size, size], "a listing has the sizes of what was written")
            for key in ("put", "uploaded"):
                expect(await store.read(key, size), data, "what was written is read")

        run(work())

    def test_many_tasks_work_at_a_time(self, store: Store) -> None:
        async def there_and_back(number: int) -> None:
            key, data = f"blobs/{number}", noise(number * 1000)
            expect(await store.stat(key), None, "nothing is there before it was written")
            await store.put(key, data)
            expect((await stat_of(store, key)).size, len(data), "a look-up has the size")
            expect(await store.read(key, len(data)), data, "tasks do not disturb each other")
            check(key in keys(await store.list("blobs/")), "a new object is listed immediately")

        async def work() -> None:
            await asyncio.wait_for(asyncio.gather(*map(there_and_back, range(12))), 60)

        run(work())

    def test_a_batch_is_as_its_objects_are(self, store: Store, clock_step: float) -> None:
        """Batches are looked up, written, read and touched; one of their objects is missing."""
        objects = [(f"blobs/{number:02}", noise(number * 1000)) for number in range(40)]
        wanted = [key for key, _ in objects]
        absent = 17

        async def work() -> None:
            found = await store.stat_batch(wanted)
            expect(found, [None] * 40, "nothing is there before it was written")
            await store.put_batch(objects)
            await store.settle()
            await store.delete(wanted[absent])
            there = await store.stat_batch(wanted)
            sizes = [each and each.size for each in there]
            expected = [None if n == absent else n * 1000 for n in range(40)]
            expect(sizes, expected, "a look-up has the size, and None for a deleted object")
            listed = await store.list("blobs/")
            expect(listed, [each for each in there if each], "a listing agrees with look-ups")
            await self._read_batch(store, objects, absent)
            if store.filesystem.touches:
                await self._touch_batch(store, wanted, there, clock_step)
            last_key, last = objects[-1]
            expect(await store.read(last_key, len(last)), last, "a touch keeps the bytes")

        run(work())

    async def _read_batch(
        self, store: Store, objects: list[tuple[str, bytes]], absent: int
    ) -> None:
        found = await store.read_batch([(key, len(data)) for key, data in objects])
        error = found[absent]
        check(isinstance(error, NotFoundError), "reading a missing object: FileNotFoundError")
        expect(getattr(error, "key", None), store.root + objects[absent][0], "it names the object")
        for number, (_, data) in enumerate(objects):
            if number != absent:
                expect(found[number], data, "what was written is read")
        (longer,) = await store.read_batch([("blobs/09", 100)])
        check(isinstance(longer, bytes) and len(longer) > 100, "a longer object gives more bytes")

    async def _touch_batch(
        self, store: Store, wanted: list[str], there: Sequence[Stat | None], clock_step: float
    ) -> None:
        stats = [each or Stat(key, 1, 0.0) for key, each in zip(wanted, there, strict=True)]
        await asyncio.sleep(clock_step)
        touched = await store.touch_batch(stats)
        expect(touched, [each is not None for each in there], "a missing object is not touched")
        for before, after in zip(there, await store.stat_batch(wanted), strict=True):
            expect(after is None, before is None, "a touch creates nothing and removes nothing")
            if before and after:
                check(renewed(before.modified, after.modified), "a touch renews the time")

    @pytest.mark.parametrize("size", [1, CHUNK_SIZE])
    def test_the_size_need_not_be_known(self, store: Store, size: int) -> None:
        data = noise(size)
        sent = run(store.upload("blob", chunks_of(data), None))
        expect(sent, size, "all bytes are sent")
        expect(run(store.read("blob", size)), data, "what was written is read")

    def test_a_write_replaces(self, store: Store) -> None:
        async def work() -> None:
            await store.put("key", b"a long first content")
            first = await stat_of(store, "key")
            await store.put("key", b"second")
            expect(await store.read("key", 100), b"second", "a write replaces what was there")
            if first.version:
                second = await stat_of(store, "key")
                check(second.version != first.version, "an ETag changes with the bytes")
            await store.upload("key", chunks_of(b"third"), 5)
            expect(await store.read("key", 100), b"third", "a write replaces what was there")

        run(work())

    def test_a_read_takes_no_more_than_its_limit(self, store: Store) -> None:
        run(store.put("key", b"12345"))
        expect(run(store.read("key", 5)), b"12345", "what was written is read")
        with pytest.raises(IntegrityError, match="more than the 4 bytes"):
            run(store.read("key", 4))

    def test_a_part_is_read(self, store: Store) -> None:
        data = noise(3_000_000)

        async def work() -> None:
            await store.put("blobs/part", data)
            for start, end in ((0, 1), (1_000_000, 2_500_000), (2_999_999, 3_000_000)):
                found = await store.read_range("blobs/part", start, end)
                expect(found, data[start:end], "a part of an object has the right bytes")
            found = await store.read_range("blobs/part", 2_999_990, 3_000_010)
            expect(found, data[2_999_990:], "a part that is too long ends with the object")

        run(work())

    @pytest.mark.parametrize("expected", [None, 1, 17 * MIB, 18 * MIB])
    def test_chunks_show_a_size_that_is_wrong(self, store: Store, expected: int | None) -> None:
        """A longer object gives more bytes than expected, so that the difference is noticed."""
        data = noise(17 * MIB)

        async def work() -> None:
            await store.put("key", data)
            got = b"".join([chunk async for chunk in store.chunks("key", expected)])
            check(data.startswith(got), "a range has the bytes that were written")
            whole = len(got) == len(data)
            check(whole or len(got) > (expected or 0), "a range is as long as requested")

        run(work())

    @_BEFORE_THE_ERROR
    @pytest.mark.parametrize(
        "error", [SourceError("lost"), FileNotFoundError("gone"), NotFoundError("no blob")]
    )
    def test_a_source_that_fails_leaves_nothing(
        self, store: Store, sent: int, size: int, error: Exception
    ) -> None:
        with pytest.raises(type(error)) as raised:
            run(store.upload("blobs/one", failing(noise(sent), error), size))
        check(raised.value is error, "the source's own error is raised")
        self._nothing_is_there(store)

    @_BEFORE_THE_ERROR
    def test_a_source_that_fails_leaves_what_was_there(
        self, store: Store, sent: int, size: int
    ) -> None:
        run(store.put("blobs/one", b"good"))
        with pytest.raises(SourceError):
            run(store.upload("blobs/one", failing(noise(sent), SourceError()), size))
        found = run(store.read("blobs/one", 100))
        expect(found, b"good", "a write that fails leaves what was there")

    @_BEFORE_THE_ERROR
    def test_a_cancelled_upload_leaves_nothing(self, store: Store, sent: int, size: int) -> None:
        async def work() -> None:
            waiting = asyncio.Event()

            async def stuck() -> AsyncIterator[bytes]:
                async for chunk in chunks_of(noise(sent)):
                    yield chunk
                waiting.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(store.upload("blobs/one", stuck(), size))
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(work())
        self._nothing_is_there(store)

    def _nothing_is_there(self, store: Store) -> None:
        expect(run(store.stat("blobs/one")), None, "a write that fails leaves nothing")
        expect(run(store.list("")), [], "a write that fails leaves nothing")
        left = run(store.unfinished("blobs/"))
        expect(left, [], "a write that fails leaves no temporary file")

    def test_nothing_is_seen_before_the_end(self, store: Store) -> None:
        async def work() -> None:
            async def looking() -> AsyncIterator[bytes]:
                async for chunk in chunks_of(noise(26 * MIB)):
                    yield chunk
                    expect(await store.stat("blobs/one"), None, "nothing is seen before the end")
                    expect(await store.list(""), [], "nothing is listed before the end")

            await store.upload("blobs/one", looking(), 26 * MIB)
            expect(keys(await store.list("")), ["blobs/one"], "what was written is listed")

        run(work())

    @pytest.mark.parametrize("size", [MIB, 17 * MIB])
    def test_a_reader_sees_the_old_or_the_new(self, store: Store, size: int) -> None:
        async def work() -> None:
            await store.put("blobs/one", b"old")
            writing = asyncio.create_task(store.upload("blobs/one", chunks_of(noise(size)), size))
            while not writing.done():
                seen = (await stat_of(store, "blobs/one")).size
                check(seen in {3, size}, f"a replaced object has 3 or {size} bytes, not {seen}")
                await asyncio.sleep(0.001)
            await writing
            expect(await store.read("blobs/one", size), noise(size), "what was written is read")

        run(work())

    def test_touching_renews_the_time_and_keeps_the_bytes(
        self, store: Store, clock_step: float
    ) -> None:
        if not store.filesystem.touches:
            pytest.skip("no way is known to renew a time here; old blobs are uploaded again")

        async def work() -> None:
            await store.put("blobs/one", b"bytes")
            await store.put("blobs/other", b"others")
            before = await stat_of(store, "blobs/one")
            await asyncio.sleep(clock_step)
            check(await store.touch(before), "what is there is touched")
            after = await stat_of(store, "blobs/one")
            check(renewed(before.modified, after.modified), "a touch renews the time")
            expect(await store.read("blobs/one", 100), b"bytes", "a touch keeps the bytes")
            listed = await store.list("")
            expect(keys(listed), ["blobs/one", "blobs/other"], "a touch moves nothing")
            times = int(listed[0].modified or 0), int(after.modified or 0)
            expect(times[0], times[1], "a listing has the new time")

        run(work())

    def test_touching_what_is_gone_is_false(self, store: Store) -> None:
        if not store.filesystem.touches:
            pytest.skip("no way is known to renew a time here; old blobs are uploaded again")

        async def work() -> None:
            check(not await store.touch(Stat("blobs/never", 5, 0.0)), "nothing is touched")
            await store.put("blobs/one", b"bytes")
            there = await stat_of(store, "blobs/one")
            await store.delete("blobs/one")
            check(not await store.touch(there), "what is deleted is not touched")
            expect(await store.list(""), [], "a touch creates nothing")

        run(work())

    def test_deleting(self, store: Store) -> None:
        async def work() -> None:
            await store.put("blobs/one", b"1")
            others = ["blobs/one-2", "blobs/one.x", "blobs/two"]
            for key in others:
                await store.put(key, b"2")
            every = ["blobs/one", *others]
            expect(sorted(keys(await store.list(""))), every, "what was written is listed")
            await store.delete("blobs/one")
            expect(await store.stat("blobs/one"), None, "what is deleted is not found")
            expect(sorted(keys(await store.list(""))), others, "only one object is deleted")
            await store.delete("blobs/one")
            await store.delete("never/written")

        run(work())

    def test_a_missing_object_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFoundError) as raised:
            run(store.read("blobs/one", 10))
        expect(raised.value.key, f"{store.root}blobs/one", "the error names the object")

        async def chunks(size: int | None) -> None:
            async for _ in store.chunks("blobs/one", size):
                pytest.fail("the filesystem breaks a promise: a missing object has no bytes")

        for size in (None, 0, 5):
            with pytest.raises(NotFoundError):
                run(chunks(size))
