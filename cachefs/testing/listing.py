"""The part of the filesystem contract about keys: listed by prefix, in order, as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from cachefs.concurrency import run
from cachefs.testing.checks import check, expect, keys, noise, stat_of

if TYPE_CHECKING:
    from cachefs.store import Store

NAMES: Final = [
    "a b",
    "größe-✓-\U0001f600",
    "100%",
    "%41",
    "%2F",
    "a+b",
    "~user",
    "[x]",
    "a*b",
    "a?b",
    "#1",
    "a#1",
    "in/side",
    "a=b",
    "user@host",
    "sha256:ab",
    "a&b",
    "a'b",
    'a"b',
    "(1)",
    "a,b;c!d$e",
    "{x}",
    "^a|b`c",
    "<tag>",
    "-dash",
    "trailing ",
    " leading",
    ".hidden",
    "a..b",
    "0zero",
    "\ue000private",
]
"""Names that some stores or clients would change."""


async def by_pages(store: Store, prefix: str, limit: int) -> tuple[list[str], int]:
    """List all keys page by page. Returns them and the number of pages."""
    found: list[str] = []
    pages = 0
    while True:
        pages += 1
        check(pages < 10_000, "pages come to an end")
        page = await store.page(prefix, found[-1] if found else "", limit)
        check(len(page.objects) <= limit, f"a page has at most {limit} objects")
        found += keys(page.objects)
        if page.complete:
            return found, pages
        check(page.objects, "a page is empty only at the end")


class ListingContract:
    """A listing has every object whose key starts with the prefix, and no others."""

    has_times: bool

    def test_nothing_is_there_before_the_first_write(self, store: Store) -> None:
        expect(run(store.stat("blobs/one")), None, "a missing object is not found")
        expect(run(store.list("")), [], "the folder is empty or missing at first")
        expect(run(store.list("blobs/")), [], "the listing of a missing folder is empty")
        page = run(store.page("blobs/", "", 10))
        expect((page.objects, page.complete), ([], True), "a page of a missing folder is empty")

    def test_a_folder_is_no_object(self, store: Store) -> None:
        run(store.put("blobs/one", b"1"))
        expect(run(store.stat("blobs")), None, "a folder is not an object")
        expect(keys(run(store.list(""))), ["blobs/one"], "a listing has no folders")

    def test_a_listing_says_what_stat_says(self, store: Store) -> None:
        async def work() -> None:
            for size in (0, 1, 1000):
                await store.put(f"blobs/{size}", noise(size))
            listed = await store.list("blobs/")
            expected = [(f"blobs/{size}", size) for size in (0, 1, 1000)]
            found = [(each.path, each.size) for each in listed]
            expect(found, expected, "a listing has keys and sizes, in order")
            for each in listed:
                alone = await stat_of(store, each.path)
                one, other = (alone.path, alone.size), (each.path, each.size)
                expect(one, other, "a look-up has the size of the listing")
                self._same_time(each.modified, alone.modified)

        run(work())

    def _same_time(self, listed: float | None, alone: float | None) -> None:
        if self.has_times:
            check(listed is not None, "a listing has times (has_times = False: there are none)")
            check(alone is not None, "a look-up has times (has_times = False: there are none)")
        # Some servers give fractions of a second in one of the two only.
        expect(int(alone or 0), int(listed or 0), "a look-up has the time of the listing")

    def test_names_with_odd_characters(self, store: Store) -> None:
        async def work() -> None:
            for number, name in enumerate(NAMES):
                await store.put(f"manifests/{name}", b"%d" % number)
            listed = sorted(keys(await store.list("manifests/")))
            expect(listed, sorted(f"manifests/{name}" for name in NAMES), "keys are kept")
            for number, name in enumerate(NAMES):
                await self._kept(store, f"manifests/{name}", b"%d" % number)
            for name in NAMES:
                await store.delete(f"manifests/{name}")
            expect(await store.list(""), [], "each object is deleted by its key")

        run(work())

    async def _kept(self, store: Store, key: str, data: bytes) -> None:
        found = await stat_of(store, key)
        expect(found.path, key, "a look-up keeps the key")
        expect(await store.read(key, 10), data, f"{key!r} is read as it was written")
        for length in range(len("manifests/") + 1, len(key) + 1):
            listed = keys(await store.list(key[:length]))
            check(key in listed, f"{key!r} is listed by its prefix {key[:length]!r}")
        if store.filesystem.touches:
            check(await store.touch(found), f"{key!r} is touched")
            expect(await store.read(key, 10), data, "a touch keeps the bytes")

    def test_a_prefix_is_text_not_a_folder(self, store: Store) -> None:
        every = ["blobs/ab", "blobs/abc", "blobs/abd/e", "blobs/b", "blobsab", "other"]
        for key in every:
            run(store.put(key, b"1"))
        for prefix, expected in (
            ("blobs/ab", every[:3]),
            ("blobs/abc", every[1:2]),
            ("blobs/abd/", every[2:3]),
            ("blobs", every[:5]),
            ("blobs/x", []),
            ("blobs/ab/", []),
            ("", every),
        ):
            found = keys(run(store.list(prefix)))
            expect(sorted(found), expected, f"the listing of {prefix!r} has only its objects")

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    def test_pages_are_the_listing(self, store: Store, limit: int) -> None:
        async def work() -> None:
            every = [f"blobs/{a}{b}" for a in "abc" for b in "xy"]
            for key in ["apart", *every, "further"]:
                await store.put(key, b"1")
            expect((await by_pages(store, "blobs/", limit))[0], every, "pages have all objects")
            found, _ = await by_pages(store, "blobs/b", limit)
            expect(found, ["blobs/bx", "blobs/by"], "pages keep to their prefix")
            for after, expected in (("b", every[2:]), ("bx", every[3:]), ("z", [])):
                page = await store.page("blobs/", f"blobs/{after}", 10)
                expect(keys(page.objects), expected, "a page begins after the key")

        run(work())
