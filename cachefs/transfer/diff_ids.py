"""Working out diffIDs, the digests of layers' uncompressed archives, while blobs are read.

A builder refuses a whole manifest in which one layer has no diffID.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import threading
from io import BytesIO
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from cachefs.concurrency import closing
from cachefs.digest import Digest
from cachefs.errors import IntegrityError, NotFoundError
from cachefs.layers.compression import decompressed
from cachefs.store import verified
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
    pipe = _Pipe()
    try:
        async with closing(chunks):
            async for chunk in chunks:
                if chunk:
                    await pipe.feed(chunk)
                yield chunk
        diff_id = await pipe.end()
        if diff_id is not None:
            into[digest] = diff_id
    finally:
        await pipe.end()


class _Pipe:
    """Chunks that a thread of its own decompresses and hashes, one while the next is awaited.

    The threads of the event loop do not do: each would wait for the end of its blob, and reading
    the blobs needs threads of the loop, of which there are few.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: SimpleQueue[tuple[bytes, asyncio.Future[None]]] = SimpleQueue()
        self._rest = memoryview(b"")
        self._ended = False
        self._result: asyncio.Future[str | None] = self._loop.create_future()
        threading.Thread(target=self._run, name="cachefs-diff-id", daemon=True).start()

    async def feed(self, chunk: bytes) -> None:
        """Hand a chunk over, as soon as the thread is done with the one before it."""
        taken: asyncio.Future[None] = self._loop.create_future()
        self._chunks.put((chunk, taken))
        await taken

    async def end(self) -> str | None:
        """The diffID of what was fed, None if it cannot be decompressed."""
        if not self._ended:
            self._ended = True
            self._chunks.put((b"", self._loop.create_future()))
        return await self._result

    def read(self, size: int, /) -> bytes:
        """The next bytes, for the thread; none at the end."""
        if not self._rest:
            self._rest = memoryview(self._take())
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data

    def _take(self) -> bytes:
        chunk, taken = self._chunks.get()
        self._loop.call_soon_threadsafe(_resolve, taken, None)
        return chunk

    def _run(self) -> None:
        try:
            diff_id: str | None = _hashed(self)
        except IntegrityError:
            diff_id = None
            while self._take():
                pass
        self._loop.call_soon_threadsafe(_resolve, self._result, diff_id)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    """Set the result of a future, unless whoever waited for it was cancelled."""
    if not future.done():
        future.set_result(value)
