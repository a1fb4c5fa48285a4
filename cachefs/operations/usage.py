"""What a cache uses: bytes by name, shared, orphaned and missing blobs. Reads only.

Manifests are read first and blobs are listed once after that. Exporters write in the opposite
order, so a missing blob is not one that was just being uploaded.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.amount import Amount
from cachefs.errors import CacheError, NotFoundError
from cachefs.graph import RecordGraph
from cachefs.transfer.lookup import stored_blobs
from cachefs.transfer.manifests import NAME_FAULTS, read_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout, NamedManifest

DAY: Final = 86_400

AGES: Final = (1, 7, 30)
"""Ages in days at which one age class ends and the next begins."""


class NameUsage(Struct, frozen=True, kw_only=True):
    """What a name needs.

    Attributes:
        name: the name, or tag.
        modified: seconds since 1970, None if the store has no times.
        total: its blobs, each counted once.
        unique: blobs that no other manifest needs: what removing this name would free.
        shared: blobs that other names, or manifests without a name, need too.
        fault: why the manifest cannot be read; the figures are then 0.
    """

    name: str
    modified: float | None = None
    total: Amount = Amount()
    unique: Amount = Amount()
    shared: Amount = Amount()
    fault: str | None = None


class AgeClass(Struct, frozen=True, kw_only=True):
    """Stored blobs in one age range.

    Attributes:
        days: the end of the range: the blobs were written or touched less than this many days ago,
            and at least as many as in the class before. None for all older blobs.
        amount: the blobs.
    """

    days: int | None
    amount: Amount


class CacheUsage(Struct, frozen=True, kw_only=True):
    """What a cache uses. Sizes are those in the store or, if a blob is missing, in manifests.

    Attributes:
        names: each name, or those that were requested.
        named: the blobs that names need, counted once for each name.
        referenced: the same blobs, counted once.
        dedup: bytes of ``named`` divided by the bytes of the same blobs counted once; None if
            there are none.
        stored: all blobs in the store.
        orphaned: stored blobs that no manifest needs. They include those of an export under way,
            and of names under another prefix.
        uncertain: stored blobs that no readable manifest needs, if there is an unreadable one that
            may need them; ``orphaned`` is then empty.
        missing: blobs that a manifest needs and that are not in the store.
        listed: whether all blobs of the store were listed. A registry lists none: ``stored`` is
            then those of ``referenced`` that are there, and what is orphaned is unknown.
        ages: stored blobs by age, the youngest first.
        undated: stored blobs whose age is unknown.
        oldest: when the oldest blob was written or touched, in seconds since 1970.
        newest: the same for the newest blob.
        fault: why a manifest without a name cannot be read.
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
    listed: bool = True


async def measure(
    layout: Layout, names: Collection[str] = (), *, now: float | None = None
) -> CacheUsage:
    """Measure what the cache uses, from its manifests and one listing of its blobs.

    Args:
        layout: the cache.
        names: report only these, in their order; sharing is still computed from all names.
        now: the time that ages count from, in seconds since 1970; by default this machine's.

    The figures of a name whose manifest is unreadable state its fault. Raises StoreError,
    ManifestError if the names cannot be listed, and UsageError for a cache that was opened by a
    manifest's digest.
    """
    layout.require_names("measure")
    needs = await _read_needs(layout)
    counts = Counter(digest for blobs in needs.names.values() for digest in blobs)
    referenced = counts.keys() | needs.unnamed
    there = await stored_blobs(layout, referenced)
    for digest, stat in there.items():
        needs.sizes[digest] = stat.size
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
        listed=layout.store.filesystem.lists_blobs,
    )


@dataclass(slots=True)
class _Needs:
    """The blobs that manifests need, and their sizes."""

    listed: list[NamedManifest]
    names: dict[str, set[Digest]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    unnamed: set[Digest] = field(default_factory=set)
    fault: str | None = None
    sizes: dict[Digest, int] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """Whether a manifest is unreadable, so that more blobs may be needed."""
        return bool(self.faults) or self.fault is not None

    def amount(self, digests: Iterable[Digest]) -> Amount:
        """How many blobs these are, and their bytes."""
        return Amount.of(self.sizes.get(digest, 0) for digest in digests)


async def _read_needs(layout: Layout) -> _Needs:
    needs = _Needs(await layout.names())
    counts = Counter(name.name for name in needs.listed)
    for name, count in counts.items():
        if count > 1:
            needs.faults[name] = f"the tag exists {count} times, so its manifest is ambiguous"

    async def read(held: Layout, name: str) -> set[Digest]:
        return await _needed(held, name, needs.sizes)

    distinct = [name for name in counts if name not in needs.faults]
    for name, found in (await read_names(layout, distinct, read)).items():
        if isinstance(found, CacheError):
            needs.faults[name] = str(found)
        else:
            needs.names[name] = found
    try:
        needs.unnamed = await layout.unnamed_references()
    except NAME_FAULTS as error:
        if needs.listed or not isinstance(error, NotFoundError):
            needs.fault = str(error)
    return needs


async def _needed(layout: Layout, name: str, sizes: dict[Digest, int]) -> set[Digest]:
    """The blobs that a name needs; the sizes that its manifest states are noted."""
    manifest = await layout.read(name)
    stated = RecordGraph(manifest.config).blobs()
    for digest, size in stated.items():
        sizes[digest] = max(size, sizes.get(digest, 0))
    if manifest.raw is not None:
        return set(stated)
    # The manifest was made from several objects, which are blobs too.
    return stated.keys() | await layout.references(name)


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
