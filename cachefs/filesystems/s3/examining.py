"""What a bucket says of itself, and what can be tried in it without a change."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cachefs.errors import AccessError
from cachefs.filesystems.failures import failed
from cachefs.filesystems.findings import Finding, transport
from cachefs.filesystems.s3.answers import error_code
from cachefs.filesystems.s3.checksums import is_amazon
from cachefs.filesystems.s3.lifecycle import expires_versions, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REFUSED: Final = (OSError, NotImplementedError)
"""What s3fs raises for a request that is not allowed or not known."""


async def examined(fs: Any, blobs: str, manifests: str) -> list[Finding]:
    """Findings about a bucket, by an ``s3fs.S3FileSystem``; the paths begin with the bucket."""
    bucket, _, blobs = blobs.partition("/")
    manifests = manifests.partition("/")[2]
    found = await _where(fs, bucket)
    expiring = False
    try:
        rules = await _rules(fs, bucket)
    except _REFUSED as error:
        if _is_denied(error):
            found.append(_unknown("lifecycle", "its rules", "s3:GetLifecycleConfiguration"))
    else:
        found += judge(rules, blobs, manifests)
        expiring = expires_versions(rules, blobs, manifests)
    status = await versioning(fs, bucket)
    if status is None:
        found.append(_unknown("versions", "whether it keeps versions", "s3:GetBucketVersioning"))
    else:
        found.append(_versions(status, expiring=expiring))
    if not fs.anon and await may_put(_unsigned(fs), f"{bucket}/{blobs}"):
        found.append(
            Finding(
                "others",
                "bad",
                "anyone who can reach the store may write, without credentials",
                "let only your builds write: whoever writes to a cache decides what builds get",
            )
        )
    return found


def _unknown(check: str, what: str, right: str) -> Finding:
    return Finding(
        check, "mind", f"the bucket does not tell {what}: access is denied", f"allow {right} to see"
    )


async def _where(fs: Any, bucket: str) -> list[Finding]:
    """How the bucket is addressed. The URL is worked out; no request is sent."""
    client = await fs.set_session()
    parameters = {"Bucket": bucket, "Key": "key"}
    url = urlsplit(await client.generate_presigned_url("get_object", Params=parameters))
    base = f"{url.scheme}://{url.netloc}"
    in_path = url.path == f"/{bucket}/key"
    place = "path" if in_path else "host"
    region = client.meta.region_name
    found = f"{base}, the bucket in the {place}" + (f", region {region}" if region else "")
    advice = ""
    if in_path and is_amazon(base) and "." not in bucket:
        advice = "leave out use_path_style: Amazon may end requests with the bucket in the path"
    return [Finding("addressing", "mind" if advice else "good", found, advice), transport(base)]


async def _rules(fs: Any, bucket: str) -> Sequence[Mapping[str, Any]]:
    try:
        answer = await fs._call_s3("get_bucket_lifecycle_configuration", Bucket=bucket)
    except OSError as error:
        if error_code(error) != "NoSuchLifecycleConfiguration":
            raise
        return []
    rules: Sequence[Mapping[str, Any]] = answer.get("Rules", [])
    return rules


async def versioning(fs: Any, bucket: str) -> str | None:
    """The status of versioning, empty if there never was one; None if the bucket does not tell."""
    try:
        answer = await fs._call_s3("get_bucket_versioning", Bucket=bucket)
    except _REFUSED as error:
        return None if _is_denied(error) else ""
    return str(answer.get("Status", ""))


def _versions(status: str, *, expiring: bool) -> Finding:
    if status != "Enabled":
        return Finding("versions", "good", "the bucket keeps no earlier versions")
    if expiring:
        words = "the bucket keeps earlier versions, and a rule deletes them"
        return Finding("versions", "good", words)
    return Finding(
        "versions",
        "mind",
        "the bucket keeps earlier versions for ever, so a prune frees no space",
        "add a rule with NoncurrentVersionExpiration and ExpiredObjectDeleteMarker",
    )


def _is_denied(error: Exception) -> bool:
    return isinstance(failed(error, "look up", ""), AccessError)


# --- rights, without a change ---------------------------------------------------------------------


async def may_put(fs: Any, path: str) -> bool | None:
    """Whether the bucket lets this client write below the path; None if that cannot be told.

    A part is sent to an upload that does not exist: who may write is told so, and nobody else.
    """
    bucket, _, key = path.partition("/")
    try:
        await fs._call_s3(
            "upload_part",
            Bucket=bucket,
            Key=f"{key}{secrets.token_hex(8)}",
            UploadId=secrets.token_hex(16),
            PartNumber=1,
            Body=b"",
        )
    except _REFUSED as error:
        if isinstance(error, OSError) and error_code(error) == "NoSuchUpload":
            return True
        return False if _is_denied(error) else None
    return None  # that was no answer of S3's


async def may_delete(fs: Any, path: str) -> bool | None:
    """Whether the bucket lets this client delete below the path; None if that cannot be told.

    An object that does not exist is deleted. With versions that would leave a mark, so it is not
    done then.
    """
    bucket, _, key = path.partition("/")
    if await versioning(fs, bucket) != "":
        return None
    try:
        await fs._call_s3("delete_object", Bucket=bucket, Key=f"{key}{secrets.token_hex(8)}")
    except _REFUSED as error:
        return False if _is_denied(error) else None
    return True


def _unsigned(fs: Any) -> Any:
    """The same filesystem without credentials, which does not try again."""
    options = dict(fs.storage_options)
    config = {**(options.get("config_kwargs") or {}), "retries": {"total_max_attempts": 1}}
    changed = {"anon": True, "config_kwargs": config, "skip_instance_cache": True}
    unsigned = type(fs)(**options | changed)
    unsigned.retries = 1
    return unsigned


# --- with an object -------------------------------------------------------------------------------


async def abortable(fs: Any, path: str) -> Finding:
    """Whether uploads in parts can be aborted, and found if nobody aborted them."""
    bucket, _, key = path.partition("/")
    place = {"Bucket": bucket, "Key": key}
    upload = (await fs._call_s3("create_multipart_upload", **place))["UploadId"]
    try:
        await fs._call_s3("abort_multipart_upload", **place, UploadId=upload)
    except _REFUSED as error:
        reason = failed(error, "abandon", path).reason
        return Finding(
            "multipart",
            "bad",
            f"an upload of {path} is left (upload {upload}), because it could not be aborted: "
            f"{reason}",
            "abort it, or let a lifecycle rule or a prune do it",
        )
    try:
        await fs._call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
    except _REFUSED:
        return Finding(
            "multipart",
            "mind",
            "works, but unfinished uploads cannot be listed, so a prune cannot abort them",
            "allow s3:ListBucketMultipartUploads, or let a lifecycle rule abort them",
        )
    return Finding("multipart", "good", "large blobs can be sent in parts, and aborted")


async def erase_versions(fs: Any, path: str) -> bool:
    """Delete the few versions of an object, and the marks of its deletion; False if not allowed."""
    bucket, _, key = path.partition("/")
    try:
        answer = await fs._call_s3("list_object_versions", Bucket=bucket, Prefix=key)
        for item in [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]:
            if item["Key"] == key:
                version = item["VersionId"]
                await fs._call_s3("delete_object", Bucket=bucket, Key=key, VersionId=version)
    except _REFUSED as error:
        if not _is_denied(error):
            raise
        return False
    return True
