"""Which blobs are needed: every name of every manifests prefix is read, and later checked again.

Fails closed: a blob that seems to be orphaned is about to be deleted, so anything that cannot be
listed, read or understood is raised as an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.errors import CacheError, ManifestError, NotFoundError, UsageError
from cachefs.location.keys import in_order
from cachefs.transfer.manifests import read_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, NamedManifest

COARSE: Final = 2.0
"""Seconds in which a store without versions may rewrite an object and show the same time."""


class Marks:
    """The blobs that the names of some layouts over the same blobs need.

    Args:
        layouts: where the names are; the other methods take a position in this list.
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self.layouts = layouts
        self._names: list[dict[str, NamedManifest]] = [{} for _ in layouts]
        self._needs: list[dict[str, frozenset[Digest]]] = [{} for _ in layouts]
        self._unnamed: set[Digest] = set()

    def assume(self, position: int, names: Iterable[NamedManifest]) -> None:
        """Treat these names as read until they change; their blobs are known to be needed."""
        for name in names:
            self._names[position][name.name] = name
            self._needs[position][name.name] = frozenset()

    def names(self, position: int) -> list[NamedManifest]:
        """The names of one layout when they were last listed, sorted."""
        return [self._names[position][name] for name in in_order(self._names[position])]

    def needs(self, position: int, name: str) -> frozenset[Digest]:
        """The blobs that a name needs."""
        return self._needs[position][name]

    @property
    def unnamed(self) -> frozenset[Digest]:
        """The blobs that manifests without a name need."""
        return frozenset(self._unnamed)

    def needed(self) -> set[Digest]:
        """Every blob that any manifest needs."""
        return self._unnamed.union(*(blobs for of in self._needs for blobs in of.values()))

    async def look(self, settled: float | None = None) -> None:
        """List all names again, and read those that are new or have changed.

        Args:
            settled: seconds since 1970 by the store's clock: a manifest last written well before
                this has changed only if its time has. None: a name without a version is always
                read again.

        Raises StoreError, ManifestError and IntegrityError; then nothing may be deleted.
        """
        for position, layout in enumerate(self.layouts):
            listed = {name.name: name for name in await layout.names()}
            await _require_clear(layout)
            self._unnamed |= await layout.unnamed_references()
            before = self._names[position]
            changed = [
                name
                for name, now in listed.items()
                if not (before.get(name) == now and _shows_changes(now, settled))
            ]
            needs = self._needs[position]
            self._needs[position] = {n: needs[n] for n in listed if n in needs}
            self._names[position] = listed
            await self._read(position, changed)

    async def _read(self, position: int, names: Sequence[str]) -> None:
        layout = self.layouts[position]
        for name, found in (await read_names(layout, names, _references)).items():
            if isinstance(found, NotFoundError):
                # Without the name, its blobs are not needed; with it, a part is missing.
                if any(there.name == name for there in await layout.names()):
                    raise found
                del self._names[position][name]
                self._needs[position].pop(name, None)
            elif isinstance(found, CacheError):
                raise found
            else:
                self._needs[position][name] = frozenset(found)

    def require_names(self) -> None:
        """Raise UsageError if a layout has no names: all of its blobs would be orphaned."""
        for layout, names in zip(self.layouts, self._names, strict=True):
            if not names:
                raise no_names(layout)


async def _references(layout: Layout, name: str) -> set[Digest]:
    return await layout.references(name)


async def _require_clear(layout: Layout) -> None:
    """Raise ManifestError for anything among the manifests that cannot be read by a name."""
    unclear = await layout.unclear_keys()
    if unclear:
        raise ManifestError(
            "this is among the manifests but cannot be read by a name, so the blobs it needs are "
            "unknown; move it elsewhere",
            operation="read",
            key=layout.store.root + unclear[0],
        )


def no_names(layout: Layout) -> UsageError:
    """The error for a layout without names."""
    return UsageError(
        "the cache has no names, so every blob would be deleted: check its manifests prefix",
        operation="prune",
        key=layout.store.root,
    )


def _shows_changes(name: NamedManifest, settled: float | None) -> bool:
    """Whether the name would look different if its manifest had been written again."""
    if name.version:
        return True
    return settled is not None and name.modified is not None and name.modified < settled - COARSE
