"""Operations between caches: copy, merge and promote."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fsspec.callbacks import DEFAULT_CALLBACK

from cachefs.amount import Amount
from cachefs.concurrency import run
from cachefs.errors import LocationError, NoCacheError, UsageError
from cachefs.location.keys import as_names
from cachefs.operations import merge as merging
from cachefs.operations.copy import Copy, CopyPlan, Senders, renamed
from cachefs.operations.merge import MergePlan, MergeSource
from cachefs.operations.mirror import require_whole
from cachefs.operations.promote import PromoteLimits, plan_promotion, require_lanes
from cachefs.operations.prune import default_grace
from cachefs.sides import as_caches, resolved
from cachefs.transfer.exporter import ExportReport
from cachefs.transfer.ignoring import unless_ignored
from cachefs.transfer.publishing import checked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor
    from typing import Literal

    from fsspec.callbacks import Callback

    from cachefs.cache import CacheLike
    from cachefs.location.keys import Names
    from cachefs.location.options import Location
    from cachefs.operations.promote import PromotePlan, PromoteReport
    from cachefs.transfer.publishing import OnConflict


logger = logging.getLogger("cachefs")


def plan_copy(
    source: CacheLike,
    target: CacheLike,
    *,
    delete: bool = False,
    repair: bool = False,
    ignore_missing: bool = False,
    on_conflict: OnConflict = "replace",
    trust_store: bool = False,
    executor: Executor | None = None,
) -> CopyPlan:
    """Find what :func:`copy` would do. Writes nothing. Raises the same errors as :func:`copy`.

    The plan keeps the manifests that were read, and executing it copies these.
    """
    try:
        work, goal = _prepared(
            source,
            target,
            delete=delete,
            repair=repair,
            ignore_missing=ignore_missing,
            on_conflict=on_conflict,
            trust_store=trust_store,
            executor=executor,
        )
        plan = run(work.plan())
    except NoCacheError as error:
        if not ignore_missing:
            raise
        return _nothing(error)
    execute = plan.work
    return plan.remembering(
        lambda plan, callback: unless_ignored(lambda: execute(plan, callback), goal)
    )


def copy(
    source: CacheLike,
    target: CacheLike,
    *,
    delete: bool = False,
    repair: bool = False,
    ignore_missing: bool = False,
    on_conflict: OnConflict = "replace",
    trust_store: bool = False,
    callback: Callback = DEFAULT_CALLBACK,
    executor: Executor | None = None,
) -> ExportReport:
    """Copy a cache, as it is, to any other location. Blocks until it is done.

    All names of the source, or those that its location gives, keep their names unless the target's
    location gives others; an OCI tag is a name. Blobs that the target has are not sent, and every
    blob is verified while it is copied. Between S3 locations of one server, the server copies the
    larger blobs itself if it states their SHA-256 before they can be seen; their bytes do not
    travel then.

    A name that holds the same already is not written again, unless it is older than the source's.
    If all names are copied and the target can set times (on a disk or by SFTP, in a keyed cache),
    its names get the times of the source's, so that their ages mean the same.

    Args:
        source: where to copy from.
        target: where to copy to.
        delete: make a mirror: names that the source lacks are removed from the target afterwards,
            and blobs are deleted by the rules of :meth:`Cache.plan_prune`. Not after a CopyError.
        repair: mend manifests that builders refuse to import: records with an input that nothing
            satisfies are left out, and missing diffIDs are worked out. Without it they are copied
            as they are, and a warning is logged.
        ignore_missing: copy nothing if there is no cache or the names given do not exist, and log
            a warning: a first build has no cache yet.
        on_conflict: what happens to a name of the target that holds something else: ``replace`` it;
            ``merge`` both, so that writers of one name at the same time, such as the jobs of a
            matrix, lose nothing; or ``fail``. Names that are joined get the present time.
        trust_store: let a store copy blobs itself also where it does not prove what it copied (S3,
            Azure and Google Cloud Storage, within one server or account): in fewer requests, but
            damaged bytes are copied as they are. The report says what was copied how.
        callback: an fsspec callback that receives the number of bytes sent.
        executor: other processes or machines that send the blobs: any
            ``concurrent.futures.Executor``, as for :meth:`Cache.verify`.

    Raises NoCacheError, LocationError, UsageError (also for ``delete`` with another ``on_conflict``
    than ``replace``), StoreError, and CopyError if some names could not be copied, also because of
    a conflict; the others have been copied then. With the target's ``ignore-error``, StoreError
    and CopyError are logged as a warning and set in the report.
    """
    try:
        work, goal = _prepared(
            source,
            target,
            delete=delete,
            repair=repair,
            ignore_missing=ignore_missing,
            on_conflict=on_conflict,
            trust_store=trust_store,
            executor=executor,
        )
        return run(unless_ignored(lambda: work.execute(callback), goal))
    except NoCacheError as error:
        if not ignore_missing:
            raise
        return _nothing(error).execute()


def plan_merge(
    sources: CacheLike | Sequence[CacheLike],
    target: CacheLike,
    names: Names = (),
    *,
    on_conflict: Literal["merge", "replace"] = "merge",
    trust_store: bool = False,
) -> MergePlan:
    """Read names of one or more caches, and find their union. Writes nothing.

    Args:
        sources: one cache or several, each with the names that its location gives
            (:meth:`Cache.with_names`), or else all its names.
        target: where the union is to be stored; may be one of the sources.
        names: the names of the union there, by default those that the target's location gives.
        on_conflict: whether a name that exists keeps what it holds besides (``merge``), or holds
            nothing but the union (``replace``).
        trust_store: as for :func:`copy`.

    When the plan is executed, the sources are read again, and the names to be joined, whatever they
    hold then. Executing raises CacheError if the sources have changed since, NotFoundError and
    IntegrityError for a blob that no source has intact, ConflictError if other writers of a name
    were faster each time, and StoreError; then that name has not changed.

    Raises UsageError with all names that are missing, ManifestError and IntegrityError if a
    manifest is unreadable, and StoreError.
    """
    choice = checked(on_conflict)
    if choice == "fail":
        raise UsageError("a merge joins or replaces what a name holds; on_conflict cannot be fail")
    goal = resolved(target, "export", "target")
    read = [resolved(source, "import", "source") for source in as_caches(sources)]
    work = merging.plan_merge(
        [MergeSource(one.layout, one.layout.selected(one.location.names)) for one in read],
        goal.layout,
        as_names(names) or goal.location.names,
        touch_refresh=goal.location.export.touch_refresh,
        on_conflict=choice,
        trust_store=trust_store,
    )
    return run(work)


def merge(
    sources: CacheLike | Sequence[CacheLike],
    target: CacheLike,
    names: Names = (),
    *,
    on_conflict: Literal["merge", "replace"] = "merge",
    trust_store: bool = False,
    callback: Callback = DEFAULT_CALLBACK,
) -> ExportReport:
    """Store the union of names: make a plan as :func:`plan_merge` does, and execute it."""
    plan = plan_merge(sources, target, names, on_conflict=on_conflict, trust_store=trust_store)
    return plan.execute(callback=callback)


def plan_promote(
    source: CacheLike,
    target: CacheLike,
    *,
    max_size: int | None = None,
    max_layers: int | None = None,
) -> PromotePlan:
    """Find what :func:`promote` would do. Writes nothing. Raises the same errors."""
    origin = resolved(source, "import", "source")
    goal = resolved(target, "export", "target")
    require_lanes(origin.layout, goal.layout)
    chosen = origin.layout.selected(origin.location.names)
    names, _ = run(renamed(origin.layout, chosen, goal.location.names))
    work = plan_promotion(
        origin.layout,
        goal.layout,
        names,
        touch_refresh=goal.location.export.touch_refresh,
        limits=PromoteLimits(max_size, max_layers),
    )
    return run(work)


def promote(
    source: CacheLike,
    target: CacheLike,
    *,
    max_size: int | None = None,
    max_layers: int | None = None,
    callback: Callback = DEFAULT_CALLBACK,
) -> PromoteReport:
    """Bring names from a cache that many may write to one that few may. Blocks until it is done.

    The source has to demand signatures (``signed_by``), and the target to sign (``signing_key``).
    A name is promoted if one of the trusted keys signed it, and if each of its blobs, read by this
    machine, has its digest and is a layer that an extraction would accept; also the blobs that the
    target has already are read there. It is published only if nobody else has written it since the
    promotion began, and signed with the target's key. Names are chosen as by :func:`copy`.

    Args:
        source: where to promote from.
        target: where to promote to; its blobs must not be those of the source.
        max_size: bytes that all blobs of one name may have; None for any.
        max_layers: layers that one result may have on top of each other; None for any.
        callback: an fsspec callback that receives the number of bytes sent.

    Names that are refused are in the report, each with its reason, and stay as they were in the
    target. Raises NoCacheError, LocationError, UsageError and StoreError.
    """
    plan = plan_promote(source, target, max_size=max_size, max_layers=max_layers)
    return plan.execute(callback=callback)


def _nothing(error: NoCacheError) -> CopyPlan:
    """The plan of a copy whose source does not exist. Logs a warning with what is near."""
    logger.warning("nothing to copy: %s", error)

    async def nothing(_plan: CopyPlan, _callback: Callback) -> ExportReport:
        return ExportReport(names=[])

    plan = CopyPlan(
        names={},
        unreadable={},
        refused={},
        upload=Amount(),
        touch=Amount(),
        keep=Amount(),
        remove=[],
    )
    return plan.remembering(nothing)


def _prepared(
    source: CacheLike,
    target: CacheLike,
    *,
    delete: bool,
    repair: bool,
    ignore_missing: bool,
    on_conflict: OnConflict,
    trust_store: bool,
    executor: Executor | None,
) -> tuple[Copy, Location]:
    """A copy that is ready to be planned or executed, and the location of its target."""
    origin = resolved(source, "import", "source")
    goal = resolved(target, "export", "target")
    options = goal.location.export
    if options.mode == "min" and "mode" in goal.location.given:
        raise LocationError(
            "mode=min is for an export; a copy keeps each manifest as it is, so leave mode out"
        )
    chosen = origin.layout.selected(origin.location.names)
    if delete:
        require_whole(chosen, goal.location.names)
    names, times = run(renamed(origin.layout, chosen, goal.location.names))
    work = Copy(
        origin.layout,
        goal.layout,
        names,
        touch_refresh=options.touch_refresh,
        grace=default_grace(options.touch_refresh) if delete else None,
        senders=None if executor is None else Senders(executor, origin.spec, goal.spec),
        repair=repair,
        ignore_missing=ignore_missing,
        times=times,
        on_conflict=checked(on_conflict),
        trust_store=trust_store,
    )
    return work, goal.location
