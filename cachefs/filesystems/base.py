"""What cachefs asks of a filesystem, and how any fsspec filesystem answers.

:class:`Filesystem` is right for whatever fsspec knows. A subclass beside it overrides what its
family does differently, and only that: each difference is met in one place.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from cachefs.concurrency import LOOKUP_PARALLELISM, closing, map_concurrently
from cachefs.filesystems.files import spooled
from cachefs.filesystems.ranges import in_ranges

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fsspec import AbstractFileSystem

CHUNK_SIZE: Final = 8 * 1024 * 1024
"""Bytes read, sent or held at a time: with the parallelism, the bound on memory."""

SMALL: Final = 128 * 1024
"""Bytes up to which objects are read and written in groups."""

TEMPORARY: Final = ".cachefs-"
"""How the last component of a file that is not complete yet begins. Never listed."""


class Stat(NamedTuple):
    """What the store says of an object.

    ``modified`` is seconds since 1970 by the store's clock, None where the store has no times.
    ``version`` changes whenever the object does, empty where the store has no such mark.
    """

    path: str
    size: int
    modified: float | None
    version: str = ""


class Page(NamedTuple):
    """Some objects in the order of their paths; ``complete`` when there are none after them."""

    objects: list[Stat]
    complete: bool


class Filesystem:
    """Any fsspec filesystem, asked without listing caches and written whole or not at all.

    Paths are full, without protocol. Errors are the filesystem's own; :mod:`cachefs.store` maps
    them. Runs in fsspec's IO loop only.

    Args:
        fs: the filesystem. It is used as it is and never closed.
        parallelism: how many objects are written at a time.

    Attributes:
        permits: one for each object that may be on its way; whoever sends or fetches takes one.
    """

    pages = False
    """Whether :meth:`page` asks for just a page, so that slices can be listed side by side."""

    atomic = False
    """Whether a put is seen whole or not at all; otherwise files are written aside and renamed."""

    whole = 2 * CHUNK_SIZE
    """Bytes up to which an object is sent in one request, by :meth:`put`."""

    touches = False
    """Whether :meth:`touch` works; otherwise an old blob is sent again."""

    reads_ahead = False
    """Whether ranges of an object may be asked for side by side, as they come from a server."""

    def __init__(self, fs: AbstractFileSystem, parallelism: int = 4) -> None:
        self.fs: Any = fs if fs.async_impl else AsyncFileSystemWrapper(fs, asynchronous=False)
        self.parallelism = parallelism
        self.permits = asyncio.Semaphore(parallelism)
        self._ahead = asyncio.Semaphore(parallelism - 1 if self.reads_ahead else 0)

    async def stat(self, path: str) -> Stat | None:
        """What is at the path, None where nothing is."""
        try:
            info = await self.fs._info(path)
        except FileNotFoundError:
            return None
        return self._stat(path, info) if info["type"] == "file" else None

    async def list(self, prefix: str) -> list[Stat]:
        """Every object whose path starts with the prefix, in the order of paths.

        Files that are not complete yet are left out, unless the prefix asks for just these.
        """
        folder = prefix.rpartition("/")[0]
        try:
            found = await self.fs._find(folder, detail=True)
        except FileNotFoundError:
            return []
        # Some filesystems normalise what they find; the path below the folder is what counts.
        # A folder that is a file is found as itself, with no facts.
        objects = [
            self._stat(self._spelled(folder, path), info) for path, info in found.items() if info
        ]
        return sorted(
            stat
            for stat in objects
            if stat.path.startswith(prefix) and not is_hidden(stat.path, prefix)
        )

    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """The first ``limit`` objects with the prefix whose paths come after ``after``."""
        objects = [stat for stat in await self.list(prefix) if stat.path > after]
        return Page(objects[:limit], len(objects) <= limit)

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes in chunks; ``size`` saves a look-up where it is known.

        One byte more than ``size`` is asked for, so that a longer object is noticed.
        """
        if size is None:
            stat = await self.stat(path)
            if stat is None:
                raise FileNotFoundError(path)
            size = stat.size
        get = partial(self._range, path)
        async with closing(in_ranges(get, size + 1, CHUNK_SIZE, self._ahead)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def put(self, path: str, data: bytes) -> None:
        """Write an object of at most :attr:`whole` bytes: seen whole or not at all."""
        async with self._seen_whole(path) as place:
            await self.fs._pipe_file(place, data)

    async def put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """The same for an object whose chunks are all in memory."""
        await self.put(path, b"".join(chunks))

    async def put_chunks(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:  # noqa: ARG002 - for those that must choose the size of parts
        """Write an object of about ``size`` bytes from its chunks: seen whole or not at all.

        When ``chunks`` raises, nothing is seen at the path.
        """
        async with spooled(chunks) as local, self._seen_whole(path) as place:
            await self.fs._put_file(local, place)

    # A group is many small objects in one go. What ends it is a BatchError.

    async def stat_batch(self, paths: Sequence[str]) -> Sequence[Stat | None]:
        """What is at each path, None where nothing is."""
        return await map_concurrently(paths, self.stat, LOOKUP_PARALLELISM)

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | Exception]:
        """Objects with their sizes: the bytes of each, or the error that it failed with.

        Of an object that is longer, not much more than its size is read.
        """

        async def read(item: tuple[str, int]) -> bytes | Exception:
            path, size = item
            try:
                async with self.permits:
                    return await joined(self.read(path, size), size)
            except Exception as error:  # noqa: BLE001 - it says nothing of the others
                return error

        return await map_concurrently(objects, read, self.parallelism)

    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects, each seen whole or not at all.

        They are held to outlast a loss of power only after :meth:`settle`.
        """

        async def put(item: tuple[str, bytes]) -> None:
            async with self.permits:
                await self.put(*item)

        await map_concurrently(objects, put, self.parallelism)

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the time of each, or the error of those that are gone."""

        async def touch(stat: Stat) -> FileNotFoundError | None:
            try:
                await self.touch(stat)
            except FileNotFoundError as error:
                return error
            return None

        return await map_concurrently(stats, touch, LOOKUP_PARALLELISM)

    async def settle(self, root: str) -> None:
        """Return when all objects below the root outlast a loss of power, whoever wrote them.

        Objects are held to do so once they are written, but for those of :meth:`put_batch`.
        """

    @asynccontextmanager
    async def _seen_whole(self, path: str) -> AsyncIterator[str]:
        """Where to write so that the path is seen whole: itself, or a place it is renamed from."""
        if self.atomic:
            yield path
            return
        await self._make_parent(path)
        aside = self._aside(path)
        try:
            yield aside
            await self._rename(aside, path)
        except BaseException:
            await self._discard(aside)
            raise

    async def touch(self, stat: Stat) -> None:
        """Renew the object's time without sending its bytes. Raises FileNotFoundError."""
        raise NotImplementedError(f"no way is known to renew the time of {stat.path}")

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:  # noqa: ARG002 - for stores that can
        """Delete the object; one that is gone is no error.

        Args:
            path: the object's.
            unless_changed: how it was when it was just looked up. A store that can compare and
                delete in one step leaves an object that differs alone, and answers False; the
                others cannot tell. S3 is among these: a touch does not change an ETag.
        """
        with suppress(FileNotFoundError):
            await self.fs._rm_file(path)
        return True

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Writes in the prefix's folder that have begun and not ended: temporary files, uploads."""
        return await self.list(f"{prefix.rpartition('/')[0]}/{TEMPORARY}")

    async def abandon(self, stat: Stat) -> None:
        """End a write that :meth:`unfinished` found, and free what it holds."""
        await self.delete(stat.path)

    async def explain(self, path: str) -> None:
        """Ask once more, after a failure at the path that did not say why.

        What this raises says it. By default there is nobody to ask.
        """

    # --- what a family may do differently --------------------------------------------------------

    async def _range(self, path: str, start: int, end: int) -> bytes:
        """The object's bytes from ``start`` to before ``end``, fewer where it ends before."""
        data: bytes = await self.fs._cat_file(path, start=start, end=end)
        return data

    def _stat(self, path: str, info: dict[str, Any]) -> Stat:
        return Stat(path, int(info["size"] or 0), _seconds(info), str(info.get("ETag") or ""))

    def _spelled(self, folder: str, path: str) -> str:
        bare = folder.strip("/")
        found = path.strip("/")
        return f"{folder}{found[len(bare) :]}" if found.startswith(bare) else path

    async def _make_parent(self, path: str) -> None:
        await self.fs._makedirs(path.rpartition("/")[0], exist_ok=True)

    async def _rename(self, source: str, target: str) -> None:
        await self.fs._mv(source, target)

    async def _discard(self, path: str) -> None:
        try:
            await self.fs._rm_file(path)
        except (OSError, NotImplementedError):
            return

    @staticmethod
    def _aside(path: str) -> str:
        folder, _, _ = path.rpartition("/")
        return f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"


async def joined(chunks: AsyncIterator[bytes], size: int) -> bytes:
    """The chunks in one; those that have more than ``size`` bytes are not read to their end."""
    held = bytearray()
    async with closing(chunks):
        async for chunk in chunks:
            held += chunk
            if len(held) > size:
                break
    return bytes(held)


def is_hidden(path: str, prefix: str) -> bool:
    """Whether a listing by this prefix leaves the path out, as it is not complete yet."""
    name, asked = path.rpartition("/")[2], prefix.rpartition("/")[2]
    return name.startswith(TEMPORARY) and not asked.startswith(TEMPORARY)


_TIME_FIELDS: Final = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")


def _seconds(info: dict[str, Any]) -> float | None:
    """The modification time, under whatever name and type this filesystem gives it."""
    for name in _TIME_FIELDS:
        value = info.get(name)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    return None
