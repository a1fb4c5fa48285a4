"""The layout of ``registry`` caches: a repository, where a tag is a name.

A manifest is fetched and written by its tag, and all else is blobs. Images are no caches, except
those with an inline cache.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import LOOKUP_PARALLELISM, collected
from cachefs.digest import Digest
from cachefs.errors import (
    AccessError,
    CacheError,
    CacheNameError,
    NotFoundError,
    UnreachableError,
)
from cachefs.layout.base import Manifest, NamedManifest
from cachefs.layout.oci_manifests import Described, Fetched, OCIManifests
from cachefs.location.keys import in_order
from cachefs.location.reference import TAG
from cachefs.wire import cacheconfig, oci
from cachefs.wire.bounds import max_bytes
from cachefs.wire.oci import Descriptor

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


_REFERRERS: Final = re.compile("sha256-[0-9a-f]{64}")
"""Tags of lists of referrers, such as signatures."""


class RegistryLayout(OCIManifests):
    """``manifests/{tag}`` and ``blobs/sha256:{hex}``, as a registry's interface names them."""

    blob_prefix = "blobs/sha256:"
    manifest_prefix = "manifests/"

    _manifests_are_blobs = False

    async def names(self, prefix: str = "") -> list[NamedManifest]:
        """The tags of caches: each tag's manifest is read, because others are of images."""
        listed = await self.store.list(self.manifest_prefix + prefix)
        found_tags = (stat.path.removeprefix(self.manifest_prefix) for stat in listed)
        tags = in_order(tag for tag in found_tags if not _REFERRERS.fullmatch(tag))
        found = await collected(tags, self._cache, LOOKUP_PARALLELISM)
        return [each for each in found if each is not None]

    async def find(self, name: str) -> NamedManifest | None:
        """Look up the tag."""
        stat = await self.store.stat(self.manifest_prefix + _checked(name))
        return stat and NamedManifest(name, stat.path, stat.size, None, stat.version)

    async def sign(self, names: Sequence[str], manifest: Manifest) -> None:
        """Write the manifest under its digest, without a tag, and sign it.

        So the signature refers to what is there, and it is there before the tag.
        """
        if self.signing is not None and self.signing.signer is not None:
            described = self._described((), manifest)
            await self._put_config(described)
            await self.store.put(self._manifest_key(described.top.digest), described.raw)
        await super().sign(names, manifest)

    async def _publish(
        self, names: Sequence[str], manifest: Manifest, modified: float | None = None
    ) -> None:
        """Write the config, then the manifest under each tag. Registries keep no times."""
        del modified
        keys = [self.manifest_prefix + _checked(name) for name in names]
        described = self._described(names, manifest)
        await self._put_config(described)
        for each in keys:
            await self.store.put(each, described.raw)

    async def _put_config(self, described: Described) -> None:
        key = self.blob_key(Digest(described.config.digest))
        if await self.store.stat(key) is None:
            await self.store.put(key, described.config_raw)

    async def compares(self) -> bool:
        """Never: registries have no conditions."""
        return False

    async def version(self, name: str) -> str:
        """The digest of the tag's manifest."""
        try:
            return (await self._fetch(name)).top.digest
        except NotFoundError:
            return ""

    async def _publish_if(self, name: str, manifest: Manifest, version: str) -> bool:
        """Not called, because nothing can be compared here."""
        raise NotImplementedError(f"a registry cannot compare before it writes {name}")

    async def holds(self, name: NamedManifest, manifest: Manifest) -> bool:
        """Compare the digests."""
        return name.version == self._described((), manifest).top.digest

    async def remove(self, names: Collection[str]) -> None:
        """Not possible: many registries delete all tags of a manifest at once, or none."""
        if names:
            self.require_listing("remove")

    async def remove_unchanged(self, names: Sequence[NamedManifest]) -> list[str]:
        """Not possible either."""
        await self.remove([name.name for name in names])
        return []

    async def _fetch(self, name: str) -> Fetched:
        reference = self.digest or _checked(name)
        key = self.manifest_prefix + reference
        raw = await self.store.read(key, max_bytes(self.max_records))
        digest = Digest.of(raw)
        if self.digest is not None:
            self._verify(raw, Digest(self.digest), None, key)
        with self._naming(key):
            media_type = oci.media_type_of(raw)
        return Fetched(Descriptor(media_type=media_type, digest=digest, size=len(raw)), raw)

    def _manifest_key(self, digest: str) -> str:
        return self.manifest_prefix + digest

    async def _manifest(self, descriptor: Descriptor) -> bytes:
        key = self._manifest_key(descriptor.digest)
        raw = await self.store.read(key, max_bytes(self.max_records))
        self._verify(raw, Digest(descriptor.digest), descriptor.size, key)
        return raw

    async def _cache(self, tag: str) -> NamedManifest | None:
        """The tag, unless it is an image's. One that cannot be read may be a cache's.

        Whoever reads it gets the error, so that one tag does not hide the others.
        """
        key = self.manifest_prefix + tag
        try:
            raw = await self.store.read(key, max_bytes(self.max_records))
        except (AccessError, UnreachableError):
            raise
        except CacheError:
            return NamedManifest(tag, key, 0, None)
        found = NamedManifest(tag, key, len(raw), None, str(Digest.of(raw)))
        return found if cacheconfig.MEDIA_TYPE.encode() in raw else None


def _checked(tag: str) -> str:
    if not TAG.fullmatch(tag):
        raise CacheNameError(
            f"the name {tag[:140]!r} is no tag: tags have up to 128 letters, digits, '_', '.' and "
            "'-', and begin with none of the last two"
        )
    return tag
