"""fsspec's memory filesystem, and others whose writes are atomic and whose copies renew a time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cachefs.filesystems.base import Filesystem, Stat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class MemoryFilesystem(Filesystem):
    """Objects in this process: writes are atomic, a copy onto itself renews the time."""

    touches = True

    @asynccontextmanager
    async def _seen_whole(self, path: str) -> AsyncIterator[str]:
        yield path

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself."""
        await self.fs._cp_file(stat.path, stat.path)
