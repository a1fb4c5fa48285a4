"""Copies that an S3 server makes: onto the object itself, which renews its time, and elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from cachefs.filesystems.copies import Copied
from cachefs.filesystems.s3.answers import (
    says_not_copied,
)
from cachefs.filesystems.s3.checksums import (
    server_of,
    sha256_header,
)
from cachefs.filesystems.s3.writing import S3Writing
from cachefs.filesystems.s3_failures import is_archived

if TYPE_CHECKING:
    from cachefs.digest import Digest
    from cachefs.filesystems.base import (
        Stat,
    )

COPY_LIMIT: Final = 5 * 1024**3
"""S3 copies an object of more bytes than this only in parts."""

COPY_PART: Final = 1024**3

RANGED: Final = 5 * 1024**2
"""S3 copies ranges only of objects of more bytes than this."""


class S3Copying(S3Writing):
    """Objects are copied without their bytes passing through here."""

    touches = True
    copy_limit = COPY_LIMIT
    copy_part = COPY_PART

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
