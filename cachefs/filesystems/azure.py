"""Azure Blob Storage through adlfs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from cachefs.filesystems.base import Stat, is_hidden
from cachefs.filesystems.chunks import joined
from cachefs.filesystems.deleting import ComparingDeletes
from cachefs.filesystems.listing import Advance
from cachefs.filesystems.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from fsspec import AbstractFileSystem


_NOT_FOUND: Final = 404

_QUOTE: Final = '"'

_CHANGED: Final = {_NOT_FOUND, 412}
"""Statuses of a write on the condition that a blob is unchanged, if it was deleted or is not."""


class AzureFilesystem(ComparingDeletes):
    """An ``adlfs.AzureBlobFileSystem``: writes are atomic, and metadata renews a time.

    A touch changes the ETag, so a delete on the condition of an ETag notices it.

    The first write creates the container if it is missing, as builders do.
    """

    touches = True
    compares = True
    _prefetches = True

    def __init__(
        self, fs: AbstractFileSystem, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(fs, bound, patience)
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

    async def read_checked(self, path: str, limit: int) -> bytes:
        """One GET, and ranges of the same version."""
        return (await self.read_versioned(path, limit))[0]

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """One GET; the version is the ETag of its response, which all ranges after it have too."""
        container, _, name = path.partition("/")
        async with self.fs.service_client.get_blob_client(container, name) as client:
            stream = await client.download_blob(offset=0, length=limit + 1)
            data = await joined(self._noted(stream.chunks()), limit)
            return data, stream.properties.etag

    async def _noted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.patience.progressed()
            yield chunk

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """A PUT, or blocks whose list has the condition."""
        from azure.core import MatchConditions  # noqa: PLC0415 - an extra

        unchanged = {"etag": version, "match_condition": MatchConditions.IfNotModified}
        async with self._seen_whole(path):
            try:
                await self.fs._pipe_file(
                    path, data, overwrite=bool(version), **(unchanged if version else {})
                )
            except FileExistsError:
                return False
            except Exception as error:
                if version and getattr(error, "status_code", None) in _CHANGED:
                    return False
                raise
        return True

    async def _stat(self, path: str) -> Stat | None:
        """One HEAD."""
        container, _, name = path.partition("/")
        async with self.fs.service_client.get_blob_client(container, name) as client:
            try:
                blob = await client.get_blob_properties()
            except Exception as error:
                if getattr(error, "status_code", None) != _NOT_FOUND:
                    raise
                return None
        return None if _is_folder(blob) else _stat(container, blob)

    async def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            await self.fs._rm_file(path)

    async def _delete_if(self, stat: Stat, by: Collection[str]) -> bool:
        """One DELETE, without retries."""
        from azure.core import MatchConditions  # noqa: PLC0415 - an extra

        container, _, name = stat.path.partition("/")
        unchanged = {"etag": stat.version, "match_condition": MatchConditions.IfNotModified}
        async with self.fs.service_client.get_blob_client(container, name) as client:
            try:
                await client.delete_blob(retry_total=0, **(unchanged if "version" in by else {}))
            except Exception as error:
                if getattr(error, "status_code", None) not in _CHANGED:
                    raise
                return False
        return True

    async def _touch(self, stat: Stat) -> None:
        """Set the blob's metadata, which renews its time and keeps its bytes."""
        await self.fs._setxattrs(stat.path, cachefs="touched")


def _stat(container: str, blob: Any) -> Stat:
    # The service writes an ETag with quotes in headers, and without in listings.
    etag = f'"{blob.etag.strip(_QUOTE)}"'
    return Stat(f"{container}/{blob.name}", blob.size, blob.last_modified.timestamp(), etag)


def _is_folder(blob: Any) -> bool:
    """Whether the blob is one that some tools write to mark a folder."""
    return blob.name.endswith("/") or (blob.metadata or {}).get("hdi_isfolder") == "true"
