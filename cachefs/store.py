"""A store: objects under one root, seen by key, with errors that say which operation, side and key.

The one module that calls a filesystem for a cache; everything above it knows keys, not paths.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from cachefs.concurrency import closing
from cachefs.digest import Digest, Verifier
from cachefs.errors import CacheError, NotFoundError, StoreError
from cachefs.filesystems.base import CHUNK_SIZE, TEMPORARY, WHOLE, Filesystem, Page, Stat, joined
from cachefs.filesystems.failures import failed, is_vague, mapped, mapped_batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

P = ParamSpec("P")
T = TypeVar("T")

HASH_ASIDE: Final = 256 * 1024
"""Chunks of at least this many bytes are hashed in a thread, while others are on their way."""


def _explained(
    method: Callable[Concatenate[Store, P], Awaitable[T]],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]:
    """The method; where the store did not say why it failed, it is asked once more."""

    @wraps(method)
    async def explained(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except StoreError as error:
            failure = error
        if is_vague(failure) and failure.operation and failure.key:
            try:
                with mapped(failure.operation, failure.key, failure.side):
                    await self.filesystem.explain(failure.key)
            except StoreError as reason:
                if not is_vague(reason):
                    raise
            except CacheError:
                pass  # what it takes to ask is not installed
        raise failure

    return explained


class Store:
    """Objects in a filesystem, by key: what follows the root in their paths.

    Args:
        filesystem: where the objects are.
        root: the path that every key is appended to, as it is.
        side: ``"source"`` or ``"target"`` for errors, where two caches take part.
    """

    def __init__(self, filesystem: Filesystem, root: str, side: str | None = None) -> None:
        self.filesystem = filesystem
        self.root = root
        self.side = side

    async def stat(self, key: str) -> Stat | None:
        """Look up an object, or None if there is none. The path of a Stat is the key here."""
        (found,) = await self.stat_batch([key])
        return found

    @_explained
    async def stat_batch(self, keys: Sequence[str]) -> Sequence[Stat | None]:
        """Look up each object."""
        paths = [self.root + key for key in keys]
        with mapped_batch("look up", paths, self.side):
            found = await self.filesystem.stat_batch(paths)
        return [stat and self._keyed(stat) for stat in found]

    @_explained
    async def list(self, prefix: str) -> list[Stat]:
        """Every object whose key starts with the prefix, in the order of keys."""
        with mapped("list", self.root + prefix, self.side):
            return [self._keyed(stat) for stat in await self.filesystem.list(self.root + prefix)]

    @_explained
    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """The first objects with the prefix whose keys come after ``after`` (empty: all)."""
        with mapped("list", self.root + prefix, self.side):
            start = self.root + after if after else ""
            page = await self.filesystem.page(self.root + prefix, start, limit)
        return Page([self._keyed(stat) for stat in page.objects], page.complete)

    @_explained
    async def read(self, key: str, limit: int) -> bytes:
        """A whole object of at most ``limit`` bytes. Raises NotFoundError and StoreError."""
        with mapped("read", self.root + key, self.side):
            data = await joined(self.filesystem.read(self.root + key), limit)
            if len(data) > limit:
                raise StoreError(f"it has more than the {limit} bytes that are taken")
        return data

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | StoreError]:
        """Small objects, by key and size: the bytes of each, or the error that it failed with.

        Of an object that is longer, not much more than its size is read.
        """
        paths = [(self.root + key, size) for key, size in objects]
        found = await self.filesystem.read_batch(paths)
        return [
            failed(data, "read", path, self.side) if isinstance(data, Exception) else data
            for (path, _), data in zip(paths, found, strict=True)
        ]

    async def chunks(self, key: str, size: int | None = None) -> AsyncIterator[bytes]:
        """An object's bytes in chunks, not verified."""
        _keep_memory()
        with mapped("read", self.root + key, self.side):
            async with closing(self.filesystem.read(self.root + key, size)) as chunks:
                async for chunk in chunks:
                    yield chunk

    @_explained
    async def put(self, key: str, data: bytes) -> None:
        """Write an object that is in memory: seen whole or not at all."""
        with mapped("write", self.root + key, self.side):
            await self.filesystem.put(self.root + key, _cut(data), len(data))

    @_explained
    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write small objects, each seen whole or not at all, and lasting after :meth:`settle`."""
        paths = [(self.root + key, data) for key, data in objects]
        with mapped_batch("upload", [path for path, _ in paths], self.side):
            await self.filesystem.put_batch(paths)

    async def settle(self) -> None:
        """Return when all objects outlast a loss of power, whoever wrote them."""
        with mapped("sync", self.root, self.side):
            await self.filesystem.settle(self.root)

    @_explained
    async def upload(self, key: str, chunks: AsyncIterator[bytes], size: int | None) -> int:
        """Write an object from chunks, and return its bytes: seen whole or not at all.

        When ``chunks`` raises, nothing is seen at the key, and what it raised comes out.
        ``size`` is what is expected; where it is None the object is held to be large.
        """
        sent = 0
        failed: Exception | None = None

        async def counted() -> AsyncIterator[bytes]:
            nonlocal sent, failed
            try:
                async for chunk in chunks:
                    sent += len(chunk)
                    yield chunk
            except Exception as error:
                failed = error
                raise

        try:
            with mapped("upload", self.root + key, self.side):
                async with self.filesystem.permits, closing(chunks), closing(counted()) as stream:
                    if size is None or size > WHOLE:
                        _keep_memory()
                    await self.filesystem.put(self.root + key, stream, size)
        except StoreError:
            if failed is None:
                raise
            # It came through the filesystem, and is none of the filesystem's own.
            raise failed from failed.__cause__
        return sent

    async def touch(self, stat: Stat) -> bool:
        """Renew the object's time; False when it is gone."""
        (is_there,) = await self.touch_batch([stat])
        return is_there

    @_explained
    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[bool]:
        """Renew each object's time; False for those that are gone."""
        paths = [self.root + stat.path for stat in stats]
        at_paths = [stat._replace(path=path) for stat, path in zip(stats, paths, strict=True)]
        there = []
        with mapped_batch("touch", paths, self.side):
            found = await self.filesystem.touch_batch(at_paths)
        for path, error in zip(paths, found, strict=True):
            failure = error and failed(error, "touch", path, self.side)
            # No such bucket is a FileNotFoundError as well.
            if failure is not None and not isinstance(failure, NotFoundError):
                raise failure
            there.append(failure is None)
        return there

    @_explained
    async def delete(self, key: str) -> None:
        """Delete an object; one that is gone is no error."""
        with mapped("delete", self.root + key, self.side):
            await self.filesystem.delete(self.root + key)

    @_explained
    async def delete_unchanged(self, stat: Stat) -> bool:
        """Delete the object that was just looked up; False where the store saw that it changed.

        The request is sent once: when its answer is lost, the object may be there or not.
        """
        path = self.root + stat.path
        with mapped("delete", path, self.side):
            return await self.filesystem.delete(path, stat._replace(path=path))

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Writes in the prefix's folder that have begun and not ended."""
        with mapped("list", self.root + prefix, self.side):
            found = await self.filesystem.unfinished(self.root + prefix)
        return [self._keyed(stat) for stat in found]

    async def abandon(self, stat: Stat) -> None:
        """End a write that :meth:`unfinished` found, and free what it holds."""
        path = self.root + stat.path
        with mapped("abandon", path, self.side):
            await self.filesystem.abandon(stat._replace(path=path))

    async def clock(self, prefix: str) -> float | None:
        """The store's own time, read off an object that is written beside ``prefix``, and deleted.

        In seconds since 1970; None where the store has no times.
        """
        key = f"{prefix.rpartition('/')[0]}/{TEMPORARY}{secrets.token_hex(8)}".lstrip("/")
        await self.put(key, b"")
        try:
            stat = await self.stat(key)
        finally:
            await self.delete(key)
        return stat and stat.modified

    def _keyed(self, stat: Stat) -> Stat:
        return stat._replace(path=stat.path[len(self.root) :])


@cache
def _keep_memory() -> None:
    """Let the memory of one chunk serve for the next, in place of going back to the system.

    Taking it anew is a fault for each page, a tenth of the CPU that a large blob takes. glibc keeps
    twice as much as the largest block that was ever freed, where that was no more than 32 MiB
    (mallopt(3), M_MMAP_THRESHOLD). Bytes that are zero come untouched from the system, so this
    block takes no memory; a bytearray would be written to.
    """
    bytes(32 * 1024 * 1024 - 8192)


async def _cut(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_SIZE):
        yield data[start : start + CHUNK_SIZE]


async def verified(
    chunks: AsyncIterator[bytes], digest: Digest, size: int | None
) -> AsyncIterator[bytes]:
    """The same chunks, ending in IntegrityError unless they are the blob's.

    ``size`` is in bytes, None where it is not known. A large chunk is hashed while whoever takes it
    does his part: all are to be believed only when the last has come and no error.
    """
    verifier = Verifier(digest, size)
    hashing: asyncio.Future[None] | None = None
    try:
        async with closing(chunks):
            async for chunk in chunks:
                if hashing is not None:
                    await hashing
                    hashing = None
                if len(chunk) >= HASH_ASIDE:
                    hashing = asyncio.ensure_future(asyncio.to_thread(verifier.update, chunk))
                else:
                    verifier.update(chunk)
                yield chunk
            if hashing is not None:
                await hashing
    finally:
        if hashing is not None:
            await asyncio.gather(hashing, return_exceptions=True)
    verifier.finish()
