"""Working out diffIDs, the digests of layers' uncompressed archives, while blobs are read.

A builder refuses a whole manifest in which one layer has no diffID.
"""

from __future__ import annotations

import dataclasses
import hashlib
from io import BytesIO
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachefs.concurrency import closing
from cachefs.digest import Digest
from cachefs.errors import IntegrityError, NotFoundError
from cachefs.layers.compression import decompressed
from cachefs.store import verified
from cachefs.transfer.piping import Pipe
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import Annotations, CacheConfig, Layer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from cachefs.layers.compression import Readable
    from cachefs.layout.base import Manifest
    from cachefs.transfer.sources import BlobSource


def without_diff_id(config: CacheConfig) -> dict[Digest, int]:
    """The blobs of layers without a diffID, with the sizes that the layers state."""
    return {Digest(layer.blob): layer.size for layer in config.layers if not layer.diff_id}


def completed(manifest: Manifest, diff_ids: Mapping[Digest, str]) -> Manifest:
    """The manifest in which layers without a diffID have these; the argument is not changed."""
    layers = [_completed(layer, diff_ids) for layer in manifest.config.layers]
    if layers == manifest.config.layers:
        return manifest
    return dataclasses.replace(
        manifest, config=CacheConfig(layers, manifest.config.records), raw=None
    )


def note(layers: Iterable[Layer], diff_ids: Mapping[Digest, str]) -> None:
    """Give layers without a diffID these, in place."""
    for layer in layers:
        layer.annotations = _completed(layer, diff_ids).annotations


def _completed(layer: Layer, diff_ids: Mapping[Digest, str]) -> Layer:
    diff_id = None if layer.diff_id else diff_ids.get(Digest(layer.blob))
    if diff_id is None:
        return layer
    facts = layer.annotations or Annotations(created_at=timestamps.ZERO)
    return Layer(layer.blob, layer.parent, replace(facts, diff_id=diff_id))


def diff_id_of(blob: bytes) -> str:
    """The diffID of a layer whose blob is in memory. Raises IntegrityError if it is damaged."""
    return _hashed(BytesIO(blob))


def _hashed(stream: Readable) -> str:
    """The digest of what is compressed in a stream.

    The first bytes say how, as they do when a builder unpacks it, and not the media type.
    """
    hashing = hashlib.sha256()
    for chunk in decompressed(stream, ""):
        hashing.update(chunk)
    return str(Digest.from_hex(hashing.hexdigest()))


async def read_diff_id(
    sources: Iterable[BlobSource], digest: Digest, size: int | None
) -> str | None:
    """The diffID of a blob, which is read from the first source that has it intact.

    None if no source has it, or it cannot be decompressed. Raises StoreError.
    """
    for source in sources:
        found: dict[Digest, str] = {}
        try:
            chunks = noted(verified(source.chunks(digest, size), digest, size), digest, found)
            async with closing(chunks):
                async for _ in chunks:
                    pass
        except (IntegrityError, NotFoundError):
            continue
        return found.get(digest)
    return None


async def noted(
    chunks: AsyncIterator[bytes], digest: Digest, into: dict[Digest, str]
) -> AsyncIterator[bytes]:
    """Pass on a blob's chunks, and note its diffID unless it cannot be decompressed."""
    pipe = Pipe(_hashed_if_sound, "cachefs-diff-id")
    async with closing(pipe.passing(chunks)) as passing:
        async for chunk in passing:
            yield chunk
    diff_id = await pipe.found()
    if diff_id is not None:
        into[digest] = diff_id


def _hashed_if_sound(stream: Readable) -> str | None:
    try:
        return _hashed(stream)
    except IntegrityError:
        return None
