"""Where an export takes its blobs from: bytes, files, or another cache."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cachefs.concurrency import closing
from cachefs.digest import Verifier
from cachefs.errors import CacheError, NotFoundError
from cachefs.filesystems.failures import failed, mapped
from cachefs.filesystems.local import file_chunks, read_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout


@runtime_checkable
class BlobSource(Protocol):
    """Anything that yields a blob's bytes."""

    def chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """The bytes in chunks of bounded size, not verified. Raises NotFoundError."""
        ...


@runtime_checkable
class BatchSource(BlobSource, Protocol):
    """A source that reads many small blobs in one call."""

    async def read_batch(self, blobs: Sequence[tuple[Digest, int]]) -> Sequence[bytes | CacheError]:
        """Each blob's bytes, by digest and size, not verified, or the error that it failed with."""
        ...


@runtime_checkable
class VerifyingSource(BlobSource, Protocol):
    """A source that verifies bytes while it reads them, which is cheaper than doing it later."""

    def verified_chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """As :meth:`chunks`, but ending in IntegrityError unless the bytes are the blob's."""
        ...


@runtime_checkable
class StoredSource(BlobSource, Protocol):
    """A source whose blobs are in stores, which may be able to copy them."""

    def layouts(self) -> Sequence[Layout]:
        """The layouts that may have a blob, in the order in which they are asked."""
        ...


class MappingSource:
    """Blobs from a mapping of digests to bytes or paths of files."""

    def __init__(self, blobs: Mapping[str, bytes | Path | str]) -> None:
        self._blobs = blobs

    def chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:  # noqa: ARG002 - files and bytes know their end
        """The bytes, or the file's content."""
        return self._chunks(digest)

    async def verified_chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """The same bytes, verified: the verifier sees a file's bytes as they are read."""
        verifier = Verifier(digest, size)
        async with closing(self._chunks(digest, verifier.update)) as chunks:
            async for chunk in chunks:
                yield chunk
        verifier.finish()

    async def _chunks(
        self, digest: Digest, shown_to: Callable[[bytes], None] | None = None
    ) -> AsyncIterator[bytes]:
        blob = self._blobs.get(digest)
        if blob is None:
            raise _absent(digest)
        if isinstance(blob, bytes):
            if shown_to is not None:
                await asyncio.to_thread(shown_to, blob)
            yield blob
            return
        with mapped("read", str(blob), "source"):
            async with closing(file_chunks(Path(blob), shown_to)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def read_batch(self, blobs: Sequence[tuple[Digest, int]]) -> Sequence[bytes | CacheError]:
        """The bytes, and the contents of the files, which are read in one thread."""
        held = {digest: self._blobs.get(digest) for digest, _ in blobs}
        files = [
            (Path(blob), size)
            for digest, size in blobs
            if (blob := held[digest]) is not None and not isinstance(blob, bytes)
        ]
        contents = iter(await read_files(files))

        def given(digest: Digest) -> bytes | CacheError:
            blob = held[digest]
            if blob is None:
                return _absent(digest)
            data = blob if isinstance(blob, bytes) else next(contents)
            return data if isinstance(data, bytes) else failed(data, "read", str(blob), "source")

        return [given(digest) for digest, _ in blobs]


class LayoutSource:
    """Blobs of another cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._store = layout.with_side("source").store

    def chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """The blob as the other store returns it."""
        return self._store.chunks(self._layout.blob_key(digest), size)

    def layouts(self) -> Sequence[Layout]:
        """The other cache's."""
        return [self._layout.with_side("source")]

    async def read_batch(self, blobs: Sequence[tuple[Digest, int]]) -> Sequence[bytes | CacheError]:
        """The blobs as the other store returns them."""
        return await self._store.read_batch(
            [(self._layout.blob_key(digest), size) for digest, size in blobs]
        )


class FirstSource:
    """The first of several sources that has the blob."""

    def __init__(self, sources: Sequence[BlobSource]) -> None:
        self._sources = sources

    async def chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """The blob from the first source that has it."""
        for source in self._sources:
            async with closing(source.chunks(digest, size)) as chunks:
                try:
                    first = await anext(chunks, b"")
                except NotFoundError:
                    continue
                yield first
                async for chunk in chunks:
                    yield chunk
                return
        raise _absent(digest)

    def layouts(self) -> Sequence[Layout]:
        """Those of all sources that have some."""
        stored = [one for one in self._sources if isinstance(one, StoredSource)]
        return [layout for source in stored for layout in source.layouts()]


def _absent(digest: Digest) -> NotFoundError:
    return NotFoundError(
        "no source has this blob", operation="read", side="source", digest=str(digest)
    )


@runtime_checkable
class HasLayout(Protocol):
    """Anything that has a layout, such as a cache."""

    @property
    def layout(self) -> Layout:
        """Where names, manifests and blobs are."""
        ...


def as_source(
    source: HasLayout | BlobSource | Mapping[str, bytes | Path | str] | Sequence[HasLayout],
) -> BlobSource:
    """Turn anything that an export can take blobs from into a BlobSource."""
    if isinstance(source, HasLayout):
        return LayoutSource(source.layout)
    if isinstance(source, BlobSource):
        return source
    if isinstance(source, list | tuple):
        return FirstSource([as_source(one) for one in source])
    return MappingSource(source)  # type: ignore[arg-type]  # only a mapping is left
