"""What OCI image layouts and registries share: a name is a manifest of descriptors.

A manifest is an image manifest (its config is the cache config, its layers are the blobs) or an
index that mixes the layers and one cache config. The facts that a keyed manifest has in annotations
are in the descriptors here.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cachefs.digest import Digest, verify
from cachefs.errors import DigestError, IntegrityError, ManifestError
from cachefs.layout.base import Layout, Manifest
from cachefs.layout.inline import Inline, read_inline
from cachefs.location.options import OCIOptions
from cachefs.wire import cacheconfig, codec, oci, timestamps
from cachefs.wire.bounds import max_bytes
from cachefs.wire.cacheconfig import Annotations, CacheConfig, Layer
from cachefs.wire.oci import Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cachefs.store import Store

logger = logging.getLogger("cachefs")


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a tag's manifest: the descriptors of the cache config and of the layers."""

    config: Descriptor
    layers: list[Descriptor]


class Fetched(NamedTuple):
    """A name's manifest: what refers to it, and its bytes."""

    top: Descriptor
    raw: bytes


class Described(NamedTuple):
    """A manifest as it is written: the cache config and what refers to it, each with its bytes."""

    config: Descriptor
    config_raw: bytes
    top: Descriptor
    raw: bytes


class OCIManifests(Layout):
    """Names whose manifests are blobs, or are fetched as such.

    Args:
        store: where they are.
        options: how manifests are written.
        digest: read this manifest instead of a name's.
    """

    default_name = "latest"
    builder_limit: int = 1024 * 1024

    _manifests_are_blobs = True
    """Whether a name's manifest has the key of a blob, as all that it refers to."""

    def __init__(
        self, store: Store, options: OCIOptions | None = None, digest: str | None = None
    ) -> None:
        self.store = store
        self.options = options or OCIOptions()
        self.digest = digest

    @abstractmethod
    async def _fetch(self, name: str) -> Fetched:
        """The name's manifest, verified.

        Raises NotFoundError, StoreError, ManifestError and IntegrityError.
        """

    async def _manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest that another one refers to, verified. Raises as that does."""
        return await self._blob(descriptor)

    async def _read(self, name: str) -> Manifest:
        """The cache config of a name, with its layers annotated from their descriptors.

        An image is read too if it has an inline cache, whose layers are those of the image.
        """
        top, raw = await self._fetch(name)
        with self._naming(self._manifest_key(top.digest)):
            parts = _split(top, raw, self.max_records)
        if parts is None:
            found = await self._inline(top, raw)
            return Manifest(name, found.config, version=top.digest)
        config_raw = await self._blob(parts.config)
        with self._naming(self.blob_key(Digest(parts.config.digest))):
            config, left_out = codec.decode_written(config_raw, self.max_records)
            config = _annotated(config, parts.layers)
        others = _others(parts.layers)
        return Manifest(name, config, left_out=left_out, annotations=others, version=top.digest)

    async def references(self, name: str) -> set[Digest]:
        """The layers' blobs, the cache config and, if it is a blob, the manifest itself.

        Of an image, all of it.
        """
        top, raw = await self._fetch(name)
        with self._naming(self._manifest_key(top.digest)):
            parts = _split(top, raw, self.max_records)
        if parts is None:
            found = (await self._inline(top, raw)).references
        else:
            found = {Digest(d.digest) for d in (top, parts.config, *parts.layers)}
        return found if self._manifests_are_blobs else found - {Digest(top.digest)}

    async def _inline(self, top: Descriptor, raw: bytes) -> Inline:
        """The inline cache of an image. Raises ManifestError if it has none."""
        with self._naming(self._manifest_key(top.digest)):
            return await read_inline(top, raw, self._manifest, self._blob, self.max_records)

    def _described(self, names: Sequence[str], manifest: Manifest) -> Described:
        """What a manifest is written as. Warns if builders refuse to import it under the names."""
        raw = self.encode(manifest.config)
        if names and len(raw) > self.builder_limit:
            logger.warning(
                "the cache config of %s has %d bytes; builders refuse more than %d in this layout "
                "(a keyed cache has no such limit)",
                ";".join(names),
                len(raw),
                self.builder_limit,
            )
        config = _descriptor(cacheconfig.MEDIA_TYPE, raw)
        layers = [
            self._layer_descriptor(layer, manifest.annotations.get(layer.blob, {}))
            for layer in manifest.config.layers
        ]
        return Described(config, raw, *self._compose(config, layers))

    def _digest(self, manifest: Manifest) -> str:
        """The digest of the manifest that is written."""
        return self._described((), manifest).top.digest

    def _digest_read(self, manifest: Manifest) -> str:
        """The digest of the manifest that was read, which all else was verified by."""
        return manifest.version

    def encode(self, config: CacheConfig) -> bytes:
        """The cache config without its annotations, which are in the layers' descriptors."""
        return codec.encode(_bare(config))

    # --- reading ---------------------------------------------------------------------------------

    async def _blob(self, descriptor: Descriptor) -> bytes:
        try:
            digest = Digest(descriptor.digest)
        except DigestError as error:
            raise ManifestError(f"a descriptor's digest {error}") from error
        key = self.blob_key(digest)
        raw = await self.store.read(key, max_bytes(self.max_records))
        self._verify(raw, digest, descriptor.size, key)
        return raw

    def _verify(self, raw: bytes, digest: Digest, size: int | None, key: str) -> None:
        """Raise IntegrityError unless these are the bytes, as they were read from the key."""
        try:
            verify(raw, digest, size)
        except IntegrityError as error:
            error.operation, error.side = "read", self.store.side
            error.key = self.store.root + key
            raise

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        """Give a ManifestError without a key that of what is not valid."""
        try:
            yield
        except ManifestError as error:
            if error.key:
                raise
            raise ManifestError(
                error.reason, operation="read", side=self.store.side, key=self.store.root + key
            ) from error

    def _manifest_key(self, digest: str) -> str:
        """The key of a manifest, which is a blob in an image layout."""
        return self.blob_key(Digest(digest))

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


def _descriptor(media_type: str, raw: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=str(Digest.of(raw)), size=len(raw))


def _split(top: Descriptor, raw: bytes, max_records: int) -> _Parts | None:
    """The parts of a cache's manifest, None for one of images. Raises ManifestError."""
    if top.media_type in oci.IMAGE_MANIFESTS:
        manifest = oci.decode_manifest(raw, max_records)
        is_cache = manifest.config.media_type == cacheconfig.MEDIA_TYPE
        return _Parts(manifest.config, manifest.layers) if is_cache else None
    if top.media_type not in oci.INDEXES:
        raise ManifestError(f"{top.media_type!r} is neither an image manifest nor an index")
    items = oci.decode_index(raw, max_records).manifests
    configs = [item for item in items if item.media_type == cacheconfig.MEDIA_TYPE]
    if not configs:
        return None
    if len(configs) > 1:
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
