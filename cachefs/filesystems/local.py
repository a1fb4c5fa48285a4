"""The local filesystem: temporary files are synced and renamed, so that files are seen whole.

Small files are read and written in batches, each by one call in a thread, and synced together at
the end. Such a call takes longer than the work on a small file, and syncing a file takes longer
than writing 100.
"""

from __future__ import annotations

import asyncio
import os
import stat as modes
from contextlib import suppress
from io import FileIO
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import closing
from cachefs.filesystems.base import CHUNK_SIZE, TEMPORARY, Allowed, Folder, Stat, is_hidden
from cachefs.filesystems.blocking import BlockingFilesystem
from cachefs.filesystems.chunks import joined
from cachefs.filesystems.conditions import version_of
from cachefs.filesystems.directories import directory_findings, is_writable
from cachefs.filesystems.files import write_all
from cachefs.filesystems.locking import locked
from cachefs.filesystems.parts import in_parts
from cachefs.filesystems.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from cachefs.filesystems.findings import Finding

    Show = Callable[[bytes], None]

LOCK: Final = f"{TEMPORARY}lock"
"""The name of the lock in each directory with conditional writes. Listings omit it."""

SHOWN: Final = 1024 * 1024
"""Bytes per chunk of a file that is hashed while it is read.

With it, large uploads by s3fs take an eighth less CPU time than if larger chunks are hashed later.
"""


class LocalFilesystem(BlockingFilesystem):
    """Files by system calls, in threads.

    fsspec is not used, so it need not be loaded: its methods show a partial file under its final
    name, move *into* an existing directory, and open a file again for every range.
    """

    touches = True
    sets_times = True
    has_directories = True
    compares = True
    _several_threads = False
    responds = False

    def _stat_sync(self, path: str) -> Stat | None:
        """Look up the path. Returns None if there is no file."""
        return _stat(path)

    def _read_sync(self, item: tuple[str, int]) -> bytes:
        """Read all bytes of a small file."""
        return _read(*item)

    def _put_sync(self, item: tuple[str, bytes]) -> None:
        """Write a small file without syncing it."""
        path, data = item
        _put(self._temporary(path), path, [data], synced=False)

    def _touch_sync(self, stat: Stat) -> None:
        """Set the file's time to now."""
        os.utime(stat.path)

    async def list(self, prefix: str) -> list[Stat]:
        """Every file whose path starts with the prefix, in the order of paths."""
        return await asyncio.to_thread(lambda: sorted(_walk(prefix)))

    async def folder(self, path: str) -> Folder:
        """What the directory contains, in one call in a thread."""
        return await asyncio.to_thread(_folder, path)

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:  # noqa: ARG002 - files need no size
        """The file's bytes in chunks."""
        async with closing(file_chunks(Path(path))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _range(self, path: str, start: int, end: int) -> bytes:
        """Read a part of a file in one call in a thread."""
        return await asyncio.to_thread(_read_range, path, start, end)

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """Write a file in one call in a thread."""
        await asyncio.to_thread(_put, self._temporary(path), path, chunks)

    async def read_checked(self, path: str, limit: int) -> bytes:
        """The bytes of one open file, whatever replaces it meanwhile."""
        return await joined(self.read(path), limit)

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """The bytes are their version: times are coarse, and numbers of files are used again."""
        data = await self.read_checked(path, limit)
        if len(data) < SHOWN:
            return data, version_of(data)
        return data, await asyncio.to_thread(version_of, data)

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """Compare and rename under a lock on the directory, which only this method takes."""
        async with locked(Path(path).parent / LOCK):
            return await asyncio.to_thread(_put_if, self._temporary(path), path, data, version)

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Temporary files; a lock stays, because another process may hold it."""
        found = await super().unfinished(prefix)
        return [stat for stat in found if not stat.path.endswith(f"/{LOCK}")]

    async def settle(self, root: str) -> None:
        """Sync the filesystem that the root is on."""
        await asyncio.to_thread(_sync, root)

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:  # noqa: ARG002 - files need no size
        """Write a file from its chunks. It is seen whole or not at all, even after a crash."""
        temporary = self._temporary(path)
        try:
            file = await asyncio.to_thread(_create, temporary)
            with file:
                async for part in in_parts(chunks, CHUNK_SIZE):
                    await asyncio.to_thread(write_all, file, part)
                await asyncio.to_thread(os.fsync, file.fileno())
            await asyncio.to_thread(_settle, temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """Look at free space, and at who may write to the directories."""
        return await asyncio.to_thread(lambda: list(directory_findings(blobs, manifests)))

    async def allowed(self, path: str) -> Allowed:
        """Ask the system about the nearest directory that exists."""
        allowed = await asyncio.to_thread(is_writable, path)
        return Allowed(allowed, allowed)

    async def resolved(self, path: str) -> str:
        """The path of the prefix without symbolic links."""
        folder, slash, rest = path.rpartition("/")
        real = await asyncio.to_thread(os.path.realpath, folder + slash)
        return f"{real.rstrip('/')}/{rest}"

    async def absent_folders(self, path: str) -> Sequence[str]:
        """The directories above the path that do not exist yet."""
        return await asyncio.to_thread(_absent_folders, path)

    async def remove_folder(self, path: str) -> None:
        """Remove a directory if it is empty."""
        with suppress(OSError):
            await asyncio.to_thread(Path(path).rmdir)

    async def set_time(self, path: str, modified: float) -> None:
        """Set the file's time, in one call in a thread."""
        await asyncio.to_thread(os.utime, path, (modified, modified))

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """Delete the file; to compare, it is moved aside, where no touch by its path reaches it."""
        if unless_changed is None:
            await asyncio.to_thread(Path(path).unlink, missing_ok=True)
            return True
        return await asyncio.to_thread(_delete_if, self._temporary(path), unless_changed)


def _absent_folders(path: str) -> list[str]:
    return [str(folder) for folder in takewhile(lambda one: not one.exists(), Path(path).parents)]


def _stat(path: str) -> Stat | None:
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not modes.S_ISREG(status.st_mode):
        return None
    return Stat(path, status.st_size, status.st_mtime, f"{status.st_ino}-{status.st_mtime_ns}")


def _delete_if(aside: str, seen: Stat) -> bool:
    """Delete a file that is as it was seen.

    A touch before the move is seen in the file's time, and one after it finds no file, as does
    whoever looks it up: they write it again.
    """
    path = Path(seen.path)
    if _stat(seen.path) not in (None, seen):
        return False
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    moved = _stat(aside)
    unchanged = moved is not None and moved._replace(path=seen.path) == seen
    if not unchanged:
        _move_back(aside, path)
    Path(aside).unlink(missing_ok=True)
    return unchanged


def _move_back(aside: str, path: Path) -> None:
    """Put a file back, unless another one has been written in its place."""
    with suppress(FileExistsError):
        try:
            path.hardlink_to(aside)
        except (PermissionError, NotImplementedError):  # no links here
            if not path.exists():
                Path(aside).rename(path)


def _walk(prefix: str) -> Iterator[Stat]:
    waiting = [prefix.rpartition("/")[0]]
    while waiting:
        folder = waiting.pop()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder or "/") as found:
            for item in found:
                path = f"{folder}/{item.name}"
                if not (path.startswith(prefix) or prefix.startswith(f"{path}/")):
                    continue
                if item.is_dir():
                    waiting.append(path)
                elif not is_hidden(path, prefix) and item.is_file():
                    stat = _stat(path)
                    if stat is not None:
                        yield stat


def _folder(path: str) -> Folder:
    folders: list[str] = []
    objects: list[Stat] = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
        for item in found:
            at = f"{path}{item.name}"
            if item.is_dir():
                folders.append(f"{at}/")
            elif item.is_file() and (stat := _stat(at)) is not None:
                objects.append(stat)
    return Folder(sorted(folders), sorted(objects))


async def file_chunks(path: Path, shown_to: Show | None = None) -> AsyncIterator[bytes]:
    """Read the file in chunks; a file of one chunk takes one call in a thread.

    ``shown_to`` is called with each chunk in that thread; chunks then have :data:`SHOWN` bytes.
    """
    opening = asyncio.ensure_future(asyncio.to_thread(_open, path, shown_to))
    try:
        file, chunks = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread opens the file anyway: close it then.
        opening.add_done_callback(_close_opened)
        raise
    with file:
        while chunks:
            for chunk in chunks:
                yield chunk
            if sum(map(len, chunks)) < CHUNK_SIZE:
                return
            chunks = await asyncio.to_thread(_read_on, file, shown_to)


async def read_files(files: Sequence[tuple[Path, int]]) -> Sequence[bytes | OSError]:
    """Read small files, given by path and size, in one call in a thread: the bytes or the error.

    Of a longer file, one byte more than its size is read.
    """
    if not files:
        return []
    return await asyncio.to_thread(lambda: [_read_or_error(path, size) for path, size in files])


def _close_opened(opening: asyncio.Future[tuple[FileIO, list[bytes]]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


def _open(path: Path, shown_to: Show | None) -> tuple[FileIO, list[bytes]]:
    file = FileIO(_open_file(path))
    try:
        return file, _read_on(file, shown_to)
    except BaseException:
        file.close()
        raise


def _read_on(file: FileIO, shown_to: Show | None) -> list[bytes]:
    """Read the next :data:`CHUNK_SIZE` bytes, fewer at the end of the file."""
    chunks = []
    left = CHUNK_SIZE
    while left and (chunk := file.read(left if shown_to is None else min(left, SHOWN))):
        if shown_to is not None:
            shown_to(chunk)
        chunks.append(chunk)
        left -= len(chunk)
    return chunks


def _read(path: str | Path, size: int) -> bytes:
    """Read up to ``size + 1`` bytes by a file descriptor, because a file object takes longer."""
    number = _open_file(path)
    try:
        return os.read(number, size + 1)
    finally:
        os.close(number)


def _open_file(path: str | Path) -> int:
    """Open a regular file. A directory is not an object, and neither is anything else."""
    try:
        return open_regular(path)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise _no_object(error) from error


def _read_or_error(path: str | Path, size: int) -> bytes | OSError:
    try:
        return _read(path, size)
    except OSError as error:
        return error


def _no_object(error: OSError) -> FileNotFoundError:
    """Convert an error: a directory is not an object, so there is no object with this key."""
    return FileNotFoundError(error.errno, error.strerror, error.filename)


def _put(temporary: str, path: str, chunks: Iterable[bytes], *, synced: bool = True) -> None:
    try:
        with _create(temporary) as file:
            write_all(file, chunks)
            if synced:
                os.fsync(file.fileno())
        if synced:
            _settle(temporary, path)
        else:
            _replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def _put_if(temporary: str, path: str, data: bytes, version: str) -> bool:
    there = _stat(path)
    if version_of(None if there is None else _read(path, there.size)) != version:
        return False
    _put(temporary, path, [data])
    return True


def _create(path: str) -> FileIO:
    with suppress(FileNotFoundError):
        return Path(path).open("xb", 0)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path).open("xb", 0)


def _sync(root: str) -> None:
    import ctypes  # noqa: PLC0415 - not needed to read

    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        # Python has no syncfs. Systems other than Linux can only sync everything.
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(folder) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), root)
    finally:
        os.close(folder)


def _replace(temporary: str, path: str) -> None:
    """Rename the file; empty folders, left where objects were deleted, are not in its way."""
    try:
        Path(temporary).replace(path)
    except IsADirectoryError:
        with suppress(OSError):
            for folder, _, files in os.walk(path, topdown=False):
                if files == [LOCK]:
                    Path(folder, LOCK).unlink()
                Path(folder).rmdir()  # only if it is empty
        Path(temporary).replace(path)


def _settle(temporary: str, path: str) -> None:
    _replace(temporary, path)
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_range(path: str, start: int, end: int) -> bytes:
    with Path(path).open("rb", 0) as file:
        file.seek(start)
        parts = []
        while start < end and (part := file.read(end - start)):
            parts.append(part)
            start += len(part)
        return b"".join(parts)
