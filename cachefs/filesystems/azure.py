"""Azure blob storage through adlfs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from cachefs.filesystems.base import Filesystem, Stat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsspec import AbstractFileSystem


class AzureFilesystem(Filesystem):
    """An ``adlfs.AzureBlobFileSystem``: blobs are committed whole.

    As in a builder, a container that is not there is made by the first write.
    """

    atomic = True
    touches = True
    reads_ahead = True

    def __init__(self, fs: AbstractFileSystem, parallelism: int = 4) -> None:
        super().__init__(fs, parallelism)
        self._containers: set[str] = set()
        self._making = asyncio.Lock()

    async def put(self, path: str, data: bytes) -> None:
        """Write a small blob."""
        await self._make_container(path)
        await super().put(path, data)

    async def put_chunks(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """Write a blob from its chunks."""
        await self._make_container(path)
        await super().put_chunks(path, chunks, size)

    async def touch(self, stat: Stat) -> None:
        """Set the blob's metadata, which renews its time and leaves its bytes alone."""
        await self.fs._setxattrs(stat.path, cachefs="touched")

    async def _make_container(self, path: str) -> None:
        container = path.partition("/")[0]
        async with self._making:
            if container not in self._containers:
                # adlfs says ValueError when another process was quicker; a name that Azure does
                # not allow is refused again by the write.
                with suppress(FileExistsError, ValueError):
                    await self.fs._mkdir(container)
                self._containers.add(container)
