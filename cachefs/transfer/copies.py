"""Copies that a store makes itself, so that no bytes travel to this machine and back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cachefs.concurrency import for_each
from cachefs.filesystems.copies import Copied
from cachefs.transfer.sources import StoredSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout
    from cachefs.transfer.sources import BlobSource

logger = logging.getLogger("cachefs")


class StoreCopies:
    """Lets the target's store copy blobs of the source, if both are in one account.

    Args:
        target: where the blobs are to be.
        source: where they are.
        trust_store: also copy where the store states no digest of what it copied.
        copied: called with the size of each blob that was copied.

    Attributes:
        checked: the sizes of blobs whose digest the store stated.
        trusted: the sizes of those of which it stated nothing.
    """

    def __init__(
        self,
        target: Layout,
        source: BlobSource,
        *,
        trust_store: bool,
        copied: Callable[[int], None],
    ) -> None:
        self.checked: dict[Digest, int] = {}
        self.trusted: dict[Digest, int] = {}
        self.trust_store = trust_store
        self._target = target
        self._copied = copied
        self._candidates = source.layouts() if isinstance(source, StoredSource) else []
        self._origins: list[Layout] | None = None

    async def make(self, blobs: Mapping[Digest, int]) -> set[Digest]:
        """Have the blobs copied, given with their sizes. Returns those that were.

        The others are to be sent: nothing of them is seen. The smallest comes first and alone, so
        that a store which refuses is asked once, and not once for each blob. Raises StoreError if
        there is no response.
        """
        if not blobs or not await self._opened():
            return set()
        digests = sorted(blobs, key=lambda digest: blobs[digest])
        done: set[Digest] = set()

        async def copy(digest: Digest) -> None:
            if await self._copy(digest, blobs[digest]):
                done.add(digest)
                self._copied(blobs[digest])

        await copy(digests.pop(0))
        await for_each(digests[::-1], copy, self._target.store.filesystem.parallelism)
        return done

    async def _opened(self) -> list[Layout]:
        """The layouts of the source from which the store may copy; found out once."""
        if self._origins is None:
            account = await self._target.store.account() if self._candidates else None
            self._origins = [
                layout
                for layout in self._candidates
                if account is not None
                and await layout.store.account() == account
                and _blobs_at(layout) != _blobs_at(self._target)
            ]
        return self._origins

    async def _copy(self, digest: Digest, size: int) -> bool:
        """Copy from the first layout that has the blob."""
        for origin in list(await self._opened()):
            copied = await self._target.store.copy(
                origin.store,
                origin.blob_key(digest),
                self._target.blob_key(digest),
                size,
                digest,
                trusted=self.trust_store,
            )
            if copied is Copied.CHECKED or copied is Copied.TRUSTED:
                done = self.checked if copied is Copied.CHECKED else self.trusted
                done[digest] = size
                return True
            if copied is Copied.NEVER or self._has_shown_nothing(copied):
                self._close(origin, copied)
        return False

    def _has_shown_nothing(self, copied: Copied) -> bool:
        """Whether what the store stated was wrong, and never right before.

        After a right one, the bytes of this blob are damaged. Before, the store may state anything.
        """
        return copied is Copied.OTHER_BYTES and not self.checked

    def _close(self, origin: Layout, why: Copied) -> None:
        """Copy nothing more from there."""
        root = origin.store.root
        logger.debug("blobs of %s are read and written: asked to copy, %s", root, why.value)
        self._origins = [one for one in self._origins or () if one is not origin]


def _blobs_at(layout: Layout) -> str:
    return layout.store.root + layout.blob_prefix
