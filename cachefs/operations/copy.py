"""Copying a cache: all its names, or some of them, to any other location."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec.structs import replace

from cachefs.amount import Amount, counted_names
from cachefs.concurrency import run
from cachefs.errors import CacheError, NotFoundError, UsageError
from cachefs.graph import RecordGraph
from cachefs.location.keys import in_order
from cachefs.operations.mirror import plan_removal, remove_others
from cachefs.operations.nearby import require_cache
from cachefs.operations.plan import Plan
from cachefs.operations.prune import PrunePlan  # noqa: TC001 - msgspec resolves it when decoding
from cachefs.operations.publication import without_refused
from cachefs.operations.publishing import Publishing
from cachefs.transfer.diff_ids import without_diff_id
from cachefs.transfer.exporter import ExportReport, Transfer, plan_export
from cachefs.transfer.ignoring import PartlyDoneError
from cachefs.transfer.lookup import slices
from cachefs.transfer.manifests import blobs_of, read_manifests
from cachefs.transfer.publishing import Publisher
from cachefs.transfer.sources import LayoutSource
from cachefs.transfer.workers import PARTS, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest
    from cachefs.transfer.exporter import Publish
    from cachefs.transfer.publishing import OnConflict
    from cachefs.transfer.workers import CacheSpec

logger = logging.getLogger("cachefs")


class CopyError(PartlyDoneError):
    """Some names could not be copied; :attr:`report` covers the others, which were copied."""

    @classmethod
    def of(cls, refused: Sequence[str], report: ExportReport) -> CopyError:
        """The error for names that were not copied, each with its reason."""
        error = cls(
            f"not copied, so unchanged in the target: {'; '.join(refused)}",
            operation="copy",
        )
        error.report = report
        return error


class CopyPlan(Plan[ExportReport], frozen=True, kw_only=True):
    """What a copy is going to do.

    Attributes:
        names: the names of the source, each with the names it gets in the target.
        refused: names of the source that builders refuse to import, each with the reason. They are
            mended if ``repair`` is set, and else copied as they are.
        unreadable: names of the source that cannot be copied, each with the reason.
        upload: blobs to be sent.
        touch: blobs that the target has and whose time will be renewed.
        keep: blobs that the target has and that are recent enough.
        remove: names of the target that will be removed, because the source lacks them.
        prune: what a mirror removes and deletes afterwards; None for other copies, and for a target
            without names.
    """

    names: dict[str, list[str]]
    unreadable: dict[str, str]
    refused: dict[str, str]
    upload: Amount
    touch: Amount
    keep: Amount
    remove: list[str]
    prune: PrunePlan | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to copy and nothing to remove."""
        return not (self.names or self.unreadable) and (self.prune is None or self.prune.is_empty)

    def __str__(self) -> str:
        parts = [f"copy: write {counted_names(in_order(self.names))}; send {self.upload}"]
        if self.unreadable:
            parts.append(f"not copied, {counted_names(in_order(self.unreadable))}")
        if self.prune is not None:
            parts.append(f"then {self.prune}")
        return "; ".join(parts)


class Senders(NamedTuple):
    """An executor, and the two caches that its workers open. The executor stays open."""

    executor: Executor
    source: CacheSpec
    target: CacheSpec


class Copy:
    """A copy from one layout to another.

    Args:
        source: where names and blobs come from.
        target: where they are written.
        names: each name of the source with the names it gets in the target.
        touch_refresh: seconds after which a blob's time is renewed.
        grace: a grace period in seconds: afterwards, names that the source lacks are removed from
            the target, and orphaned blobs older than this are deleted. None to remove nothing.
        senders: other processes or machines that send the blobs.
        repair: mend manifests that builders refuse to import.
        ignore_missing: skip names that the source does not have.
        times: when names of the source were written, in seconds since 1970, for the new names.
        on_conflict: what happens to a name of the target that holds something else.
        trust_store: let the store copy blobs also if it does not state their digests.

    Raises UsageError for a mirror that is not to replace what names hold.
    """

    def __init__(
        self,
        source: Layout,
        target: Layout,
        names: Mapping[str, Sequence[str]],
        *,
        touch_refresh: float,
        grace: float | None = None,
        senders: Senders | None = None,
        repair: bool = False,
        ignore_missing: bool = False,
        times: Mapping[str, float] | None = None,
        on_conflict: OnConflict = "replace",
        trust_store: bool = False,
    ) -> None:
        if grace is not None and on_conflict != "replace":
            raise UsageError(
                f"delete=True makes a mirror, whose names hold what the source's hold; "
                f"on_conflict={on_conflict!r} (--merge) contradicts that: leave one of them out",
                operation="copy",
            )
        self._source = source
        self._target = target
        self._names = names
        self._touch_refresh = touch_refresh
        self._grace = grace
        self._senders = senders
        self._repair = repair
        self._ignore_missing = ignore_missing
        self._times = times or {}
        self._on_conflict = on_conflict
        self._trust_store = trust_store

    async def plan(self) -> CopyPlan:
        """Read the source's manifests, and compare their blobs with the target's. Writes nothing.

        Raises NoCacheError, StoreError, and for a mirror the errors of a prune.
        """
        read = await self._read()
        prune = await self._plan_removal(read)
        plan = await plan_export(self._target, blobs_of(read.manifests), self._touch_refresh)
        return CopyPlan(
            names={manifest.name: list(self._names[manifest.name]) for manifest in read.manifests},
            unreadable=read.refused,
            refused={m.name: why for m in read.manifests if (why := m.refusal)},
            upload=Amount.of(blob.size or 0 for blob in plan.upload),
            touch=Amount.of(blob.size or 0 for blob, _ in plan.touch),
            keep=Amount.of(blob.size or 0 for blob in plan.keep),
            remove=[] if prune is None else in_order(one.manifest.name for one in prune.remove),
            prune=prune,
        ).remembering(lambda plan, callback: self._execute(read, plan.prune, callback))

    async def execute(self, callback: Callback = DEFAULT_CALLBACK) -> ExportReport:
        """Copy, then remove what is to be removed.

        A name whose blobs the source lacks is not published and stays as it was in the target; the
        others are copied. Then CopyError is raised. Raises the errors of :meth:`plan` before
        anything is written, and StoreError if the target fails.
        """
        read = await self._read()
        return await self._execute(read, await self._plan_removal(read), callback)

    async def _plan_removal(self, read: _Read) -> PrunePlan | None:
        if self._grace is None:
            return None
        wanted = {new for name in self._names for new in self._names[name]}
        becoming = {
            new: frozenset(RecordGraph(manifest.config).blobs())
            for manifest in read.manifests
            for new in self._names[manifest.name]
        }
        return await plan_removal(self._target, wanted, becoming, self._grace)

    async def _execute(
        self, read: _Read, prune: PrunePlan | None, callback: Callback
    ) -> ExportReport:
        started = time.perf_counter()
        unknown = {blob for one in read.manifests for blob in without_diff_id(one.config)}
        transfer = Transfer(
            self._target,
            LayoutSource(self._source),
            callback,
            tolerant=True,
            unknown=unknown if self._repair else (),
            trust_store=self._trust_store,
        )
        blobs = blobs_of(read.manifests)
        sent = await self._send_spread(blobs, callback)
        # What workers sent is kept now. What they could not send is tried again here.
        await transfer.bring(blobs, self._touch_refresh)
        refused = dict(read.refused)
        whole: list[Manifest] = []
        for manifest in read.manifests:
            lost = [b for b in RecordGraph(manifest.config).blobs() if b in transfer.failures]
            if lost:
                why = transfer.failures[lost[0]]
                refused[manifest.name] = f"{manifest.name} lacks {len(lost):,} of its blobs: {why}"
            elif manifest.refusal:
                whole.append(await self._mended(manifest, transfer))
            else:
                whole.append(manifest)
        publishing = Publishing(self._target, self._names, self._times, self._joining())
        await publishing.publish(whole)

        def report() -> ExportReport:
            done = transfer.report(publishing.done(whole), time.perf_counter() - started)
            return sent.added_to(
                replace(
                    done,
                    unchanged=in_order(publishing.unchanged),
                    annotations_lost=publishing.done([one for one in whole if self._loses(one)]),
                )
            )

        found = report()
        if prune is not None and not refused:
            found = await remove_others(self._source, self._target, prune, found)
            if publishing.clashes:  # a name that was removed may have been in the way
                await publishing.publish([m for m in whole if m.name in publishing.clashes])
                found = replace(found, names=report().names)
        refused |= {name: f"{name}: {error}" for name, error in publishing.clashes.items()}
        if refused:
            raise CopyError.of(list(refused.values()), found)
        return found

    def _loses(self, manifest: Manifest) -> bool:
        """Whether annotations of its layers cannot be kept in the target."""
        return not self._target.keeps_annotations and any(manifest.annotations.values())

    def _joining(self) -> Publish | None:
        """How to publish under names that hold something else, unless they are replaced."""
        if self._on_conflict == "replace":
            return None
        source = LayoutSource(self._source)
        return Publisher(self._target, source, self._touch_refresh, self._on_conflict).publish

    async def _mended(self, manifest: Manifest, transfer: Transfer) -> Manifest:
        """With ``repair``, what builders do not refuse of the manifest; else it, with a warning."""
        if self._repair:
            return await transfer.complete(without_refused(manifest))
        logger.warning(
            "builders refuse to import %s: %s. It is copied as it is; copy with --repair "
            "(repair=True) to mend it",
            manifest.name,
            manifest.refusal,
        )
        return manifest

    async def _read(self) -> _Read:
        """The manifests that can be copied, and why the others cannot."""
        read = _Read([], {})
        for name, found in (await read_manifests(self._source, self._names)).items():
            if isinstance(found, NotFoundError) and self._ignore_missing:
                logger.warning("%s is not there, so it is not copied", name)
            elif isinstance(found, CacheError):
                read.refused[name] = f"{name}: {found}"
            else:
                read.manifests.append(found)
        if not read.manifests:
            await require_cache(self._source)
        return read

    async def _send_spread(self, blobs: Mapping[Digest, int], callback: Callback) -> Sent:
        """Have workers send the blobs, if there are workers."""
        if self._senders is None:
            return Sent()
        tasks = []
        for part in slices(PARTS):
            chosen = {digest: size for digest, size in blobs.items() if part.holds(digest)}
            if chosen:
                ends = self._senders.source, self._senders.target
                tasks.append((*ends, chosen, self._touch_refresh, self._trust_store))

        def advance(part: Sent) -> None:
            callback.relative_update(part.uploaded.bytes)

        parts = await spread(self._senders.executor, send_part, tasks, advance)
        return Sent(*(sum(amounts, Amount()) for amounts in zip(*parts, strict=True)))


class _Read(NamedTuple):
    """What was read from the source: manifests, and why the others cannot be copied."""

    manifests: list[Manifest]
    refused: dict[str, str]


class Sent(NamedTuple):
    """The blobs that workers sent, of these what the store copied, and those they touched."""

    uploaded: Amount = Amount()
    copied: Amount = Amount()
    trusted: Amount = Amount()
    touched: Amount = Amount()

    def added_to(self, report: ExportReport) -> ExportReport:
        """The report in which these blobs count as sent and touched, not as kept."""
        return replace(
            report,
            uploaded=report.uploaded + self.uploaded,
            copied=report.copied + self.copied,
            trusted=report.trusted + self.trusted,
            touched=report.touched + self.touched,
            kept=report.kept - self.uploaded - self.touched,
        )


def send_part(
    source: CacheSpec,
    target: CacheSpec,
    blobs: Mapping[Digest, int],
    touch_refresh: float,
    trust_store: bool,
) -> Sent:
    """Bring these blobs, with their sizes, to the target, as a worker.

    Errors of the source's blobs are left to the process that submitted the work.
    """
    transfer = Transfer(
        target.open(), LayoutSource(source.open()), tolerant=True, trust_store=trust_store
    )
    run(transfer.bring(blobs, touch_refresh))
    report = transfer.report((), 0.0)
    return Sent(report.uploaded, report.copied, report.trusted, report.touched)


async def renamed(
    source: Layout, wanted: Sequence[str], new_names: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, float]]:
    """Each name to copy, with its names in the target; and the times of all names if listed.

    These are all names, or the wanted ones. They keep their names unless the target gives others.
    Raises NoCacheError, and UsageError if the source is empty or several names would become one.
    """
    listed = [] if wanted else await source.names()
    chosen = list(wanted) or [name.name for name in listed]
    times = {name.name: name.modified for name in listed if name.modified is not None}
    if not chosen:
        await require_cache(source)
        raise UsageError(
            "there is nothing to copy: the cache has no names",
            operation="copy",
            side="source",
            key=source.store.root,
        )
    if not new_names:
        return {name: (name,) for name in chosen}, times
    if len(chosen) == 1:
        return {chosen[0]: tuple(new_names)}, times
    raise UsageError(
        f"{len(chosen)} names of the source ({', '.join(chosen[:5])}) cannot all become "
        f"{';'.join(new_names)}; give the source's name, or leave out the target's"
    )
