"""S3 through obstore, for ``engine=obstore``, with credentials found in the same way as by s3fs."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import botocore.session
from botocore.exceptions import NoCredentialsError
from obstore.exceptions import PermissionDeniedError
from obstore.fsspec import FsspecStore

from cachefs.concurrency import closing, max_concurrent_calls
from cachefs.errors import ArchivedError, StoreError
from cachefs.filesystems.base import Filesystem
from cachefs.filesystems.failures import ARCHIVED, IS_ARCHIVED, elsewhere
from cachefs.filesystems.obstore import ObstoreFilesystem
from cachefs.filesystems.patience import PATIENCE
from cachefs.filesystems.s3 import COPY_LIMIT, S3Filesystem
from cachefs.filesystems.s3_options import virtual_hosted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

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
        reading: another one for the same bucket, for requests without a body: it limits silence.
        without_retries: one that does not retry either.
        s3fs: connects to the same bucket through s3fs, for the few requests that obstore lacks.
        parallelism: how many objects are written at a time.
        patience: how long calls may go without progress, in seconds.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        reading: AbstractFileSystem,
        without_retries: AbstractFileSystem,
        s3fs: Callable[[], S3Filesystem],
        parallelism: int = 4,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(fs, parallelism, patience)
        self._reading = reading
        self._region = fs._config["region"]
        self._without_retries = ObstoreFilesystem(without_retries)
        self._connect_s3fs = s3fs

    @cached_property
    def _s3fs(self) -> S3Filesystem:
        return self._connect_s3fs()

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
        """One COPY. An archived object is as good as none."""
        store, _, key = self._open(stat.path)
        try:
            store.copy(key, key, overwrite=False)
        except Exception as error:
            if any(code in str(error) for code in ARCHIVED):
                raise FileNotFoundError(stat.path) from error
            raise

    async def archived(self, prefix: str) -> Collection[str]:
        """List with s3fs: obstore does not tell storage classes."""
        return {stat.path for stat in await self._s3fs.list(prefix) if stat.archived}

    async def keeps_versions(self, path: str) -> bool:
        """Ask with s3fs."""
        return await self._s3fs.keeps_versions(path)

    async def unfinished(self, prefix: str) -> Sequence[Stat]:
        """Use s3fs: obstore cannot list the multipart uploads of exports that were killed."""
        return await self._s3fs.unfinished(prefix)

    async def abandon(self, stat: Stat) -> None:
        """Delete a temporary object, or abort an upload, with s3fs."""
        await self._s3fs.abandon(stat)

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """Read as usual; if access is denied, find out whether the object is archived."""
        try:
            async with closing(super().read(path, size)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Exception as error:
            raise await self._reason(path, error) from error

    async def read_batch(self, objects: Sequence[tuple[str, int]]) -> Sequence[bytes | Exception]:
        """Read objects; the error of an archived one is an ArchivedError."""
        found = await super().read_batch(objects)
        return [
            await self._reason(path, data) if isinstance(data, Exception) else data
            for (path, _), data in zip(objects, found, strict=True)
        ]

    async def _reason(self, path: str, error: Exception) -> Exception:
        """The error, or a clearer one: obstore does not tell why access is denied."""
        if isinstance(error, PermissionDeniedError):
            stat = await self._s3fs._stat(path)
            if stat is not None and stat.archived:
                return ArchivedError(IS_ARCHIVED)
        return error

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
    patience = location.patience or PATIENCE
    retries = s3.retry_max_attempts - 1

    def connected(retries: int, *, reading: bool = False) -> AbstractFileSystem:
        # Not for uploads: obstore counts the time in which it sends the body as silence.
        silence = {"read_timeout": timedelta(seconds=patience)} if reading else {}
        return make(
            "s3",
            config=_config(location, s3),
            client_options={
                "allow_http": True,
                "pool_max_idle_per_host": str(max_concurrent_calls(parallelism)),
                "timeout": DONE_IN,
                **silence,
            },
            retry_config={
                "max_retries": retries,
                "retry_timeout": timedelta(seconds=patience / 2) if reading else DONE_IN,
            },
            credential_provider=_aws_credentials(s3),
            skip_instance_cache=True,
        )

    return ObstoreS3Filesystem(
        connected(retries),
        connected(retries, reading=True),
        connected(0),
        s3fs,
        parallelism,
        patience,
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
