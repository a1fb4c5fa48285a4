"""Copying a cache: all its names, or some of them, to any other location."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec.structs import replace

from cachefs.amount import Amount
from cachefs.concurrency import run
from cachefs.errors import CacheError, UsageError
from cachefs.graph import RecordGraph
from cachefs.operations.mirror import remove_others
from cachefs.operations.plan import Plan
from cachefs.operations.publication import without_refused
from cachefs.transfer.diff_ids import without_diff_id
from cachefs.transfer.exporter import ExportReport, Transfer, plan_export
from cachefs.transfer.lookup import slices
from cachefs.transfer.manifests import read_manifests
from cachefs.transfer.sources import LayoutSource
from cachefs.transfer.workers import PARTS, spread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest
    from cachefs.location.options import Location
    from cachefs.transfer.workers import CacheSpec

logger = logging.getLogger("cachefs")


class CopyError(CacheError):
    """Some names could not be copied; :attr:`report` covers the others, which were copied."""

    report: ExportReport

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
    """

    names: dict[str, list[str]]
    unreadable: dict[str, str]
    refused: dict[str, str]
    upload: Amount
    touch: Amount
    keep: Amount
    remove: list[str]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to copy and nothing to remove."""
        return not (self.names or self.unreadable or self.remove)


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
    ) -> None:
        self._source = source
        self._target = target
        self._names = names
        self._touch_refresh = touch_refresh
        self._grace = grace
        self._senders = senders
        self._repair = repair

    async def plan(self) -> CopyPlan:
        """Read the source's manifests, and compare their blobs with the target's. Writes nothing.

        Raises StoreError.
        """
        manifests, refused = await self._read()
        plan = await plan_export(self._target, _blobs(manifests), self._touch_refresh)
        kept = {name for new in self._names.values() for name in new}
        others = set() if self._grace is None else {n.name for n in await self._target.names()}
        return CopyPlan(
            names={manifest.name: list(self._names[manifest.name]) for manifest in manifests},
            unreadable=refused,
            refused={manifest.name: why for manifest in manifests if (why := manifest.refusal)},
            upload=Amount.of(blob.size or 0 for blob in plan.upload),
            touch=Amount.of(blob.size or 0 for blob, _ in plan.touch),
            keep=Amount.of(blob.size or 0 for blob in plan.keep),
            remove=sorted(others - kept),
        ).remembering(lambda _plan, callback: self.execute(callback))

    async def execute(self, callback: Callback = DEFAULT_CALLBACK) -> ExportReport:
        """Copy, then remove what is to be removed.

        A name whose blobs the source lacks is not published and stays as it was in the target; the
        others are copied. Then CopyError is raised. Raises StoreError if the target fails.
        """
        started = time.perf_counter()
        manifests, refused = await self._read()
        unknown = {blob for one in manifests for blob in without_diff_id(one.config)}
        transfer = Transfer(
            self._target,
            LayoutSource(self._source),
            callback,
            tolerant=True,
            unknown=unknown if self._repair else (),
        )
        blobs = _blobs(manifests)
        sent = await self._send_spread(blobs, callback)
        # What workers sent is kept now. What they could not send is tried again here.
        await transfer.bring(blobs, self._touch_refresh)
        done: list[str] = []
        for manifest in manifests:
            lost = [b for b in RecordGraph(manifest.config).blobs() if b in transfer.failures]
            if lost:
                why = transfer.failures[lost[0]]
                refused[manifest.name] = f"{manifest.name} lacks {len(lost)} blobs: {why}"
                continue
            if manifest.refusal:
                manifest = await self._mended(manifest, transfer)  # noqa: PLW2901 - in its place
            await self._target.publish(self._names[manifest.name], manifest)
            done += self._names[manifest.name]
        report = sent.added_to(transfer.report(done, time.perf_counter() - started))
        if refused:
            raise CopyError.of(list(refused.values()), report)
        if self._grace is not None:
            report = await remove_others(self._source, self._target, report, self._grace)
        return report

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

    async def _read(self) -> tuple[list[Manifest], dict[str, str]]:
        """The manifests that can be copied, and why the others cannot."""
        manifests: list[Manifest] = []
        refused: dict[str, str] = {}
        for name, found in (await read_manifests(self._source, self._names)).items():
            if isinstance(found, CacheError):
                refused[name] = f"{name}: {found}"
            else:
                manifests.append(found)
        return manifests, refused

    async def _send_spread(self, blobs: Mapping[Digest, int], callback: Callback) -> Sent:
        """Have workers send the blobs, if there are workers."""
        if self._senders is None:
            return Sent()
        tasks = []
        for part in slices(PARTS):
            chosen = {digest: size for digest, size in blobs.items() if part.holds(digest)}
            if chosen:
                ends = self._senders.source, self._senders.target
                tasks.append((*ends, chosen, self._touch_refresh))

        def advance(part: Sent) -> None:
            callback.relative_update(part.uploaded.bytes)

        parts = await spread(self._senders.executor, send_part, tasks, advance)
        uploaded = sum((part.uploaded for part in parts), Amount())
        return Sent(uploaded, sum((part.touched for part in parts), Amount()))


class Sent(NamedTuple):
    """The blobs that workers sent, and those they touched."""

    uploaded: Amount = Amount()
    touched: Amount = Amount()

    def added_to(self, report: ExportReport) -> ExportReport:
        """The report in which these blobs count as sent and touched, not as kept."""
        return replace(
            report,
            uploaded=report.uploaded + self.uploaded,
            touched=report.touched + self.touched,
            kept=report.kept - self.uploaded - self.touched,
        )


def send_part(
    source: CacheSpec, target: CacheSpec, blobs: Mapping[Digest, int], touch_refresh: float
) -> Sent:
    """Bring these blobs, with their sizes, to the target, as a worker.

    Errors of the source's blobs are left to the process that submitted the work.
    """
    transfer = Transfer(target.open(), LayoutSource(source.open()), tolerant=True)
    run(transfer.bring(blobs, touch_refresh))
    report = transfer.report((), 0.0)
    return Sent(report.uploaded, report.touched)


def _blobs(manifests: Sequence[Manifest]) -> dict[Digest, int]:
    blobs: dict[Digest, int] = {}
    for manifest in manifests:
        blobs |= RecordGraph(manifest.config).blobs()
    return blobs


async def renamed(
    source: Layout, wanted: Sequence[str], new_names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Each name to copy, with its names in the target.

    These are all names, or the wanted ones. They keep their names unless the target gives others.
    Raises UsageError if there is nothing to copy or several names would become one.
    """
    chosen = list(wanted) or [name.name for name in await source.names()]
    if not chosen:
        raise UsageError(
            "there is nothing to copy: no names were found; check the location's prefixes",
            operation="copy",
            side="source",
            key=source.store.root,
        )
    if not new_names:
        return {name: (name,) for name in chosen}
    if len(chosen) == 1:
        return {chosen[0]: tuple(new_names)}
    raise UsageError(
        f"{len(chosen)} names of the source ({', '.join(chosen[:5])}) cannot all become "
        f"{';'.join(new_names)}; give the source's name, or leave out the target's"
    )


async def unless_ignored(
    work: Callable[[], Awaitable[ExportReport]], target: Location
) -> ExportReport:
    """The report of an export or copy; with ``ignore-error``, also if it failed."""
    try:
        return await work()
    except UsageError:
        raise
    except CacheError as error:
        if not target.export.ignore_error:
            raise
        logger.warning("the export to %s failed and is ignored: %s", target, error)
        done = error.report if isinstance(error, CopyError) else ExportReport(names=[])
        return replace(done, error=str(error))
