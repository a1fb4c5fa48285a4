"""The filesystem interface of cachefs, implemented for any fsspec filesystem.

:class:`Filesystem` works with every filesystem that fsspec knows. Each subclass is for a family of
filesystems, and overrides only what this family does differently.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from cachefs.concurrency import LOOKUP_PARALLELISM, closing
from cachefs.filesystems.chunks import cut, joined
from cachefs.filesystems.copies import Copied
from cachefs.filesystems.failures import is_absent
from cachefs.filesystems.files import spooled
from cachefs.filesystems.infos import modified_in
from cachefs.filesystems.level import PARALLELISM, REFUSALS, Gate, Level, Levels
from cachefs.filesystems.listing import walk
from cachefs.filesystems.patience import PATIENCE, Patience, attempted
from cachefs.filesystems.ranges import in_ranges
from cachefs.filesystems.rates import Rates
from cachefs.filesystems.threads import DaemonThreads
from cachefs.filesystems.versions import Past

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from fsspec import AbstractFileSystem

    from cachefs.digest import Digest
    from cachefs.filesystems.findings import Finding

T = TypeVar("T")
R = TypeVar("R")

CHUNK_SIZE: Final = 8 * 1024 * 1024
"""Bytes read, sent or held at a time. Together with the parallelism, this bounds memory."""

SMALL: Final = 128 * 1024
"""Objects of at most this many bytes are read and written in batches."""

WHOLE: Final = 2 * CHUNK_SIZE
"""Objects of at most this many bytes are sent in one request, larger ones in parts."""

TEMPORARY: Final = ".cachefs-"
"""How the last component of a temporary key begins. Listings omit these keys."""


class Stat(NamedTuple):
    """Size, time and version of an object.

    ``modified`` is seconds since 1970 by the store's clock, or None if the store has no times.
    ``version`` changes whenever the object does; it is empty if the store has no versions.
    ``archived`` objects cannot be read or touched before they are restored; not every store tells.
    ``generation`` names the version among those that the store keeps; only look-ups tell it.
    """

    path: str
    size: int
    modified: float | None
    version: str = ""
    archived: bool = False
    generation: str = ""


class Page(NamedTuple):
    """Objects in the order of their paths; ``complete`` is true if no others follow."""

    objects: list[Stat]
    complete: bool


class Folder(NamedTuple):
    """What is directly in a folder: the paths of its folders, each ending in ``/``, and objects."""

    folders: list[str]
    objects: list[Stat]


class Allowed(NamedTuple):
    """What a store lets its client do; None for what cannot be told without a change."""

    put: bool | None = None
    delete: bool | None = None


class Filesystem:
    """Any fsspec filesystem, without listing caches, whose objects are seen whole or not at all.

    Paths are full, without protocol. Errors are those of the filesystem; :mod:`cachefs.store` maps
    them. Runs only in fsspec's IO loop. A batch is many small objects handled together; it fails
    with a BatchError.

    Args:
        fs: the filesystem. It is used as it is and never closed. A family that calls none of its
            methods, such as local files, needs none.
        bound: how many objects are written at a time, whatever their size. By default this is
            :data:`PARALLELISM` for large ones, and found for small ones where a server responds.
        patience: how long calls may go without progress, in seconds. Whoever calls applies it.

    Attributes:
        parallelism: how many large objects are written at a time.
        levels: how many calls for small objects run at a time.
        refusals: how often a call is repeated that a server refuses because it has too much to do.
        permits: a semaphore with a permit for each object that may be sent or fetched at a time.
        alone: held to read an object from the store that may be large into memory.
        patience: bounds the calls; it is told about every object, range and page.
        rates: how fast bytes may go there and come from there. Whoever calls keeps to them.
        tried: the buckets in which conditions were tried, and whether they are kept.
    """

    pages = False
    """Whether :meth:`page` requests just one page, so that key ranges can be listed in parallel."""

    touches = False
    """Whether :meth:`touch_batch` works; otherwise old blobs are uploaded again."""

    sets_times = False
    """Whether :meth:`set_time` works."""

    lists_blobs = True
    """Whether blobs can be listed; a registry lists only tags."""

    copies_small = False
    """Whether even a small blob is copied by the store in fewer requests than it is sent."""

    has_directories = False
    """Whether an object cannot have the path of a folder, as on a disk."""

    _prefetches = False
    """Whether ranges of an object may be requested in parallel, because a server sends them."""

    compares = False
    """Whether :meth:`put_if` works; a server may ignore the condition (:mod:`.conditions`)."""

    writes = True
    """Whether this family can write at all."""

    responds = True
    """Whether something else responds to calls, and so may not."""

    _threads_for_calls = LOOKUP_PARALLELISM
    """The number of threads for calls to a synchronous filesystem."""

    _finds_levels = False
    """Whether the number of small calls at a time is found, because a server responds to them."""

    fs: Any
    """What is called: the filesystem if it is asynchronous, else its wrapper."""

    def __init__(
        self, fs: AbstractFileSystem | None, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        if fs is not None:
            self._use(fs)
        self.parallelism = parallelism = bound or PARALLELISM
        self.patience = Patience(patience if self.responds else None)
        self.permits = asyncio.Semaphore(parallelism)
        self.levels = Levels.found(bound) if self._finds_levels else Levels.fixed(parallelism)
        self._share_permits = bound is not None or not self._finds_levels
        self.refusals = REFUSALS
        self._gates: dict[Level, Gate] = {}
        self.alone = asyncio.Lock()
        self._prefetch = asyncio.Semaphore(parallelism - 1 if self._prefetches else 0)
        self.tried: dict[str, bool] = {}
        self.rates = Rates()

    async def stat_batch(self, paths: Sequence[str]) -> Sequence[Stat | None]:
        """Look up each path. Returns None for paths without an object."""
        return await self._each(paths, self._stat, self.levels.look_ups)

    async def list(self, prefix: str) -> list[Stat]:
        """List every object whose path starts with the prefix, in the order of paths.

        Temporary files are omitted, unless the prefix selects only them.
        """
        folder = prefix.rpartition("/")[0]
        found: Any
        if self._finds_by_walking:
            found = await walk(partial(self.fs._ls, detail=True), folder)
        else:
            try:
                found = await self.fs._find(folder, detail=True)
            except FileNotFoundError:
                return []
        # Some filesystems normalise the paths that they find, so only the part below the folder is
        # used. If the folder is a file, it is found itself, without information, or by adlfs as a
        # list instead of a dictionary.
        items = found.items() if isinstance(found, dict) else ()
        objects = [self._from_info(self._below(folder, path), info) for path, info in items if info]
        return sorted(
            stat
            for stat in objects
            if stat.path.startswith(prefix) and not is_hidden(stat.path, prefix)
        )

    async def list_pages(self, prefix: str, after: str) -> AsyncIterator[Sequence[Stat]]:
        """List all objects with the prefix whose paths come after ``after``, page by page."""
        yield [stat for stat in await self.list(prefix) if stat.path > after]

    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """List the first ``limit`` objects with the prefix whose paths come after ``after``."""
        objects = [stat for stat in await self.list(prefix) if stat.path > after]
        return Page(objects[:limit], len(objects) <= limit)

    async def folder(self, path: str) -> Folder:
        """List what is directly in a folder, given with its last slash; at least 1,000 items."""
        bare = path.rstrip("/")
        try:
            found = await self.fs._ls(bare or path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return Folder([], [])
        inside = [(self._below(bare, i["name"]), i) for i in found]
        inside = [(at, info) for at, info in inside if at.startswith(f"{bare}/") and at != path]
        return Folder(
            sorted(f"{at.rstrip('/')}/" for at, info in inside if info["type"] == "directory"),
            sorted(self._from_info(at, info) for at, info in inside if info["type"] == "file"),
        )

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """Read an object in chunks. A known ``size`` saves a look-up.

        One byte more than ``size`` is requested, so that a longer object is noticed.
        """
        if size is None:
            stat = await self._stat(path)
            if stat is None:
                raise FileNotFoundError(path)
            size = stat.size
        get = partial(self._range, path)
        async with closing(in_ranges(get, size + 1, CHUNK_SIZE, self._prefetch)) as chunks:
            async for chunk in chunks:
                self.patience.progressed()
                yield chunk

    async def read_range(self, path: str, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to before ``end``; fewer if the object is shorter."""
        return await self._range(path, start, end)

    async def read_checked(self, path: str, limit: int) -> bytes:
        """Read an object whose key does not say its digest, such as a manifest.

        The bytes are compared with what the store says of them, if it says something. If there are
        more than ``limit``, the rest is not read. Raises IntegrityError.
        """
        for _ in range(5):
            stat = await self._stat(path)
            if stat is None:
                raise FileNotFoundError(path)
            data = await joined(self.read(path, stat.size), limit)
            if len(data) == stat.size or len(data) > limit:
                break  # else it was replaced after the look-up, so it is read again
        return data

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """The same, and the version that these bytes have; empty without :attr:`compares`."""
        return await self.read_checked(path, limit), ""

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | Exception]:
        """Read objects, given by path and size: the bytes of each, or its error.

        Of a longer object, not much more than its size is read.
        """

        async def read(item: tuple[str, int]) -> bytes | Exception:
            path, size = item
            try:
                return await joined(self.read(path, size), size)
            except Exception as error:  # noqa: BLE001 - the other objects are read anyway
                return error

        return await self._each(objects, read, self.levels.reads)

    async def stated_digests(self, paths: Sequence[str]) -> Sequence[Digest | None]:
        """For each object, the digest of its bytes that the store states; None if it states none.

        By default nothing is requested.
        """
        return [None] * len(paths)

    async def put(self, path: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Write an object from its chunks. It is seen whole or not at all.

        If ``chunks`` raises, nothing is seen at the path. An object of at most :data:`WHOLE` bytes
        is held in memory and sent in one request; all others, and those whose size is None, are
        sent in parts.
        """
        if size is not None and size <= WHOLE:
            await self._put_whole(path, [chunk async for chunk in chunks])
        else:
            await self._put_parts(path, chunks, size or 0)

    async def put_checked(self, path: str, data: bytes) -> None:
        """Write an object whose key does not say its digest. It is seen whole or not at all.

        Where the store allows it, the bytes that it received are compared with these.
        """
        await self.put(path, cut(data, CHUNK_SIZE), len(data))

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """Write as :meth:`put_checked` does if the object still is of the version that was read.

        An empty version means that there is no object. Returns False if there is another one.
        """
        raise NotImplementedError(f"this filesystem cannot compare before it writes {path}")

    async def put_batch(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects of at most :data:`WHOLE` bytes: each is seen whole or not at all.

        They are durable only after :meth:`settle`.
        """

        async def put(item: tuple[str, bytes]) -> None:
            path, data = item
            await self._put_whole(path, [data])

        await self._each(objects, put, self.levels.writes)

    async def resolved(self, path: str) -> str:
        """The path without links, so that it shows whether two prefixes are one place."""
        return path

    async def account(self) -> str | None:
        """What two filesystems share if this one can copy objects of the other without their bytes.

        None if it cannot. Whether its credentials suffice for the other's objects is not known.
        """
        return None

    async def copy_checked(self, source: str, path: str, size: int, digest: Digest) -> Copied:  # noqa: ARG002 - for stores that can
        """Let the store copy an object of the same account, from path to path.

        It is seen only once the store has stated the digest of the bytes that it copied. Otherwise
        nothing is seen, and the result says why.
        """
        return Copied.NEVER

    async def copy_trusted(self, source: str, path: str, size: int, digest: Digest) -> Copied:  # noqa: ARG002 - for stores that can
        """The same in fewer requests, also where the store states no digest.

        If it states another one, the copy, which may have been seen, is deleted.
        """
        return Copied.NEVER

    async def settle(self, root: str) -> None:
        """Return once all objects below the root survive a power failure, whatever wrote them.

        :meth:`put` returns only then; :meth:`put_batch` may return earlier.
        """

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the times of objects without sending their bytes: None or an error for each."""

        async def touch(stat: Stat) -> FileNotFoundError | None:
            try:
                await self._touch(stat)
            except FileNotFoundError as error:
                return error
            return None

        return await self._each(stats, touch, self.levels.touches)

    async def set_time(self, path: str, modified: float) -> None:
        """Set when the object was modified, in seconds since 1970. Raises FileNotFoundError."""
        raise NotImplementedError(f"this filesystem cannot set the time of {path}")

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:  # noqa: ARG002 - for stores that can compare
        """Delete the object. One that does not exist is not an error.

        Args:
            path: the object's.
            unless_changed: the result of a look-up just before. A store that can compare and delete
                leaves an object that differs, and returns False. Other stores delete it.
        """
        with suppress(FileNotFoundError):
            await self.fs._rm_file(path)
        return True

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """List unfinished writes in the prefix's folder: temporary files and multipart uploads."""
        return await self.list(f"{prefix.rpartition('/')[0]}/{TEMPORARY}")

    async def abandon(self, stat: Stat) -> None:
        """Delete or abort an unfinished write that :meth:`unfinished` found."""
        await self.delete(stat.path)

    async def archived(self, prefix: str) -> Collection[str]:  # noqa: ARG002 - for stores that have some
        """The paths of archived objects with the prefix, if look-ups and listings do not tell."""
        return ()

    async def keeps_versions(self, path: str) -> bool:  # noqa: ARG002 - for stores that have some
        """Whether the store keeps what is deleted below the path as an earlier version."""
        return False

    async def past(self, path: str) -> Past:
        """What the store still has of an object that may have been deleted."""
        return Past(path)

    async def reveal(self, path: str, marker: str) -> None:
        """Remove a marker that hides an object. If it has been written since, nothing changes."""
        raise NotImplementedError(f"this filesystem keeps no versions of {path}")

    async def read_past(self, path: str, version: str, limit: int) -> bytes:
        """Read a version of an object that may be hidden. Of more than ``limit``, not the rest."""
        raise NotImplementedError(f"this filesystem keeps no versions of {path}")

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:  # noqa: ARG002 - for families that have something to say
        """What the store says of itself, and what it means for keys with these prefixes.

        Nothing is changed.
        """
        return []

    async def allowed(self, path: str) -> Allowed:  # noqa: ARG002 - for families that can tell
        """Whether an object at the path could be written and deleted. Nothing is changed."""
        return Allowed()

    async def is_there(self, path: str) -> bool:  # noqa: ARG002 - for stores whose first write makes it
        """Whether the bucket or container of the path exists; False only if a write makes it."""
        return True

    async def try_out(self, path: str) -> Sequence[Finding]:  # noqa: ARG002 - for families with more than the usual calls
        """Try what only this family does, with an object at the path. It may be left there."""
        return []

    async def erase(self, path: str) -> bool:
        """Delete the object, and what the store keeps of it; False if that may not be deleted."""
        await self.delete(path)
        return True

    async def absent_folders(self, path: str) -> Sequence[str]:
        """The folders above the path that do not exist yet, so that a write makes them."""
        found: list[str] = []
        folder = path.rpartition("/")[0]
        while self.has_directories and folder.strip("/"):
            try:
                await self.fs._info(folder)
            except FileNotFoundError:
                found.append(folder)
                folder = folder.rpartition("/")[0]
            else:
                break
        return found

    async def remove_folder(self, path: str) -> None:
        """Remove a folder if it is empty."""
        with suppress(OSError):
            await self.fs._rmdir(path)

    async def explain(self, path: str) -> None:
        """Send one more request, after a failure at the path whose error stated no reason.

        The error that this raises states the reason. By default there is nothing to request.
        """

    def give_up(self) -> None:
        """End calls that wait for a response, if cancelling them does not. Others still work."""

    async def _each(
        self, items: Sequence[T], work: Callable[[T], Awaitable[R]], level: Level
    ) -> Sequence[R]:
        """Call ``work`` for each item, as many at a time as fit; each item is progress."""

        async def noted(item: T) -> R:
            found = await work(item)
            self.patience.progressed()
            return found

        gate = self._gates.get(level)
        if gate is None:
            gate = self._gates[level] = Gate(level, self._permits_of(level))
        return await gate.each(items, noted)

    def _permits_of(self, level: Level) -> asyncio.Semaphore | None:
        """What calls of a level share with large objects."""
        holds = (
            {self.levels.writes} if self._finds_levels else {self.levels.reads, self.levels.writes}
        )
        return self.permits if level in holds and self._share_permits else None

    def _use(self, fs: AbstractFileSystem) -> None:
        """Make calls to this filesystem object."""
        from fsspec import AbstractFileSystem  # noqa: PLC0415 - slow to load, and seldom needed
        from fsspec.asyn import AsyncFileSystem  # noqa: PLC0415

        self.fs = fs if fs.async_impl else self._asynchronous(fs)
        kind: Any = type(fs)
        find = kind._find if self.fs is fs else kind.find
        self._finds_by_walking = find in {AsyncFileSystem._find, AbstractFileSystem.find}

    def _asynchronous(self, fs: AbstractFileSystem) -> AbstractFileSystem:
        """Wrap a synchronous filesystem, so that its calls run in threads of its own."""
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # noqa: PLC0415

        wrapped = AsyncFileSystemWrapper(fs, asynchronous=False)
        self._calls = DaemonThreads(self._threads_for_calls, "cachefs-calls")
        for name in _CALLED:
            setattr(wrapped, f"_{name}", partial(self._blocking, getattr(fs, name)))
        return wrapped

    async def _blocking(self, work: Callable[..., R], *args: Any, **options: Any) -> R:
        """Run a call to a synchronous filesystem."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._calls, partial(work, *args, **options))

    # --- what a family may do differently --------------------------------------------------------

    async def _stat(self, path: str) -> Stat | None:
        try:
            info = await self.fs._info(path)
        except FileNotFoundError as error:
            if not is_absent(error):
                raise
            return None
        return self._from_info(path, info) if info["type"] == "file" else None

    async def _range(self, path: str, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to before ``end``; fewer if the object is shorter."""
        data: bytes = await self.fs._cat_file(path, start=start, end=end)
        return data

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """Write an object of at most :data:`WHOLE` bytes."""
        async with self._seen_whole(path) as target:
            await self.fs._pipe_file(target, b"".join(chunks))

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:  # noqa: ARG002 - for those that must choose the size of parts
        """Write an object of about ``size`` bytes, 0 if unknown."""
        async with spooled(chunks) as local, self._seen_whole(path) as target:
            await self.fs._put_file(local, target)

    @asynccontextmanager
    async def _seen_whole(self, path: str) -> AsyncIterator[str]:
        """Yield a temporary path to write to, and rename it to the path at the end.

        Filesystems whose writes are atomic yield the path itself.
        """
        await self._make_parent(path)
        temporary = self._temporary(path)
        try:
            yield temporary
            await self._rename(temporary, path)
        except BaseException:
            await attempted(self._discard(temporary))
            raise

    async def _touch(self, stat: Stat) -> None:
        """Renew the object's time. Raises FileNotFoundError."""
        raise NotImplementedError(f"this filesystem cannot renew the time of {stat.path}")

    def _from_info(self, path: str, info: dict[str, Any]) -> Stat:
        return Stat(path, int(info["size"] or 0), modified_in(info), str(info.get("ETag") or ""))

    def _below(self, folder: str, path: str) -> str:
        """The path that was found, with the folder spelled as in the request."""
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
    def _temporary(path: str) -> str:
        folder, _, _ = path.rpartition("/")
        return f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"


_CALLED: Final = (
    "cat_file",
    "cp_file",
    "find",
    "info",
    "ls",
    "makedirs",
    "mv",
    "pipe_file",
    "put_file",
    "rm_file",
    "rmdir",
)
"""The methods of a synchronous filesystem that are called."""


def is_hidden(path: str, prefix: str) -> bool:
    """Whether a listing by this prefix omits the path, because it is a temporary file."""
    name, wanted = path.rpartition("/")[2], prefix.rpartition("/")[2]
    return name.startswith(TEMPORARY) and not wanted.startswith(TEMPORARY)
