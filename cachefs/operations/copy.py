"""Copying a cache: every name of the source, or those it gives, to any other location."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec.structs import replace

from cachefs.amount import Amount
from cachefs.concurrency import LOOKUP_PARALLELISM, for_each, run
from cachefs.errors import (
    CacheError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    UsageError,
)
from cachefs.graph import RecordGraph
from cachefs.layout.base import Manifest
from cachefs.layout.keyed import KeyedLayout
from cachefs.transfer.exporter import ExportReport, Transfer, plan_export
from cachefs.transfer.lookup import slices
from cachefs.transfer.sources import LayoutSource
from cachefs.transfer.workers import PARTS, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout
    from cachefs.transfer.workers import CacheSpec


class CopyError(CacheError):
    """Some names could not be copied; :attr:`report` tells of the others, which are in place."""

    report: ExportReport

    @classmethod
    def of(cls, refused: Sequence[str], report: ExportReport) -> CopyError:
        """The error for names that were refused, each with its reason."""
        error = cls(
            f"not copied, so unchanged in the target: {'; '.join(refused)}",
            operation="copy",
        )
        error.report = report
        return error


class Senders(NamedTuple):
    """An executor, and the two caches that its workers open. The executor stays open."""

    executor: Executor
    source: CacheSpec
    target: CacheSpec


async def copy_names(
    source: Layout,
    target: Layout,
    names: Mapping[str, Sequence[str]],
    *,
    touch_refresh: float,
    callback: Callback = DEFAULT_CALLBACK,
    senders: Senders | None = None,
) -> ExportReport:
    """Copy each name of the source to one or more names of the target.

    Blobs that are there are not sent. A name whose blobs are not all in the source is not
    published, and what it was in the target stays; the others are. Raises CopyError then, and
    StoreError where the target fails.
    """
    started = time.perf_counter()
    manifests, refused = await _read_all(source, list(names))
    transfer = Transfer(target, LayoutSource(source), callback, tolerant=True)
    blobs: dict[Digest, int] = {}
    for manifest in manifests:
        blobs |= RecordGraph(manifest.config).blobs()
    sent = await _send_spread(senders, blobs, touch_refresh, callback) if senders else Sent()
    # What others sent is kept now; what they could not send is tried once more, and judged, here.
    await transfer.execute(await plan_export(target, blobs, touch_refresh))
    await transfer.last_look()
    done: list[str] = []
    for manifest in manifests:
        lost = [b for b in RecordGraph(manifest.config).blobs() if b in transfer.failures]
        if lost:
            refused.append(f"{manifest.name} lacks {len(lost)} blobs: {transfer.failures[lost[0]]}")
            continue
        await target.publish(names[manifest.name], _as_written(manifest, target))
        done += names[manifest.name]
    report = sent.added_to(transfer.report(done, time.perf_counter() - started))
    if refused:
        raise CopyError.of(refused, report)
    return report


class Sent(NamedTuple):
    """What workers sent, and what they touched."""

    uploaded: Amount = Amount()
    touched: Amount = Amount()

    def added_to(self, report: ExportReport) -> ExportReport:
        """The report in which this is counted as done, and no longer as kept."""
        return replace(
            report,
            uploaded=_sum(report.uploaded, self.uploaded),
            touched=_sum(report.touched, self.touched),
            kept=_sum(report.kept, self.uploaded, self.touched, sign=-1),
        )


def _sum(first: Amount, *others: Amount, sign: int = 1) -> Amount:
    return Amount(
        max(0, first.blobs + sign * sum(other.blobs for other in others)),
        max(0, first.bytes + sign * sum(other.bytes for other in others)),
    )


async def _send_spread(
    senders: Senders, blobs: Mapping[Digest, int], touch_refresh: float, callback: Callback
) -> Sent:
    tasks = []
    for part in slices(PARTS):
        chosen = {digest: size for digest, size in blobs.items() if part.holds(digest)}
        if chosen:
            tasks.append((senders.source, senders.target, chosen, touch_refresh))

    def told(part: Sent) -> None:
        callback.relative_update(part.uploaded.bytes)

    parts = await spread(senders.executor, send_part, tasks, told)
    return Sent(
        _sum(Amount(), *(p.uploaded for p in parts)), _sum(Amount(), *(p.touched for p in parts))
    )


def send_part(
    source: CacheSpec, target: CacheSpec, blobs: Mapping[Digest, int], touch_refresh: float
) -> Sent:
    """Bring these blobs, with their sizes, to the target: what a worker does.

    What is wrong with the source's blobs is left to whoever gave out the work.
    """

    async def work() -> Sent:
        layout = target.open()
        transfer = Transfer(layout, LayoutSource(source.open()), tolerant=True)
        await transfer.execute(await plan_export(layout, blobs, touch_refresh))
        report = transfer.report((), 0.0)
        return Sent(report.uploaded, report.touched)

    return run(work())


async def _read_all(source: Layout, names: Sequence[str]) -> tuple[list[Manifest], list[str]]:
    """The manifests that can be copied, in order, and why the others cannot."""
    read: dict[str, Manifest] = {}
    refused: dict[str, str] = {}

    async def one(name: str) -> None:
        try:
            read[name] = await source.read(name)
        except (IntegrityError, ManifestError, NotFoundError) as error:
            refused[name] = f"{name}: {error}"

    await for_each(names, one, LOOKUP_PARALLELISM)
    return [read[n] for n in names if n in read], [refused[n] for n in names if n in refused]


def _as_written(manifest: Manifest, target: Layout) -> Manifest:
    """The bytes that were read are kept where they mean the same."""
    return manifest if isinstance(target, KeyedLayout) else Manifest(manifest.name, manifest.config)


async def renamed(
    source: Layout, wanted: Sequence[str], new_names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """What is copied to what: all names or the wanted ones, kept unless the target names others.

    Raises UsageError when several names would become one.
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
