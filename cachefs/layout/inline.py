"""Reading inline caches, from an image or from those of several platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cachefs.digest import Digest
from cachefs.errors import DigestError, ManifestError
from cachefs.graph import RecordGraph
from cachefs.wire import oci
from cachefs.wire.inline import inline_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cachefs.wire.cacheconfig import CacheConfig
    from cachefs.wire.oci import Descriptor

    Read = Callable[[Descriptor], Awaitable[bytes]]


class Inline(NamedTuple):
    """The inline cache of an image, and every blob of the image."""

    config: CacheConfig
    references: set[Digest]


async def read_inline(
    top: Descriptor, raw: bytes, manifest: Read, blob: Read, max_records: int
) -> Inline:
    """Read the inline cache of an image; those of several platforms are joined.

    Args:
        top: the descriptor of the image's manifest, or of an index of such manifests.
        raw: its bytes.
        manifest: reads a manifest that the index refers to.
        blob: reads a blob, such as an image's config.
        max_records: how many records and layers it may have.

    Raises ManifestError if no image has one, or one is not valid.
    """
    references = {_digest(top)}
    images = [raw]
    if top.media_type in oci.INDEXES:
        items = oci.decode_index(raw, max_records).manifests
        manifests = [item for item in items if item.media_type in oci.IMAGE_MANIFESTS]
        references.update(_digest(item) for item in items)
        images = [await manifest(item) for item in manifests]
    configs = []
    for one in images:
        image = oci.decode_manifest(one, max_records)
        references.update(_digest(part) for part in (image.config, *image.layers))
        config = inline_config(await blob(image.config), image.layers, max_records)
        if config is not None:
            configs.append(config)
    if not configs:
        raise ManifestError("it is an image without an inline cache, and no cache")
    if len(configs) == 1:
        return Inline(configs[0], references)
    return Inline(RecordGraph.union(map(RecordGraph, configs)).to_config(), references)


def _digest(descriptor: Descriptor) -> Digest:
    try:
        return Digest(descriptor.digest)
    except DigestError as error:
        raise ManifestError(f"a descriptor's digest {error}") from error
