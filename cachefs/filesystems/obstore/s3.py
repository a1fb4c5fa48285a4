"""S3 through obstore, for ``engine=obstore``: it is told everything, and looks for nothing."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from obstore.fsspec import FsspecStore
from obstore.store import S3Store

from cachefs.errors import LocationError, StoreError
from cachefs.filesystems.base import CHUNK_SIZE, WHOLE, Allowed, Filesystem
from cachefs.filesystems.chunks import cut
from cachefs.filesystems.level import PARALLELISM, REFUSALS, max_concurrent_calls
from cachefs.filesystems.obstore.filesystem import ObstoreFilesystem
from cachefs.filesystems.patience import PATIENCE
from cachefs.filesystems.s3.checksums import differs, is_amazon, is_plain, server_of
from cachefs.filesystems.s3.copying import COPY_LIMIT
from cachefs.filesystems.s3_failures import elsewhere, is_archived

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from fsspec import AbstractFileSystem
    from obstore.store import S3Credential, S3CredentialProvider

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.filesystems.copies import Copied
    from cachefs.filesystems.findings import Finding
    from cachefs.filesystems.s3.connection import S3Connection
    from cachefs.filesystems.s3.credentials import CredentialSource
    from cachefs.filesystems.s3.filesystem import S3Filesystem
    from cachefs.filesystems.versions import Past

_RENEWING: Final = "header: x-amz-metadata-directive: REPLACE"
"""A header for "copy if not exists", which lets S3 copy an object onto itself.

S3 refuses such a copy without new metadata, which the plain copy of obstore cannot request. This
kind of copy is a plain one with a header of our choice, signed with the others.
"""


class _ResolvedFilesystem(ObstoreFilesystem):
    """Stores whose URLs were found out for their buckets."""

    _with_headers = False
    """Whether requests of ``fs`` have headers for objects that are written."""

    def _check(self, store: Any, bucket: str) -> None:
        pass

    def _touch_sync(self, stat: Stat) -> None:
        """One COPY. An archived object is as good as none."""
        store, _, key = self._open(stat.path, to_write=self._with_headers)
        try:
            store.copy(key, key, overwrite=False)
        except Exception as error:
            if not is_archived(error):
                raise
        else:
            return
        # Not in the block above: the cause would say what is wrong.
        raise FileNotFoundError(stat.path)


class ObstoreS3Filesystem(_ResolvedFilesystem):
    """A bucket through obstore, connected by cachefs.

    Args:
        fs: an ``obstore.fsspec.FsspecStore``.
        reading: another one for the same bucket, for requests without a body: it limits silence.
        without_retries: the same, but it does not retry either, so that refusals are seen.
        s3fs: connects to the same bucket through s3fs, for the few requests that obstore lacks.
        connection: how the location's bucket is reached.
        bound: how many objects are written at a time, None if that is left open.
        patience: how long calls may go without progress, in seconds.
        refusals: how often a call is repeated that the server refuses for now.
        with_headers: whether requests of ``fs`` have headers for objects that are written.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        reading: AbstractFileSystem,
        without_retries: AbstractFileSystem,
        s3fs: Callable[[], S3Filesystem],
        connection: S3Connection,
        bound: int | None = None,
        patience: float = PATIENCE,
        refusals: int = REFUSALS,
        *,
        with_headers: bool = False,
    ) -> None:
        super().__init__(fs, bound, patience)
        self._reading = reading
        self._region = connection.region
        self._plain = is_plain(connection.bucket_url)
        self._server = server_of(connection.endpoint_url or connection.bucket_url)
        self._with_headers = with_headers
        if not with_headers:
            self._at_first = _ResolvedFilesystem(without_retries)
        self.refusals = refusals
        self._connect_s3fs = s3fs

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """Send a multipart upload; with s3fs if it has headers, as obstore would add them to each.

        S3 takes them only when the upload begins.
        """
        if self._with_headers:
            await self._s3fs._put_parts(path, chunks, size)
        else:
            await super()._put_parts(path, chunks, size)

    @cached_property
    def _s3fs(self) -> S3Filesystem:
        return self._connect_s3fs()

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """One GET; if the bytes are not those of the ETag, once more with s3fs.

        obstore does not tell whether an object is encrypted, in which case its ETag says nothing.
        """
        data, version = await super().read_versioned(path, limit)
        if len(data) > limit or not differs(data, {"etag": version}):
            return data, version
        return await self._s3fs.read_versioned(path, limit)

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """As :meth:`put_checked`: one PUT, and another with s3fs if the bytes were damaged."""
        written = await self._put_if(path, data, version)
        if written is not None and self._plain and differs(data, {"etag": written}):
            return await self._s3fs.put_if(path, data, written)
        return written is not None

    async def put_checked(self, path: str, data: bytes) -> None:
        """One PUT with the checksum of :func:`connect_obstore`.

        If the ETag over plain HTTP is not that of these bytes, it is sent once more with s3fs.
        """
        store, _, key = self._open(path, to_write=True)
        if len(data) > WHOLE or not self._plain:
            await super().put_checked(path, data)
            return
        answer = await store.put_async(key, data, use_multipart=False)
        if differs(data, {"etag": answer["e_tag"] or ""}):
            await self._s3fs.put_checked(path, data)

    async def explain(self, path: str) -> None:
        """Send a LIST through s3fs: its errors have codes, but those of obstore have only text."""
        region = await self._s3fs.bucket_region(path)
        if region not in (None, self._region):
            raise StoreError(elsewhere(region))

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself; above 5 GiB with s3fs, as obstore cannot copy in parts."""
        if stat.size > COPY_LIMIT:
            await self._s3fs._touch(stat)
        else:
            await super()._touch(stat)

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the times of objects, without threads if one of them is above 5 GiB."""
        if any(stat.size > COPY_LIMIT for stat in stats):
            return await Filesystem.touch_batch(self, stats)
        return await super().touch_batch(stats)

    async def account(self) -> str | None:
        """The server."""
        return self._server

    async def copy_checked(self, source: str, path: str, size: int, digest: Digest) -> Copied:
        """Use s3fs: obstore copies within a bucket only, and tells no checksums."""
        return await self._s3fs.copy_checked(source, path, size, digest)

    async def copy_trusted(self, source: str, path: str, size: int, digest: Digest) -> Copied:
        """Use s3fs."""
        return await self._s3fs.copy_trusted(source, path, size, digest)

    async def archived(self, prefix: str) -> Collection[str]:
        """List with s3fs: obstore does not tell storage classes."""
        return {stat.path for stat in await self._s3fs.list(prefix) if stat.archived}

    async def stated_digests(self, paths: Sequence[str]) -> Sequence[Digest | None]:
        """Ask with s3fs: obstore does not tell checksums."""
        return await self._s3fs.stated_digests(paths)

    async def keeps_versions(self, path: str) -> bool:
        """Ask with s3fs."""
        return await self._s3fs.keeps_versions(path)

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """Ask with s3fs: obstore has none of these requests."""
        return await self._s3fs.examine(blobs, manifests)

    async def allowed(self, path: str) -> Allowed:
        """Ask with s3fs, as above."""
        return await self._s3fs.allowed(path)

    async def try_out(self, path: str) -> Sequence[Finding]:
        """Send the object in parts with obstore, the rest with s3fs."""
        await self._put_parts(path, cut(b"written by cachefs doctor", CHUNK_SIZE), 0)
        return await self._s3fs.try_requests(path)

    async def erase(self, path: str) -> bool:
        """Delete with s3fs, as obstore does not tell versions."""
        return await self._s3fs.erase(path)

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Use s3fs: obstore cannot list the multipart uploads of exports that were killed."""
        return await self._s3fs.unfinished(prefix)

    async def abandon(self, stat: Stat) -> None:
        """Delete a temporary object, or abort an upload, with s3fs."""
        await self._s3fs.abandon(stat)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """One DELETE; with s3fs if the object may have changed, as obstore has no conditions."""
        if unless_changed is not None:
            return await self._s3fs.delete(path, unless_changed)
        return await super().delete(path)

    async def past(self, path: str) -> Past:
        """List the versions of the object with s3fs."""
        return await self._s3fs.past(path)

    async def reveal(self, path: str, marker: str) -> None:
        """Delete the marker with s3fs."""
        await self._s3fs.reveal(path, marker)

    async def read_past(self, path: str, version: str, limit: int) -> bytes:
        """One GET of the version with s3fs."""
        return await self._s3fs.read_past(path, version, limit)


DONE_IN: Final = timedelta(minutes=10)
"""The time limit of a request, from its beginning to the end of its response, and of its retries.

obstore has no other limit for a body that is being sent. Its default of 30 seconds is too short:
16 parts of 8 MiB at a time would need 36 Mbit/s, instead of 2 Mbit/s now. S3 accepts a request for
15 minutes after it was signed.
"""


_PART_RETRIES: Final = 7
"""Enough for a server that refuses every third request."""


def connect_obstore(
    resolved: Callable[[str], S3Connection],
    bucket: str,
    s3fs: Callable[[], S3Filesystem],
    bound: int | None,
    patience: float,
    refusals: int,
) -> ObstoreS3Filesystem:
    """Connect to the bucket with obstore.

    Args:
        resolved: finds out how to reach a bucket.
        bucket: the location's.
        s3fs: called if s3fs is needed too.
        bound: how many objects are written at a time, None if that is left open.
        patience: how long calls may go without progress, in seconds.
        refusals: how often a call is repeated that the server refuses for now.

    Raises LocationError for what obstore cannot do.
    """
    connection = resolved(bucket)
    headers = _headers(connection)
    retries = connection.config["retries"].get("total_max_attempts", 3) - 1

    def connected(
        retries: int, headers: Mapping[str, str], silence: float | None = None
    ) -> AbstractFileSystem:
        fs = _Buckets(resolved, bound or PARALLELISM, retries, headers, silence)
        fs._construct_store(bucket)  # it reads the environment, so now and not later
        return fs

    return ObstoreS3Filesystem(
        # The parts of a large object are read once, so only obstore can send one of them again.
        connected(max(retries, _PART_RETRIES) if refusals else retries, headers),
        connected(retries, {}, patience),
        connected(0, {}, patience),
        s3fs,
        connection,
        bound,
        patience,
        refusals,
        with_headers=bool(headers),
    )


class _Buckets(FsspecStore):
    """Each bucket with all that its store has to know, for which the base class has no options."""

    cachable = False

    def __init__(
        self,
        resolved: Callable[[str], S3Connection],
        parallelism: int,
        retries: int,
        headers: Mapping[str, str],
        silence: float | None,
    ) -> None:
        super().__init__("s3")
        self._resolved = resolved
        self._parallelism = parallelism
        self._retries = retries
        self._headers = headers
        self._silence = silence

    def _construct_store(self, bucket: str) -> S3Store:
        connection = self._resolved(bucket)
        options = _client_options(connection, self._parallelism)
        if self._headers:
            options["default_headers"] = dict(self._headers)
        retry_timeout = DONE_IN
        if self._silence is not None:
            # Not for uploads: obstore counts the time in which it sends the body as silence.
            options["read_timeout"] = timedelta(seconds=self._silence)
            retry_timeout = timedelta(seconds=self._silence / 2)
        config: Any = _config(connection)  # the types of obstore lack some of its options
        return S3Store(
            config=config,
            client_options=options,  # type: ignore[arg-type]  # the same
            retry_config={"max_retries": self._retries, "retry_timeout": retry_timeout},
            credential_provider=_provider(connection.credentials),
        )


_ENCRYPTION: Final = {
    "ServerSideEncryption": "server_side_encryption",
    "SSEKMSKeyId": "sse_kms_key_id",
    "BucketKeyEnabled": "sse_bucket_key_enabled",
}
_HEADERS: Final = {"ACL": "x-amz-acl", "StorageClass": "x-amz-storage-class"}


def _headers(connection: S3Connection) -> dict[str, str]:
    """The headers of requests that write an object. Raises LocationError for others."""
    known = {"RequestPayer", *_ENCRYPTION, *_HEADERS}
    if unknown := sorted(connection.parameters.keys() - known):
        raise LocationError(f"engine=obstore cannot send {', '.join(unknown)}: use engine=s3fs")
    return {
        header: str(connection.parameters[name])
        for name, header in _HEADERS.items()
        if name in connection.parameters
    }


def _config(connection: S3Connection) -> dict[str, Any]:
    config: dict[str, Any] = {
        "bucket": _copy_source(connection.bucket),
        # The URL contains the bucket. This says so, and nothing is added to it.
        "endpoint": connection.bucket_url,
        "virtual_hosted_style_request": True,
        "region": connection.region,
        "skip_signature": connection.credentials is None,
        "unsigned_payload": not connection.config["s3"].get("payload_signing_enabled"),
        "copy_if_not_exists": _RENEWING,
        "conditional_put": "etag",
        "disable_tagging": False,
        "s3_express": False,
        "request_payer": "RequestPayer" in connection.parameters,
    }
    for name, option in _ENCRYPTION.items():
        if name in connection.parameters:
            config[option] = connection.parameters[name]
    plain = is_plain(connection.bucket_url)
    if plain or is_amazon(connection.bucket_url):
        # This hashes bodies once more, but in native code. Amazon states the hash later.
        config["checksum_algorithm"] = "SHA256"
    if plain:  # there is no TLS to notice damage
        config["unsigned_payload"] = False
    _overrule_environment(config)
    return config


def _copy_source(bucket: str) -> str:
    """What obstore writes before the key of an object that is copied, its only use of a name."""
    return f"{bucket}/object" if bucket.startswith("arn:") else bucket


_READ_FROM_ENVIRONMENT: Final = {
    "AWS_ENDPOINT_URL_S3": "aws_endpoint_url_s3",
    "AWS_DISABLE_BULK_DELETE": "disable_bulk_delete",
    "AWS_CHECKSUM_ALGORITHM": "checksum_algorithm",
    "AWS_SERVER_SIDE_ENCRYPTION": "server_side_encryption",
    "AWS_SSE_KMS_KEY_ID": "sse_kms_key_id",
    "AWS_SSE_BUCKET_KEY_ENABLED": "sse_bucket_key_enabled",
    "AWS_SSE_CUSTOMER_KEY_BASE64": "sse_customer_key_base64",
}
"""What obstore alone reads from the environment, and changes requests; with its own names."""


def _overrule_environment(config: dict[str, Any]) -> None:
    """Let the environment change nothing. Raises LocationError for what cannot be overruled."""
    neutral = {"aws_endpoint_url_s3": config["endpoint"], "disable_bulk_delete": False}
    for variable, name in _READ_FROM_ENVIRONMENT.items():
        if variable in os.environ and name not in config:
            if name not in neutral:
                raise LocationError(
                    f"obstore reads {variable}, which the AWS client does not know, and cannot be "
                    "told otherwise: unset it, and give the attribute if there is one"
                )
            config[name] = neutral[name]


_NOWHERE: Final = "http://127.0.0.1:0"
"""A proxy that cannot be reached, for all hosts but the bucket's.

obstore follows redirects, with the session token among the headers. And without a proxy it would
look for one in the environment, where it reads other variables than the AWS client.
"""


def _client_options(connection: S3Connection, parallelism: int) -> dict[str, Any]:
    url = urlsplit(connection.bucket_url)
    options: dict[str, Any] = {
        "allow_http": url.scheme == "http",
        "pool_max_idle_per_host": str(max_concurrent_calls(parallelism)),
        "timeout": DONE_IN,
        "user_agent": f"{connection.config['user_agent']} object_store",  # obstore's own name
        "proxy_url": connection.proxy or _NOWHERE,
    }
    if connection.proxy is None:
        options["proxy_excludes"] = url.hostname
    if isinstance(connection.certificates, str):
        options["root_certificate"] = Path(connection.certificates).read_bytes()
    elif not connection.certificates:
        options["allow_invalid_certificates"] = True
    return options


ASK_AGAIN: Final = timedelta(minutes=1)
"""obstore asks for credentials again before they expire, at most ten times a second."""


def _provider(source: CredentialSource | None) -> S3CredentialProvider | None:
    """The function that obstore calls for credentials; None for none."""
    if source is None:
        return None

    def provide() -> S3Credential:
        frozen = source.current()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": None if source.fixed else datetime.now(UTC) + ASK_AGAIN,
        }

    return provide
