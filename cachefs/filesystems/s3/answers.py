"""What the responses of S3, and the errors that s3fs makes of them, say."""

from __future__ import annotations

from typing import Any, Final

from cachefs.filesystems.base import Stat
from cachefs.filesystems.copies import Copied
from cachefs.filesystems.s3_failures import ARCHIVED

BEYOND: Final = 416
"""The HTTP status for a range beyond the end of the object."""


NOT_IMPLEMENTED: Final = 501
"""The HTTP status for a request, or a header of one, that the server does not support."""


def listed_stat(bucket: str, item: dict[str, Any]) -> Stat:
    """The object of an item of a LIST."""
    modified = item["LastModified"].timestamp()
    path, archived = f"{bucket}/{item['Key']}", says_archived(item)
    return Stat(path, item["Size"], modified, item.get("ETag", ""), archived)


_ARCHIVES: Final = {"GLACIER", "DEEP_ARCHIVE"}
_RESTORED: Final = 'ongoing-request="false"'


def says_archived(answer: dict[str, Any]) -> bool:
    """Whether a HEAD or an item of a LIST says that the object is in an archive.

    Of an object with intelligent tiering, only a HEAD does. A restored copy can be read.
    """
    archived = answer.get("StorageClass") in _ARCHIVES or "ArchiveStatus" in answer
    return archived and _RESTORED not in answer.get("Restore", "")


def generation_in(answer: dict[str, Any]) -> str:
    """The version ID in a response; empty if the bucket keeps no versions of the object."""
    version: str = answer.get("VersionId") or ""
    return "" if version == "null" else version


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    """The headers of a response, with names in lower case."""
    found: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
    return {name.lower(): value for name, value in found.items()}


def error_code(error: OSError) -> str:
    """The code in the server's response behind an error of s3fs."""
    answer = getattr(error.__cause__, "response", None) or {}
    code: str = answer.get("Error", {}).get("Code", "")
    return code


def status_of(error: Exception) -> int | None:
    """The HTTP status behind an error of s3fs."""
    answer = getattr(error.__cause__, "response", None) or {}
    status: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


_CHANGED: Final = {"PreconditionFailed", "412", "ConditionalRequestConflict", "NoSuchKey"}
"""Codes of a write whose condition does not hold; the last one if the object was deleted."""


def says_changed(error: OSError) -> bool:
    """Whether a write was refused because its condition does not hold, so that nothing changed."""
    return error_code(error) in _CHANGED


_OF_THE_SOURCE: Final = {404, BEYOND}
"""Statuses of a copy whose source does not exist, or is shorter than what is to be copied."""


def says_not_copied(error: OSError) -> Copied | None:
    """What the server's answer to a copy means for others; None if there was no answer.

    A server may fail at requests that an upload of the same bytes does not need, so that failing
    counts as refusing: if it fails at all, the upload will tell.
    """
    status = status_of(error)
    if status is None:
        return None
    absent = status in _OF_THE_SOURCE or error_code(error) in ARCHIVED
    return Copied.NOT_THIS if absent else Copied.NEVER
