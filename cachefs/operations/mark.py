"""Which blobs are needed: every name of every manifests prefix read, and looked at again.

Fails closed: whatever cannot be listed, read or understood comes out as an error, for a blob that
nobody is seen to need is about to be deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.errors import ManifestError, NotFoundError, UsageError
from cachefs.filesystems.base import TEMPORARY
from cachefs.layout.keyed import KeyedLayout
from cachefs.layout.oci import OCILayout
from cachefs.location.keys import key_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, NamedManifest

COARSE: Final = 2.0
"""Seconds in which a store without versions may rewrite an object and show the same time."""


class Marks:
    """What the names of some layouts over the same blobs need.

    Args:
        layouts: where the names are, in an order that the other methods go by.
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self.layouts = layouts
        self._names: list[dict[str, NamedManifest]] = [{} for _ in layouts]
        self._needs: list[dict[str, frozenset[Digest]]] = [{} for _ in layouts]
        self._unnamed: set[Digest] = set()

    def assume(self, position: int, names: Iterable[NamedManifest]) -> None:
        """Take these names as read, as long as they do not change; what they need is known."""
        for name in names:
            self._names[position][name.name] = name
            self._needs[position][name.name] = frozenset()

    def names(self, position: int) -> list[NamedManifest]:
        """The names of one layout at the latest look, sorted."""
        return [self._names[position][name] for name in sorted(self._names[position])]

    def needs(self, position: int, name: str) -> frozenset[Digest]:
        """What a name needs."""
        return self._needs[position][name]

    @property
    def unnamed(self) -> frozenset[Digest]:
        """What manifests without a name need."""
        return frozenset(self._unnamed)

    def needed(self) -> set[Digest]:
        """Every blob that is needed by anything."""
        return self._unnamed.union(*(blobs for of in self._needs for blobs in of.values()))

    async def look(self, settled: float | None = None) -> None:
        """List all names again, and read those that are new or have changed.

        Args:
            settled: seconds since 1970, by the store: what was last written well before is told
                from a later writing by its time. None: a name without a version is read again.

        Raises StoreError, ManifestError and IntegrityError; then nothing is to be deleted.
        """
        for position, layout in enumerate(self.layouts):
            listed = {name.name: name for name in await layout.names()}
            await _refuse_unclear(layout)
            self._unnamed |= await layout.unnamed_references()
            before = self._names[position]
            changed = [
                name
                for name in listed.values()
                if not (before.get(name.name) == name and _is_told_apart(name, settled))
            ]
            needs = self._needs[position]
            self._needs[position] = {n: needs[n] for n in listed if n in needs}
            self._names[position] = listed
            await self._read(position, changed)

    async def _read(self, position: int, names: Iterable[NamedManifest]) -> None:
        layout = self.layouts[position]

        async def one(name: NamedManifest) -> None:
            try:
                self._needs[position][name.name] = frozenset(await layout.references(name.name))
            except NotFoundError:
                if any(there.name == name.name for there in await layout.names()):
                    raise
                del self._names[position][name.name]
                self._needs[position].pop(name.name, None)

        await for_each(names, one, LOOKUP_PARALLELISM)

    def require_names(self) -> None:
        """Raises UsageError where a layout has no names: all of its blobs would be orphans."""
        for layout, names in zip(self.layouts, self._names, strict=True):
            if not names:
                raise no_names(layout)


async def _refuse_unclear(layout: Layout) -> None:
    """Raises ManifestError for what lies among the manifests and has no name to read it by."""
    if isinstance(layout, OCILayout):
        tags = [name.name for name in await layout.names()]
        unclear = [f"index.json, tag {tag}, twice" for tag in tags if tags.count(tag) > 1]
    elif isinstance(layout, KeyedLayout):
        keys = [stat.path for stat in await layout.store.list(layout.manifests)]
        unclear = [key for key in keys if not _is_clear(layout, key)]
    else:
        unclear = []
    if unclear:
        raise ManifestError(
            "this is among the manifests but has no name to read it by, so it is not known which "
            "blobs it needs; move it away",
            operation="read",
            key=layout.store.root + unclear[0],
        )


def _is_clear(layout: KeyedLayout, key: str) -> bool:
    is_temporary = key.rpartition("/")[2].startswith(TEMPORARY)
    if is_temporary or layout.digest_of(key) is not None:
        return True
    return key_fault(key.removeprefix(layout.manifests)) is None


def no_names(layout: Layout) -> UsageError:
    """The error for a place without names."""
    return UsageError(
        "no names were found, so every blob would go: check the location and its prefixes",
        operation="prune",
        key=layout.store.root,
    )


def _is_told_apart(name: NamedManifest, settled: float | None) -> bool:
    if name.version:
        return True
    return settled is not None and name.modified is not None and name.modified < settled - COARSE
