"""Publishing what was copied: a name that holds the same already is not written again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.errors import CacheNameError, ConflictError, ManifestError, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachefs.errors import CacheError
    from cachefs.layout.base import Layout, Manifest, NamedManifest
    from cachefs.transfer.exporter import Publish

FEW: Final = 8
"""Number of names up to which each is looked up; more are listed."""

SAME: Final = 1.0
"""Seconds by which two times may differ and count as one: some stores keep whole seconds."""


async def listed(layout: Layout, names: Sequence[str]) -> dict[str, NamedManifest]:
    """Those of the names that the cache has. Raises StoreError."""
    if layout.digest is not None:
        return {}
    if len(names) > FEW or not layout.manifest_prefix:
        wanted = set(names)
        return {found.name: found for found in await layout.names() if found.name in wanted}
    found = [await layout.find(name) for name in names]
    return {each.name: each for each in found if each is not None}


class Publishing:
    """Publishes manifests under their new names.

    Args:
        target: the cache.
        names: each name of the source with the names it gets.
        times: when names of the source were written, in seconds since 1970. New names get these
            times if the store can set them.
        publish: publishes a manifest under names that may hold something else, and returns those
            that hold all of it; None to replace what they hold. Names then get no times.

    Attributes:
        unchanged: the new names that were not written again, because they hold the same and are
            not older than the source's.
        clashes: names of the source that this store cannot have beside another one, or whose new
            names hold something else that is not to be lost and cannot be joined.
    """

    def __init__(
        self,
        target: Layout,
        names: Mapping[str, Sequence[str]],
        times: Mapping[str, float],
        publish: Publish | None = None,
    ) -> None:
        self.unchanged: set[str] = set()
        self.clashes: dict[str, CacheError] = {}
        self._target = target
        self._names = names
        self._times = times
        self._publish = publish

    def done(self, manifests: Sequence[Manifest]) -> list[str]:
        """The new names of these manifests, without those that clash."""
        return [n for m in manifests if m.name not in self.clashes for n in self._names[m.name]]

    async def publish(self, manifests: Sequence[Manifest]) -> None:
        """Publish all manifests that can be. Raises StoreError."""
        self.clashes = {}
        new_names = [new for manifest in manifests for new in self._names[manifest.name]]
        there = {} if self._publish else await listed(self._target, new_names)
        # Where one object lists all names, they would wait for each other. On a disk, of two names
        # that clash it should not depend on chance which one is written.
        is_flat = not self._target.store.filesystem.has_directories
        at_a_time = LOOKUP_PARALLELISM if self._target.manifest_prefix and is_flat else 1
        async with self._target.together() as target:
            await for_each(manifests, partial(self._publish_one, target, there), at_a_time)

    async def _publish_one(
        self, target: Layout, there: Mapping[str, NamedManifest], manifest: Manifest
    ) -> None:
        names = self._names[manifest.name]
        try:
            if self._publish:
                self.unchanged.update(await self._publish(names, manifest))
            else:
                await self._replace(target, there, manifest)
        except (CacheNameError, ConflictError, ManifestError, UntrustedError) as error:
            self.clashes[manifest.name] = error

    async def _replace(
        self, target: Layout, there: Mapping[str, NamedManifest], manifest: Manifest
    ) -> None:
        modified = self._times.get(manifest.name)
        names = self._names[manifest.name]
        kept = [n for n in names if await self._stays(there.get(n), manifest, modified)]
        self.unchanged.update(kept)
        await target.sign(kept, manifest)
        if changed := [name for name in names if name not in kept]:
            await target.publish(changed, manifest, modified)

    async def _stays(
        self, there: NamedManifest | None, manifest: Manifest, modified: float | None
    ) -> bool:
        """Whether the name need not be written: it holds the same, and its time is right."""
        if there is None or not await self._target.holds(there, manifest):
            return False
        if modified is None or there.modified is None or abs(there.modified - modified) <= SAME:
            return True
        return await self._target.date(there, modified) or there.modified > modified
