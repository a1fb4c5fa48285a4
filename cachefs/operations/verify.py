"""Verifying a cache: every fault in one report. Reads only.

Manifests are read first and blobs looked up after that, as exporters write them the other way
round: a blob that is missing then was not on its way.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct

from cachefs.amount import Amount
from cachefs.concurrency import LOOKUP_PARALLELISM, for_each, run
from cachefs.errors import CacheError, IntegrityError, NotFoundError, StoreError, UsageError
from cachefs.graph import RecordGraph
from cachefs.transfer.importer import check_blob
from cachefs.transfer.lookup import Slice, list_blobs, look_up, slices
from cachefs.transfer.workers import PARTS, list_spread, spread

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout
    from cachefs.transfer.workers import CacheSpec, Workers

Kind = Literal["manifest", "missing", "damaged", "size"]

_KINDS: Final[Sequence[Kind]] = ("manifest", "missing", "damaged", "size")

_DAY: Final = 86_400

_FINENESS: Final = 8
"""Steps of a rotation that a sample spans at least."""


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    Attributes:
        kind: ``manifest``: it cannot be read as one. ``missing``: a blob is not there.
            ``damaged``: a blob's bytes are not those of its digest. ``size``: a blob is right, and
            what a manifest says of its size is not.
        names: the names that are affected, sorted; none for a blob that no name needs.
        key: the full path of the object in the store.
        reason: one line.
        digest: the blob, where it is one.
        stated: bytes that manifests say it has, where they do.
        stored: bytes that it has, where it is there.
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
        blobs: what they need: present or not, with the sizes they state.
        read: blobs whose bytes were read and hashed.
        faults: manifests first; sorted.
        start: where the part of the digest space that was read begins, from 0 to 1.
        seconds: the whole time.
    """

    names: list[str]
    blobs: Amount
    read: Amount
    faults: list[Fault]
    start: float = 0.0
    seconds: float = 0.0


async def verify(
    layout: Layout,
    names: Collection[str] = (),
    *,
    read_data: float = 0.0,
    start: float | None = None,
    callback: Callback = DEFAULT_CALLBACK,
    workers: Workers | None = None,
) -> VerifyReport:
    """Check that manifests parse and that their blobs are there, with the right sizes.

    Args:
        layout: the cache.
        names: check these only; by default all, and then blobs that no name needs are read too.
        read_data: the share of the digest space, from 0 to 1, whose blobs are read and hashed.
            A blob of the wrong size is always read, to tell which of the two is wrong.
        start: where that share begins, from 0 to 1. By default it moves on from day to day, so
            that a run a day has read everything after about ``1 / read_data`` days.
        callback: told of the bytes read.
        workers: other processes or machines, which list and read slices of the digest space.

    A blob that comes damaged is fetched once more before it counts as damaged. Raises UsageError
    for a share or start out of range, and StoreError where the store cannot be asked.
    """
    began = time.perf_counter()
    start = rotation(read_data, time.time()) if start is None else start
    parts = sampled(read_data, start)
    needed = await _read_manifests(layout, names)
    everything = bool(parts) and not names
    if not everything:
        there = await look_up(layout, needed.sizes)
    else:
        there = await (list_spread(workers) if workers else list_blobs(layout))
    told = {fault.digest for fault in needed.faults}
    there = {digest: stat for digest, stat in there.items() if digest not in told}
    reading = _Reading(layout, needed.sizes, callback)
    suspects = reading.judge(there, parts)
    await (reading.spread(suspects, workers) if workers else reading.read(suspects))
    return VerifyReport(
        names=needed.names,
        blobs=Amount(len(needed.sizes), sum(max(s.values()) for s in needed.sizes.values())),
        read=Amount(reading.blobs, reading.bytes),
        faults=sorted(needed.faults + reading.faults, key=_place),
        start=start,
        seconds=time.perf_counter() - began,
    )


def _place(fault: Fault) -> tuple[int, list[str], str]:
    return _KINDS.index(fault.kind), fault.names, fault.key


# --- which part is read --------------------------------------------------------------------------


def rotation(share: float, now: float) -> float:
    """Where a sample begins, from 0 to 1, at a time in seconds since 1970.

    From one day to the next it moves on by not quite the share. The circle has a prime number of
    steps, so that runs every second day or every week come everywhere too.
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
    """The slices of the digest space that a share of it is, from ``start`` on and round the end.

    Raises UsageError.
    """
    if not (0.0 <= share <= 1.0 and 0.0 <= start <= 1.0):
        raise UsageError(
            f"a share of {share} from {start} on is none: both are numbers from 0 to 1"
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
    """What manifests need: for each blob, the names and the sizes that they state (0: none)."""

    names: list[str]
    faults: list[Fault] = field(default_factory=list)
    sizes: dict[Digest, dict[str, int]] = field(default_factory=dict)

    def note(self, layout: Layout, names: list[str], error: CacheError) -> None:
        """Take down a manifest that cannot be read."""
        fault = Fault(
            kind="manifest",
            names=names,
            key=error.key or layout.store.root,
            reason=error.reason,
            digest=str(error.digest) if error.digest else None,
        )
        self.faults.append(fault)


async def _read_manifests(layout: Layout, names: Collection[str]) -> _Needed:
    needed = _Needed(sorted(set(names)))
    if not names:
        try:
            needed.names = [name.name for name in await layout.names()]
        except (StoreError, UsageError):
            raise
        except CacheError as error:
            needed.note(layout, [], error)

    async def one(name: str) -> None:
        try:
            manifest = await layout.read(name)
        except UsageError:
            raise
        except CacheError as error:
            if isinstance(error, StoreError) and not isinstance(error, NotFoundError):
                raise
            needed.note(layout, [name], error)
        else:
            for digest, size in RecordGraph(manifest.config).blobs().items():
                needed.sizes.setdefault(digest, {})[name] = size

    await for_each(needed.names, one, LOOKUP_PARALLELISM)
    return needed


# --- blobs ---------------------------------------------------------------------------------------


class _Reading:
    """Judges blobs, many at a time, holding a chunk of each that is read."""

    def __init__(
        self, layout: Layout, sizes: Mapping[Digest, Mapping[str, int]], callback: Callback
    ) -> None:
        self.faults: list[Fault] = []
        self.blobs = 0
        self.bytes = 0
        self._layout = layout
        self._sizes = sizes
        self._callback = callback

    def judge(self, there: Mapping[Digest, Stat], parts: Sequence[Slice]) -> dict[Digest, Stat]:
        """Note what is missing; what is to be read lies in the parts or has a wrong size."""
        for digest in self._sizes:
            if digest not in there:
                self._note("missing", digest, None, "it is not there")
        suspects = {
            digest: stat
            for digest, stat in there.items()
            if any(part.holds(digest) for part in parts) or self._disagreeing(digest, stat)
        }
        self._callback.set_size(sum(stat.size for stat in suspects.values()))
        return suspects

    async def read(self, suspects: Mapping[Digest, Stat]) -> None:
        """Read these blobs here."""
        await for_each(suspects.items(), self._read, self._layout.store.filesystem.parallelism)

    async def spread(self, suspects: Mapping[Digest, Stat], workers: Workers) -> None:
        """Have these blobs read by others, slice by slice."""
        tasks = []
        for part in slices(PARTS):
            blobs = {digest: stat for digest, stat in suspects.items() if part.holds(digest)}
            sizes = {digest: self._sizes[digest] for digest in blobs if digest in self._sizes}
            if blobs:
                tasks.append((workers.cache, blobs, sizes))
        await spread(workers.executor, read_part, tasks, self._take)

    def _take(self, part: PartRead) -> None:
        self.faults += part.faults
        self.blobs += part.read.blobs
        self.bytes += part.read.bytes
        self._callback.relative_update(part.read.bytes)

    async def _read(self, item: tuple[Digest, Stat]) -> None:
        digest, stat = item
        wrong = self._disagreeing(digest, stat)
        try:
            await check_blob(self._layout, digest, stat.size)
        except NotFoundError:
            self._note("missing", digest, None, "it has gone while it was looked at")
            return
        except IntegrityError as error:
            reason = self._difference(digest, stat, wrong) if wrong else error.reason
            self._note("damaged", digest, stat, reason)
        else:
            if wrong:
                self._note("size", digest, stat, self._difference(digest, stat, wrong), wrong)
        self.blobs += 1
        self.bytes += stat.size
        self._callback.relative_update(stat.size)

    def _disagreeing(self, digest: Digest, stat: Stat) -> list[str]:
        """The names that state another size."""
        stated = self._sizes.get(digest, {})
        return sorted(name for name, size in stated.items() if size not in {0, stat.size})

    def _difference(self, digest: Digest, stat: Stat, wrong: Sequence[str]) -> str:
        said = self._sizes[digest][wrong[0]]
        return f"it has {stat.size} bytes where the manifest of {wrong[0]} says {said}"

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
                names=sorted(stated if names is None else names),
                key=self._layout.store.root + self._layout.blob_key(digest),
                reason=reason,
                digest=str(digest),
                stated=max(stated.values(), default=0) or None,
                stored=stat.size if stat else None,
            )
        )


class PartRead(NamedTuple):
    """What a worker found in its part."""

    faults: list[Fault]
    read: Amount


def read_part(
    cache: CacheSpec, suspects: Mapping[Digest, Stat], sizes: Mapping[Digest, Mapping[str, int]]
) -> PartRead:
    """Read a part's blobs: what a worker does. ``sizes`` are those that names state."""
    reading = _Reading(cache.open(), sizes, DEFAULT_CALLBACK)
    run(reading.read(suspects))
    return PartRead(reading.faults, Amount(reading.blobs, reading.bytes))
