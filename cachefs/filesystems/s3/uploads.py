"""Multipart uploads that were begun and not ended."""

from __future__ import annotations

from typing import Any

from cachefs.filesystems.base import Stat
from cachefs.filesystems.listing import Advance


async def unfinished_uploads(fs: Any, prefix: str) -> list[Stat]:
    """List those of keys with the prefix, by an ``s3fs.S3FileSystem``; the ID is the version.

    They are left out if the server cannot list them or does not allow it.
    """
    bucket, _, key_prefix = prefix.partition("/")
    found: list[Stat] = []
    answer: dict[str, Any] = {"IsTruncated": True}
    advance = Advance()
    while answer.get("IsTruncated"):
        marks = ("KeyMarker", "UploadIdMarker")
        after = {mark: answer[f"Next{mark}"] for mark in marks if f"Next{mark}" in answer}
        try:
            answer = await fs._call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=key_prefix, **after
            )
        except OSError:
            break
        found += [
            Stat(f"{bucket}/{u['Key']}", 0, u["Initiated"].timestamp(), u["UploadId"])
            for u in answer.get("Uploads", ())
        ]
        if answer.get("IsTruncated"):
            marker = f"{answer.get('NextKeyMarker')} {answer.get('NextUploadIdMarker')}"
            advance.turn(marker, len(answer.get("Uploads", ())))
    return found
