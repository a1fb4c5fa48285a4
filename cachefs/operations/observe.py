"""What a prune sees of a store: its time, the names and what they need, and the blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.errors import StoreError, UsageError
from cachefs.operations.mark import Marks, no_names
from cachefs.operations.nearby import require_cache
from cachefs.operations.record import is_record
from cachefs.transfer.lookup import list_blobs, look_up
from cachefs.transfer.workers import list_spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout, NamedManifest
    from cachefs.transfer.workers import Workers

MAX_SKEW: Final = 300.0
"""Seconds by which the store's clock may differ from this machine's."""


class Seen(NamedTuple):
    """The content of a store. Ages are measured against ``reference``, in seconds since 1970."""

    reference: float
    marks: Marks
    blobs: dict[Digest, Stat]
    leftovers: list[Stat]
    versioned: bool
    recorded: bool

    def age(self, modified: float | None) -> float | None:
        """Seconds since a time; None if it is unknown."""
        return None if modified is None else self.reference - modified


async def observe(
    layouts: Sequence[Layout],
    grace: float,
    clock: Callable[[], float],
    workers: Workers | None,
) -> Seen:
    """Read the store's time, then list and read names, then blobs, then what has changed since.

    Raises the errors of :func:`cachefs.operations.prune.plan_prune`.
    """
    layout = layouts[0]
    prefixes_of(layouts)
    for each in layouts:  # before anything is written there
        if not await each.names():
            await require_cache(each)
            raise no_names(each)
    reference = await _reference_time(layout, clock)
    marks = Marks(layouts)
    await marks.look()
    blobs = await (list_spread(workers) if workers else list_blobs(layout))
    unfinished = await _unfinished(layout, marks.names(0))
    leftovers = [stat for stat in unfinished if _is_leftover(stat, reference - grace)]
    recorded = any(is_record(stat) for stat in unfinished)
    await marks.look(settled=reference)
    marks.require_names()
    versioned = await layout.store.keeps_versions()
    return Seen(reference, marks, blobs, leftovers, versioned, recorded)


async def _reference_time(layout: Layout, clock: Callable[[], float]) -> float:
    """The store's time. Raises StoreError if it has none, or differs too much from ours."""
    before = clock()
    reference = await layout.store.clock(layout.blob_prefix)
    after = clock()
    if reference is None:
        raise StoreError(
            "the store has no times, so the age of a blob is unknown",
            operation="prune",
            key=layout.store.root,
        )
    skew = max(before - reference, reference - after, 0.0)
    if skew > MAX_SKEW:
        raise StoreError(
            f"its clock and ours differ by {skew:.0f} seconds, but a prune depends on ages: set "
            f"the clocks (up to {MAX_SKEW:.0f} seconds are accepted)",
            operation="prune",
            key=layout.store.root,
        )
    return reference


async def _unfinished(layout: Layout, names: Sequence[NamedManifest]) -> list[Stat]:
    """What is next to blobs and manifests under temporary keys, and uploads that did not end."""
    found: dict[tuple[str, str], Stat] = {}
    for prefix in sorted(layout.temporary_prefixes(names)):
        for stat in await layout.store.unfinished(prefix):
            found[stat.path, stat.version] = stat
    return list(found.values())


def _is_leftover(stat: Stat, before: float) -> bool:
    """Whether an interrupted write left it before that time."""
    return stat.modified is not None and stat.modified <= before and not is_record(stat)


async def missing_blobs(layout: Layout, seen: Seen) -> dict[str, list[Digest]]:
    """The blobs that names need and that are still missing when they are looked up once more."""
    lost = {
        digest
        for name in seen.marks.names(0)
        for digest in seen.marks.needs(0, name.name)
        if digest not in seen.blobs
    }
    lost -= set(await look_up(layout, lost)) if lost else set()
    return {
        name.name: sorted(missing)
        for name in seen.marks.names(0)
        if (missing := lost & seen.marks.needs(0, name.name))
    }


def prefixes_of(layouts: Sequence[Layout]) -> list[str]:
    """The path prefixes of blobs and of each layout's manifests. Raises UsageError."""
    blobs = {layout.store.root + layout.blob_prefix for layout in layouts}
    if len(blobs) > 1:
        raise UsageError(
            f"{', '.join(sorted(blobs))} have no blobs in common: prune them one by one"
        )
    for layout in layouts:
        layout.require_names("prune")
    return [*blobs, *(layout.store.root + layout.manifest_prefix for layout in layouts)]
