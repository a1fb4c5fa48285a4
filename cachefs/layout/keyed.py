"""The layout of ``s3`` and ``azblob`` caches and of every fsspec URL: manifests and blobs by key.

Keys are ``{blobs}sha256:{hex}`` and ``{manifests}{name}``, with both prefixes used as they are.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cachefs.amount import counted
from cachefs.concurrency import for_each
from cachefs.digest import Digest
from cachefs.errors import (
    AccessError,
    CacheNameError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    StoreError,
    UnreachableError,
)
from cachefs.filesystems.base import TEMPORARY
from cachefs.layout.base import Layout, Manifest, NamedManifest
from cachefs.layout.signatures import parts_of
from cachefs.location.keys import check_name, key_fault, natural_order
from cachefs.wire import cacheconfig, codec, timestamps
from cachefs.wire.bounds import max_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from cachefs.filesystems.base import Stat
    from cachefs.store import Store
    from cachefs.wire.cacheconfig import CacheConfig

logger = logging.getLogger("cachefs")


class KeyedLayout(Layout):
    """Blobs under one key prefix, manifests under another."""

    default_name = "buildkit"
    has_name_keys = True
    keeps_annotations = False

    def __init__(self, store: Store, blobs: str, manifests: str, prefix: str = "") -> None:
        self.store = store
        self.prefix = prefix
        self.blob_prefix = f"{blobs}sha256:"
        self.manifest_prefix = manifests

    async def names(self, prefix: str = "") -> list[NamedManifest]:
        """All names: the keys under the manifests prefix that are not blobs."""
        listed = await self.store.list(self.manifest_prefix + prefix)
        if not listed:
            await self.require_folder(self.manifest_prefix)
        found = [
            self._named(stat)
            for stat in listed
            if not self._is_apart(stat.path) and self._key_fault(stat.path) is None
        ]
        return sorted(found, key=lambda one: natural_order(one.name))

    def _named(self, stat: Stat) -> NamedManifest:
        name = stat.path[len(self.manifest_prefix) :]
        return NamedManifest(name, stat.path, stat.size, stat.modified, stat.version)

    async def find(self, name: str) -> NamedManifest | None:
        """Look up the manifest's key."""
        stat = await self.store.stat(self.manifest_prefix + check_name(name))
        return stat and self._named(stat)

    def name_key(self, name: str) -> str:
        """The manifest's key."""
        return self.manifest_prefix + check_name(name)

    def _is_apart(self, key: str) -> bool:
        """Whether it is a blob's or a signature's, or a leftover, which stores list like others."""
        is_temporary = key.rpartition("/")[2].startswith(TEMPORARY)
        is_signature = parts_of(self.signature_prefix, key) is not None
        return is_temporary or is_signature or self.digest_of(key) is not None

    def _key_fault(self, key: str) -> str | None:
        """Why the key, below the manifests prefix, cannot be a name; None if it can."""
        return key_fault(key.removeprefix(self.manifest_prefix))

    async def _read(self, name: str) -> Manifest:
        """One object: the cache config, with annotations."""
        key = self.manifest_prefix + check_name(name)
        raw, version = await self.store.read_versioned(key, limit=max_bytes(self.max_records))
        try:
            config, left_out = codec.decode_written(raw, self.max_records)
            _require_annotations(config)
        except ManifestError as error:
            error.operation, error.side = "read", self.store.side
            error.key = self.store.root + key
            raise
        return Manifest(name, config, raw, left_out, version=version)

    async def _publish(
        self, names: Sequence[str], manifest: Manifest, modified: float | None = None
    ) -> None:
        """Write the bytes that were read, or what a builder would have written."""
        raw = _encoded(names, manifest)
        for name in names:
            key = self.manifest_prefix + check_name(name)
            async with self._not_both(name):
                await self.store.put(key, raw)
            if modified is not None:
                await self.store.set_time(key, modified)

    def _digest(self, manifest: Manifest) -> str:
        """The digest of the bytes that are read or written."""
        return str(Digest.of(_raw(manifest)))

    async def compares(self) -> bool:
        """As the store does."""
        return await self.store.keeps_conditions(self.manifest_prefix)

    async def version(self, name: str) -> str:
        """The version of the object."""
        key = self.manifest_prefix + check_name(name)
        try:
            return (await self.store.read_versioned(key, max_bytes(self.max_records)))[1]
        except NotFoundError:
            return ""

    async def _publish_if(self, name: str, manifest: Manifest, version: str) -> bool:
        """One write with a condition."""
        key = self.manifest_prefix + check_name(name)
        async with self._not_both(name):
            return await self.store.put_if(key, _encoded([name], manifest), version)

    async def holds(self, name: NamedManifest, manifest: Manifest) -> bool:
        """Compare the sizes, and then the bytes."""
        raw = _raw(manifest)
        if name.size != len(raw):
            return False
        try:
            return await self.store.read(name.key, limit=len(raw)) == raw
        except (NotFoundError, IntegrityError):
            return False

    async def date(self, name: NamedManifest, modified: float) -> bool:
        """Set the manifest's time."""
        try:
            await self.store.set_time(name.key, modified)
        except NotFoundError:
            return False
        return self.store.filesystem.sets_times

    @asynccontextmanager
    async def _not_both(self, name: str) -> AsyncIterator[None]:
        """Explain the error of a write that failed because of another name."""
        try:
            yield
        except (AccessError, UnreachableError):
            raise
        except StoreError as error:
            if (other := await self._in_the_way(name)) is None:
                raise
            raise _not_both(name, other, self.store) from error

    async def _in_the_way(self, name: str) -> str | None:
        """Another name because of which a disk cannot have this one; None if there is none."""
        if not self.store.filesystem.has_directories:
            return None
        for there in await self.names():
            if there.name.startswith(f"{name}/") or name.startswith(f"{there.name}/"):
                return there.name
        return None

    async def remove(self, names: Collection[str]) -> None:
        """Delete the manifests."""
        keys = [self.manifest_prefix + check_name(name) for name in sorted(names)]
        await for_each(keys, self.store.delete, self.store.filesystem.parallelism)

    async def remove_unchanged(self, names: Sequence[NamedManifest]) -> list[str]:
        """Look up each manifest again, and delete it if it is unchanged."""
        return [name.name for name in names if await self._remove_unchanged(name)]

    async def _remove_unchanged(self, name: NamedManifest) -> bool:
        stat = await self.store.stat(name.key)
        if stat is None:
            return True
        if self._named(stat) != name:
            return False
        return await self.store.delete_unchanged(stat)

    async def unclear_keys(self) -> list[str]:
        """Keys under the manifests prefix that are not names, blobs or temporary."""
        keys = [stat.path for stat in await self.store.list(self.manifest_prefix)]
        return [key for key in keys if not self._is_apart(key) and self._key_fault(key) is not None]

    async def references(self, name: str) -> set[Digest]:
        """The layers' blobs."""
        return {Digest(layer.blob) for layer in (await self._read(name)).config.layers}


def _encoded(names: Sequence[str], manifest: Manifest) -> bytes:
    """The bytes to be written. What they have no place for is logged."""
    if lost := {key for others in manifest.annotations.values() for key in others}:
        logger.warning(
            "the manifest of %s has no place for these annotations of %s, which are lost: %s",
            ";".join(names),
            counted(len(manifest.annotations), "layer"),
            ", ".join(sorted(lost)),
        )
    return _raw(manifest)


def _raw(manifest: Manifest) -> bytes:
    return manifest.raw if manifest.raw is not None else codec.encode(manifest.config)


def _not_both(name: str, other: str, store: Store) -> CacheNameError:
    return CacheNameError(
        f"{name!r} cannot be beside {other!r} here, because a directory of files has no file and "
        "folder of one name: use another name, or an OCI image layout, which has both "
        "(type=local,dest=DIR)",
        operation="write",
        side=store.side,
        key=store.root,
    )


def _require_annotations(config: CacheConfig) -> None:
    """Give layers without annotations empty ones. Builders refuse them, as those without diffID."""
    for layer in config.layers:
        if layer.annotations is None:
            layer.annotations = cacheconfig.Annotations(created_at=timestamps.ZERO)
