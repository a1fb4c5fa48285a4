"""Azure Blob Storage through adlfs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from cachefs.filesystems.base import Filesystem, Stat, is_hidden
from cachefs.filesystems.listing import Advance
from cachefs.filesystems.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsspec import AbstractFileSystem


_NOT_FOUND: Final = 404


class AzureFilesystem(Filesystem):
    """An ``adlfs.AzureBlobFileSystem``: writes are atomic, and metadata renews a time.

    The first write creates the container if it is missing, as builders do.
    """

    touches = True
    _prefetches = True

    def __init__(
        self, fs: AbstractFileSystem, parallelism: int = 4, patience: float = PATIENCE
    ) -> None:
        super().__init__(fs, parallelism, patience)
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

    async def list(self, prefix: str) -> list[Stat]:
        """Every blob whose name starts with the prefix, in pages by token."""
        container, _, name_prefix = prefix.partition("/")
        found = []
        advance = Advance()
        async with self.fs.service_client.get_container_client(container) as client:
            listing = client.list_blobs(include=["metadata"], name_starts_with=name_prefix)
            pages = listing.by_page()
            try:
                async for page in pages:
                    blobs = [blob async for blob in page]
                    self.patience.progressed()
                    for blob in blobs:
                        advance.see(blob.name)
                    found += [_stat(container, blob) for blob in blobs if not _is_folder(blob)]
                    if pages.continuation_token:
                        advance.turn(pages.continuation_token, len(blobs))
            except Exception as error:
                if getattr(error, "status_code", None) != _NOT_FOUND:
                    raise
        return sorted(stat for stat in found if not is_hidden(stat.path, prefix))

    async def _touch(self, stat: Stat) -> None:
        """Set the blob's metadata, which renews its time and keeps its bytes."""
        await self.fs._setxattrs(stat.path, cachefs="touched")


def _stat(container: str, blob: Any) -> Stat:
    return Stat(f"{container}/{blob.name}", blob.size, blob.last_modified.timestamp())


def _is_folder(blob: Any) -> bool:
    """Whether the blob is one that some tools write to mark a folder."""
    return blob.name.endswith("/") or (blob.metadata or {}).get("hdi_isfolder") == "true"
