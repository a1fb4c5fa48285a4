"""fsspec's memory filesystem, and the base of all filesystems whose copies renew a time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.conditions import version_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AtomicFilesystem(Filesystem):
    """A filesystem with atomic writes, in which a copy onto itself renews the time."""

    touches = True

    @asynccontextmanager
    async def _seen_whole(self, path: str) -> AsyncIterator[str]:
        yield path

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself."""
        await self.fs._cp_file(stat.path, stat.path)


_WRITING: Final = Lock()
"""Held from the comparison to the write. All memory filesystems of a process are one."""


class MemoryFilesystem(AtomicFilesystem):
    """Objects in this process."""

    compares = True
    responds = False

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """The bytes are their version."""
        data = await self.read_checked(path, limit)
        return data, version_of(data)

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """Compare and write in one step."""
        return await self._blocking(self._put_if, path, data, version)

    def _put_if(self, path: str, data: bytes, version: str) -> bool:
        fs = self.fs.sync_fs
        with _WRITING:
            if version_of(fs.cat_file(path) if fs.isfile(path) else None) != version:
                return False
            fs.pipe_file(path, data)
            return True

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:  # noqa: ARG002 - it needs no size
        """Write from memory, where the object stays; fsspec's put_file would show partial files."""
        await self._put_whole(path, [chunk async for chunk in chunks])
