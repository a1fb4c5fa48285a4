"""S3 through s3fs: its session, credentials and client, with the requests that a cache needs.

Requests are sent through the client of s3fs. Its file methods are not used: they buffer 500 MiB per
file, list after every miss, and leave unfinished uploads.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import closing
from cachefs.digest import Digest
from cachefs.errors import IntegrityError, StoreError
from cachefs.filesystems.base import (
    CHUNK_SIZE,
    Allowed,
    Folder,
    Page,
    Stat,
)
from cachefs.filesystems.chunks import cut, joined
from cachefs.filesystems.findings import Finding
from cachefs.filesystems.listing import Advance
from cachefs.filesystems.paging import PagedListing
from cachefs.filesystems.patience import PATIENCE
from cachefs.filesystems.s3.answers import (
    BEYOND,
    NOT_IMPLEMENTED,
    error_code,
    generation_in,
    headers_of,
    listed_stat,
    says_archived,
    status_of,
)
from cachefs.filesystems.s3.checksums import (
    DAMAGED,
    REFUSED,
    differs,
    stated_digest,
)
from cachefs.filesystems.s3.copying import S3Copying
from cachefs.filesystems.s3.deleting import S3Deleting
from cachefs.filesystems.s3.examining import (
    abortable,
    examined,
    may_delete,
    may_put,
    versioning,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


_TRIED: Final = b"written by cachefs doctor"


class S3Filesystem(S3Copying, S3Deleting, PagedListing):
    """An ``s3fs.S3FileSystem``."""

    pages = True
    compares = True
    _prefetches = True
    _finds_levels = True

    async def _stat(self, path: str) -> Stat | None:
        """One HEAD."""
        try:
            head = await self._call("head_object", path)
        except FileNotFoundError:
            return None
        modified = head["LastModified"].timestamp()
        size, archived = head["ContentLength"], says_archived(head)
        return Stat(path, size, modified, head.get("ETag", ""), archived, generation_in(head))

    async def _pages(self, prefix: str, after: str, limit: int) -> AsyncIterator[Page]:
        """Page by tokens; a key to start after is given only for the first page.

        Some servers take no notice of it, so objects before it are left out.
        """
        bucket, _, key_prefix = prefix.partition("/")
        where = {"StartAfter": after.partition("/")[2]} if after else {}
        advance = Advance()
        complete = False
        while not complete:
            answer = await self.fs._call_s3(
                "list_objects_v2", Bucket=bucket, Prefix=key_prefix, MaxKeys=limit, **where
            )
            self.patience.progressed()
            listed = [listed_stat(bucket, item) for item in answer.get("Contents", ())]
            for stat in listed:
                advance.see(stat.path)
            complete = not answer.get("IsTruncated")
            yield Page([stat for stat in listed if stat.path > after], complete)
            if not complete:
                token = answer.get("NextContinuationToken")
                advance.turn(token, len(listed))
                where = {"ContinuationToken": token}

    async def keeps_versions(self, path: str) -> bool:
        """Send one GET of the bucket's versioning; False if it is not allowed or not known."""
        return await versioning(self.fs, path.partition("/")[0]) == "Enabled"

    async def folder(self, path: str) -> Folder:
        """One LIST: the first 1,000 folders and objects."""
        bucket, _, key = path.partition("/")
        answer = await self.fs._call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=key, Delimiter="/", MaxKeys=1000
        )
        return Folder(
            [f"{bucket}/{item['Prefix']}" for item in answer.get("CommonPrefixes", ())],
            [listed_stat(bucket, item) for item in answer.get("Contents", ())],
        )

    async def explain(self, path: str) -> None:
        """One LIST: unlike that of a HEAD, its response has a body with the reason."""
        await self.bucket_region(path)

    async def bucket_region(self, path: str) -> str | None:
        """Find the region of the path's bucket with one LIST; None if the response has none."""
        bucket, _, key = path.partition("/")
        answer = await self.fs._call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        region: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return region

    async def stated_digests(self, paths: Sequence[str]) -> Sequence[Digest | None]:
        """One HEAD each, which asks for the checksum."""
        return await self._each(paths, self._stated_digest, self.levels.look_ups)

    async def _stated_digest(self, path: str) -> Digest | None:
        try:
            head = await self._call("head_object", path, ChecksumMode="ENABLED")
        except FileNotFoundError:
            return None
        except (OSError, NotImplementedError) as error:
            if status_of(error) != NOT_IMPLEMENTED:
                raise
            return None
        return stated_digest(headers_of(head))

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """One GET, whose response has the size, or ranges of a large object."""
        found = super().read(path, size) if size and size > CHUNK_SIZE else self._get(path)
        async with closing(found) as chunks:
            async for chunk in chunks:
                yield chunk

    async def read_checked(self, path: str, limit: int) -> bytes:
        """Send a GET, and another if the bytes are not those that the response describes."""
        return (await self.read_versioned(path, limit))[0]

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """The same; the version is the ETag of the response."""
        mode = {"ChecksumMode": "ENABLED"} if await self._takes_checksums() else None
        for last in (False, True):
            headers: dict[str, str] = {}
            data = await joined(self._get(path, headers=headers, more=mode), limit)
            if len(data) > limit or not differs(data, headers):
                return data, headers.get("etag", "")
            if last:
                raise IntegrityError(DAMAGED)
        raise AssertionError  # the last attempt returns or raises

    async def _range(self, path: str, start: int, end: int) -> bytes:
        try:
            async with closing(self._get(path, start, end)) as chunks:
                return b"".join([chunk async for chunk in chunks])
        except OSError as error:
            if status_of(error) == BEYOND:
                return b""
            raise

    async def _get(
        self,
        path: str,
        start: int = 0,
        end: int | None = None,
        headers: dict[str, str] | None = None,
        more: dict[str, str] | None = None,
    ) -> AsyncIterator[bytes]:
        """Send a GET; if the connection breaks, continue with the rest.

        ``headers`` gets those of the first response, with names in lower case. ``more`` are more
        parameters of the request.
        """
        received = 0
        expected: int | None = None
        silence = (self.patience.seconds or PATIENCE) / 2
        for attempt in range(4):
            first, last = start + received, "" if end is None else end - 1
            part = {} if end is None and not received else {"Range": f"bytes={first}-{last}"}
            try:
                async with asyncio.timeout(silence):
                    answer = await self._call("get_object", path, **part, **(more or {}))
            except TimeoutError:
                if attempt == 3:
                    raise
                continue
            if expected is None:
                if headers is not None:
                    headers |= headers_of(answer)
                expected = int(answer["ContentLength"])
            try:
                # Not "as body": old releases of aiobotocore give the response of aiohttp there.
                async with (body := answer["Body"]):
                    while chunk := await asyncio.wait_for(body.read(1024 * 1024), silence):
                        received += len(chunk)
                        self.patience.progressed()
                        yield chunk
            except Exception:
                if attempt == 3:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
            if received >= expected:
                return
        raise StoreError(f"the response ended after {received:,} of {expected:,} bytes: try again")

    async def read_past(self, path: str, version: str, limit: int) -> bytes:
        """One GET of the version."""
        return await joined(self._get(path, more={"VersionId": version}), limit)

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """Ask for address, rules, versioning, and whether anyone may write."""
        return await examined(self.fs, blobs, manifests)

    async def allowed(self, path: str) -> Allowed:
        """Two requests about what does not exist, and one for the bucket's versioning."""
        fs = self._without_retries
        return Allowed(await may_put(fs, path), await may_delete(fs, path))

    async def try_out(self, path: str) -> Sequence[Finding]:
        """Send the object in parts, begin and abort another upload, and compare checksums."""
        await self._put_parts(path, cut(_TRIED, CHUNK_SIZE), 0)
        return await self.try_requests(path)

    async def try_requests(self, path: str) -> Sequence[Finding]:
        """The part of it that is the same with every engine."""
        return [await abortable(self.fs, path), *await self._try_checksums(path)]

    async def _try_checksums(self, path: str) -> Sequence[Finding]:
        found = []
        try:
            await self._put(path, [_TRIED], Digest.of(b"other bytes"))
        except OSError as error:
            if error_code(error) not in REFUSED:
                raise
            found.append(Finding("checksums", "good", "bytes damaged on their way are refused"))
        else:
            found.append(
                Finding(
                    "checksums",
                    "mind",
                    "the server stores bytes that do not have the announced checksum",
                    "run 'cachefs verify --read-data=5%' in a schedule",
                )
            )
        await self._put(path, [_TRIED], Digest.of(_TRIED))
        if await self._stated_digest(path) == Digest.of(_TRIED):
            words = "small blobs can be verified without reading them (verify --stored-checksums)"
            return [*found, Finding("stored checksums", "good", words)]
        return [
            *found,
            Finding(
                "stored checksums",
                "mind",
                "the server has no SHA-256 of what is written here: verify has to read",
                "run 'cachefs verify --read-data=5%' in a schedule",
            ),
        ]
