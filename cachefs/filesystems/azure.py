"""Azure Blob Storage through adlfs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import AccessError
from cachefs.filesystems.base import Allowed, Stat, is_hidden
from cachefs.filesystems.chunks import joined
from cachefs.filesystems.conditions import UNLIKE
from cachefs.filesystems.copies import Copied
from cachefs.filesystems.deleting import ComparingDeletes
from cachefs.filesystems.failures import failed
from cachefs.filesystems.findings import Finding, transport
from cachefs.filesystems.listing import Advance
from cachefs.filesystems.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Collection, Sequence

    from fsspec import AbstractFileSystem

    from cachefs.digest import Digest

_NOT_FOUND: Final = 404

_QUOTE: Final = '"'
_POLL: Final = 0.5
"""Seconds between two looks at a copy that is under way."""

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
        unchanged = {"etag": version, "match_condition": _unless_changed()}
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

    async def account(self) -> str | None:
        """The account's URL."""
        url: str = self.fs.service_client.primary_endpoint
        return url.partition("?")[0].rstrip("/")

    async def copy_trusted(self, source: str, path: str, size: int, digest: Digest) -> Copied:  # noqa: ARG002 - Azure knows no SHA-256
        """One copy. Azure says when it is done; within an account that is at once, as a rule.

        A copy that fails later leaves an empty blob, which is deleted.
        """
        container, _, name = path.partition("/")
        origin, _, origin_name = source.partition("/")
        client = self.fs.service_client
        url = client.get_blob_client(origin, origin_name).url
        async with self._seen_whole(path), client.get_blob_client(container, name) as target:
            try:
                status = (await target.start_copy_from_url(url))["copy_status"]
            except Exception as error:
                answered = getattr(error, "status_code", None)
                if answered is None:
                    raise
                return Copied.NOT_THIS if answered == _NOT_FOUND else Copied.NEVER
            while status == "pending":
                await asyncio.sleep(_POLL)
                status = (await target.get_blob_properties()).copy.status
        if status == "success":
            return Copied.TRUSTED
        await self.delete(path)
        return Copied.NOT_THIS

    async def is_there(self, path: str) -> bool:
        """One look-up of the container, which a signature for blobs does not allow."""
        container = path.partition("/")[0]
        async with self.fs.service_client.get_container_client(container) as client:
            try:
                there: bool = await client.exists()
            except Exception as error:
                if not isinstance(failed(error, "look up", container), AccessError):
                    raise
                return True
            return there

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """Whether others may read the container, and whether the account keeps what is deleted."""
        del manifests
        found = [transport(self.fs.service_client.primary_endpoint)]
        container = blobs.partition("/")[0]
        with suppress(Exception):  # it needs more rights than a cache does
            async with self.fs.service_client.get_container_client(container) as client:
                access = (await client.get_container_access_policy())["public_access"]
            if access:
                words = f"anyone may read the container without credentials ({access})"
                advice = "set its access to private, unless that is what you want"
                found.append(Finding("readers", "mind", words, advice))
        with suppress(Exception):  # as above
            properties = await self.fs.service_client.get_service_properties()
            kept = properties["delete_retention_policy"]
            found.append(_soft_delete(kept.days if kept.enabled else 0))
        return found

    async def allowed(self, path: str) -> Allowed:
        """A write on a condition that does not hold, and a deletion of what does not exist."""
        container, _, name = path.partition("/")
        async with self.fs.service_client.get_blob_client(container, name) as client:
            unlike = {"etag": UNLIKE, "match_condition": _unless_changed()}
            put = await _is_allowed(client.upload_blob(b"", overwrite=True, **unlike))
            return Allowed(put, await _is_allowed(client.delete_blob()))

    async def _touch(self, stat: Stat) -> None:
        """Set the blob's metadata, which renews its time and keeps its bytes."""
        await self.fs._setxattrs(stat.path, cachefs="touched")


def _unless_changed() -> Any:
    from azure.core import MatchConditions  # noqa: PLC0415 - an extra

    return MatchConditions.IfNotModified


async def _is_allowed(request: Awaitable[Any]) -> bool | None:
    """Whether a request that cannot succeed fails for another reason than missing rights."""
    try:
        await request
    except Exception as error:  # noqa: BLE001 - the classes are those of an extra
        if isinstance(failed(error, "write", ""), AccessError):
            return False
        return True if getattr(error, "status_code", None) in _CHANGED else None
    return None


def _soft_delete(days: int) -> Finding:
    if not days:
        return Finding("versions", "good", "the account does not keep what is deleted")
    words = f"the account keeps deleted blobs for {days} days, so a prune frees space only then"
    return Finding("versions", "mind", words, "set soft delete to fewer days, if space matters")


def _stat(container: str, blob: Any) -> Stat:
    # The service writes an ETag with quotes in headers, and without in listings.
    etag = f'"{blob.etag.strip(_QUOTE)}"'
    return Stat(f"{container}/{blob.name}", blob.size, blob.last_modified.timestamp(), etag)


def _is_folder(blob: Any) -> bool:
    """Whether the blob is one that some tools write to mark a folder."""
    return blob.name.endswith("/") or (blob.metadata or {}).get("hdi_isfolder") == "true"
