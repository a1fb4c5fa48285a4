"""A store: objects below a root, by key. Its errors state the operation, the side and the key.

Only this module calls a cache's filesystem. All modules above it use keys, not paths.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from cachefs.concurrency import closing
from cachefs.digest import Digest, Verifier
from cachefs.errors import CacheError, IntegrityError, NotFoundError, StoreError
from cachefs.filesystems.base import TEMPORARY, WHOLE, Filesystem, Folder, Page, Stat
from cachefs.filesystems.conditions import keeps_conditions
from cachefs.filesystems.copies import Copied, silence
from cachefs.filesystems.failures import failed, is_unreachable, is_vague, mapped, mapped_batch
from cachefs.filesystems.forking import OfThisProcess
from cachefs.filesystems.patience import NoProgressError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from cachefs.filesystems.base import Allowed
    from cachefs.filesystems.findings import Finding
    from cachefs.filesystems.versions import Past

P = ParamSpec("P")
T = TypeVar("T")

HASH_IN_THREAD: Final = 256 * 1024
"""Chunks of at least this many bytes are hashed in a thread, while others are transferred."""

TOGETHER: Final = 16 * 1024 * 1024
"""Bytes up to which many objects are read into memory at a time: larger than real manifests."""


def _explained(
    method: Callable[Concatenate[Store, P], Awaitable[T]],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]:
    """Wrap the method: if an error states no reason, another request finds it out."""

    @wraps(method)
    async def explained(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except StoreError as error:
            failure = error
        if is_vague(failure) and failure.operation and failure.key:
            try:
                with mapped(failure.operation, failure.key, failure.side):
                    await self.filesystem.patience.briefly(self.filesystem.explain(failure.key))
            except StoreError as reason:
                if not is_vague(reason):
                    raise
            except CacheError:
                pass  # a library for this request is not installed
        raise failure

    return explained


class Store:
    """Objects in a filesystem, by key: the part of their paths that follows the root.

    Args:
        filesystem: the filesystem.
        root: the path to which keys are appended, as it is.
        side: ``"source"`` or ``"target"``, for errors if two caches are involved.
        reopen: opens the same filesystem in a forked process; by default it is used as it is.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        root: str,
        side: str | None = None,
        reopen: Callable[[], Filesystem] | None = None,
    ) -> None:
        self._filesystem = OfThisProcess(filesystem, reopen or (lambda: filesystem))
        self.root = root
        self.side = side

    @property
    def filesystem(self) -> Filesystem:
        """The filesystem; after a fork, one that this process has opened."""
        return self._filesystem.get()

    async def stat(self, key: str) -> Stat | None:
        """Look up an object, or None if there is none. The path of a Stat is the key here."""
        (found,) = await self.stat_batch([key])
        return found

    @_explained
    async def stat_batch(self, keys: Sequence[str]) -> Sequence[Stat | None]:
        """Look up each object."""
        paths = [self.root + key for key in keys]
        with mapped_batch("look up", paths, self.side):
            found = await self._bound(self.filesystem.stat_batch(paths))
        return [stat and self._keyed(stat) for stat in found]

    @_explained
    async def list(self, prefix: str) -> list[Stat]:
        """List every object whose key starts with the prefix, in the order of keys."""
        with mapped("list", self.root + prefix, self.side):
            found = await self._bound(self.filesystem.list(self.root + prefix))
        return [self._keyed(stat, prefix) for stat in found]

    @_explained
    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """List the first objects with the prefix whose keys come after ``after`` (empty: all)."""
        with mapped("list", self.root + prefix, self.side):
            start = self.root + after if after else ""
            page = await self._bound(self.filesystem.page(self.root + prefix, start, limit))
        return Page([self._keyed(stat, prefix) for stat in page.objects], page.complete)

    async def list_pages(self, prefix: str, after: str) -> AsyncIterator[Sequence[Stat]]:
        """List all objects with the prefix whose keys come after ``after``, page by page."""
        start = self.root + after if after else ""
        with mapped("list", self.root + prefix, self.side):
            async with closing(self.filesystem.list_pages(self.root + prefix, start)) as pages:
                while (page := await self._bound(_next(pages))) is not None:
                    yield [self._keyed(stat, prefix) for stat in page]

    @_explained
    async def folder(self, key: str) -> Folder:
        """List what is directly in a folder, whose key ends in ``/`` or is empty for the root."""
        with mapped("list", self.root + key, self.side):
            found = await self._bound(self.filesystem.folder(self.root + key))
        folders = [path[len(self.root) :] for path in found.folders]
        return Folder(folders, [self._keyed(stat) for stat in found.objects])

    @_explained
    async def read(self, key: str, limit: int) -> bytes:
        """Read an object. Raises NotFoundError, StoreError, and IntegrityError above the limit."""
        with mapped("read", self.root + key, self.side):
            data, _ = await self._read(partial(self._read_checked, self.root + key), limit)
        await self.filesystem.rates.receive(len(data))
        return self._within(limit, key, data)

    @_explained
    async def read_versioned(self, key: str, limit: int) -> tuple[bytes, str]:
        """The same, and the version of these bytes for :meth:`put_if`."""
        with mapped("read", self.root + key, self.side):
            read = partial(self.filesystem.read_versioned, self.root + key)
            data, version = await self._read(read, limit)
        await self.filesystem.rates.receive(len(data))
        return self._within(limit, key, data), version

    async def _read_checked(self, path: str, limit: int) -> tuple[bytes, str]:
        return await self.filesystem.read_checked(path, limit), ""

    def _within(self, limit: int, key: str, data: bytes) -> bytes:
        if len(data) > limit:
            raise IntegrityError(
                f"it has more than the {limit} bytes that are read",
                operation="read",
                side=self.side,
                key=self.root + key,
            )
        return data

    async def _read(
        self, read: Callable[[int], Coroutine[Any, Any, tuple[bytes, str]]], limit: int
    ) -> tuple[bytes, str]:
        """Read an object while others are read, but only one beyond :data:`TOGETHER` at a time."""
        alone = self.filesystem.alone
        if limit <= TOGETHER or alone.locked():
            found = await self._bound(read(min(limit, TOGETHER)))
            if len(found[0]) <= TOGETHER or limit <= TOGETHER:
                return found
            del found  # it is read again, because a connection must not wait for the others
        async with alone:
            return await self._bound(read(limit))

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | StoreError]:
        """Read small objects, given by key and size: the bytes of each, or its error.

        Of a longer object, not much more than its size is read.
        """
        paths = [(self.root + key, size) for key, size in objects]
        await self.filesystem.rates.receive(sum(size for _, size in objects))
        with mapped_batch("read", [path for path, _ in paths], self.side):
            found = await self._bound(self.filesystem.read_batch(paths))
        return [
            failed(data, "read", path, self.side) if isinstance(data, Exception) else data
            for (path, _), data in zip(paths, found, strict=True)
        ]

    @_explained
    async def stated_digests(self, keys: Sequence[str]) -> Sequence[Digest | None]:
        """For each object, the digest of its bytes that the store states; None if it states none.

        It is the store's word: nothing is read.
        """
        paths = [self.root + key for key in keys]
        with mapped_batch("look up", paths, self.side):
            return await self._bound(self.filesystem.stated_digests(paths))

    async def chunks(self, key: str, size: int | None = None) -> AsyncIterator[bytes]:
        """Read an object in chunks, without verifying it."""
        _keep_memory()
        with mapped("read", self.root + key, self.side):
            async with closing(self.filesystem.read(self.root + key, size)) as chunks:
                while (chunk := await self._bound(_next(chunks))) is not None:
                    await self.filesystem.rates.receive(len(chunk))
                    yield chunk

    @_explained
    async def read_range(self, key: str, start: int, end: int) -> bytes:
        """Read a part of an object, without verifying it; fewer bytes if the object is shorter."""
        await self.filesystem.rates.receive(end - start)
        with mapped("read", self.root + key, self.side):
            return await self._bound(self.filesystem.read_range(self.root + key, start, end))

    @_explained
    async def put(self, key: str, data: bytes) -> None:
        """Write an object from memory. It is seen whole or not at all."""
        await self.filesystem.rates.send(len(data))
        with mapped("write", self.root + key, self.side):
            await self._bound(self.filesystem.put_checked(self.root + key, data))

    @_explained
    async def put_if(self, key: str, data: bytes, version: str) -> bool:
        """Write an object if it still is of the version that was read; empty: if there is none.

        Returns False if it has changed. After a response that was lost this may say so although
        these bytes were written; then they are there. Only if :meth:`keeps_conditions`.
        """
        await self.filesystem.rates.send(len(data))
        with mapped("write", self.root + key, self.side):
            return await self._bound(self.filesystem.put_if(self.root + key, data, version))

    async def keeps_conditions(self, prefix: str) -> bool:
        """Whether :meth:`put_if` compares: what a server does is tried, with an object at prefix.

        It is written next to ``prefix`` and deleted, once in this process for each opened cache.
        """
        return await self.keeps_conditions_at(self.temporary(prefix))

    @property
    def conditions_are_known(self) -> bool:
        """Whether :meth:`keeps_conditions` would need no request."""
        filesystem = self.filesystem
        tried = self.root.partition("/")[0] in filesystem.tried
        return tried or not (filesystem.compares and filesystem.responds)

    async def keeps_conditions_at(self, key: str) -> bool:
        """The same, with an object of this key, which must not exist."""
        path = self.root + key
        with mapped("write", path, self.side):
            return await self._bound(keeps_conditions(self.filesystem, path))

    @_explained
    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write small objects, each seen whole or not at all. They are durable after settle()."""
        paths = [(self.root + key, data) for key, data in objects]
        await self.filesystem.rates.send(sum(len(data) for _, data in objects))
        with mapped_batch("upload", [path for path, _ in paths], self.side):
            await self._bound(self.filesystem.put_batch(paths))

    async def settle(self) -> None:
        """Return once all objects survive a power failure, no matter which process wrote them."""
        with mapped("sync", self.root, self.side):
            await self._bound(self.filesystem.settle(self.root))

    @_explained
    async def upload(self, key: str, chunks: AsyncIterator[bytes], size: int | None) -> int:
        """Write an object from chunks; it is seen whole or not at all. Returns the number of bytes.

        If ``chunks`` raises, nothing is seen at the key, and its error is raised. ``size`` is the
        expected size in bytes; if it is None, the object is assumed to be large.
        """
        sent = 0
        failed: Exception | None = None

        async def counted() -> AsyncIterator[bytes]:
            nonlocal sent, failed
            try:
                while True:
                    with self.filesystem.patience.at_the_source():
                        chunk = await _next(chunks)
                        if chunk is None:
                            break
                        await self.filesystem.rates.send(len(chunk))
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
                    await self._bound(self.filesystem.put(self.root + key, stream, size))
        except StoreError:
            if failed is None:
                raise
            # The error is not the filesystem's, but passed through it.
            raise failed from failed.__cause__
        return sent

    async def resolved(self, prefix: str) -> str:
        """The full path of a prefix, without links."""
        with mapped("connect", self.root, self.side):
            return await self._bound(self.filesystem.resolved(self.root + prefix))

    async def account(self) -> str | None:
        """What two stores share if this one can copy objects of the other; None if it cannot."""
        with mapped("connect", self.root, self.side):
            return await self._bound(self.filesystem.account())

    async def copy(
        self, source: Store, source_key: str, key: str, size: int, digest: Digest, *, trusted: bool
    ) -> Copied:
        """Let the filesystem copy an object of a store with the same account, without its bytes.

        It is seen only if the store stated its digest, or if the store is ``trusted``. Raises
        StoreError if there is no response; if the store refuses or fails, the result says so.
        """
        filesystem = self.filesystem
        copy = filesystem.copy_trusted if trusted else filesystem.copy_checked
        with mapped("copy", self.root + key, self.side):
            async with filesystem.permits:
                work = copy(source.root + source_key, self.root + key, size, digest)
                return await self._bound(work, silence(size))

    async def touch(self, stat: Stat) -> bool:
        """Renew the object's time. Returns False if it does not exist."""
        (is_there,) = await self.touch_batch([stat])
        return is_there

    @_explained
    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[bool]:
        """Renew each object's time; False for those that do not exist."""
        paths = [self.root + stat.path for stat in stats]
        at_paths = [stat._replace(path=path) for stat, path in zip(stats, paths, strict=True)]
        there = []
        with mapped_batch("touch", paths, self.side):
            found = await self._bound(self.filesystem.touch_batch(at_paths))
        for path, error in zip(paths, found, strict=True):
            failure = error and failed(error, "touch", path, self.side)
            # A missing bucket is a FileNotFoundError as well.
            if failure is not None and not isinstance(failure, NotFoundError):
                raise failure
            there.append(failure is None)
        return there

    async def set_time(self, key: str, modified: float) -> None:
        """Set when an object was modified, in seconds since 1970, if the filesystem can do that."""
        if self.filesystem.sets_times:
            with mapped("set the time of", self.root + key, self.side):
                await self._bound(self.filesystem.set_time(self.root + key, modified))

    @_explained
    async def delete(self, key: str) -> None:
        """Delete an object. One that does not exist is not an error."""
        with mapped("delete", self.root + key, self.side):
            await self._bound(self.filesystem.delete(self.root + key))

    @_explained
    async def delete_unchanged(self, stat: Stat) -> bool:
        """Delete the object that was just looked up. Returns False if the store saw a change.

        The request is sent once: if the response is lost, the object may or may not exist.
        """
        path = self.root + stat.path
        with mapped("delete", path, self.side):
            unchanged = stat._replace(path=path)
            return await self._bound(self.filesystem.delete(path, unchanged))

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """List unfinished writes in the prefix's folder: temporary files and multipart uploads."""
        with mapped("list", self.root + prefix, self.side):
            found = await self._bound(self.filesystem.unfinished(self.root + prefix))
        return [self._keyed(stat) for stat in found]

    async def archived(self, prefix: str) -> frozenset[str]:
        """The keys of archived objects with the prefix that look-ups and listings do not tell."""
        with mapped("list", self.root + prefix, self.side):
            found = await self._bound(self.filesystem.archived(self.root + prefix))
        return frozenset(path[len(self.root) :] for path in found)

    async def keeps_versions(self) -> bool:
        """Whether the store keeps what is deleted as an earlier version."""
        with mapped("look up", self.root, self.side):
            return await self._bound(self.filesystem.keeps_versions(self.root))

    async def past(self, key: str) -> Past:
        """What the store still has of an object that may have been deleted."""
        with mapped("look up", self.root + key, self.side):
            found = await self._bound(self.filesystem.past(self.root + key))
        return found._replace(path=key)

    async def reveal(self, key: str, marker: str) -> None:
        """Remove a marker that hides an object. If it has been written since, nothing changes."""
        with mapped("restore", self.root + key, self.side):
            await self._bound(self.filesystem.reveal(self.root + key, marker))

    async def read_past(self, key: str, version: str, limit: int) -> bytes:
        """Read a version of an object that may be hidden. Raises IntegrityError above the limit."""
        with mapped("read", self.root + key, self.side):
            data = await self._bound(self.filesystem.read_past(self.root + key, version, limit))
        await self.filesystem.rates.receive(len(data))
        return self._within(limit, key, data)

    async def abandon(self, stat: Stat) -> None:
        """Delete or abort an unfinished write that :meth:`unfinished` found."""
        path = self.root + stat.path
        with mapped("abandon", path, self.side):
            await self._bound(self.filesystem.abandon(stat._replace(path=path)))

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """What the store says of itself, for keys with these prefixes. Nothing is changed."""
        with mapped("look up", self.root, self.side):
            work = self.filesystem.examine(self.root + blobs, self.root + manifests)
            return await self._bound(work)

    async def allowed(self, key: str) -> Allowed:
        """Whether an object of this key could be written and deleted. Nothing is changed."""
        path = self.root + key
        with mapped("look up", path, self.side):
            return await self._bound(self.filesystem.allowed(path))

    async def is_there(self) -> bool:
        """Whether the bucket or container exists; False only if the first write makes it."""
        with mapped("look up", self.root, self.side):
            return await self._bound(self.filesystem.is_there(self.root))

    @_explained
    async def try_out(self, key: str) -> Sequence[Finding]:
        """Try what only this kind of store does, with an object that may be left there."""
        path = self.root + key
        with mapped("upload", path, self.side):
            return await self._bound(self.filesystem.try_out(path))

    @_explained
    async def erase(self, key: str) -> bool:
        """Delete an object, and its earlier versions; False if the versions may not be deleted."""
        path = self.root + key
        with mapped("delete", path, self.side):
            return await self._bound(self.filesystem.erase(path))

    async def absent_folders(self, key: str) -> Sequence[str]:
        """The paths of folders that a write of this object would make; the deepest first."""
        with mapped("look up", self.root + key, self.side):
            return await self._bound(self.filesystem.absent_folders(self.root + key))

    async def remove_folders(self, paths: Sequence[str]) -> None:
        """Remove those of the folders that are empty, in this order."""
        for path in paths:
            with mapped("delete", path, self.side):
                await self._bound(self.filesystem.remove_folder(path))

    async def clock(self, prefix: str) -> float | None:
        """Read the store's clock: the time of an object that is written next to ``prefix``.

        In seconds since 1970, or None if the store has no times. The object is deleted.
        """
        key = self.temporary(prefix)
        await self.put(key, b"")
        try:
            stat = await self.stat(key)
        finally:
            await self.delete(key)
        return stat and stat.modified

    @staticmethod
    def temporary(prefix: str, kind: str = "") -> str:
        """A new key next to ``prefix``, which listings omit and a prune deletes if it is left."""
        name = f"{TEMPORARY}{kind}{secrets.token_hex(8)}"
        return f"{prefix.rpartition('/')[0]}/{name}".lstrip("/")

    async def _bound(self, work: Coroutine[Any, Any, T], more: float = 0.0) -> T:
        """Await a call of the filesystem as long as its patience lasts, and ``more`` seconds."""
        filesystem = self.filesystem
        try:
            return await filesystem.patience.bound(work, more)
        except NoProgressError:
            filesystem.give_up()
            raise
        except Exception as error:
            # Its library may have lost patience first.
            filesystem.patience.exhausted |= is_unreachable(error)
            raise

    def _keyed(self, stat: Stat, prefix: str = "") -> Stat:
        if not stat.path.startswith(self.root + prefix):
            # SeaweedFS drops a slash at the beginning of keys: their ends would pass for names.
            raise StoreError(
                f"the store lists {stat.path}, which is elsewhere: it changes such prefixes; give "
                "one without a slash at its beginning",
                operation="list",
                side=self.side,
                key=self.root,
            )
        return stat._replace(path=stat.path[len(self.root) :])


@cache
def _keep_memory() -> None:
    """Make glibc keep the memory of a chunk for the next, instead of returning it to the system.

    Getting it again costs a page fault per page, a tenth of the CPU time of a large blob. glibc
    keeps up to twice the size of the largest block that was freed, if that was at most 32 MiB
    (mallopt(3), M_MMAP_THRESHOLD). The pages of this block are never written to, so it takes no
    memory; those of a bytearray would be.
    """
    bytes(32 * 1024 * 1024 - 8192)


async def _next(items: AsyncIterator[T]) -> T | None:
    """The next item, None at the end."""
    return await anext(items, None)


async def verified(
    chunks: AsyncIterator[bytes], digest: Digest, size: int | None
) -> AsyncIterator[bytes]:
    """Pass on the chunks, and raise IntegrityError at the end unless they are the blob's.

    ``size`` is in bytes, None if unknown. Large chunks are hashed while the caller uses them, so
    none may be trusted before the iteration has ended without an error.
    """
    verifier = Verifier(digest, size)
    hashing: asyncio.Future[None] | None = None
    try:
        async with closing(chunks):
            async for chunk in chunks:
                if hashing is not None:
                    await hashing
                    hashing = None
                if len(chunk) >= HASH_IN_THREAD:
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
