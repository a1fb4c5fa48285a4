"""Which blobs a store has: looked up together, not one by one.

Digests are evenly distributed, so a part of the digest space shows how many blobs the store has. A
*slice* is such a part; slices are listed concurrently, in one process or on several machines.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.concurrency import LOOKUP_PARALLELISM, closing, for_each

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout

PAGE: Final = 1000
"""Objects that S3 lists in one request."""

PAGE_COST: Final = 32
"""Number of single look-ups that take as much time as listing one page, here and on the server.
Amazon charges as much for a page as for 12 look-ups."""


class Slice(NamedTuple):
    """The digests whose hexadecimal digits are at least ``start`` and less than ``end``.

    An empty ``end`` means the end of the space.
    """

    start: str = ""
    end: str = ""

    def holds(self, digest: Digest) -> bool:
        """Whether the digest is in the slice."""
        return self.start <= digest.hex and (not self.end or digest.hex < self.end)


WHOLE_SPACE: Final = Slice()


def slices(count: int, start: str = "") -> list[Slice]:
    """Cut the space from ``start`` on into ``count`` slices of equal size, at most 65,536."""
    first = int(start[:4].ljust(4, "0"), 16)
    count = max(1, min(count, 0x10000 - first))
    marks = [first + (0x10000 - first) * part // count for part in range(1, count)]
    bounds = [start, *(f"{mark:04x}" for mark in marks), ""]
    return [Slice(low, high) for low, high in itertools.pairwise(bounds)]


async def list_slice(layout: Layout, part: Slice = WHOLE_SPACE) -> dict[Digest, Stat]:
    """Every blob of the slice, in the order of digests. Raises StoreError."""
    if not layout.store.filesystem.pages:
        return _of_slice(layout, part, await layout.store.list(layout.blob_prefix))
    found: dict[Digest, Stat] = {}
    after = layout.blob_prefix + part.start
    end = layout.blob_prefix + part.end
    async with closing(layout.store.list_pages(layout.blob_prefix, after)) as pages:
        async for objects in pages:
            found |= _of_slice(layout, part, objects)
            if part.end and objects and objects[-1].path >= end:
                break
    return found


async def list_blobs(layout: Layout) -> dict[Digest, Stat]:
    """Every blob of the cache, in the order of digests. The first page decides whether to slice."""
    if not layout.store.filesystem.pages:
        listed = await list_slice(layout)
        if not listed:
            await layout.require_folder(layout.blob_prefix)
        return listed
    found, rest = await _first_page(layout)
    if rest is not None:
        found |= await _list_rest(layout, rest)
    return found


async def stored_blobs(layout: Layout, needed: Collection[Digest]) -> dict[Digest, Stat]:
    """Every blob of the cache; where blobs are not listed, those of the needed ones that it has.

    Raises StoreError.
    """
    if layout.store.filesystem.lists_blobs:
        return await list_blobs(layout)
    return await look_up(layout, needed)


async def look_up(layout: Layout, digests: Collection[Digest]) -> dict[Digest, Stat]:
    """Those of the blobs that the store has. Raises StoreError.

    A few are looked up one by one. For more, the first page of a listing is enough for a small
    store; for a large one it gives an estimate of the pages left, which are listed if that is
    cheaper than looking up the blobs that are still unknown. A store of a million blobs is never
    listed to find ten.
    """
    if not layout.store.filesystem.pages or len(digests) <= PAGE_COST:
        return await _look_up_each(layout, digests)
    found, rest = await _first_page(layout)
    known = {digest: found[digest] for digest in digests if digest in found}
    if rest is None:
        return known
    unknown = [digest for digest in digests if digest not in found and rest.part.holds(digest)]
    if rest.pages * PAGE_COST > len(unknown):
        return known | await _look_up_each(layout, unknown)
    listed = await _list_rest(layout, rest)
    return known | {digest: listed[digest] for digest in unknown if digest in listed}


class _Rest(NamedTuple):
    """What the first page did not list: a slice, and the estimated number of its pages."""

    part: Slice
    pages: int


async def _first_page(layout: Layout) -> tuple[dict[Digest, Stat], _Rest | None]:
    page = await layout.store.page(layout.blob_prefix, "", PAGE)
    found = _of_slice(layout, WHOLE_SPACE, page.objects)
    if page.complete:
        return found, None
    # The last blob, not the last object: other objects say nothing about the digest space.
    last = next(reversed(found)).hex if found else ""
    seen = (int(last[:8] or "0", 16) + 1) / 2**32
    pages = max(1, round(len(page.objects) * (1 - seen) / seen / PAGE))
    return found, _Rest(Slice(last), pages)


async def _list_rest(layout: Layout, rest: _Rest) -> dict[Digest, Stat]:
    parts = slices(min(rest.pages, LOOKUP_PARALLELISM), rest.part.start)
    return await _gathered(layout, parts)


async def _gathered(layout: Layout, parts: Iterable[Slice]) -> dict[Digest, Stat]:
    found: dict[Digest, Stat] = {}

    async def one(part: Slice) -> None:
        found.update(await list_slice(layout, part))

    await for_each(parts, one, LOOKUP_PARALLELISM)
    return dict(sorted(found.items()))


async def _look_up_each(layout: Layout, digests: Collection[Digest]) -> dict[Digest, Stat]:
    found = await layout.store.stat_batch([layout.blob_key(digest) for digest in digests])
    return {digest: stat for digest, stat in zip(digests, found, strict=True) if stat is not None}


def _of_slice(layout: Layout, part: Slice, objects: Iterable[Stat]) -> dict[Digest, Stat]:
    named = ((layout.digest_of(stat.path), stat) for stat in objects)
    return {digest: stat for digest, stat in named if digest is not None and part.holds(digest)}
