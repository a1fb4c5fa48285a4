"""S3 through s3fs: its session, credentials and client, with the requests that a cache needs.

Requests are sent through the client of s3fs. Its file methods are not used: they buffer 500 MiB per
file, list after every miss, and leave unfinished uploads.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cachefs.concurrency import closing, task_group
from cachefs.digest import Digest
from cachefs.errors import AccessError, IntegrityError, StoreError
from cachefs.filesystems.base import (
    CHUNK_SIZE,
    TEMPORARY,
    WHOLE,
    Allowed,
    Folder,
    Page,
    Stat,
)
from cachefs.filesystems.chunks import cut, joined
from cachefs.filesystems.copies import Copied
from cachefs.filesystems.deleting import ComparingDeletes
from cachefs.filesystems.findings import Finding
from cachefs.filesystems.listing import Advance
from cachefs.filesystems.paging import PagedListing
from cachefs.filesystems.parts import in_parts, part_size
from cachefs.filesystems.patience import PATIENCE, attempted
from cachefs.filesystems.s3_answers import (
    BEYOND,
    NOT_IMPLEMENTED,
    error_code,
    generation_in,
    headers_of,
    listed_stat,
    says_archived,
    says_changed,
    says_not_copied,
    status_of,
)
from cachefs.filesystems.s3_body import Body
from cachefs.filesystems.s3_checksums import (
    REFUSED,
    content_md5,
    differs,
    digest_in,
    is_amazon,
    is_plain,
    server_of,
    sha256_header,
    stated_digest,
)
from cachefs.filesystems.s3_examining import (
    abortable,
    erase_versions,
    examined,
    may_delete,
    may_put,
    versioning,
)
from cachefs.filesystems.s3_failures import is_archived
from cachefs.filesystems.s3_uploads import unfinished_uploads
from cachefs.filesystems.s3_versions import past
from cachefs.filesystems.versions import Past, hides_what_was_seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from fsspec import AbstractFileSystem

logger = logging.getLogger("cachefs")

COPY_LIMIT: Final = 5 * 1024**3
"""S3 copies an object of more bytes than this only in parts."""

COPY_PART: Final = 1024**3

RANGED: Final = 5 * 1024**2
"""S3 copies ranges only of objects of more bytes than this."""
_TRIED: Final = b"written by cachefs doctor"

_DAMAGED: Final = (
    "the bytes were damaged on their way, twice: try again, and use https or check the network"
)


class S3Filesystem(ComparingDeletes, PagedListing):
    """An ``s3fs.S3FileSystem``."""

    comparable = ("version", "modified")

    pages = True
    touches = True
    compares = True
    _prefetches = True
    _finds_levels = True
    copy_limit = COPY_LIMIT
    copy_part = COPY_PART

    def __init__(
        self, fs: AbstractFileSystem, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(fs, bound, patience)
        # For the parts of all uploads together, so that many large blobs need the memory of one.
        self._parts = asyncio.Semaphore(self.parallelism)
        self._told = False

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        bucket, _, key = path.partition("/")
        answer: dict[str, Any] = await self.fs._call_s3(method, Bucket=bucket, Key=key, **arguments)
        return answer

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
                raise IntegrityError(_DAMAGED)
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

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """One PUT, which the server can check if the key is that of a blob."""
        await self._put(path, chunks, digest_in(path))

    async def put_checked(self, path: str, data: bytes) -> None:
        """One PUT; the server and then the client compare the bytes. Parts of a large object."""
        if len(data) > WHOLE:
            await super().put_checked(path, data)
        else:
            await self._put_compared(path, data)

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """One PUT, however large: fewer servers keep a condition at the end of a multipart upload.

        S3 takes up to 5 GiB in one.
        """
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        try:
            await self._put_compared(path, data, **condition)
        except OSError as error:
            if not says_changed(error):
                raise
            return False
        return True

    async def _put_compared(self, path: str, data: bytes, **condition: str) -> None:
        """Write, and once more if the ETag of the response is not that of these bytes."""
        digest = await asyncio.to_thread(Digest.of, data)
        for last in (False, True):
            answer = await self._put(path, [data], digest, **condition)
            if not differs(data, headers_of(answer)):
                return
            if last:
                raise StoreError(_DAMAGED)
            if condition:
                condition = {"IfMatch": answer["ETag"]}

    async def _put(
        self, path: str, chunks: Sequence[bytes], digest: Digest | None, **more: str
    ) -> dict[str, Any]:
        if digest is None:
            return await self._call("put_object", path, Body=Body(chunks, self.patience.progressed))
        if await self._takes_checksums():
            more["ChecksumSHA256"] = sha256_header(digest)
        body = Body(chunks, self.patience.progressed, digest.hex)
        return await self._sent("put_object", path, Body=body, **more)

    async def _sent(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send bytes, and once more if the server noticed that they were damaged on their way."""
        try:
            return await self._call(method, path, **arguments)
        except OSError as error:
            if error_code(error) not in REFUSED:
                raise
        return await self._call(method, path, **arguments)

    async def _endpoint(self) -> str:
        client = await self.fs.set_session()
        endpoint: str = client.meta.endpoint_url
        return endpoint

    async def _takes_checksums(self) -> bool:
        endpoint = await self._endpoint()
        return is_plain(endpoint) or is_amazon(endpoint)

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """Send a multipart upload. It is aborted if it fails."""
        async with self._multipart(path) as upload:
            parts = await self._send_parts(path, upload, in_parts(chunks, part_size(size)))
            await self._complete(path, upload, parts)

    @asynccontextmanager
    async def _multipart(self, path: str, **more: str) -> AsyncIterator[str]:
        """Begin a multipart upload and yield its ID. It is aborted if the block fails."""
        upload: str = (await self._call("create_multipart_upload", path, **more))["UploadId"]
        try:
            yield upload
        except BaseException:
            # Raise the first error, not that of an abort which fails too.
            await attempted(self._call("abort_multipart_upload", path, UploadId=upload))
            raise

    async def _complete(self, path: str, upload: str, parts: Sequence[dict[str, Any]]) -> None:
        await self._call(
            "complete_multipart_upload", path, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    async def _send_parts(
        self, path: str, upload: str, parts: AsyncIterator[Sequence[bytes]]
    ) -> Sequence[dict[str, Any]]:
        # TLS notices damage as well, and a second hash of a large blob is not free.
        plain = is_plain(await self._endpoint())

        async def send(number: int, part: Sequence[bytes]) -> dict[str, Any]:
            checksum = {"ContentMD5": await asyncio.to_thread(content_md5, part)} if plain else {}
            answer = await self._sent(
                "upload_part",
                path,
                UploadId=upload,
                PartNumber=number,
                Body=Body(part, self.patience.progressed),
                **checksum,
            )
            return {"PartNumber": number, "ETag": answer["ETag"]}

        sending: list[asyncio.Task[dict[str, Any]]] = []
        async with task_group() as group:
            while (part := await self._next_part(parts, first=not sending)) is not None:
                task = group.create_task(send(len(sending) + 1, part))
                # Not in the task itself: if it is cancelled before it begins, it never runs.
                task.add_done_callback(lambda _: self._parts.release())
                sending.append(task)
        return [task.result() for task in sending]

    async def _next_part(
        self, parts: AsyncIterator[Sequence[bytes]], *, first: bool
    ) -> Sequence[bytes] | None:
        """Acquire a permit and read the next part; None at the end. There is always a first part.

        The permit comes first, so that no part waits for one in memory.
        """
        at_the_end: Sequence[bytes] | None = [] if first else None
        await self._parts.acquire()
        try:
            part = await anext(parts, at_the_end)
        except BaseException:
            self._parts.release()
            raise
        if part is None:
            self._parts.release()
        return part

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself; in parts above 5 GiB."""
        try:
            await self._copy_onto_itself(stat)
        except OSError as error:
            if not is_archived(error):
                raise
        else:
            return
        # It cannot be copied, and is of no use: it is to be sent again. Not in the block above: the
        # cause would say what is wrong.
        raise FileNotFoundError(stat.path)

    async def _copy_onto_itself(self, stat: Stat) -> None:
        if stat.size > self.copy_limit:
            await self._copy_in_parts(stat.path, stat.path, stat.size)
        else:
            await self._copy_whole(stat.path, stat.path)

    async def _copy_whole(self, source: str, path: str, **more: str) -> dict[str, Any]:
        answer = await self._call(
            "copy_object", path, CopySource=_copied(source), MetadataDirective="REPLACE", **more
        )
        found: dict[str, Any] = answer.get("CopyObjectResult", {})
        return found

    async def _copy_in_parts(self, source: str, path: str, size: int) -> None:
        async with self._multipart(path) as upload:
            parts = []
            for number in range(math.ceil(size / self.copy_part)):
                start = number * self.copy_part
                end = min(start + self.copy_part, size)
                part = await self._copy_part(source, path, upload, number + 1, range(start, end))
                parts.append({"PartNumber": number + 1, "ETag": part["ETag"]})
            await self._complete(path, upload, parts)

    async def _copy_part(
        self, source: str, path: str, upload: str, number: int, part: range | None
    ) -> dict[str, Any]:
        """Let the server copy a part of an object, or all of it, into a part of an upload."""
        which = {} if part is None else {"CopySourceRange": f"bytes={part.start}-{part.stop - 1}"}
        answer = await self._call(
            "upload_part_copy",
            path,
            UploadId=upload,
            PartNumber=number,
            CopySource=_copied(source),
            **which,
        )
        found: dict[str, Any] = answer["CopyPartResult"]
        return found

    async def account(self) -> str | None:
        """The server; all regions of Amazon are one."""
        return server_of(await self._endpoint())

    async def copy_checked(self, source: str, path: str, size: int, digest: Digest) -> Copied:
        """Copy into an upload of one part, which is completed if its SHA-256 is the digest.

        Three requests. A plain copy would be one, but its object is seen before its SHA-256 is
        known. An object above 5 GiB takes several parts, whose hashes are not the digest.
        """
        if size > self.copy_limit:
            return Copied.NOT_THIS
        wanted = sha256_header(digest)
        # Without a range, some servers repeat the checksum that was stored with the source.
        part = range(size) if size > RANGED else None
        try:
            async with self._multipart(path, ChecksumAlgorithm="SHA256") as upload:
                copied = await self._copy_part(source, path, upload, 1, part)
                await self._complete(path, upload, [_proven(copied, wanted)])
        except _UnprovenError as unproven:
            return unproven.copied
        except OSError as error:
            return _refused(error)
        return Copied.CHECKED

    async def copy_trusted(self, source: str, path: str, size: int, digest: Digest) -> Copied:
        """One copy; above 5 GiB in parts, of which no digest is known."""
        try:
            if size > self.copy_limit:
                await self._copy_in_parts(source, path, size)
                return Copied.TRUSTED
            asked = {"ChecksumAlgorithm": "SHA256"} if await self._takes_checksums() else {}
            stated = (await self._copy_whole(source, path, **asked)).get("ChecksumSHA256", "-")
        except OSError as error:
            return _refused(error)
        if "-" in stated:
            return Copied.TRUSTED
        if stated == sha256_header(digest):
            return Copied.CHECKED
        await self.delete(path)
        return Copied.OTHER_BYTES

    async def _delete(self, path: str) -> None:
        await self._call("delete_object", path)

    async def _delete_if(self, stat: Stat, by: Collection[str]) -> bool:
        """One DELETE, without retries."""
        return await self._sent_delete(stat, by) is not None

    async def _delete_unchanged(self, stat: Stat, by: Collection[str]) -> bool:
        """One DELETE; where it adds a marker, one LIST tells what that hides."""
        answer = await self._sent_delete(stat, by)
        if answer is None:
            return False
        marker = generation_in(answer) if answer.get("DeleteMarker") else ""
        if not (marker and stat.generation):
            return True
        return await hides_what_was_seen(
            stat.path, stat.generation, marker, self._past_if_allowed, self._take_back
        )

    async def _past_if_allowed(self, path: str) -> Past:
        try:
            return await self.past(path)
        except PermissionError:
            if not self._told:
                self._told = True
                logger.warning(
                    "versions may not be listed in %s, so a touch in the moment of a delete is not "
                    "noticed: permit s3:ListBucketVersions",
                    path.partition("/")[0],
                )
            return Past(path)

    async def _take_back(self, path: str, marker: str) -> None:
        try:
            await self.reveal(path, marker)
        except PermissionError as error:
            raise AccessError(
                f"it was touched while it was deleted, but the delete marker {marker} may not be "
                "removed: permit s3:DeleteObjectVersion and prune with --undo",
            ) from error

    async def _sent_delete(self, stat: Stat, by: Collection[str]) -> dict[str, Any] | None:
        """The response to a DELETE with conditions; None if they do not hold."""
        bucket, _, key = stat.path.partition("/")
        conditions: dict[str, Any] = {}
        if "version" in by:
            conditions["IfMatch"] = stat.version
        if "modified" in by and stat.modified is not None:
            conditions["IfMatchLastModifiedTime"] = datetime.fromtimestamp(stat.modified, UTC)
        try:
            answer: dict[str, Any] = await self._without_retries._call_s3(
                "delete_object", Bucket=bucket, Key=key, **conditions
            )
        except OSError as error:
            if conditions and says_changed(error):
                return None
            raise
        return answer

    async def past(self, path: str) -> Past:
        """List the versions of the object."""
        return await past(self.fs, path)

    async def reveal(self, path: str, marker: str) -> None:
        """Delete the marker."""
        await self._call("delete_object", path, VersionId=marker)

    async def read_past(self, path: str, version: str, limit: int) -> bytes:
        """One GET of the version."""
        return await joined(self._get(path, more={"VersionId": version}), limit)

    @cached_property
    def _without_retries(self) -> Any:
        """The same filesystem with a client that does not retry."""
        options = dict(self.fs.storage_options)
        config = dict(options.get("config_kwargs") or {})
        config["retries"] = {"total_max_attempts": 1}
        fs = type(self.fs)(**options | {"config_kwargs": config, "skip_instance_cache": True})
        fs.retries = 1
        return fs

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

    async def erase(self, path: str) -> bool:
        """Delete the object, and each version of it if the answer shows that there are some."""
        answer = await self._call("delete_object", path)
        if "VersionId" not in answer and "DeleteMarker" not in answer:
            return True
        return await erase_versions(self.fs, path)

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Also list multipart uploads of keys with the prefix, with the upload's ID as version.

        They are left out if the server cannot list them or does not allow it.
        """
        return [*await super().unfinished(prefix), *await unfinished_uploads(self.fs, prefix)]

    async def abandon(self, stat: Stat) -> None:
        """Delete a temporary object, or abort an upload."""
        if stat.path.rpartition("/")[2].startswith(TEMPORARY):
            await self.delete(stat.path)
        else:
            with suppress(FileNotFoundError):
                await self._call("abort_multipart_upload", stat.path, UploadId=stat.version)


class _UnprovenError(Exception):
    """Aborts the upload of a copy, because of what the server stated."""

    def __init__(self, copied: Copied) -> None:
        super().__init__(copied.value)
        self.copied = copied


def _proven(part: dict[str, Any], wanted: str) -> dict[str, Any]:
    """The part as it completes an upload, with the checksum that the server worked out for it.

    Raises _UnprovenError if that is not the wanted one.
    """
    stated = part.get("ChecksumSHA256")
    if stated != wanted:
        raise _UnprovenError(Copied.OTHER_BYTES if stated else Copied.NEVER)
    return {"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": wanted}


def _copied(path: str) -> dict[str, str]:
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}


def _refused(error: OSError) -> Copied:
    """What the server's answer means, if there was one. Raises the error if there was none."""
    found = says_not_copied(error)
    if found is None:
        raise error
    return found
