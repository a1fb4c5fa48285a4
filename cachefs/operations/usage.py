"""What a cache uses: bytes a name, what is shared, orphaned and missing. Reads only.

Manifests are read first and blobs listed once after that, as exporters write them the other way
round: a blob that is missing then was not on its way.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.amount import Amount
from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.errors import CacheError, NotFoundError, StoreError, UsageError
from cachefs.graph import RecordGraph
from cachefs.layout.oci import OCILayout
from cachefs.transfer.lookup import list_blobs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout, NamedManifest

DAY: Final = 86_400

AGES: Final = (1, 7, 30)
"""Days at which one class of ages ends and the next begins."""


class NameUsage(Struct, frozen=True, kw_only=True):
    """What a name needs.

    Attributes:
        name: the name, or tag.
        modified: seconds since 1970, None where the store has no times.
        total: all of its blobs, each counted once.
        unique: those that nothing else needs: what would become free without this name.
        shared: those that other names, or manifests without a name, need too.
        fault: why it cannot be read; the figures are then 0.
    """

    name: str
    modified: float | None = None
    total: Amount = Amount()
    unique: Amount = Amount()
    shared: Amount = Amount()
    fault: str | None = None


class AgeClass(Struct, frozen=True, kw_only=True):
    """Stored blobs of about an age.

    Attributes:
        days: they were written, or renewed, less than so many days ago, and at least as many as the
            class before says. None for all that are older.
        amount: the blobs.
    """

    days: int | None
    amount: Amount


class CacheUsage(Struct, frozen=True, kw_only=True):
    """What a cache uses. A blob has the size that is stored, else the one that manifests state.

    Attributes:
        names: each name, or those that were asked for.
        named: the blobs that names need, counted for each name that needs them.
        referenced: the same, each counted once.
        dedup: bytes of ``named`` over bytes of ``referenced``; None where there are none.
        stored: all blobs in the store.
        orphaned: stored, and no manifest needs them. Those of an export that is under way, and of
            names under another prefix, are among them.
        uncertain: stored, and no manifest that could be read needs them, but one could not be read:
            then these may be its blobs, and ``orphaned`` is empty.
        missing: needed by a name, and not in the store.
        ages: stored blobs by age, the youngest first.
        undated: stored blobs whose age the store does not tell.
        oldest: when the oldest blob was written or renewed, in seconds since 1970.
        newest: the same of the newest.
        fault: why what lies among the manifests without a name cannot be read.
    """

    names: list[NameUsage]
    named: Amount
    referenced: Amount
    dedup: float | None
    stored: Amount
    orphaned: Amount
    uncertain: Amount
    missing: Amount
    ages: list[AgeClass]
    undated: Amount
    oldest: float | None = None
    newest: float | None = None
    fault: str | None = None


async def measure(
    layout: Layout, names: Collection[str] = (), *, now: float | None = None
) -> CacheUsage:
    """What the cache uses, from its manifests and one listing of its blobs.

    Args:
        layout: the cache.
        names: report these only, in their order; what they share is still told from all names.
        now: seconds since 1970, that ages count from; by default this machine's time.

    A manifest that cannot be read has its fault in its name's figures. Raises StoreError where the
    store cannot be asked, ManifestError where the names cannot be told, and UsageError for a cache
    that was opened by a manifest's digest.
    """
    if isinstance(layout, OCILayout) and layout.digest is not None:
        raise UsageError("what a cache uses is told by all of its names: leave digest=... out")
    needs = await _read_manifests(layout)
    there = await list_blobs(layout)
    for digest, stat in there.items():
        needs.sizes[digest] = stat.size
    counts = Counter(digest for blobs in needs.names.values() for digest in blobs)
    referenced = counts.keys() | needs.unnamed
    unclaimed = needs.amount(there.keys() - referenced)
    shared = {digest for digest, count in counts.items() if count > 1} | needs.unnamed
    every_name = [_of_name(name, needs, shared) for name in needs.listed]
    named = sum(one.total.bytes for one in every_name)
    distinct = needs.amount(counts)
    times = [stat.modified for stat in there.values() if stat.modified is not None]
    return CacheUsage(
        names=_chosen(every_name, names),
        named=Amount(sum(counts.values()), named),
        referenced=needs.amount(referenced),
        dedup=named / distinct.bytes if distinct.bytes else None,
        stored=needs.amount(there),
        orphaned=Amount() if needs.incomplete else unclaimed,
        uncertain=unclaimed if needs.incomplete else Amount(),
        missing=needs.amount(referenced - there.keys()),
        ages=_ages(there, time.time() if now is None else now),
        undated=needs.amount(digest for digest, stat in there.items() if stat.modified is None),
        oldest=min(times, default=None),
        newest=max(times, default=None),
        fault=needs.fault,
    )


@dataclass(slots=True)
class _Needs:
    """What manifests need, and the sizes of these blobs."""

    listed: list[NamedManifest]
    names: dict[str, set[Digest]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    unnamed: set[Digest] = field(default_factory=set)
    fault: str | None = None
    sizes: dict[Digest, int] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """Whether a manifest could not be read, so that more blobs may be needed."""
        return bool(self.faults) or self.fault is not None

    def amount(self, digests: Iterable[Digest]) -> Amount:
        """How many these are, with their bytes."""
        sizes = [self.sizes.get(digest, 0) for digest in digests]
        return Amount(len(sizes), sum(sizes))


async def _read_manifests(layout: Layout) -> _Needs:
    needs = _Needs(await layout.names())
    times = Counter(name.name for name in needs.listed)
    for name, count in times.items():
        if count > 1:
            needs.faults[name] = f"the tag is there {count} times: which manifest is meant?"

    async def one(name: str) -> None:
        try:
            needs.names[name] = await _needed(layout, name, needs.sizes)
        except CacheError as error:
            _require_answer(error)
            needs.faults[name] = str(error)

    await for_each([name for name in times if name not in needs.faults], one, LOOKUP_PARALLELISM)
    try:
        needs.unnamed = await layout.unnamed_references()
    except CacheError as error:
        _require_answer(error)
        if needs.listed or not isinstance(error, NotFoundError):
            needs.fault = str(error)
    return needs


async def _needed(layout: Layout, name: str, sizes: dict[Digest, int]) -> set[Digest]:
    """What a name needs; the sizes that it states are noted."""
    manifest = await layout.read(name)
    stated = RecordGraph(manifest.config).blobs()
    for digest, size in stated.items():
        sizes[digest] = max(size, sizes.get(digest, 0))
    if manifest.raw is not None:
        return set(stated)
    # The facts lay in several objects, which are blobs too.
    return stated.keys() | await layout.references(name)


def _require_answer(error: CacheError) -> None:
    """Raise the error again where it says nothing of the manifest: the store cannot be asked."""
    if isinstance(error, UsageError) or (
        isinstance(error, StoreError) and not isinstance(error, NotFoundError)
    ):
        raise error


def _of_name(name: NamedManifest, needs: _Needs, shared: Collection[Digest]) -> NameUsage:
    blobs = needs.names.get(name.name, set())
    return NameUsage(
        name=name.name,
        modified=name.modified,
        total=needs.amount(blobs),
        unique=needs.amount(digest for digest in blobs if digest not in shared),
        shared=needs.amount(digest for digest in blobs if digest in shared),
        fault=needs.faults.get(name.name),
    )


def _chosen(every_name: list[NameUsage], names: Collection[str]) -> list[NameUsage]:
    if not names:
        return every_name
    by_name = {usage.name: usage for usage in every_name}
    absent = "there is no such name"
    return [by_name.get(name) or NameUsage(name=name, fault=absent) for name in names]


def _ages(there: Mapping[Digest, Stat], now: float) -> list[AgeClass]:
    blobs: Counter[int | None] = Counter()
    sizes: Counter[int | None] = Counter()
    for stat in there.values():
        if stat.modified is not None:
            age = now - stat.modified
            days = next((days for days in AGES if age < days * DAY), None)
            blobs[days] += 1
            sizes[days] += stat.size
    return [AgeClass(days=days, amount=Amount(blobs[days], sizes[days])) for days in (*AGES, None)]
