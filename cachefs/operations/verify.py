"""Verifying a cache: every fault in one report. Reads only.

Manifests are read first and blobs are looked up after that. Exporters write in the opposite order,
so a missing blob is not one that was just being uploaded.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct

from cachefs.amount import Amount, counted
from cachefs.concurrency import for_each, run
from cachefs.errors import (
    ArchivedError,
    CacheError,
    IntegrityError,
    NotFoundError,
    StoreError,
    UsageError,
)
from cachefs.filesystems.s3_failures import IS_ARCHIVED
from cachefs.graph import RecordGraph
from cachefs.location.keys import in_order, natural_order
from cachefs.transfer.importer import check_blob
from cachefs.transfer.lookup import Slice, look_up, slices, stored_blobs
from cachefs.transfer.manifests import NAME_FAULTS, read_names
from cachefs.transfer.workers import PARTS, list_spread, spread

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout, Manifest
    from cachefs.transfer.workers import CacheSpec, Workers

logger = logging.getLogger("cachefs")

Kind = Literal["manifest", "refused", "missing", "archived", "damaged", "size"]

_KINDS: Final[Sequence[Kind]] = get_args(Kind)

_DAY: Final = 86_400

_SEARCHED: Final = 24
"""Maximum number of folders in which a blob is looked for if none is where it should be."""

_FINENESS: Final = 8
"""Minimum number of rotation steps that a sample spans."""


class Fault(Struct, frozen=True, kw_only=True):
    """One fault of a cache.

    Attributes:
        kind: ``manifest``: it is unreadable. ``refused``: it is not damaged, but builders refuse to
            import it. ``missing``: a blob is not there. ``archived``: a blob is in an archive such
            as Glacier and cannot be read. ``damaged``: a blob's bytes do not have its digest.
            ``size``: a blob is intact, but a manifest states a wrong size for it.
        names: the affected names, sorted; empty for a blob that no name needs.
        key: the full path of the object in the store.
        reason: one line.
        digest: the blob, if the fault concerns one.
        stated: the size in bytes that manifests state, if any.
        stored: the size in bytes in the store, if the blob is there.
    """

    kind: Kind
    names: list[str]
    key: str
    reason: str
    digest: str | None = None
    stated: int | None = None
    stored: int | None = None


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What was verified, and every fault.

    Attributes:
        names: the names whose manifests were read.
        blobs: the blobs that they need, present or not, with the sizes they state.
        read: blobs whose bytes were read and hashed.
        stated: blobs that were not read because the store states their digest.
        faults: sorted, manifests first.
        start: where the sampled part of the digest space begins, from 0 to 1.
        seconds: the whole time.
    """

    names: list[str]
    blobs: Amount
    read: Amount
    faults: list[Fault]
    stated: Amount = Amount()
    start: float = 0.0
    seconds: float = 0.0


async def verify(
    layout: Layout,
    names: Collection[str] = (),
    *,
    read_data: float = 0.0,
    start: float | None = None,
    stored_checksums: bool = False,
    callback: Callback = DEFAULT_CALLBACK,
    workers: Workers | None = None,
) -> VerifyReport:
    """Check that manifests are valid and that their blobs exist, with the right sizes.

    Args:
        layout: the cache.
        names: check only these; by default all, and then orphaned blobs are read too.
        read_data: the share of the digest space, from 0 to 1, whose blobs are read and hashed.
            A blob of the wrong size is always read, to find out which of the two is wrong.
        start: where that share begins, from 0 to 1. By default it advances every day, so that
            daily runs read everything in about ``1 / read_data`` days.
        stored_checksums: ask the store for the digests of all other blobs, and also read those of
            which it states none, or another one.
        callback: an fsspec callback that receives the number of bytes read.
        workers: other processes or machines, which list and read slices of the digest space.

    A damaged blob is fetched once more before it is reported. Raises UsageError for a share or
    start out of range, and StoreError.
    """
    began = time.perf_counter()
    start = rotation(read_data, time.time()) if start is None else start
    parts = sampled(read_data, start)
    needed = await _read_manifests(layout, names)
    everything = (bool(parts) or stored_checksums) and not names
    if not everything:
        there = await look_up(layout, needed.sizes)
    else:
        there = await (list_spread(workers) if workers else stored_blobs(layout, needed.sizes))
    if needed.sizes and not there:
        await _tell_other_blobs(layout, min(needed.sizes))
    reported = {fault.digest for fault in needed.faults}
    there = {digest: stat for digest, stat in there.items() if digest not in reported}
    archived = await layout.store.archived(layout.blob_prefix)
    there |= {d: s._replace(archived=True) for d, s in there.items() if s.path in archived}
    reading = _Reading(layout, needed.sizes, callback)
    suspects = reading.judge(there, parts)
    stated: dict[Digest, Stat] = {}
    if stored_checksums:
        others = {d: s for d, s in there.items() if d not in suspects and not s.archived}
        stated = await _stated(layout, others)
        suspects |= {digest: stat for digest, stat in others.items() if digest not in stated}
    callback.set_size(sum(stat.size for stat in suspects.values()))
    await (reading.spread(suspects, workers) if workers else reading.read(suspects))
    return VerifyReport(
        names=needed.names,
        blobs=Amount.of(max(stated.values()) for stated in needed.sizes.values()),
        read=reading.amount,
        stated=Amount.of(stat.size for stat in stated.values()),
        faults=sorted(needed.faults + reading.faults, key=_sort_key),
        start=start,
        seconds=time.perf_counter() - began,
    )


async def _tell_other_blobs(layout: Layout, lost: Digest) -> None:
    """Log a warning if a folder in the cache's own has this blob: ``blobs_prefix`` is mistyped.

    Called if not one of the blobs is there. What cannot be listed or looked up is no hint.
    """
    if not layout.has_name_keys:
        return
    store = layout.store
    try:
        folder, slash, _ = layout.prefix.rpartition("/")
        folders = (await store.folder(folder + slash)).folders[:_SEARCHED]
        keys = {one: f"{one}sha256:{lost.hex}" for one in folders}
        found = await store.stat_batch(list(keys.values()))
    except StoreError:
        return
    for place, stat in zip(keys, found, strict=True):
        if stat is not None:
            logger.warning(
                "none of the blobs is below %s, but some are below %s: give blobs_prefix=%s",
                store.root + layout.blob_prefix.rpartition("sha256:")[0],
                store.root + place,
                place.removeprefix(layout.prefix),
            )
            return


def _sort_key(fault: Fault) -> tuple[object, ...]:
    return _KINDS.index(fault.kind), list(map(natural_order, fault.names)), fault.key


# --- sampling ------------------------------------------------------------------------------------


def rotation(share: float, now: float) -> float:
    """Where a sample begins, from 0 to 1, at a time in seconds since 1970.

    It advances every day by slightly less than the share. The circle has a prime number of steps,
    so that runs every second day or every week also cover everything.
    """
    if not 0.0 < share < 1.0:
        return 0.0
    steps = _prime_from(math.ceil(_FINENESS / share))
    return int(now // _DAY) * int(share * steps) % steps / steps


def _prime_from(number: int) -> int:
    while any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


def sampled(share: float, start: float) -> list[Slice]:
    """The slices of the digest space that make up a share from ``start`` on, wrapping around.

    Raises UsageError.
    """
    if not (0.0 <= share <= 1.0 and 0.0 <= start <= 1.0):
        raise UsageError(
            f"a share of {share} from {start} on is not valid: both are numbers from 0 to 1"
        )
    if share in {0.0, 1.0}:
        return [Slice()] if share else []
    end = start + share
    first = Slice(_digits(start), _digits(end) if end < 1.0 else "")
    return [first, Slice("", _digits(end - 1.0))] if end > 1.0 else [first]


def _digits(position: float) -> str:
    return f"{min(int(position * 2**32), 2**32 - 1):08x}"


# --- manifests -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Needed:
    """The blobs that manifests need, each with its names and the sizes they state (0: none)."""

    names: list[str]
    faults: list[Fault] = field(default_factory=list)
    sizes: dict[Digest, dict[str, int]] = field(default_factory=dict)

    def note(self, layout: Layout, names: list[str], error: CacheError) -> None:
        """Note an unreadable manifest."""
        fault = Fault(
            kind="manifest",
            names=names,
            key=error.key or layout.store.root,
            reason=error.reason,
            digest=str(error.digest) if error.digest else None,
        )
        self.faults.append(fault)


async def _read_manifests(layout: Layout, names: Collection[str]) -> _Needed:
    needed = _Needed(in_order(set(names)))
    if not names:
        try:
            needed.names = [name.name for name in await layout.names()]
        except NAME_FAULTS as error:
            if isinstance(error, StoreError):
                raise
            needed.note(layout, [], error)

    async def read(held: Layout, name: str) -> tuple[dict[Digest, int], str]:
        manifest = await held.read(name)
        return RecordGraph(manifest.config).blobs(), refusal(layout, manifest)

    for name, found in (await read_names(layout, needed.names, read)).items():
        if isinstance(found, CacheError):
            needed.note(layout, [name], found)
            continue
        blobs, reason = found
        if reason:
            key = layout.store.root + (
                layout.manifest_prefix + name if layout.manifest_prefix else ""
            )
            needed.faults.append(Fault(kind="refused", names=[name], key=key, reason=reason))
        for digest, size in blobs.items():
            needed.sizes.setdefault(digest, {})[name] = size
    return needed


def refusal(layout: Layout, manifest: Manifest) -> str:
    """Why builders refuse to import a manifest from this layout; empty if they do not."""
    reasons = [manifest.refusal] if manifest.refusal else []
    limit = layout.builder_limit
    if limit is not None and (size := len(layout.encode(manifest.config))) > limit:
        reasons.append(f"its cache config has {size} bytes, more than {limit}")
    return f"builders refuse it: {'; '.join(reasons)}" if reasons else ""


# --- blobs ---------------------------------------------------------------------------------------


class _Reading:
    """Checks blobs, several at a time, and collects their faults."""

    def __init__(
        self, layout: Layout, sizes: Mapping[Digest, Mapping[str, int]], callback: Callback
    ) -> None:
        self.faults: list[Fault] = []
        self.amount = Amount()
        self._layout = layout
        self._sizes = sizes
        self._callback = callback

    def judge(self, there: Mapping[Digest, Stat], parts: Sequence[Slice]) -> dict[Digest, Stat]:
        """Note missing blobs, and return those to read: in the parts, or of a wrong size."""
        for digest in self._sizes:
            if digest not in there:
                self._note("missing", digest, None, "it is not there")
        for digest, stat in there.items():
            if stat.archived:
                self._note("archived", digest, stat, IS_ARCHIVED)
        return {
            digest: stat
            for digest, stat in there.items()
            if not stat.archived
            and (any(part.holds(digest) for part in parts) or self._disagreeing(digest, stat))
        }

    async def read(self, suspects: Mapping[Digest, Stat]) -> None:
        """Read these blobs in this process."""
        await for_each(suspects.items(), self._read, self._layout.store.filesystem.parallelism)

    async def spread(self, suspects: Mapping[Digest, Stat], workers: Workers) -> None:
        """Have these blobs read by workers, slice by slice."""
        tasks = []
        for part in slices(PARTS):
            blobs = {digest: stat for digest, stat in suspects.items() if part.holds(digest)}
            sizes = {digest: self._sizes[digest] for digest in blobs if digest in self._sizes}
            if blobs:
                tasks.append((workers.cache, blobs, sizes))
        await spread(workers.executor, read_part, tasks, self._take)

    def _take(self, part: PartRead) -> None:
        self.faults += part.faults
        self.amount += part.read
        self._callback.relative_update(part.read.bytes)

    async def _read(self, item: tuple[Digest, Stat]) -> None:
        digest, stat = item
        wrong = self._disagreeing(digest, stat)
        try:
            await check_blob(self._layout, digest, stat.size)
        except NotFoundError:
            self._note("missing", digest, None, "it was deleted while it was being verified")
            return
        except ArchivedError as error:
            self._note("archived", digest, stat, error.reason)
            return
        except IntegrityError as error:
            reason = self._difference(digest, stat, wrong) if wrong else error.reason
            self._note("damaged", digest, stat, reason)
        else:
            if wrong:
                self._note("size", digest, stat, self._difference(digest, stat, wrong), wrong)
        self.amount += Amount(1, stat.size)
        self._callback.relative_update(stat.size)

    def _disagreeing(self, digest: Digest, stat: Stat) -> list[str]:
        """The names that state another size."""
        stated = self._sizes.get(digest, {})
        wrong = (name for name, size in stated.items() if size not in {0, stat.size})
        return in_order(wrong)

    def _difference(self, digest: Digest, stat: Stat, wrong: Sequence[str]) -> str:
        stated = self._sizes[digest][wrong[0]]
        return (
            f"it has {counted(stat.size, 'byte')}, but the manifest of {wrong[0]} states {stated}"
        )

    def _note(
        self,
        kind: Kind,
        digest: Digest,
        stat: Stat | None,
        reason: str,
        names: Iterable[str] | None = None,
    ) -> None:
        stated = self._sizes.get(digest, {})
        self.faults.append(
            Fault(
                kind=kind,
                names=in_order(stated if names is None else names),
                key=self._layout.store.root + self._layout.blob_key(digest),
                reason=reason,
                digest=str(digest),
                stated=max(stated.values(), default=0) or None,
                stored=stat.size if stat else None,
            )
        )


async def _stated(layout: Layout, blobs: Mapping[Digest, Stat]) -> dict[Digest, Stat]:
    """Those of the blobs whose digest the store states itself."""
    digests = list(blobs)
    said = await layout.store.stated_digests([layout.blob_key(digest) for digest in digests])
    return {one: blobs[one] for one, found in zip(digests, said, strict=True) if found == one}


class PartRead(NamedTuple):
    """What a worker found in its part."""

    faults: list[Fault]
    read: Amount


def read_part(
    cache: CacheSpec, suspects: Mapping[Digest, Stat], sizes: Mapping[Digest, Mapping[str, int]]
) -> PartRead:
    """Read a part's blobs, as a worker. ``sizes`` are those that names state."""
    reading = _Reading(cache.open(), sizes, DEFAULT_CALLBACK)
    run(reading.read(suspects))
    return PartRead(reading.faults, reading.amount)
