"""Taking back a prune, in a bucket that keeps what was deleted as earlier versions.

What the prune's record names comes back if it is still hidden by a delete marker of that time:
blobs first. Those that a returning name needs get a new time, as if they had been exported, so that
a prune at the same moment leaves them. Names come back last, and none without its blobs. What was
written since is never replaced, because a marker is removed, and nothing is written in its place.

Every step can be repeated: after a failure, or if the process was killed, a new plan finds what is
left to do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.amount import Amount, counted
from cachefs.concurrency import LOOKUP_PARALLELISM, collected, for_each
from cachefs.digest import Digest
from cachefs.errors import ManifestError, NotFoundError, UsageError
from cachefs.graph import RecordGraph
from cachefs.operations.plan import Plan
from cachefs.operations.record import Pruned, last_pruned
from cachefs.transfer.exporter import Transfer
from cachefs.transfer.sources import LayoutSource
from cachefs.wire import codec
from cachefs.wire.bounds import max_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cachefs.filesystems.versions import Past
    from cachefs.layout.base import Layout

    _Blobs = dict[Digest, int]

_EXPIRED: Final = "its version has expired, or was deleted for good"
_DELETED: Final = "it was deleted again since"
_STUCK: Final = "the store did not remove its delete marker"


class UndoReport(Struct, frozen=True, kw_only=True):
    """What was taken back.

    Attributes:
        names: names that are there again.
        blobs: blobs that are there again.
        left: each name that does not come back, with the reason.
        lost: blobs that do not come back.
        seconds: the whole time.
    """

    names: list[str]
    blobs: Amount
    left: dict[str, str]
    lost: list[str]
    seconds: float


class UndoPlan(Plan[UndoReport], frozen=True, kw_only=True):
    """What comes back of the last prune that was not taken back.

    Attributes:
        record: the key of the record of that prune.
        pruned: when that prune ended or, if it did not end, began: in seconds since 1970.
        ended: whether it ended. If not, what it had planned and was deleted since comes back.
        names: names that come back.
        blobs: the digests of blobs that come back.
        returns: the number of these blobs, and their bytes.
        present: names that are there now, because they were written again or are back already.
        left: each name that does not come back, with the reason.
        lost: blobs that do not come back, because their versions are gone or they were deleted
            again.
    """

    record: str
    pruned: float
    ended: bool
    names: list[str]
    blobs: list[str]
    returns: Amount
    present: list[str]
    left: dict[str, str]
    lost: list[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing comes back; executing the plan then only forgets this prune."""
        return not (self.names or self.blobs)


async def plan_undo(
    layout: Layout, touch_refresh: float, clock: Callable[[], float] = time.time
) -> UndoPlan:
    """Find what comes back of the last prune. Nothing is written.

    Args:
        layout: the cache.
        touch_refresh: seconds after which the time of a blob that a name needs is renewed.
        clock: this machine's time, in seconds since 1970.

    Raises UsageError if there is no prune that can be taken back, and StoreError.
    """
    layout.require_names("undo")
    pruned = await last_pruned(layout)
    if pruned is None:
        raise UsageError(
            "there is no prune to take back: this needs a bucket with versioning, and a prune of "
            "this cache that removed something and was not taken back yet. After a prune with "
            "--backup-to, copy the names back from there",
            operation="undo",
            key=layout.store.root + layout.prefix,
        )
    names = await _look(layout, {name: layout.name_key(name) for name in pruned.record.names})
    blobs = await _look(layout, _blob_keys(layout, pruned))
    returning = [blob for blob, past in blobs.items() if _is_hidden(past, pruned)]
    plan = UndoPlan(
        record=pruned.key,
        pruned=pruned.began if pruned.ended is None else pruned.ended,
        ended=pruned.ended is not None,
        names=[name for name, past in names.items() if _is_hidden(past, pruned)],
        blobs=returning,
        returns=Amount.of(pruned.record.blobs[blob] for blob in returning),
        present=[name for name, past in names.items() if _is_there(past)],
        left={name: why for name, past in names.items() if (why := _why_left(past, pruned))},
        lost=[blob for blob, past in blobs.items() if _why_left(past, pruned)],
    )
    return plan.remembering(
        lambda plan, _callback: execute_undo(layout, plan, touch_refresh, clock)
    )


async def execute_undo(
    layout: Layout, plan: UndoPlan, touch_refresh: float, clock: Callable[[], float] = time.time
) -> UndoReport:
    """Bring back blobs, then names, then forget the prune.

    Raises UsageError if the prune has been taken back since the plan was made, and StoreError; a
    new plan then finds what is left to do.
    """
    pruned = await last_pruned(layout)
    if pruned is None or pruned.key != plan.record:
        raise UsageError(
            "this prune was taken back, or another one was made, since the plan: plan again",
            operation="undo",
            key=layout.store.root + layout.prefix,
        )
    return await _Undo(layout, pruned, touch_refresh, clock).execute(plan)


def _blob_keys(layout: Layout, pruned: Pruned) -> dict[str, str]:
    return {blob: layout.blob_key(Digest(blob)) for blob in pruned.record.blobs}


async def _look(layout: Layout, keys: Mapping[str, str]) -> dict[str, Past]:
    """What the store has of each object."""
    found = await collected(list(keys.values()), layout.store.past, LOOKUP_PARALLELISM)
    return dict(zip(keys, found, strict=True))


def _is_there(past: Past) -> bool:
    return bool(past.version and not past.marker)


def _is_hidden(past: Past, pruned: Pruned) -> bool:
    """Whether the prune has hidden a version that is still kept."""
    return bool(past.marker and past.version) and pruned.includes(past.modified)


def _why_left(past: Past, pruned: Pruned) -> str:
    """Why the object does not come back; empty if it does, or is there."""
    if _is_there(past) or _is_hidden(past, pruned):
        return ""
    # A prune that was killed may have planned what somebody else deleted before it.
    return _DELETED if past.marker and past.version else _EXPIRED


class _Undo:
    """An undo that is being executed."""

    def __init__(
        self, layout: Layout, pruned: Pruned, touch_refresh: float, clock: Callable[[], float]
    ) -> None:
        self._layout = layout
        self._pruned = pruned
        self._touch_refresh = touch_refresh
        self._clock = clock
        self._back: list[str] = []
        self._stuck: list[str] = []

    async def execute(self, plan: UndoPlan) -> UndoReport:
        """Bring back blobs, then names, then forget the prune. Raises StoreError."""
        started = time.perf_counter()
        store = self._layout.store
        await for_each(plan.blobs, self._reveal_blob, LOOKUP_PARALLELISM)
        left = dict(plan.left)
        needed = await self._needs(plan.names, left)
        lacking = await self._bring(needed.values())
        back = []
        again = bool(self._stuck)
        for name, blobs in needed.items():
            if lost := [blob for blob in blobs if blob in lacking]:
                left[name] = f"it lacks {counted(len(lost), 'blob')}: {lost[0]} is not there"
                again = again or any(str(blob) not in plan.lost for blob in lost)
            elif await self._reveal(self._layout.name_key(name)):
                back.append(name)
            else:
                left[name] = _STUCK
                again = True
        if not again:  # else another try can succeed
            await store.delete(self._pruned.key)
        return UndoReport(
            names=back,
            blobs=Amount.of(self._pruned.record.blobs[blob] for blob in self._back),
            left=left,
            lost=[*plan.lost, *sorted(self._stuck)],
            seconds=time.perf_counter() - started,
        )

    async def _reveal(self, key: str) -> bool:
        """Remove the markers of the prune that hide an object. Returns whether none is left."""
        store = self._layout.store
        removed: set[str] = set()
        while _is_hidden(past := await store.past(key), self._pruned):
            if past.marker in removed:
                return False
            removed.add(past.marker)
            await store.reveal(key, past.marker)
        return True

    async def _reveal_blob(self, blob: str) -> None:
        back = await self._reveal(self._layout.blob_key(Digest(blob)))
        (self._back if back else self._stuck).append(blob)

    async def _needs(self, names: Sequence[str], left: dict[str, str]) -> dict[str, _Blobs]:
        """The blobs that each hidden name needs. One that cannot be read is added to ``left``."""
        # Each may be large, so only as many are in memory as large blobs would be.
        at_a_time = self._layout.store.filesystem.parallelism
        found = await collected(names, self._need, at_a_time)
        needed: dict[str, _Blobs] = {}
        for name, blobs in zip(names, found, strict=True):
            if isinstance(blobs, str):
                left[name] = blobs
            elif blobs is not None:
                needed[name] = blobs
        return needed

    async def _need(self, name: str) -> _Blobs | str | None:
        """The blobs that a name needs, why it cannot be read, or None if it is there again."""
        key, limit = self._layout.name_key(name), max_bytes(self._layout.max_records)
        past = await self._layout.store.past(key)
        if not _is_hidden(past, self._pruned):
            return None  # it was written again since the plan was made
        try:
            raw = await self._layout.store.read_past(key, past.version, limit)
            config, _ = codec.decode_written(raw, self._layout.max_records)
        except NotFoundError:
            return _EXPIRED
        except ManifestError as error:
            return error.reason
        return RecordGraph(config).blobs()

    async def _bring(self, needed: Iterable[Mapping[Digest, int]]) -> set[Digest]:
        """Renew the times of these blobs as an export does; returns those that are not there."""
        blobs: dict[Digest, int] = {}
        for each in needed:
            blobs |= each
        # What is not there has no source, so it is a failure of this one.
        source = LayoutSource(self._layout.with_side("source"))
        transfer = Transfer(self._layout, source, tolerant=True, clock=self._clock)
        await transfer.bring(blobs, self._touch_refresh)
        return set(transfer.failures)
