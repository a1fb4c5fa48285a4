"""S3 through s3fs: its session, credentials and client, with the requests that a cache needs.

Requests are sent through the client of s3fs. Its file methods are not used: they buffer 500 MiB per
file, list after every miss, and leave unfinished uploads.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cachefs.concurrency import closing, task_group
from cachefs.filesystems.base import CHUNK_SIZE, TEMPORARY, Filesystem, Folder, Page, Stat
from cachefs.filesystems.parts import in_parts, part_size
from cachefs.filesystems.s3_body import Body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fsspec import AbstractFileSystem

COPY_LIMIT: Final = 5 * 1024**3
"""S3 copies an object of more bytes than this only in parts."""

COPY_PART: Final = 1024**3

BEYOND: Final = 416
"""The HTTP status for a range beyond the end of the object."""


class S3Filesystem(Filesystem):
    """An ``s3fs.S3FileSystem``."""

    pages = True
    touches = True
    _prefetches = True
    copy_limit = COPY_LIMIT
    copy_part = COPY_PART

    def __init__(self, fs: AbstractFileSystem, parallelism: int = 4) -> None:
        super().__init__(fs, parallelism)
        # For the parts of all uploads together, so that many large blobs need the memory of one.
        self._parts = asyncio.Semaphore(parallelism)

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
        return Stat(path, head["ContentLength"], modified, head.get("ETag", ""))

    async def list(self, prefix: str) -> list[Stat]:
        """Every object whose key starts with the prefix."""
        objects: list[Stat] = []
        complete = False
        while not complete:
            after = objects[-1].path if objects else ""
            page = await self.page(prefix, after, 1000)
            objects += page.objects
            complete = page.complete
        return objects

    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """One LIST."""
        bucket, _, key_prefix = prefix.partition("/")
        start = {"StartAfter": after.partition("/")[2]} if after else {}
        answer = await self.fs._call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=key_prefix, MaxKeys=limit, **start
        )
        return Page(_objects(bucket, answer), not answer.get("IsTruncated"))

    async def folder(self, path: str) -> Folder:
        """One LIST: the first 1,000 folders and objects."""
        bucket, _, key = path.partition("/")
        answer = await self.fs._call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=key, Delimiter="/", MaxKeys=1000
        )
        return Folder(
            [f"{bucket}/{item['Prefix']}" for item in answer.get("CommonPrefixes", ())],
            _objects(bucket, answer),
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

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """One GET, whose response has the size, or ranges of a large object."""
        found = super().read(path, size) if size and size > CHUNK_SIZE else self._get(path)
        async with closing(found) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _range(self, path: str, start: int, end: int) -> bytes:
        try:
            async with closing(self._get(path, start, end)) as chunks:
                return b"".join([chunk async for chunk in chunks])
        except OSError as error:
            if _status(error) == BEYOND:
                return b""
            raise

    async def _get(self, path: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Send a GET; if the connection breaks, continue with the rest."""
        received = 0
        expected: int | None = None
        for attempt in range(4):
            first, last = start + received, "" if end is None else end - 1
            part = {} if end is None and not received else {"Range": f"bytes={first}-{last}"}
            answer = await self._call("get_object", path, **part)
            if expected is None:
                expected = int(answer["ContentLength"])
            try:
                async with answer["Body"] as body:
                    while chunk := await body.read(1024 * 1024):
                        received += len(chunk)
                        yield chunk
            except Exception:
                if attempt == 3:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
            if received >= expected:
                return

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """One PUT."""
        await self._call("put_object", path, Body=Body(chunks))

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """Send a multipart upload. It is aborted if it fails."""
        async with self._multipart(path) as upload:
            parts = await self._send_parts(path, upload, in_parts(chunks, part_size(size)))
            await self._complete(path, upload, parts)

    @asynccontextmanager
    async def _multipart(self, path: str) -> AsyncIterator[str]:
        """Begin a multipart upload and yield its ID. It is aborted if the block fails."""
        upload: str = (await self._call("create_multipart_upload", path))["UploadId"]
        try:
            yield upload
        except BaseException:
            # Raise the first error, not that of an abort which fails too.
            with suppress(Exception):
                await asyncio.shield(self._call("abort_multipart_upload", path, UploadId=upload))
            raise

    async def _complete(self, path: str, upload: str, parts: Sequence[dict[str, Any]]) -> None:
        await self._call(
            "complete_multipart_upload", path, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    async def _send_parts(
        self, path: str, upload: str, parts: AsyncIterator[Sequence[bytes]]
    ) -> Sequence[dict[str, Any]]:
        async def send(number: int, part: Sequence[bytes]) -> dict[str, Any]:
            answer = await self._call(
                "upload_part", path, UploadId=upload, PartNumber=number, Body=Body(part)
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
        if stat.size > self.copy_limit:
            await self._touch_in_parts(stat)
            return
        bucket, _, key = stat.path.partition("/")
        await self._call(
            "copy_object",
            stat.path,
            CopySource={"Bucket": bucket, "Key": key},
            MetadataDirective="REPLACE",
        )

    async def _touch_in_parts(self, stat: Stat) -> None:
        bucket, _, key = stat.path.partition("/")
        async with self._multipart(stat.path) as upload:
            parts = []
            for number in range(math.ceil(stat.size / self.copy_part)):
                start = number * self.copy_part
                end = min(start + self.copy_part, stat.size) - 1
                answer = await self._call(
                    "upload_part_copy",
                    stat.path,
                    UploadId=upload,
                    PartNumber=number + 1,
                    CopySource={"Bucket": bucket, "Key": key},
                    CopySourceRange=f"bytes={start}-{end}",
                )
                etag = answer["CopyPartResult"]["ETag"]
                parts.append({"PartNumber": number + 1, "ETag": etag})
            await self._complete(stat.path, upload, parts)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """Send one DELETE, without retries if the object may have changed.

        If the response were lost, a retry could delete an object that was uploaded again since.
        """
        bucket, _, key = path.partition("/")
        fs = self.fs if unless_changed is None else self._without_retries
        await fs._call_s3("delete_object", Bucket=bucket, Key=key)
        return True

    @cached_property
    def _without_retries(self) -> Any:
        """The same filesystem with a client that does not retry."""
        options = dict(self.fs.storage_options)
        config = dict(options.get("config_kwargs") or {})
        config["retries"] = {"total_max_attempts": 1}
        fs = type(self.fs)(**options | {"config_kwargs": config, "skip_instance_cache": True})
        fs.retries = 1
        return fs

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Also list multipart uploads of keys with the prefix, with the upload's ID as version.

        They are left out if the server cannot list them or does not allow it.
        """
        bucket, _, key_prefix = prefix.partition("/")
        found = [*await super().unfinished(prefix)]
        answer: dict[str, Any] = {"IsTruncated": True}
        while answer.get("IsTruncated"):
            marks = ("KeyMarker", "UploadIdMarker")
            after = {mark: answer[f"Next{mark}"] for mark in marks if f"Next{mark}" in answer}
            try:
                answer = await self.fs._call_s3(
                    "list_multipart_uploads", Bucket=bucket, Prefix=key_prefix, **after
                )
            except OSError:
                break
            found += [
                Stat(f"{bucket}/{u['Key']}", 0, u["Initiated"].timestamp(), u["UploadId"])
                for u in answer.get("Uploads", ())
            ]
        return found

    async def abandon(self, stat: Stat) -> None:
        """Delete a temporary object, or abort an upload."""
        if stat.path.rpartition("/")[2].startswith(TEMPORARY):
            await self.delete(stat.path)
        else:
            with suppress(FileNotFoundError):
                await self._call("abort_multipart_upload", stat.path, UploadId=stat.version)


def _objects(bucket: str, answer: dict[str, Any]) -> list[Stat]:
    """The objects in the response to a LIST."""
    return [
        Stat(
            f"{bucket}/{item['Key']}",
            item["Size"],
            item["LastModified"].timestamp(),
            item.get("ETag", ""),
        )
        for item in answer.get("Contents", ())
    ]


def _status(error: OSError) -> int | None:
    """The HTTP status behind an error of s3fs."""
    answer = getattr(error.__cause__, "response", None) or {}
    status: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
