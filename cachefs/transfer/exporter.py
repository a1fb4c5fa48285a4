"""The one write path: plan, send blobs, look them up once more, and publish manifests last."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from cachefs.amount import Amount, counted
from cachefs.concurrency import closing, for_each, task_group
from cachefs.digest import verify
from cachefs.errors import CacheError, IntegrityError, LayerError, StoreError
from cachefs.filesystems.base import SMALL
from cachefs.filesystems.failures import is_silence
from cachefs.store import HASH_IN_THREAD, verified
from cachefs.transfer.copies import StoreCopies
from cachefs.transfer.diff_ids import (
    completed,
    diff_id_of,
    noted,
    read_diff_id,
    without_diff_id,
)
from cachefs.transfer.lookup import look_up
from cachefs.transfer.sources import BatchSource, LayoutSource, VerifyingSource

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Mapping,
        Sequence,
    )

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout, Manifest
    from cachefs.transfer.sources import BlobSource

    Publish = Callable[[Sequence[str], Manifest], Awaitable[list[str]]]


logger = logging.getLogger("cachefs")

BATCH: Final = 64
"""The maximum number of small blobs that are read, verified and sent together."""

BATCH_BYTES: Final = 1024 * 1024

BATCHES: Final = 8
"""Batches under way: together as many blobs as a store may be sent at a time, and as many bytes as
one chunk of a large blob."""


class Blob(NamedTuple):
    """A blob to be stored, and its size in bytes (None if unknown)."""

    digest: Digest
    size: int | None


class ExportReport(Struct, frozen=True, kw_only=True):
    """What an export, copy or merge did.

    Attributes:
        names: the names that were published.
        unchanged: those of them that hold the same already, and were not written again.
        uploaded: blobs that were sent, and those that the store copied itself.
        copied: those of them that the store copied, and whose SHA-256 it stated.
        trusted: those that it copied without stating it. All others were verified on their way
            through this machine.
        touched: blobs that were already stored and whose time was renewed.
        kept: blobs that were already stored and recent enough.
        seconds: the whole time.
        error: why the operation failed, if failures are ignored.
        removed: names that a mirroring copy removed.
        deleted: blobs that a mirroring copy deleted.
        annotations_lost: names of whose layers annotations were lost, such as those of estargz,
            because a keyed cache has no place for them.
    """

    names: list[str]
    uploaded: Amount = Amount()
    copied: Amount = Amount()
    trusted: Amount = Amount()
    touched: Amount = Amount()
    kept: Amount = Amount()
    seconds: float = 0.0
    error: str | None = None
    unchanged: list[str] = []
    removed: list[str] = []
    deleted: Amount = Amount()
    annotations_lost: list[str] = []


class ExportPlan(NamedTuple):
    """What the store needs: blobs to send, blobs whose time to renew, and blobs that stay.

    ``replace`` has those of the blobs to send that are stored, but too old or of a wrong size.
    """

    upload: list[Blob]
    touch: list[tuple[Blob, Stat]]
    keep: list[Blob]
    replace: list[Blob]


async def plan_export(
    layout: Layout,
    blobs: Mapping[Digest, int],
    touch_refresh: float,
    clock: Callable[[], float] = time.time,
) -> ExportPlan:
    """Compare the blobs in the store with those it is to have. Raises StoreError.

    Args:
        layout: the target.
        blobs: each blob's size in bytes, 0 if unknown.
        touch_refresh: seconds after which a blob's time is renewed.
        clock: this machine's time, in seconds since 1970.
    """
    there = await look_up(layout, list(blobs))
    plan = ExportPlan([], [], [], [])
    now = clock()
    for digest, size in blobs.items():
        blob = Blob(digest, size or None)
        stat = there.get(digest)
        if stat is None or stat.archived:
            plan.upload.append(blob)
        elif blob.size not in {None, stat.size}:
            plan.upload.append(blob)
            plan.replace.append(blob)
        elif not _needs_touch(stat, now, touch_refresh):
            plan.keep.append(Blob(digest, stat.size))
        elif layout.store.filesystem.touches:
            plan.touch.append((Blob(digest, stat.size), stat))
        else:
            plan.upload.append(blob)
            plan.replace.append(blob)
    return plan


def _needs_touch(stat: Stat, now: float, touch_refresh: float) -> bool:
    """Whether a blob's time is to be renewed: it is old, or in the future because clocks differ."""
    if stat.modified is None:
        return False
    age = now - stat.modified
    return age >= touch_refresh or age < -1.0


class Transfer:
    """Brings blobs to a target, and counts what it did.

    Args:
        layout: the target.
        source: where blobs to be sent come from.
        callback: an fsspec callback that receives the number of bytes sent.
        tolerant: collect errors of the source's blobs in :attr:`failures` and continue, instead of
            raising the first one. Errors of the target are always raised, and so is that of a
            source that does not respond in time.
        clock: this machine's time, in seconds since 1970.
        unknown: blobs whose diffIDs are worked out while they are sent, and noted in
            :attr:`diff_ids`. These are never copied by the store.
        trust_store: let the store copy blobs also if it does not state their digests.
    """

    def __init__(
        self,
        layout: Layout,
        source: BlobSource,
        callback: Callback | None = None,
        *,
        tolerant: bool = False,
        clock: Callable[[], float] = time.time,
        unknown: Collection[Digest] = (),
        trust_store: bool = False,
    ) -> None:
        self.layout = layout
        self.failures: dict[Digest, CacheError] = {}
        self.diff_ids: dict[Digest, str] = {}
        self._parallelism = layout.store.filesystem.parallelism
        self._source = source
        self._callback = callback
        self._tolerant = tolerant
        self._clock = clock
        self._unknown = frozenset(unknown)
        self._uploaded: dict[Digest, int] = {}
        self._touched: dict[Digest, int] = {}
        self._kept: dict[Digest, int] = {}
        self._replaced: dict[Digest, int] = {}
        self._copies = StoreCopies(layout, source, trust_store=trust_store, copied=self._progressed)

    async def bring(self, blobs: Mapping[Digest, int], touch_refresh: float) -> None:
        """Send the blobs that the target lacks, touch the old ones, and look them up once more.

        When it returns, a manifest that needs these blobs may be published.

        Args:
            blobs: each blob's size in bytes, 0 if unknown.
            touch_refresh: seconds after which a blob's time is renewed.

        Raises StoreError and IntegrityError.
        """
        plan = await plan_export(self.layout, blobs, touch_refresh, self._clock)
        await self._execute(plan)
        await self._look_again()

    async def complete(self, manifest: Manifest) -> Manifest:
        """The manifest with all diffIDs that can be known; the others are logged as a warning.

        A blob that was not sent is read from the source, or else from the target. Raises StoreError
        if the target fails.
        """
        lacking = without_diff_id(manifest.config)
        sources = self._source, LayoutSource(self.layout)
        for digest, size in lacking.items():
            if digest not in self.diff_ids:
                diff_id = await read_diff_id(sources, digest, size or None)
                if diff_id is not None:
                    self.diff_ids[digest] = diff_id
        unknown = lacking.keys() - self.diff_ids.keys()
        if unknown:
            logger.warning(
                "builders will refuse to import %s: %s without a diffID, which cannot be "
                "worked out from the blob (%s)",
                manifest.name,
                counted(len(unknown), "layer"),
                min(unknown),
            )
        return completed(manifest, self.diff_ids)

    async def send(self, blobs: Sequence[Blob]) -> None:
        """Send the blobs, even if the target has them. Raises the same errors as :meth:`bring`."""
        await self._execute(ExportPlan(upload=[*blobs], touch=[], keep=[], replace=[]))

    def sent(self, digest: Digest) -> bool:
        """Whether this blob was sent."""
        return digest in self._uploaded

    def report(self, names: Iterable[str], seconds: float) -> ExportReport:
        """What was done."""
        return ExportReport(
            names=list(names),
            uploaded=Amount.of(self._uploaded.values()),
            copied=Amount.of(self._copies.checked.values()),
            trusted=Amount.of(self._copies.trusted.values()),
            touched=Amount.of(self._touched.values()),
            kept=Amount.of(self._kept.values()),
            seconds=seconds,
        )

    async def _execute(self, plan: ExportPlan) -> None:
        self._expect(_bytes_of(plan.upload))
        self._kept = {blob.digest: blob.size or 0 for blob in plan.keep}
        self._replaced = {blob.digest: blob.size or 0 for blob in plan.replace}
        gone: list[Blob] = []

        async def touch() -> None:
            stats = [stat for _, stat in plan.touch]
            there = await self.layout.store.touch_batch(stats)
            for (blob, stat), is_there in zip(plan.touch, there, strict=True):
                if is_there:
                    self._touched[blob.digest] = stat.size
                else:
                    gone.append(blob)

        async with task_group() as group:
            group.create_task(touch())
            group.create_task(self._upload_all(plan.upload))
        await self._upload_also(gone)
        await self.layout.store.settle()

    async def _look_again(self) -> None:
        """Send blobs that were there and have been deleted since: a prune may have been under way.

        This covers blobs that were touched, or sent again because they were old: a prune that saw
        them earlier may have deleted them since. If nothing was sent or touched, nothing happened
        since the plan's look-up, so that look-up is still valid.
        """
        if not (self._uploaded or self._touched):
            return
        found = self._kept | self._touched | self._replaced
        there = await look_up(self.layout, list(found))
        gone = [Blob(d, size or None) for d, size in found.items() if d not in there]
        for blob in gone:
            self._kept.pop(blob.digest, None)
            self._touched.pop(blob.digest, None)
        if gone:
            await self._upload_also(gone)
            await self.layout.store.settle()

    async def _upload_also(self, blobs: Sequence[Blob]) -> None:
        """Send blobs that the plan did not expect to send."""
        if self._callback is not None:
            self._expect((self._callback.size or 0) + _bytes_of(blobs))
        await self._upload_all(blobs)

    async def _upload_all(self, blobs: Iterable[Blob]) -> None:
        """Let the store copy what it can, while the others are sent; then send what is left."""
        to_copy, to_send = self._divided(blobs)
        async with task_group() as group:
            copying = group.create_task(self._copies.make(to_copy))
            group.create_task(self._send_all(to_send))
        copied = copying.result()
        self._uploaded |= {digest: to_copy[digest] for digest in copied}
        await self._send_all([Blob(*each) for each in to_copy.items() if each[0] not in copied])

    def _divided(self, blobs: Iterable[Blob]) -> tuple[dict[Digest, int], list[Blob]]:
        """The blobs to be copied by the store, with their sizes, and those to be sent.

        In most stores, a checked copy takes three requests, while reading and writing take two. So
        small blobs are sent there, as are those whose bytes are needed here.
        """
        small = self._copies.trust_store or self.layout.store.filesystem.copies_small
        least = 0 if small else SMALL + 1
        to_copy: dict[Digest, int] = {}
        to_send: list[Blob] = []
        for blob in blobs:
            if blob.size is None or blob.size < least or blob.digest in self._unknown:
                to_send.append(blob)
            else:
                to_copy[blob.digest] = blob.size
        return to_copy, to_send

    async def _send_all(self, blobs: Iterable[Blob]) -> None:
        """Stream the large blobs, the largest first, while small ones are sent in batches.

        Several batches are under way, so that one is read and hashed while others are sent.
        """
        source = self._source
        large = sorted(blobs, key=lambda blob: blob.size or 0, reverse=True)
        if not isinstance(source, BatchSource):
            await for_each(large, self._upload, self._parallelism)
            return
        large, batches = _batched(large)
        async with task_group() as group:
            group.create_task(for_each(large, self._upload, self._parallelism))
            group.create_task(for_each(batches, partial(self._upload_batch, source), BATCHES))

    async def _upload(self, blob: Blob) -> None:
        chunks = self._reported(self._verified(blob))
        key = self.layout.blob_key(blob.digest)
        try:
            self._uploaded[blob.digest] = await self.layout.store.upload(key, chunks, blob.size)
        except (IntegrityError, LayerError, StoreError) as error:
            self._note_or_raise(blob, error)

    async def _upload_batch(self, source: BatchSource, blobs: Sequence[Blob]) -> None:
        wanted = [(blob.digest, blob.size or 0) for blob in blobs]
        checked = await _all_checked(wanted, await source.read_batch(wanted))
        sending: dict[Blob, bytes] = {}
        for blob, data in zip(blobs, checked, strict=True):
            if isinstance(data, bytes):
                sending[blob] = data
            else:
                self._note_or_raise(blob, data)
        await self.layout.store.put_batch(
            [(self.layout.blob_key(blob.digest), data) for blob, data in sending.items()]
        )
        self._uploaded |= {blob.digest: len(data) for blob, data in sending.items()}
        for blob, data in sending.items():
            if blob.digest in self._unknown:
                with suppress(IntegrityError):
                    self.diff_ids[blob.digest] = await asyncio.to_thread(diff_id_of, data)
        self._progressed(_bytes_of(sending))

    def _note_or_raise(self, blob: Blob, error: CacheError) -> None:
        """Note the error of a blob of the source, or raise it, as for a source that is silent."""
        of_source = isinstance(error, IntegrityError | LayerError) or error.side == "source"
        if not (self._tolerant and of_source) or is_silence(error):
            raise error
        self.failures[blob.digest] = error

    def _verified(self, blob: Blob) -> AsyncIterator[bytes]:
        chunks = self._verified_chunks(blob)
        if blob.digest in self._unknown:
            return noted(chunks, blob.digest, self.diff_ids)
        return chunks

    def _verified_chunks(self, blob: Blob) -> AsyncIterator[bytes]:
        if isinstance(self._source, VerifyingSource):
            return self._source.verified_chunks(blob.digest, blob.size)
        return verified(self._source.chunks(blob.digest, blob.size), blob.digest, blob.size)

    async def _reported(self, verified_chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async with closing(verified_chunks) as chunks:
            async for chunk in chunks:
                yield chunk
                self._progressed(len(chunk))

    def _expect(self, size: int) -> None:
        """Tell the callback how many bytes will be sent in all."""
        if self._callback is not None:
            self._callback.set_size(size)

    def _progressed(self, size: int) -> None:
        """Tell the callback that so many more bytes were sent."""
        if self._callback is not None:
            self._callback.relative_update(size)


def _batched(blobs: Sequence[Blob]) -> tuple[list[Blob], list[list[Blob]]]:
    """The large blobs, and the small ones in batches that fit in memory."""
    large: list[Blob] = []
    batches: list[list[Blob]] = []
    held = 0
    for blob in blobs:
        if blob.size is None or blob.size > SMALL:
            large.append(blob)
            continue
        if not batches or len(batches[-1]) == BATCH or held + blob.size > BATCH_BYTES:
            batches.append([])
            held = 0
        batches[-1].append(blob)
        held += blob.size
    return large, batches


async def _all_checked(
    wanted: Sequence[tuple[Digest, int]], found: Sequence[bytes | CacheError]
) -> list[bytes | CacheError]:
    if sum(size for _, size in wanted) < HASH_IN_THREAD:
        return [*map(_checked, wanted, found)]
    return await asyncio.to_thread(lambda: [*map(_checked, wanted, found)])


def _checked(wanted: tuple[Digest, int], data: bytes | CacheError) -> bytes | CacheError:
    """The bytes if they match the digest and size, else the error."""
    if isinstance(data, bytes):
        try:
            verify(data, *wanted)
        except IntegrityError as error:
            return error
    return data


def _bytes_of(blobs: Iterable[Blob]) -> int:
    return sum(blob.size or 0 for blob in blobs)


async def export(
    layout: Layout,
    manifest: Manifest,
    blobs: Mapping[Digest, int],
    source: BlobSource,
    names: Sequence[str],
    *,
    touch_refresh: float,
    callback: Callback | None = None,
    clock: Callable[[], float] = time.time,
    learned: Callable[[Mapping[Digest, str]], None] | None = None,
    publish: Publish | None = None,
) -> ExportReport:
    """Store a manifest's blobs, then the manifest under each name, with all diffIDs.

    ``learned`` is called with those that had to be worked out. ``publish`` publishes instead of
    :meth:`Layout.publish`, and returns the names that need not be written.

    Raises StoreError and IntegrityError; then no name has changed, and the blobs that were sent are
    orphaned until the next export that needs them.
    """
    started = time.perf_counter()
    unknown = without_diff_id(manifest.config)
    transfer = Transfer(layout, source, callback, clock=clock, unknown=unknown)
    await transfer.bring(blobs, touch_refresh)
    whole = await transfer.complete(manifest)
    if learned is not None:
        learned(transfer.diff_ids)
    unchanged: list[str] = []
    if publish is None:
        await layout.publish(names, whole)
    else:
        unchanged = await publish(names, whole)
    return replace(
        transfer.report(names, time.perf_counter() - started),
        unchanged=unchanged,
    )
