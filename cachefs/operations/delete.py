"""Deleting orphaned blobs, each looked up right before its delete."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.digest import Digest
from cachefs.errors import AccessError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout

PAUSES: Final = (0.1, 0.5, 2.0)
"""Seconds to wait after each delete whose response was lost."""


class BlobRemoval(Struct, frozen=True, kw_only=True):
    """A blob that will be deleted.

    Attributes:
        digest: the blob.
        size: its bytes.
        age: its age in seconds at the reference time.
        version: the version that the store reports, empty if it has no versions.
    """

    digest: str
    size: int
    age: float
    version: str = ""


def is_past(stat: Stat, reference: float, grace: float) -> bool:
    """Whether the object is past the grace period; False without a time or one in the future."""
    return stat.modified is not None and reference - stat.modified >= max(grace, 0.0)


class Deletion:
    """Deletes blobs, and collects those deleted and spared.

    Args:
        layout: the cache.
        reference_time: seconds since 1970 by the store's clock; ages are measured against it.
        grace: the grace period in seconds.
    """

    def __init__(self, layout: Layout, reference_time: float, grace: float) -> None:
        self.deleted: list[BlobRemoval] = []
        self.spared: list[BlobRemoval] = []
        self._layout = layout
        self._reference_time = reference_time
        self._grace = grace

    async def execute(self, blobs: Sequence[BlobRemoval], needed: Collection[Digest]) -> None:
        """Delete the blobs that are not needed and still past the grace period."""
        victims = [blob for blob in blobs if blob.digest not in needed]
        self.spared += [blob for blob in blobs if blob.digest in needed]
        await for_each(victims, self._delete, LOOKUP_PARALLELISM)

    async def _delete(self, blob: BlobRemoval) -> None:
        """Send one delete. If its response is lost, look up the blob before repeating it."""
        store = self._layout.store
        sent = False
        for pause in (*PAUSES, None):
            stat = await store.stat(self._layout.blob_key(Digest(blob.digest)))
            if stat is None:
                # If we sent no delete, another process deleted the blob: it is not counted.
                self.deleted += [blob] if sent else []
                return
            if not is_past(stat, self._reference_time, self._grace):
                break
            try:
                gone = await store.delete_unchanged(stat)
            except AccessError:
                raise
            except StoreError:
                if pause is None:
                    raise
                sent = True
                await asyncio.sleep(pause)
            else:
                (self.deleted if gone else self.spared).append(blob)
                return
        self.spared.append(blob)
