"""Deletes in S3: by comparison, with versions, and of uploads that were not finished."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cachefs.errors import AccessError
from cachefs.filesystems.base import (
    TEMPORARY,
    Stat,
)
from cachefs.filesystems.deleting import ComparingDeletes
from cachefs.filesystems.s3.answers import (
    generation_in,
    says_changed,
)
from cachefs.filesystems.s3.calls import S3Calls
from cachefs.filesystems.s3.examining import (
    erase_versions,
)
from cachefs.filesystems.s3.uploads import unfinished_uploads
from cachefs.filesystems.s3.versions import past
from cachefs.filesystems.versions import Past, hides_what_was_seen

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


logger = logging.getLogger("cachefs")


class S3Deleting(S3Calls, ComparingDeletes):
    """Where a bucket keeps versions, what was deleted can be found and revealed again."""

    comparable = ("version", "modified")

    _told = False
    """Whether it was said that versions may not be listed."""

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
