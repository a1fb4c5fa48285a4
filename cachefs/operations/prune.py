"""Pruning: remove names and delete orphaned blobs, safely while others write. Plan, then execute.

A blob is deleted if no name needs it and if it is older than the grace period, as seen in the store
at one reference time. This is safe because of the order of the steps:

1. the reference time is read from the store before anything is listed;
2. names are listed and read, then blobs are listed, then names are listed again;
3. when the plan is executed, names are removed first; then names are listed once more, and each
   blob is looked up right before its own delete, which compares if the store can do that;
4. a writer renews the time of a blob that it uses again, before it publishes.

So a writer that kept a blob without renewing its time is safe if its manifest is listed within the
grace period less its ``touch_refresh`` (and less the error of both clocks); a writer that renewed
the time is seen by the last look-up. If anything is not understood, nothing is deleted.

One window remains on stores that cannot compare and delete in one step, or do not see a touch when
they compare, such as a bucket of S3 without versioning: a writer may renew a blob *and* look it up
for the last time between the prune's look-up and its delete, which immediately follow each other.

Where a bucket keeps versions, what is going to be removed is recorded first
(:mod:`cachefs.operations.record`), so that it can be taken back (:mod:`cachefs.operations.undo`).
"""

from __future__ import annotations

import logging
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct, field, structs

from cachefs.amount import Amount, counted_names
from cachefs.errors import UsageError
from cachefs.filesystems.base import Stat
from cachefs.layout.base import NamedManifest  # noqa: TC001 - msgspec resolves it when decoding
from cachefs.operations.backup import Backup, BackupTarget, back_up, require_apart
from cachefs.operations.beside import manifests_beside
from cachefs.operations.dead_signatures import dead_signatures
from cachefs.operations.delete import BlobRemoval, Deletion, is_past
from cachefs.operations.mark import Marks
from cachefs.operations.observe import Seen, missing_blobs, observe, prefixes_of
from cachefs.operations.plan import Plan
from cachefs.operations.record import Recording
from cachefs.operations.retention import Candidate, PrunePolicy, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout
    from cachefs.transfer.workers import Workers

logger = logging.getLogger("cachefs")

GRACE: Final = 72 * 3600.0
"""The default grace period in seconds: a blob is left alone for this long after it was written or
touched, because a writer may take that long from its first look-up of a blob to its manifest."""

LONGEST_BUILD: Final = 48 * 3600.0
"""Seconds that the default grace period allows for a build on top of ``touch_refresh``."""


class NameRemoval(Struct, frozen=True, kw_only=True):
    """A name that will be removed.

    Attributes:
        manifest: the name as it was listed.
        reason: why it will be removed.
        age: seconds since it was written, None if the store has no times.
        frees: bytes of the blobs that will be deleted because no other name needs them.
        later: bytes of blobs like these that are within the grace period and stay for now.
    """

    manifest: NamedManifest
    reason: str
    age: float | None
    frees: int
    later: int


class MissingBlobs(Struct, frozen=True, kw_only=True):
    """A name, and those blobs that it needs but the store does not have."""

    name: str
    blobs: list[str]


class Leftover(Struct, frozen=True, kw_only=True):
    """What an interrupted write left: a temporary object, or an upload (``version`` is its ID)."""

    key: str
    size: int
    modified: float
    version: str = ""


class PruneReport(Struct, frozen=True, kw_only=True):
    """What a prune did.

    Attributes:
        removed: names that were removed.
        spared_names: names that were written since the plan was made, and stay.
        deleted: blobs that were deleted.
        spared: blobs that were written, touched or needed since the plan was made, and stay.
        leftovers: number of leftovers that were deleted.
        signatures: number of signatures that were deleted.
        seconds: the whole time.
        versioned: whether the store keeps what was deleted as earlier versions.
        backed_up: names that were copied to the backup before.
    """

    removed: list[str]
    spared_names: list[str]
    deleted: Amount
    spared: Amount
    leftovers: int
    seconds: float
    versioned: bool = False
    backed_up: list[str] = []
    signatures: int = 0


class PrunePlan(Plan[PruneReport], frozen=True, kw_only=True):
    """What a prune is going to remove and delete, and what stays.

    Attributes:
        prefixes: the path prefix of the blobs, followed by that of each layout's manifests.
        reference_time: the store's time before anything was listed, in seconds since 1970.
        grace: the grace period in seconds.
        remove: names that will be removed, the oldest first.
        missing_blobs: names whose blobs are not all there, whether they will be removed or not.
        delete: blobs that will be deleted, in the order of digests.
        frees: the number of these blobs, and their bytes.
        leftovers: leftovers of interrupted writes that will be deleted.
        signatures: signatures that will be deleted, because no name holds what they are for.
        waiting: orphaned blobs within the grace period.
        kept: blobs that stay because they are needed.
        staying: the names that stay as they are, for each layout.
        unmatched: patterns of the policy that match no name.
        fits: whether the rest is within the policy's ``max_size``, None if it has none.
        versioned: whether the store keeps what is deleted as earlier versions, so that it frees no
            space until a lifecycle rule of the bucket deletes those.
        recorded: whether there are records of earlier prunes, which can be taken back.
        backup: what is copied to another cache before anything is removed; None if nothing is.
    """

    prefixes: list[str]
    reference_time: float
    grace: float
    remove: list[NameRemoval]
    missing_blobs: list[MissingBlobs]
    delete: list[BlobRemoval]
    frees: Amount
    leftovers: list[Leftover]
    waiting: Amount
    kept: Amount
    staying: list[list[NamedManifest]]
    unmatched: list[str]
    fits: bool | None = None
    versioned: bool = False
    recorded: bool = False
    backup: Backup | None = None
    signatures: list[Leftover] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove or delete."""
        return not (self.remove or self.delete or self.leftovers or self.signatures)

    def __str__(self) -> str:
        removed = counted_names([one.manifest.name for one in self.remove])
        return f"prune: remove {removed}; delete {self.frees}; keep {self.kept}"


def default_grace(touch_refresh: float) -> float:
    """The grace period in seconds, if writers touch blobs after ``touch_refresh`` seconds."""
    return max(GRACE, touch_refresh + LONGEST_BUILD)


# --- planning ------------------------------------------------------------------------------------


async def plan_prune(
    layouts: Sequence[Layout],
    policy: PrunePolicy | None = None,
    *,
    grace: float = GRACE,
    clock: Callable[[], float] = time.time,
    workers: Workers | None = None,
    becoming: Mapping[str, frozenset[Digest]] | None = None,
    backup: BackupTarget | None = None,
) -> PrunePlan:
    """Find what to remove and delete. Writes only a small object, to read the store's time.

    Args:
        layouts: the cache to be pruned, followed by other manifests over the same blobs, whose
            names all stay.
        policy: which names to remove; by default none, so that only orphaned blobs are deleted.
        grace: the grace period in seconds. Less than the default is safe only while nothing writes.
        clock: this machine's time, in seconds since 1970.
        workers: other processes or machines that list the blobs.
        becoming: names that are about to be written, with the blobs they will need then.
        backup: where the names are copied before they are removed.

    Logs a warning for each pattern of the policy that matches no name: it may be mistyped.

    Raises NoCacheError, UsageError if there are no names at all, or if other manifests beside these
    need the same blobs, ManifestError, IntegrityError and StoreError if anything cannot be listed,
    read or understood, and StoreError if the clocks differ.
    """
    policy = policy or PrunePolicy()
    policy.check()
    if grace < 0:
        raise UsageError("the grace period is negative")
    if backup is not None:
        await require_apart(backup, layouts)
    seen = await observe(layouts, grace, clock, workers)
    await _require_all(layouts, seen.blobs, is_mirror=becoming is not None)
    missing = await missing_blobs(layouts[0], seen)
    plan = _plan(seen, missing, policy, grace, becoming or {}, backup)
    # An undo brings names back, and they have to be signed then: the next prune takes the rest.
    going = set() if plan.versioned else {removal.manifest.name for removal in plan.remove}
    dead = await dead_signatures(layouts, seen.marks, going, seen.reference - grace)
    plan = structs.replace(plan, signatures=[_leftover(stat) for stat in dead])
    for pattern in plan.unmatched:
        several = "; give several patterns one by one" if "," in pattern else ""
        logger.warning("the pattern %r matches no name, so it keeps nothing%s", pattern, several)
    return plan.remembering(lambda plan, callback: execute_prune(layouts, plan, backup, callback))


async def _require_all(
    layouts: Sequence[Layout], stored: Collection[Digest], *, is_mirror: bool
) -> None:
    """Raise UsageError if other manifests beside these need the same blobs."""
    beside = await manifests_beside(layouts, stored)
    if beside:
        layout = layouts[0]
        relative = [key.removeprefix(layout.prefix) for key in beside]
        prefixes = " and ".join(f"manifests_prefix={prefix}" for prefix in relative)
        first = "copy without --delete (delete= in Python), and in a prune " if is_mirror else ""
        raise UsageError(
            f"other manifests need blobs of this cache, which would be deleted: {first}give "
            f"--also (also= in Python) the same location with {prefixes}, or move away what is not "
            "in use",
            operation="prune",
            key=layout.store.root + beside[0],
        )


def _plan(
    seen: Seen,
    missing: Mapping[str, list[Digest]],
    policy: PrunePolicy,
    grace: float,
    becoming: Mapping[str, frozenset[Digest]],
    backup: BackupTarget | None,
) -> PrunePlan:
    marks = seen.marks
    sizes = {digest: stat.size for digest, stat in seen.blobs.items()}
    listed = {name.name: name for name in marks.names(0)}
    ages = {name.name: seen.age(_written(name, seen)) for name in listed.values()}
    removals = choose(
        [Candidate(name, ages[name], marks.needs(0, name), name in missing) for name in listed],
        policy,
        sizes,
    )

    def is_settled(name: str) -> bool:
        """Whether it needs after the copy what it needs now; if not, it is read again."""
        return name not in becoming or becoming[name] == marks.needs(0, name)

    orphans = seen.blobs.keys() - _needed(marks, removals, becoming)
    old = {d for d in orphans if is_past(seen.blobs[d], seen.reference, grace)}
    freed = _freed(removals, marks, orphans)
    kept = _amount(sizes, seen.blobs.keys() - orphans)
    return PrunePlan(
        prefixes=prefixes_of(marks.layouts),
        reference_time=seen.reference,
        grace=grace,
        remove=[
            NameRemoval(
                manifest=listed[name],
                reason=reason,
                age=ages[name],
                frees=_amount(sizes, freed[name] & old).bytes,
                later=_amount(sizes, freed[name] - old).bytes,
            )
            for name, reason in removals.items()
        ],
        missing_blobs=[
            MissingBlobs(name=name, blobs=[str(blob) for blob in lost])
            for name, lost in missing.items()
        ],
        delete=[_blob_removal(digest, seen) for digest in seen.blobs if digest in old],
        frees=_amount(sizes, old),
        leftovers=[_leftover(stat) for stat in seen.leftovers],
        waiting=_amount(sizes, orphans - old),
        kept=kept,
        staying=[
            [
                name
                for name in marks.names(0)
                if name.name not in removals and is_settled(name.name)
            ],
            *(marks.names(position) for position in range(1, len(marks.layouts))),
        ],
        unmatched=[
            pattern
            for pattern in (*policy.keep_last, *policy.keep)
            if not any(fnmatchcase(name, pattern) for name in listed)
        ],
        fits=None if policy.max_size is None else kept.bytes <= policy.max_size,
        versioned=seen.versioned,
        recorded=seen.recorded,
        backup=backup and _backup(freed, sizes, backup),
    )


def _backup(
    freed: Mapping[str, set[Digest]], sizes: Mapping[Digest, int], target: BackupTarget
) -> Backup | None:
    """The names that go and, if they are wanted, the blobs that they alone need."""
    if not freed:
        return None
    alone = sorted({blob for each in freed.values() for blob in each}) if target.blobs else []
    return Backup(
        to=target.layout.store.root + target.layout.prefix,
        names=list(freed),
        blobs={str(digest): sizes[digest] for digest in alone},
        copies=_amount(sizes, alone),
    )


def _written(name: NamedManifest, seen: Seen) -> float | None:
    """When a name was written. Tags share one index and its time, but not their manifests."""
    digest = seen.marks.layouts[0].digest_of(name.key)
    stat = None if digest is None else seen.blobs.get(digest)
    return name.modified if stat is None else stat.modified


def _needed(
    marks: Marks, removals: Collection[str], becoming: Mapping[str, frozenset[Digest]]
) -> set[Digest]:
    """The blobs that are needed once these names are removed and the others are written."""
    needed = set(marks.unnamed).union(*becoming.values())
    for position in range(len(marks.layouts)):
        for name in marks.names(position):
            now = marks.needs(position, name.name)
            if position > 0:
                needed |= now
            elif name.name in becoming:
                # If it stays as it is, so do the objects that describe its blobs.
                needed |= now if becoming[name.name] <= now else set()
            elif name.name not in removals:
                needed |= now
    return needed


def _freed(
    removals: Collection[str], marks: Marks, orphans: Collection[Digest]
) -> dict[str, set[Digest]]:
    """For each name to be removed, the blobs that become orphaned with it."""
    last = {digest: name for name in removals for digest in marks.needs(0, name)}
    freed: dict[str, set[Digest]] = {name: set() for name in removals}
    for digest, name in last.items():
        if digest in orphans:
            freed[name].add(digest)
    return freed


def _amount(sizes: Mapping[Digest, int], digests: Collection[Digest]) -> Amount:
    return Amount.of(sizes[digest] for digest in digests)


def _blob_removal(digest: Digest, seen: Seen) -> BlobRemoval:
    stat = seen.blobs[digest]
    age = seen.age(stat.modified) or 0.0
    return BlobRemoval(digest=str(digest), size=stat.size, age=age, version=stat.version)


def _leftover(stat: Stat) -> Leftover:
    return Leftover(
        key=stat.path, size=stat.size, modified=stat.modified or 0.0, version=stat.version
    )


def _stat(leftover: Leftover) -> Stat:
    return Stat(leftover.key, leftover.size, leftover.modified, leftover.version)


# --- executing -----------------------------------------------------------------------------------


async def execute_prune(
    layouts: Sequence[Layout],
    plan: PrunePlan,
    backup: BackupTarget | None = None,
    callback: Callback = DEFAULT_CALLBACK,
) -> PruneReport:
    """Remove and delete what the plan says: names first, then blobs that are still orphaned.

    Names that go are copied to the backup before, if there is one; if that fails, nothing goes.
    Names and blobs that were written or used since the plan was made stay. Raises UsageError for a
    plan of another cache, and the errors of :func:`plan_prune`; a new plan then finds what is left.
    """
    started = time.perf_counter()
    layout = layouts[0]
    if prefixes_of(layouts) != plan.prefixes:
        raise UsageError(f"the plan is for {', '.join(plan.prefixes)}; execute it there")
    names = [removal.manifest for removal in plan.remove]
    backed_up: list[str] = []
    if backup is not None and plan.backup is not None:
        backed_up = await back_up(layout, plan.backup, names, backup, callback)
    recording = await _recording(layout, plan)
    removed = await layout.remove_unchanged(names)
    gone = frozenset(removed)
    marks = Marks(layouts)
    for position, staying in enumerate(plan.staying):
        marks.assume(position, staying)
    await marks.look(settled=plan.reference_time)
    deletion = Deletion(layout, plan.reference_time, plan.grace)
    await deletion.execute(plan.delete, marks.needed())
    if recording is not None:
        await recording.end(removed, _sizes(deletion.deleted))
    for leftover in plan.leftovers:
        await layout.store.abandon(_stat(leftover))
    # A signature that was written again since then stays.
    for signature in plan.signatures:
        await layout.store.delete_unchanged(_stat(signature))
    return PruneReport(
        removed=removed,
        spared_names=[name.name for name in names if name.name not in gone],
        deleted=Amount.of(blob.size for blob in deletion.deleted),
        spared=Amount.of(blob.size for blob in deletion.spared),
        leftovers=len(plan.leftovers),
        seconds=time.perf_counter() - started,
        versioned=plan.versioned,
        backed_up=backed_up,
        signatures=len(plan.signatures),
    )


async def _recording(layout: Layout, plan: PrunePlan) -> Recording | None:
    """Record what is going to be done, where it can be taken back.

    Without versions, only if an earlier prune could be taken for the last one.
    """
    if not (plan.versioned or plan.recorded) or not (plan.remove or plan.delete):
        return None
    if not layout.has_name_keys:
        return None
    names = [removal.manifest.name for removal in plan.remove]
    return await Recording.begin(layout, names, _sizes(plan.delete), plan.reference_time)


def _sizes(blobs: Sequence[BlobRemoval]) -> dict[str, int]:
    return {blob.digest: blob.size for blob in blobs}
