"""fsspec's memory filesystem, and the base of all filesystems whose copies renew a time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.conditions import version_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class AtomicFilesystem(Filesystem):
    """A filesystem with atomic writes, in which a copy onto itself renews the time."""

    touches = True

    @asynccontextmanager
    async def _seen_whole(self, path: str) -> AsyncIterator[str]:
        yield path

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself."""
        await self.fs._cp_file(stat.path, stat.path)


_ONE_CALL: Final = Lock()
"""Held while a file is read, or compared and written. All memory filesystems of a process share
their files, and the positions in them: of two reads at a time, each would get a part.
"""


class MemoryFilesystem(AtomicFilesystem):
    """Objects in this process."""

    compares = True
    responds = False

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """The bytes are their version."""
        data = await self.read_checked(path, limit)
        return data, version_of(data)

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """Compare and write in one step, as other conditional writes see it."""
        written: bool = await self._blocking(_alone, self._put_if, path, data, version)
        return written

    def _put_if(self, path: str, data: bytes, version: str) -> bool:
        fs = self.fs.sync_fs
        if version_of(fs.cat_file(path) if fs.isfile(path) else None) != version:
            return False
        fs.pipe_file(path, data)
        return True

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself, in one step as deletes see it."""
        await self._blocking(_alone, self.fs.sync_fs.cp_file, stat.path, stat.path)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """Compare and delete in one step, as touches and conditional writes see it."""
        gone: bool = await self._blocking(_alone, self._delete_if, path, unless_changed)
        return gone

    def _delete_if(self, path: str, unless_changed: Stat | None) -> bool:
        fs = self.fs.sync_fs
        if not fs.isfile(path):
            return True
        if unless_changed not in (None, self._from_info(path, fs.info(path))):
            return False
        fs.rm_file(path)
        return True

    async def _range(self, path: str, start: int, end: int) -> bytes:
        read = self.fs.sync_fs.cat_file
        data: bytes = await self._blocking(_alone, read, path, start=start, end=end)
        return data

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:  # noqa: ARG002 - it needs no size
        """Write from memory, where the object stays; fsspec's put_file would show partial files."""
        await self._put_whole(path, [chunk async for chunk in chunks])


def _alone(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with _ONE_CALL:
        return work(*args, **options)
