"""S3 through obstore, for ``engine=obstore``, with credentials found in the same way as by s3fs."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import botocore.session
from botocore.exceptions import NoCredentialsError
from obstore.fsspec import FsspecStore

from cachefs.concurrency import max_concurrent_calls
from cachefs.errors import StoreError
from cachefs.filesystems.base import WHOLE, Filesystem, joined
from cachefs.filesystems.failures import elsewhere
from cachefs.filesystems.obstore import ObstoreFilesystem
from cachefs.filesystems.s3 import COPY_LIMIT, S3Filesystem
from cachefs.filesystems.s3_checksums import differs, is_plain
from cachefs.filesystems.s3_options import virtual_hosted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsspec import AbstractFileSystem

    from cachefs.filesystems.base import Stat
    from cachefs.location.options import Location, S3Options

_RENEWING: Final = "header: x-amz-metadata-directive: REPLACE"
"""A header for "copy if not exists", which lets S3 copy an object onto itself.

S3 refuses such a copy without new metadata, which the plain copy of obstore cannot request. This
kind of copy is a plain one with a header of our choice, signed with the others.
"""


class ObstoreS3Filesystem(ObstoreFilesystem):
    """A bucket through obstore, connected by cachefs.

    Args:
        fs: an ``obstore.fsspec.FsspecStore``.
        without_retries: another one for the same bucket, which does not retry.
        s3fs: connects to the same bucket through s3fs, for the few requests that obstore lacks.
        parallelism: how many objects are written at a time.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        without_retries: AbstractFileSystem,
        s3fs: Callable[[], S3Filesystem],
        parallelism: int = 4,
    ) -> None:
        super().__init__(fs, parallelism)
        self._region = fs._config["region"]
        self._plain = is_plain(fs._config.get("endpoint", ""))
        self._without_retries = ObstoreFilesystem(without_retries)
        self._connect_s3fs = s3fs

    @cached_property
    def _s3fs(self) -> S3Filesystem:
        return self._connect_s3fs()

    async def read_checked(self, path: str, limit: int) -> bytes:
        """One GET; if the bytes are not those of the ETag, once more with s3fs.

        obstore does not tell whether an object is encrypted, in which case its ETag says nothing.
        """
        store, _, key = self._open(path)
        answer = await store.get_async(key)
        data = await joined(self._chunks(answer), limit)
        if len(data) > limit or not differs(data, {"etag": answer.meta["e_tag"] or ""}):
            return data
        return await self._s3fs.read_checked(path, limit)

    async def put_checked(self, path: str, data: bytes) -> None:
        """One PUT with the checksum of :func:`connect_obstore`.

        If the ETag over plain HTTP is not that of these bytes, it is sent once more with s3fs.
        """
        store, _, key = self._open(path)
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

    def _touch_sync(self, stat: Stat) -> None:
        """One COPY."""
        store, _, key = self._open(stat.path)
        store.copy(key, key, overwrite=False)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """Send one DELETE, without retries if the object may have changed."""
        if unless_changed is not None:
            return await self._without_retries.delete(path)
        return await super().delete(path)


DONE_IN: Final = timedelta(minutes=10)
"""The time limit of a request, from its beginning to the end of its response, and of its retries.

obstore has no other limit for a body that is being sent. Its default of 30 seconds is too short:
16 parts of 8 MiB at a time would need 36 Mbit/s, instead of 2 Mbit/s now. S3 accepts a request for
15 minutes after it was signed.
"""


def connect_obstore(
    location: Location, s3: S3Options, s3fs: Callable[[], S3Filesystem]
) -> ObstoreS3Filesystem:
    """Connect to the location's bucket with obstore; ``s3fs`` is called if s3fs is needed too."""
    make: Any = FsspecStore  # its overloads lack the options of fsspec
    parallelism = location.export.upload_parallelism

    def connected(retries: int) -> AbstractFileSystem:
        return make(
            "s3",
            config=_config(location, s3),
            client_options={
                "allow_http": True,
                "pool_max_idle_per_host": str(max_concurrent_calls(parallelism)),
                "timeout": DONE_IN,
            },
            retry_config={"max_retries": retries, "retry_timeout": DONE_IN},
            credential_provider=_aws_credentials(s3),
            skip_instance_cache=True,
        )

    return ObstoreS3Filesystem(
        connected(s3.retry_max_attempts - 1), connected(0), s3fs, parallelism
    )


def _config(location: Location, s3: S3Options) -> dict[str, Any]:
    bucket = urlsplit(location.url).netloc
    config: dict[str, Any] = {
        "region": s3.region or "us-east-1",
        "virtual_hosted_style_request": not s3.use_path_style,
        "unsigned_payload": True,
        "copy_if_not_exists": _RENEWING,
    }
    if s3.endpoint_url:
        endpoint = urlsplit(s3.endpoint_url)
        virtual = virtual_hosted(s3)
        config["virtual_hosted_style_request"] = virtual
        # In the virtual-hosted style, obstore needs the bucket in the endpoint.
        host = f"{bucket}.{endpoint.netloc}" if virtual else endpoint.netloc
        config["endpoint"] = f"{endpoint.scheme}://{host}{endpoint.path}"
        if is_plain(s3.endpoint_url):
            # There is no TLS to notice damage. This hashes bodies once more, but in native code.
            config["unsigned_payload"] = False
            config["checksum_algorithm"] = "SHA256"
    return config


def _aws_credentials(s3: S3Options) -> Callable[[], dict[str, Any]]:
    """A function that obstore calls for credentials, and again before they expire.

    It returns the explicit ones, or else those of botocore: environment, shared files, role.
    """
    session = botocore.session.Session()
    if s3.access_key_id is not None and s3.secret_access_key is not None:
        session.set_credentials(
            s3.access_key_id.reveal(),
            s3.secret_access_key.reveal(),
            s3.session_token.reveal() if s3.session_token else None,
        )

    def provide() -> dict[str, Any]:
        found = session.get_credentials()
        if found is None:
            raise NoCredentialsError
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": getattr(found, "_expiry_time", None),
        }

    return provide
