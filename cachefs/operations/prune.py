"""Making a cache smaller, safely beside whoever writes to it: plan, look at it, execute.

A blob goes when no name needs it and when it is older than a grace, both as the store saw it at one
reference time. It is safe because of the order in which things are looked at:

1. the reference time is read from the store before anything is listed;
2. names are listed and read, then blobs are listed, then names are looked at again;
3. when the plan is executed, names go first; then names are looked at once more, and each blob is
   looked up right before its own delete, which is conditional where the store can do that;
4. whoever writes renews the time of a blob that it uses again, before it publishes.

So a writer that kept a blob without renewing its time is safe when its manifest is listed within
the grace less its ``touch_refresh`` (both clocks' errors taken off); one that renewed it is seen by
the last look-up. Where anything is not understood, nothing is deleted.

One window is left on stores that cannot compare and delete in one step, S3 among them, where a
touch does not change an ETag: a writer that renews a blob *and* takes its own last look at it
between the prune's look and its delete, which follow each other at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from cachefs.amount import Amount
from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.digest import Digest
from cachefs.errors import AccessError, StoreError, UsageError
from cachefs.filesystems.base import TEMPORARY, Stat
from cachefs.layout.base import NamedManifest  # noqa: TC001 - a plan can be decoded, so its types are there
from cachefs.layout.keyed import KeyedLayout
from cachefs.layout.oci import OCILayout
from cachefs.operations.mark import Marks, no_names
from cachefs.operations.retention import Candidate, PrunePolicy, choose
from cachefs.transfer.lookup import list_blobs, look_up
from cachefs.transfer.workers import list_spread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cachefs.layout.base import Layout
    from cachefs.transfer.workers import Workers

GRACE: Final = 72 * 3600.0
"""Seconds that a blob is left alone after it was written or renewed, unless told otherwise: other
writers say nothing of how long they take from the first look at a blob to their manifest."""

LONGEST_BUILD: Final = 48 * 3600.0
"""Seconds that the default grace leaves to a build beside the location's ``touch_refresh``."""

MAX_SKEW: Final = 300.0
"""Seconds by which the store's clock may differ from ours."""

PAUSES: Final = (0.1, 0.5, 2.0)
"""Seconds to wait after each delete whose answer did not come."""


class NameToGo(Struct, frozen=True, kw_only=True):
    """A name that goes.

    Attributes:
        name: the name as it was listed.
        reason: why it goes.
        age: seconds since it was written, None where the store has no times.
        frees: bytes of the blobs that go because no name that stays or goes later needs them.
        later: bytes of those that are within the grace, so that they stay for now.
    """

    name: NamedManifest
    reason: str
    age: float | None
    frees: int
    later: int


class BrokenName(Struct, frozen=True, kw_only=True):
    """A name that needs blobs that are not in the store."""

    name: str
    missing: list[str]


class BlobToGo(Struct, frozen=True, kw_only=True):
    """A blob that goes: bytes, seconds of age at the reference time, the store's mark."""

    digest: str
    size: int
    age: float
    version: str = ""


class Leftover(Struct, frozen=True, kw_only=True):
    """What a write that never ended has left: a temporary object, or an upload (its version)."""

    key: str
    size: int
    modified: float
    version: str = ""


class PrunePlan(Struct, frozen=True, kw_only=True):
    """What a prune takes away and what it leaves, as plain data. Nothing has changed yet.

    Attributes:
        places: the root with the blobs' prefix, and then each place of manifests that was read.
        reference_time: the store's time, seconds since 1970, before anything was listed.
        grace: seconds that a blob is left alone after it was written or renewed.
        names: names that go, the oldest first.
        broken: names with blobs that are missing, whether they go or not.
        blobs: blobs that go, in the order of digests.
        deletes: how many these are, with how many bytes.
        leftovers: what interrupted writes have left and goes.
        waiting: blobs that nothing needs and that are within the grace.
        kept: blobs that stay because they are needed.
        staying: the names that stay, for each place of manifests.
        fits: whether the rest is within the policy's ``max_size``, None where it has none.
    """

    places: list[str]
    reference_time: float
    grace: float
    names: list[NameToGo]
    broken: list[BrokenName]
    blobs: list[BlobToGo]
    deletes: Amount
    leftovers: list[Leftover]
    waiting: Amount
    kept: Amount
    staying: list[list[NamedManifest]]
    fits: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.names or self.blobs or self.leftovers)


class PruneReport(Struct, frozen=True, kw_only=True):
    """What a prune did. ``spared`` and ``spared_names`` were written or used since the plan."""

    names: list[str]
    spared_names: list[str]
    deleted: Amount
    spared: Amount
    leftovers: int
    seconds: float


def default_grace(touch_refresh: float) -> float:
    """The grace beside writers that renew blobs after so many seconds: longer where that is."""
    return max(GRACE, touch_refresh + LONGEST_BUILD)


# --- planning ------------------------------------------------------------------------------------


async def plan_prune(
    layout: Layout,
    policy: PrunePolicy | None = None,
    *,
    also: Sequence[Layout] = (),
    grace: float = GRACE,
    clock: Callable[[], float] = time.time,
    workers: Workers | None = None,
) -> PrunePlan:
    """Find what is to go. Changes nothing but for a small object, written to read the store's time.

    Args:
        layout: the cache.
        policy: which names go; by default none, so that only orphans do.
        also: other places of manifests over the same blobs, whose names are honoured.
        grace: seconds that a blob is left alone after it was written or renewed. Less than the
            default is for caches that nobody writes to meanwhile.
        clock: our own time, seconds since 1970.
        workers: other processes or machines that list the blobs.

    Raises UsageError where there are no names at all, ManifestError, IntegrityError and StoreError
    where anything cannot be listed, read or understood, and where the clocks differ.
    """
    policy = policy or PrunePolicy()
    policy.check()
    if grace < 0:
        raise UsageError("the grace is negative")
    seen = await _observe([layout, *also], grace, clock, workers)
    broken = await _broken(layout, seen)
    return _plan(seen, broken, policy, grace)


class _Seen(NamedTuple):
    """What a store held. Age is measured against ``reference``, seconds since 1970."""

    reference: float
    marks: Marks
    blobs: dict[Digest, Stat]
    leftovers: list[Stat]

    def age(self, modified: float | None) -> float | None:
        return None if modified is None else self.reference - modified


async def _observe(
    layouts: Sequence[Layout],
    grace: float,
    clock: Callable[[], float],
    workers: Workers | None,
) -> _Seen:
    layout = layouts[0]
    _places(layouts)
    for place in layouts:  # before anything is written there
        if not await place.names():
            raise no_names(place)
    reference = await _reference_time(layout, clock)
    marks = Marks(layouts)
    await marks.look()
    blobs = await (list_spread(workers) if workers else list_blobs(layout))
    leftovers = await _leftovers(layout, marks.names(0), reference - grace)
    await marks.look(settled=reference)
    marks.require_names()
    return _Seen(reference, marks, blobs, leftovers)


def _places(layouts: Sequence[Layout]) -> list[str]:
    """Where the blobs and the manifests of each layout are. Raises UsageError for other blobs."""
    blobs = {layout.store.root + layout.blob_prefix for layout in layouts}
    if len(blobs) > 1:
        raise UsageError(
            f"{', '.join(sorted(blobs))} have no blobs in common, so each is pruned by itself"
        )
    for layout in layouts:
        if isinstance(layout, OCILayout) and layout.digest is not None:
            raise UsageError(
                "a digest chooses one manifest; a prune has to see all, so leave it out"
            )
    manifests = [layout.manifests if isinstance(layout, KeyedLayout) else "" for layout in layouts]
    return [*blobs, *(layouts[0].store.root + prefix for prefix in manifests)]


async def _reference_time(layout: Layout, clock: Callable[[], float]) -> float:
    """The store's time. Raises StoreError where it has none, or one that is not ours."""
    before = clock()
    reference = await layout.store.clock(layout.blob_prefix)
    after = clock()
    if reference is None:
        raise StoreError(
            "the store has no times, so that nothing is known to be old",
            operation="prune",
            key=layout.store.root,
        )
    skew = max(before - reference, reference - after, 0.0)
    if skew > MAX_SKEW:
        raise StoreError(
            f"its clock and ours differ by {skew:.0f} seconds, and a prune goes by age; set the "
            f"clocks (up to {MAX_SKEW:.0f} seconds are borne)",
            operation="prune",
            key=layout.store.root,
        )
    return reference


async def _leftovers(layout: Layout, names: Sequence[NamedManifest], before: float) -> list[Stat]:
    """What interrupted writes have left beside blobs and manifests, and is older than the grace."""
    folders = {name.key.rpartition("/")[0] for name in names}
    prefixes = {f"{folder}/{TEMPORARY}".lstrip("/") for folder in folders} | {layout.blob_prefix}
    if isinstance(layout, OCILayout):
        prefixes.add(TEMPORARY)  # beside index.json
    found: dict[tuple[str, str], Stat] = {}
    for prefix in sorted(prefixes):
        for stat in await layout.store.unfinished(prefix):
            if stat.modified is not None and stat.modified <= before:
                found[stat.path, stat.version] = stat
    return list(found.values())


async def _broken(layout: Layout, seen: _Seen) -> dict[str, list[Digest]]:
    """The blobs that names need and that are missing, also when they are looked up once more."""
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


def _plan(
    seen: _Seen, broken: Mapping[str, list[Digest]], policy: PrunePolicy, grace: float
) -> PrunePlan:
    marks = seen.marks
    sizes = {digest: stat.size for digest, stat in seen.blobs.items()}
    names = {name.name: name for name in marks.names(0)}
    ages = {name.name: seen.age(_written(name, seen)) for name in names.values()}
    going = choose(
        [Candidate(name, ages[name], marks.needs(0, name), name in broken) for name in names],
        policy,
        sizes,
    )
    orphans = seen.blobs.keys() - _needed(marks, going)
    old = {d for d in orphans if _is_old(seen.blobs[d], seen.reference, grace)}
    freed = _freed(going, marks, orphans)
    kept = _amount(sizes, seen.blobs.keys() - orphans)
    return PrunePlan(
        places=_places(marks.layouts),
        reference_time=seen.reference,
        grace=grace,
        names=[
            NameToGo(
                name=names[name],
                reason=reason,
                age=ages[name],
                frees=_amount(sizes, freed[name] & old).bytes,
                later=_amount(sizes, freed[name] - old).bytes,
            )
            for name, reason in going.items()
        ],
        broken=[
            BrokenName(name=name, missing=[str(blob) for blob in lost])
            for name, lost in broken.items()
        ],
        blobs=[_to_go(digest, seen) for digest in seen.blobs if digest in old],
        deletes=_amount(sizes, old),
        leftovers=[_leftover(stat) for stat in seen.leftovers],
        waiting=_amount(sizes, orphans - old),
        kept=kept,
        staying=[
            [name for name in marks.names(place) if place > 0 or name.name not in going]
            for place in range(len(marks.layouts))
        ],
        fits=None if policy.max_size is None else kept.bytes <= policy.max_size,
    )


def _written(name: NamedManifest, seen: _Seen) -> float | None:
    """When a name was written. Tags share one index and its time; their manifests differ."""
    digest = seen.marks.layouts[0].digest_of(name.key)
    stat = None if digest is None else seen.blobs.get(digest)
    return name.modified if stat is None else stat.modified


def _needed(marks: Marks, going: Collection[str]) -> set[Digest]:
    needed = set(marks.unnamed)
    for place in range(len(marks.layouts)):
        for name in marks.names(place):
            if place > 0 or name.name not in going:
                needed |= marks.needs(place, name.name)
    return needed


def _freed(
    going: Collection[str], marks: Marks, orphans: Collection[Digest]
) -> dict[str, set[Digest]]:
    """For each name that goes the orphans that it is the last to need, in the order of going."""
    last = {digest: name for name in going for digest in marks.needs(0, name)}
    freed: dict[str, set[Digest]] = {name: set() for name in going}
    for digest, name in last.items():
        if digest in orphans:
            freed[name].add(digest)
    return freed


def _is_old(stat: Stat, reference: float, grace: float) -> bool:
    """Whether the object is past the grace; one without a time, or from the future, never is."""
    return stat.modified is not None and reference - stat.modified >= max(grace, 0.0)


def _amount(sizes: Mapping[Digest, int], digests: Collection[Digest]) -> Amount:
    return Amount(len(digests), sum(sizes[digest] for digest in digests))


def _to_go(digest: Digest, seen: _Seen) -> BlobToGo:
    stat = seen.blobs[digest]
    age = seen.age(stat.modified) or 0.0
    return BlobToGo(digest=str(digest), size=stat.size, age=age, version=stat.version)


def _leftover(stat: Stat) -> Leftover:
    return Leftover(
        key=stat.path, size=stat.size, modified=stat.modified or 0.0, version=stat.version
    )


# --- executing -----------------------------------------------------------------------------------


async def execute_prune(
    layout: Layout, plan: PrunePlan, *, also: Sequence[Layout] = ()
) -> PruneReport:
    """Take away what the plan says: names first, then what is still needed by none, blob by blob.

    A name or blob that was written or used since the plan was made stays. Raises UsageError for a
    plan of another cache, and otherwise as :func:`plan_prune`; what had not gone by then stays, and
    a new plan finds it.
    """
    started = time.perf_counter()
    layouts = [layout, *also]
    if _places(layouts) != plan.places:
        raise UsageError(
            f"the plan is for {', '.join(plan.places)}; execute it there, with the same places"
        )
    withdrawn, stay = await _withdraw(layout, [name.name for name in plan.names])
    marks = Marks(layouts)
    for place, names in enumerate(plan.staying):
        marks.assume(place, names)
    await marks.look(settled=plan.reference_time)
    deletion = _Deletion(layout, plan)
    await deletion.execute(marks.needed())
    for leftover in plan.leftovers:
        await layout.store.abandon(
            Stat(leftover.key, leftover.size, leftover.modified, leftover.version)
        )
    return PruneReport(
        names=withdrawn,
        spared_names=stay,
        deleted=Amount(len(deletion.deleted), sum(deletion.deleted)),
        spared=Amount(len(deletion.spared), sum(deletion.spared)),
        leftovers=len(plan.leftovers),
        seconds=time.perf_counter() - started,
    )


async def _withdraw(layout: Layout, names: Sequence[NamedManifest]) -> tuple[list[str], list[str]]:
    """Take names away one after the other, the oldest first: those that went, those that stay."""
    gone: list[str] = []
    stay: list[str] = []
    for name in names:
        (gone if await layout.withdraw(name) else stay).append(name.name)
    return gone, stay


class _Deletion:
    """Deletes a plan's blobs, each looked up right before. Gathers the bytes of each."""

    def __init__(self, layout: Layout, plan: PrunePlan) -> None:
        self.deleted: list[int] = []
        self.spared: list[int] = []
        self._layout = layout
        self._plan = plan

    async def execute(self, needed: Collection[Digest]) -> None:
        victims = [blob for blob in self._plan.blobs if blob.digest not in needed]
        self.spared += [blob.size for blob in self._plan.blobs if blob.digest in needed]
        await for_each(victims, self._delete, LOOKUP_PARALLELISM)

    async def _delete(self, blob: BlobToGo) -> None:
        """One delete; where its answer is lost, what it did is looked up before it is repeated."""
        store = self._layout.store
        sent = False
        for pause in (*PAUSES, None):
            stat = await store.stat(self._layout.blob_key(Digest(blob.digest)))
            if stat is None:
                # Without a delete of ours somebody else was quicker, and it is not ours to count.
                self.deleted += [blob.size] if sent else []
                return
            if not _is_old(stat, self._plan.reference_time, self._plan.grace):
                break
            try:
                gone = await store.delete_unchanged(stat)
            except AccessError:
                raise
            except StoreError:
                if pause is None:
                    raise
                sent = True
                await asyncio.sleep(pause)
            else:
                (self.deleted if gone else self.spared).append(blob.size)
                return
        self.spared.append(blob.size)
