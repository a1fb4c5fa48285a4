"""Signatures that are for nothing any more: what they are for is not what a name holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.concurrency import LOOKUP_PARALLELISM, collected
from cachefs.errors import NotFoundError
from cachefs.layout.signatures import parts_of, read_signed, subject

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout
    from cachefs.operations.mark import Marks


async def dead_signatures(
    layouts: Sequence[Layout], marks: Marks, going: Collection[str], before: float
) -> list[Stat]:
    """Signatures of these caches that no name needs, and that were written before that time.

    A younger one may be of a name that is about to be written. One of another cache below the same
    prefix is left alone; one that cannot be read as a signature goes.

    Args:
        layouts: the caches that are pruned.
        marks: their names.
        going: names of the first one that will be removed.
        before: seconds since 1970.

    Raises StoreError.
    """
    layout = layouts[0]
    listed = await layout.store.list(layout.signature_prefix)
    old = [stat for stat in listed if stat.modified is not None and stat.modified <= before]
    if not old:
        return []
    staying = {
        subject(each.identity, name.name): (each, name.name)
        for position, each in enumerate(layouts)
        for name in marks.names(position)
        if position > 0 or name.name not in going
    }
    search = _Search(layout, staying, {each.identity for each in layouts})
    dead = await collected(old, search.is_dead, LOOKUP_PARALLELISM)
    return [stat for stat, is_dead in zip(old, dead, strict=True) if is_dead]


class _Search:
    """Tells dead signatures from others."""

    def __init__(
        self,
        layout: Layout,
        staying: dict[str, tuple[Layout, str]],
        identities: Collection[str],
    ) -> None:
        self._layout = layout
        self._staying = staying
        self._identities = identities
        self._digests: dict[str, str | None] = {}

    async def is_dead(self, stat: Stat) -> bool:
        """Whether the object may go."""
        parts = parts_of(self._layout.signature_prefix, stat.path)
        if parts is None:
            return False  # not written by us: it may be anything
        digest, of = parts
        if of in self._staying:
            return await self._digest(of) not in {None, str(digest)}
        signed = await read_signed(self._layout.store, stat.path)
        return signed is None or signed.statement.cache in self._identities

    async def _digest(self, of: str) -> str | None:
        """The digest of what the name holds now; None if it is not there any more."""
        if of not in self._digests:
            layout, name = self._staying[of]
            try:
                self._digests[of] = await layout.digest_of_name(name)
            except NotFoundError:
                self._digests[of] = None
        return self._digests[of]
