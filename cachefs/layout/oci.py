"""The layout of ``local`` caches: an OCI image layout directory, where a tag is a name.

A tag's manifest is an image manifest (its config is the cache config, its layers are the blobs) or
an index that mixes the layers and one cache config. The facts that a keyed manifest has in
annotations are in the descriptors here.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachefs.digest import Digest, verify
from cachefs.errors import DigestError, IntegrityError, ManifestError, NotFoundError
from cachefs.filesystems.base import TEMPORARY
from cachefs.layout.base import Layout, Manifest, NamedManifest
from cachefs.layout.oci_index import INDEX, LIMIT, change_index, retagged, tagged
from cachefs.layout.tags import Held, Tags
from cachefs.location.keys import check_name, natural_order
from cachefs.location.options import OCIOptions
from cachefs.wire import cacheconfig, codec, oci, timestamps
from cachefs.wire.bounds import max_bytes
from cachefs.wire.cacheconfig import Annotations, CacheConfig, Layer
from cachefs.wire.oci import Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
    from typing import Self

    from cachefs.store import Store

logger = logging.getLogger("cachefs")


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a tag's manifest: the descriptors of the cache config and of the layers."""

    config: Descriptor
    layers: list[Descriptor]


class OCILayout(Layout):
    """``oci-layout``, ``index.json`` and ``blobs/sha256/{hex}``.

    Args:
        store: where the directory is.
        options: how manifests are written.
        digest: read this manifest instead of a tag's.
    """

    blob_prefix = "blobs/sha256/"
    default_name = "latest"
    builder_limit = 1024 * 1024

    def __init__(
        self, store: Store, options: OCIOptions | None = None, digest: str | None = None
    ) -> None:
        self.store = store
        self.options = options or OCIOptions()
        self.digest = digest
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

    async def read(self, name: str) -> Manifest:
        """The cache config of a tag, with its layers annotated from their descriptors."""
        top = await self._top(name)
        parts = await self._parts(top)
        raw = await self._blob(parts.config)
        try:
            config, left_out = codec.decode_written(raw, self.max_records)
            config = _annotated(config, parts.layers)
            others = _others(parts.layers)
            return Manifest(name, config, left_out=left_out, annotations=others, version=top.digest)
        except ManifestError as error:
            raise self._with_key(error, parts.config.digest) from error

    async def references(self, name: str) -> set[Digest]:
        """The layers' blobs, the cache config and the manifest itself."""
        top = await self._top(name)
        parts = await self._parts(top)
        return {Digest(d.digest) for d in (top, parts.config, *parts.layers)}

    async def publish(
        self, names: Sequence[str], manifest: Manifest, modified: float | None = None
    ) -> None:
        """Write the config, then the manifest, then the index that names it.

        Times stay as they are written: they belong to the index, which all tags share, and to
        blobs, where they protect from a prune.
        """
        del modified
        top = await self._put_manifest(names, manifest)
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

    async def publish_if(self, name: str, manifest: Manifest, version: str) -> bool:
        """Compare the digest of the tag's manifest right before the index is written."""
        if await self.version(name) != version:
            return False
        new = _named(await self._put_manifest([name], manifest), name)

        def edit(index: Index) -> Index | None:
            return retagged(index, {name: new}) if tagged(index, name) == version else None

        return await change_index(self.store, self.max_records, edit)

    async def _put_manifest(self, names: Sequence[str], manifest: Manifest) -> Descriptor:
        """Write the config and the manifest, which no tag names yet."""
        raw = self.encode(manifest.config)
        if len(raw) > self.builder_limit:
            logger.warning(
                "the cache config of %s has %d bytes; builders refuse more than %d in this layout "
                "(a keyed cache has no such limit)",
                ";".join(names),
                len(raw),
                self.builder_limit,
            )
        descriptor, top, top_raw = self._described(manifest, raw)
        await self._put_blob(descriptor, raw)
        await self._put_blob(top, top_raw)
        await self.store.put("oci-layout", oci.LAYOUT)
        return top

    async def holds(self, name: NamedManifest, manifest: Manifest) -> bool:
        """Compare the digests, and look up the manifest and its config."""
        config, top, _ = self._described(manifest, self.encode(manifest.config))
        keys = [self.blob_key(Digest(part.digest)) for part in (config, top)]
        return name.key == keys[1] and None not in await self.store.stat_batch(keys)

    def _described(self, manifest: Manifest, raw: bytes) -> tuple[Descriptor, Descriptor, bytes]:
        """The descriptors of a cache config and of its manifest, and the manifest's bytes."""
        descriptor = _descriptor(cacheconfig.MEDIA_TYPE, raw)
        layers = [
            self._layer_descriptor(layer, manifest.annotations.get(layer.blob, {}))
            for layer in manifest.config.layers
        ]
        top, top_raw = self._compose(descriptor, layers)
        return descriptor, top, top_raw

    def encode(self, config: CacheConfig) -> bytes:
        """The cache config without its annotations, which are in the layers' descriptors."""
        return codec.encode(_bare(config))

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

    async def _parts(self, top: Descriptor) -> _Parts:
        raw = await self._blob(top)
        try:
            return _split(top, raw, self.max_records)
        except ManifestError as error:
            raise self._with_key(error, top.digest) from error

    async def _blob(self, descriptor: Descriptor) -> bytes:
        try:
            digest = Digest(descriptor.digest)
        except DigestError as error:
            raise ManifestError(f"a descriptor's digest {error}") from error
        raw = await self.store.read(self.blob_key(digest), max_bytes(self.max_records))
        try:
            verify(raw, digest, descriptor.size)
        except IntegrityError as error:
            error.operation, error.side = "read", self.store.side
            error.key = self.store.root + self.blob_key(digest)
            raise
        return raw

    def _with_key(self, error: ManifestError, digest: str) -> ManifestError:
        key = self.store.root + self.blob_key(Digest(digest))
        return ManifestError(error.reason, operation="read", side=self.store.side, key=key)

    # --- writing ---------------------------------------------------------------------------------

    def _layer_descriptor(self, layer: Layer, others: Mapping[str, str]) -> Descriptor:
        facts = layer.annotations or Annotations(created_at=timestamps.ZERO)
        convert = oci.oci_media_type if self.options.oci_mediatypes else oci.docker_media_type
        annotations = dict(others)
        if facts.created_at != timestamps.ZERO:
            annotations[oci.CREATED_AT] = facts.created_at
        if facts.diff_id:
            annotations[oci.UNCOMPRESSED] = facts.diff_id
        return Descriptor(
            media_type=convert(facts.media_type),
            digest=layer.blob,
            size=facts.size,
            annotations=dict(sorted(annotations.items())),
        )

    def _compose(self, config: Descriptor, layers: list[Descriptor]) -> tuple[Descriptor, bytes]:
        if self.options.image_manifest:
            manifest = oci.Manifest(
                schema_version=2, media_type=oci.MANIFEST, config=config, layers=layers
            )
            raw = oci.encode(manifest)
            return _descriptor(oci.MANIFEST, raw), raw
        media_type = oci.INDEX if self.options.oci_mediatypes else oci.DOCKER_LIST
        index = Index(schema_version=2, media_type=media_type, manifests=[*layers, config])
        raw = oci.encode(index)
        return _descriptor(media_type, raw), raw

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


def _descriptor(media_type: str, raw: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=str(Digest.of(raw)), size=len(raw))


def _split(top: Descriptor, raw: bytes, max_records: int) -> _Parts:
    if top.media_type in {oci.MANIFEST, oci.DOCKER_MANIFEST}:
        manifest = oci.decode_manifest(raw, max_records)
        if manifest.config.media_type != cacheconfig.MEDIA_TYPE:
            raise ManifestError(
                f"the config is of type {manifest.config.media_type!r}: an image, not a cache"
            )
        return _Parts(manifest.config, manifest.layers)
    if top.media_type not in {oci.INDEX, oci.DOCKER_LIST}:
        raise ManifestError(f"{top.media_type!r} is neither an image manifest nor an index")
    items = oci.decode_index(raw, max_records).manifests
    configs = [item for item in items if item.media_type == cacheconfig.MEDIA_TYPE]
    if len(configs) != 1:
        raise ManifestError(f"the index has {len(configs)} cache configs; a cache has one")
    return _Parts(configs[0], [item for item in items if item is not configs[0]])


def _others(descriptors: Iterable[Descriptor]) -> dict[str, dict[str, str]]:
    """For each blob, the annotations that are no facts of a layer, if there are any."""
    found: dict[str, dict[str, str]] = {}
    for descriptor in descriptors:
        for key, text in descriptor.annotations.items():
            if key not in {oci.CREATED_AT, oci.UNCOMPRESSED}:
                found.setdefault(descriptor.digest, {})[key] = text
    return found


def _bare(config: CacheConfig) -> CacheConfig:
    return CacheConfig([Layer(layer.blob, layer.parent) for layer in config.layers], config.records)


def _annotated(config: CacheConfig, descriptors: Sequence[Descriptor]) -> CacheConfig:
    """The config with each layer's facts, found by index or else by digest.

    A builder writes one descriptor per layer in the same order, so that a blob shared by two layers
    keeps the facts of both.
    """
    by_digest = {descriptor.digest: descriptor for descriptor in descriptors}
    aligned = [d.digest for d in descriptors] == [layer.blob for layer in config.layers]
    layers = []
    for index, layer in enumerate(config.layers):
        found = descriptors[index] if aligned else by_digest.get(layer.blob)
        if found is None:
            raise ManifestError(f"layer {index} is blob {layer.blob}, which no descriptor has")
        created_at = found.annotations.get(oci.CREATED_AT, timestamps.ZERO)
        if not timestamps.is_timestamp(created_at):
            raise ManifestError(f"layer {index}: {created_at[:40]!r} is not an RFC 3339 time")
        facts = Annotations(
            media_type=oci.oci_media_type(found.media_type),
            diff_id=found.annotations.get(oci.UNCOMPRESSED, ""),
            size=found.size,
            created_at=created_at,
        )
        layers.append(Layer(layer.blob, layer.parent, facts))
    return CacheConfig(layers, config.records)
