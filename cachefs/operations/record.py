"""The record of a prune: what it removes and deletes, so that it can be taken back.

It is an object next to the blobs, in a bucket that keeps versions. It is written before anything is
removed, with all that is planned, and again at the end with what was done. So a prune that was
killed can be taken back as well: of what was planned, that which has been deleted since.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cachefs.concurrency import for_each
from cachefs.errors import NotFoundError, StoreError
from cachefs.filesystems.base import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout

NAME: Final = f"{TEMPORARY}pruned-"
"""How the last component of a record's key begins."""

KEPT: Final = 10
"""How many records stay, the newest ones."""

_MAX_BYTES: Final = 1024**3

COARSE: Final = 1.0
"""Seconds to which stores may round times."""


class PruneRecord(Struct, frozen=True, kw_only=True):
    """What a prune removes and deletes.

    Attributes:
        blob_prefix: the beginning of the full paths of blobs.
        manifest_prefix: the beginning of the full paths of the names. A location as a URL and one
            with attributes split the same path differently into root and key.
        names: the names.
        blobs: the blobs, each with its bytes.
        began: when the prune began, by the store's clock; None until it has ended.
    """

    blob_prefix: str
    manifest_prefix: str
    names: list[str]
    blobs: dict[str, int]
    began: float | None = None


class Pruned(Struct, frozen=True, kw_only=True):
    """A record that was read, and the time in which the prune deleted: in seconds since 1970.

    ``ended`` is None for a prune that did not end.
    """

    key: str
    record: PruneRecord
    began: float
    ended: float | None

    def includes(self, moment: float | None) -> bool:
        """Whether this may be the time of one of its deletes."""
        if moment is None or moment < self.began - COARSE:
            return False
        return self.ended is None or moment <= self.ended + COARSE


def is_record(stat: Stat) -> bool:
    """Whether the object is the record of a prune."""
    return stat.path.rpartition("/")[2].startswith(NAME)


class Recording:
    """Writes the record of one prune.

    Args:
        layout: the cache.
        key: where the record is written.
        record: what is planned.
    """

    def __init__(self, layout: Layout, key: str, record: PruneRecord) -> None:
        self._layout = layout
        self._key = key
        self._record = record

    @classmethod
    async def begin(
        cls, layout: Layout, names: Iterable[str], blobs: Mapping[str, int], reference: float
    ) -> Recording:
        """Write what is planned."""
        # Many stores have whole seconds: of two prunes in one, this clock tells which is the last.
        moment = f"{int(reference * 1000):014d}-{time.time_ns():020d}"
        key = f"{_folder(layout)}{NAME}{moment}-{secrets.token_hex(4)}"
        blob_prefix, manifest_prefix = _prefixes(layout)
        record = PruneRecord(
            blob_prefix=blob_prefix,
            manifest_prefix=manifest_prefix,
            names=list(names),
            blobs=dict(blobs),
        )
        recording = cls(layout, key, record)
        await layout.store.put(key, msgspec.json.encode(record))
        return recording

    async def end(self, names: Iterable[str], blobs: Mapping[str, int]) -> None:
        """Write what was done; remove the record if that is nothing, and the oldest ones."""
        store = self._layout.store
        record = replace(self._record, names=list(names), blobs=dict(blobs))
        if not (record.names or record.blobs):
            await store.delete(self._key)
            return
        stat = await store.stat(self._key)
        if stat is None or stat.modified is None:
            raise StoreError(
                "the record of this prune is gone, so it cannot be taken back by its record",
                operation="prune",
                key=store.root + self._key,
            )
        await store.put(self._key, msgspec.json.encode(replace(record, began=stat.modified)))
        old = [stat.path for stat in await _newest_first(self._layout)][KEPT:]
        await for_each(old, store.delete, store.filesystem.parallelism)


async def last_pruned(layout: Layout) -> Pruned | None:
    """The record of the last prune of this cache that was not taken back. Raises StoreError."""
    for stat in await _newest_first(layout):
        try:
            raw = await layout.store.read(stat.path, _MAX_BYTES)
            record = msgspec.json.decode(raw, type=PruneRecord)
        except NotFoundError:
            continue
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"this is no record of a prune: {error}; remove it",
                operation="undo",
                key=layout.store.root + stat.path,
            ) from error
        if (record.blob_prefix, record.manifest_prefix) == _prefixes(layout):
            written = stat.modified or 0.0
            ended = record.began is not None
            return Pruned(
                key=stat.path,
                record=record,
                began=written if record.began is None else record.began,
                ended=written if ended else None,
            )
    return None


def _prefixes(layout: Layout) -> tuple[str, str]:
    root = layout.store.root
    return root + layout.blob_prefix, root + layout.manifest_prefix


def _folder(layout: Layout) -> str:
    folder, slash, _ = layout.blob_prefix.rpartition("/")
    return folder + slash


async def _newest_first(layout: Layout) -> list[Stat]:
    """The records next to the blobs, also those of other manifests over the same blobs."""
    found = await layout.store.list(f"{_folder(layout)}{NAME}")
    return sorted(found, key=lambda stat: (stat.modified or 0.0, stat.path), reverse=True)
