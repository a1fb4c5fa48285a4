"""What a bucket with versioning keeps of objects that were deleted, by an ``s3fs.S3FileSystem``."""

from __future__ import annotations

from typing import Any, Final

from cachefs.filesystems.listing import Advance
from cachefs.filesystems.versions import Past

_PAGE: Final = 100
"""Versions in a page. The newest of an object is in the first, unless many markers are."""


async def past(fs: Any, path: str) -> Past:
    """Look for the newest version of an object, and for the marker that hides it."""
    bucket, _, key = path.partition("/")
    found = Past(path)
    where: dict[str, Any] = {}
    advance = Advance()
    while True:
        answer = await fs._call_s3(
            "list_object_versions", Bucket=bucket, Prefix=key, MaxKeys=_PAGE, **where
        )
        for marker in _of(answer, "DeleteMarkers", key):
            if marker["IsLatest"]:
                modified = marker["LastModified"].timestamp()
                found = found._replace(marker=marker["VersionId"], modified=modified)
        # The newest comes first.
        if versions := _of(answer, "Versions", key):
            return found._replace(version=versions[0]["VersionId"])
        where = {
            name: answer[f"Next{name}"]
            for name in ("KeyMarker", "VersionIdMarker")
            if answer.get(f"Next{name}")
        }
        # Longer keys with this prefix follow it.
        if not answer.get("IsTruncated") or where.get("KeyMarker") != key:
            return found
        advance.turn(" ".join(where.values()), _PAGE)


def _of(answer: dict[str, Any], kind: str, key: str) -> list[dict[str, Any]]:
    return [item for item in answer.get(kind, ()) if item["Key"] == key]
