"""Azure Blob Storage through adlfs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cachefs.filesystems.base import Filesystem, Stat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsspec import AbstractFileSystem


class AzureFilesystem(Filesystem):
    """An ``adlfs.AzureBlobFileSystem``: writes are atomic, and metadata renews a time.

    The first write creates the container if it is missing, as builders do.
    """

    touches = True
    _prefetches = True

    def __init__(self, fs: AbstractFileSystem, parallelism: int = 4) -> None:
        super().__init__(fs, parallelism)
        self._containers: set[str] = set()
        self._making = asyncio.Lock()

    @asynccontextmanager
    async def _seen_whole(self, path: str) -> AsyncIterator[str]:
        """Create the container once, and write to the path itself."""
        container = path.partition("/")[0]
        async with self._making:
            if container not in self._containers:
                # adlfs raises ValueError if another process was faster. If Azure does not allow
                # the name, the write is refused as well.
                with suppress(FileExistsError, ValueError):
                    await self.fs._mkdir(container)
                self._containers.add(container)
        yield path

    async def _touch(self, stat: Stat) -> None:
        """Set the blob's metadata, which renews its time and keeps its bytes."""
        await self.fs._setxattrs(stat.path, cachefs="touched")
