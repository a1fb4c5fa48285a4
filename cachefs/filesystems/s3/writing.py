"""Writing to S3: one PUT, or an upload in parts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from cachefs.concurrency import task_group
from cachefs.digest import Digest
from cachefs.errors import StoreError
from cachefs.filesystems.base import (
    WHOLE,
)
from cachefs.filesystems.parts import in_parts, part_size
from cachefs.filesystems.patience import PATIENCE, attempted
from cachefs.filesystems.s3.answers import (
    error_code,
    headers_of,
    says_changed,
)
from cachefs.filesystems.s3.body import Body
from cachefs.filesystems.s3.calls import S3Calls
from cachefs.filesystems.s3.checksums import (
    DAMAGED,
    REFUSED,
    content_md5,
    differs,
    digest_in,
    is_plain,
    sha256_header,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fsspec import AbstractFileSystem


class S3Writing(S3Calls):
    """Objects are sent with what lets the server notice that they were damaged."""

    def __init__(
        self, fs: AbstractFileSystem, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(fs, bound, patience)
        # For the parts of all uploads together, so that many large blobs need the memory of one.
        self._parts = asyncio.Semaphore(self.parallelism)

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
                raise StoreError(DAMAGED)
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
