"""S3 through obstore, for ``engine=obstore``, with credentials found as s3fs finds them."""

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
from cachefs.filesystems.base import Filesystem
from cachefs.filesystems.failures import elsewhere
from cachefs.filesystems.obstore import ObstoreFilesystem
from cachefs.filesystems.s3 import COPY_LIMIT, S3Filesystem
from cachefs.filesystems.s3_options import virtual_hosted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsspec import AbstractFileSystem

    from cachefs.filesystems.base import Stat
    from cachefs.location.options import Location, S3Options

_RENEWING: Final = "header: x-amz-metadata-directive: REPLACE"
"""A header for "copy if not exists": what lets S3 copy an object onto itself.

obstore's own copy cannot ask for new metadata, without which S3 refuses. This kind of copy is a
usual one with a header of our choice, signed with the others.
"""


class ObstoreS3Filesystem(ObstoreFilesystem):
    """A bucket through obstore, which we have connected ourselves.

    Args:
        fs: an ``obstore.fsspec.FsspecStore``.
        asking_once: another that repeats no request.
        s3fs: connects to the same bucket by s3fs, for the few requests that obstore does not know.
        parallelism: how many objects are written at a time.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        asking_once: AbstractFileSystem,
        s3fs: Callable[[], S3Filesystem],
        parallelism: int = 4,
    ) -> None:
        super().__init__(fs, parallelism)
        self._region = fs._config["region"]
        self._asking_once = ObstoreFilesystem(asking_once)
        self._connect_s3fs = s3fs

    @cached_property
    def _s3fs(self) -> S3Filesystem:
        return self._connect_s3fs()

    async def explain(self, path: str) -> None:
        """Ask through s3fs, whose errors have the server's code; obstore's have only a text."""
        region = await self._s3fs.bucket_region(path)
        if region not in (None, self._region):
            raise StoreError(elsewhere(region))

    async def _touch(self, stat: Stat) -> None:
        """Copy the object onto itself; in parts, which obstore cannot, above 5 GiB."""
        if stat.size > COPY_LIMIT:
            await self._s3fs._touch(stat)
        else:
            await super()._touch(stat)

    async def touch_batch(self, stats: Sequence[Stat]) -> Sequence[FileNotFoundError | None]:
        """Renew the time of each: one by one where threads cannot."""
        if any(stat.size > COPY_LIMIT for stat in stats):
            return await Filesystem.touch_batch(self, stats)
        return await super().touch_batch(stats)

    def _touch_sync(self, stat: Stat) -> None:
        """One COPY."""
        store, _, key = self._open(stat.path)
        store.copy(key, key, overwrite=False)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """One DELETE, and where something might have changed meanwhile it is never repeated."""
        if unless_changed is not None:
            return await self._asking_once.delete(path)
        return await super().delete(path)


DONE_IN: Final = timedelta(minutes=10)
"""The time for a request from its beginning to the end of its answer, and for repeating it.

obstore has no other limit for a body that is being sent, and its own half a minute is too short:
16 parts of 8 MiB at a time ask for 36 Mbit/s then, and for 2 Mbit/s now. S3 takes a request
for a quarter of an hour after it was signed.
"""


def connect_obstore(
    location: Location, s3: S3Options, s3fs: Callable[[], S3Filesystem]
) -> ObstoreS3Filesystem:
    """The location's bucket through obstore; ``s3fs`` connects to it too, when it is called."""
    make: Any = FsspecStore  # its overloads leave out fsspec's own options
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
        # obstore wants the bucket in an endpoint that is asked in the virtual-hosted style.
        host = f"{bucket}.{endpoint.netloc}" if virtual else endpoint.netloc
        config["endpoint"] = f"{endpoint.scheme}://{host}{endpoint.path}"
    return config


def _aws_credentials(s3: S3Options) -> Callable[[], dict[str, Any]]:
    """What obstore calls for credentials, and again when they are about to expire.

    The explicit ones, else botocore's chain: environment, shared files and AWS_PROFILE, role.
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
