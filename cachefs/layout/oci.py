"""The layout of ``local`` caches: an OCI image layout directory, where a tag is a name."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachefs.digest import Digest
from cachefs.errors import NotFoundError
from cachefs.filesystems.base import TEMPORARY
from cachefs.layout.base import Manifest, NamedManifest
from cachefs.layout.oci_index import INDEX, LIMIT, change_index, retagged, tagged
from cachefs.layout.oci_manifests import Fetched, OCIManifests
from cachefs.layout.tags import Held, Tags
from cachefs.location.keys import check_name, natural_order
from cachefs.wire import oci

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
    from typing import Self

    from cachefs.location.options import OCIOptions
    from cachefs.store import Store
    from cachefs.wire.oci import Descriptor, Index

logger = logging.getLogger("cachefs")


class OCILayout(OCIManifests):
    """``oci-layout``, ``index.json`` and ``blobs/sha256/{hex}``.

    Args:
        store: where the directory is.
        options: how manifests are written.
        digest: read this manifest instead of a tag's.
    """

    blob_prefix = "blobs/sha256/"

    def __init__(
        self, store: Store, options: OCIOptions | None = None, digest: str | None = None
    ) -> None:
        super().__init__(store, options, digest)
        self._seen: tuple[bytes, Tags] | None = None
        self._held: Held | None = None
        self._waiting: dict[str, Descriptor] | None = None

    def held(self) -> Self:
        """A copy that reads ``index.json`` once: it has all tags, and may be large."""
        layout = copy.copy(self)
        layout._held = Held(self._tags)  # noqa: SLF001 - a copy of this one
        return layout

    @asynccontextmanager
    async def together(self) -> AsyncIterator[Self]:
        """A copy whose tags are set when the context ends, also by an error."""
        layout = copy.copy(self)
        waiting: dict[str, Descriptor] = {}
        layout._waiting = waiting  # noqa: SLF001 - a copy of this one
        try:
            yield layout
        finally:
            if waiting:
                await self._retag(waiting)

    async def names(self, prefix: str = "") -> list[NamedManifest]:
        """All tags. Their time is that of ``index.json``, which contains them."""
        try:
            tags = await self._tags()
        except NotFoundError:
            return []
        stat = await self.store.stat("index.json")
        modified = stat.modified if stat else None
        found = [
            NamedManifest(tag, self.blob_key(Digest(item.digest)), item.size, modified)
            for tag, item in tags.tagged()
            if tag.startswith(prefix)
        ]
        return sorted(found, key=lambda one: natural_order(one.name))

    async def find(self, name: str) -> NamedManifest | None:
        """Look up the tag in the index."""
        return next((found for found in await self.names() if found.name == name), None)

    async def _publish(
        self, names: Sequence[str], manifest: Manifest, modified: float | None = None
    ) -> None:
        """Write the config, then the manifest, then the index that names it.

        Times stay as they are written: they belong to the index, which all tags share, and to
        blobs, where they protect from a prune.
        """
        del modified
        top = await self._put_new(names, manifest)
        tags = {check_name(name): _named(top, name) for name in names}
        if self._waiting is None:
            await self._retag(tags)
        else:
            self._waiting |= tags

    async def compares(self) -> bool:
        """Always on a disk, where ``index.json`` has a lock; elsewhere as the store does."""
        return await self.store.keeps_conditions(INDEX)

    async def version(self, name: str) -> str:
        """The digest of the tag's manifest."""
        try:
            return (await self._top(check_name(name))).digest
        except NotFoundError:
            return ""

    async def _publish_if(self, name: str, manifest: Manifest, version: str) -> bool:
        """Compare the digest of the tag's manifest right before the index is written."""
        if await self.version(name) != version:
            return False
        new = _named(await self._put_new([name], manifest), name)

        def edit(index: Index) -> Index | None:
            return retagged(index, {name: new}) if tagged(index, name) == version else None

        return await change_index(self.store, self.max_records, edit)

    async def _put_new(self, names: Sequence[str], manifest: Manifest) -> Descriptor:
        """Write the config and the manifest, which no tag names yet."""
        described = self._described(names, manifest)
        await self._put_blob(described.config, described.config_raw)
        await self._put_blob(described.top, described.raw)
        await self.store.put("oci-layout", oci.LAYOUT)
        return described.top

    async def holds(self, name: NamedManifest, manifest: Manifest) -> bool:
        """Compare the digests, and look up the manifest and its config."""
        described = self._described((), manifest)
        keys = [self.blob_key(Digest(part.digest)) for part in (described.config, described.top)]
        return name.key == keys[1] and None not in await self.store.stat_batch(keys)

    async def remove(self, names: Collection[str]) -> None:
        """Remove the tags from the index."""
        await self._retag(dict.fromkeys(names))

    async def remove_unchanged(self, names: Sequence[NamedManifest]) -> list[str]:
        """Remove the tags that still refer to these manifests, with one change of the index."""
        if not names:
            return []
        unchanged = {name.name: self.digest_of(name.key) for name in names}
        await self._retag(dict.fromkeys(unchanged), only=unchanged)
        left = {item.name for item in await self.names()}
        return [name.name for name in names if name.name not in left]

    async def unnamed_references(self) -> set[Digest]:
        """Blobs of manifests without a tag. Raises ManifestError for an image."""
        held = self.held()
        found: set[Digest] = set()
        for item in (await held._tags()).untagged():  # noqa: SLF001 - a copy of this one
            held.digest = item.digest
            found |= await held.references(item.digest)
        return found

    async def unclear_keys(self) -> list[str]:
        """Tags that are in the index more than once."""
        tags = Counter(name.name for name in await self.names())
        return [f"index.json, tag {tag}, twice" for tag, count in tags.items() if count > 1]

    def temporary_prefixes(self, names: Iterable[NamedManifest]) -> set[str]:
        """Also those next to ``index.json``."""
        return super().temporary_prefixes(names) | {TEMPORARY}

    # --- reading ---------------------------------------------------------------------------------

    async def _tags(self) -> Tags:
        if self._held is not None:
            return await self._held.tags()
        raw = await self.store.read(INDEX, LIMIT)
        # Decoding takes much longer than comparing.
        if self._seen is None or self._seen[0] != raw:
            self._seen = raw, Tags(oci.decode_index(raw, self.max_records))
        return self._seen[1]

    async def _fetch(self, name: str) -> Fetched:
        top = await self._top(name)
        return Fetched(top, await self._blob(top))

    async def _top(self, name: str) -> Descriptor:
        tags = await self._tags()
        item = tags.tag(name) if self.digest is None else tags.digest(self.digest)
        if item is not None:
            return item
        raise NotFoundError(
            f"there is no {'manifest ' + self.digest if self.digest else 'tag ' + repr(name)}",
            operation="read",
            side=self.store.side,
            key=self.store.root + "index.json",
        )

    # --- writing ---------------------------------------------------------------------------------

    async def _put_blob(self, descriptor: Descriptor, raw: bytes) -> None:
        key = self.blob_key(Digest(descriptor.digest))
        there = await self.store.stat(key)
        whole = there is not None and there.size == len(raw)
        if there and whole and self.store.filesystem.touches and await self.store.touch(there):
            return
        await self.store.put(key, raw)

    async def _retag(
        self,
        tags: Mapping[str, Descriptor | None],
        only: Mapping[str, Digest | None] | None = None,
    ) -> None:
        """Set tags, or remove those with None; with ``only``, just those of these manifests."""
        await change_index(self.store, self.max_records, lambda index: retagged(index, tags, only))


def _named(top: Descriptor, name: str) -> Descriptor:
    return replace(top, annotations={oci.REF_NAME: name})
