"""The client of s3fs, and how its server is reached."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from cachefs.filesystems.base import (
    Filesystem,
)
from cachefs.filesystems.s3.checksums import (
    is_amazon,
    is_plain,
)


class S3Calls(Filesystem):
    """An ``s3fs.S3FileSystem`` whose client sends requests."""

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        bucket, _, key = path.partition("/")
        answer: dict[str, Any] = await self.fs._call_s3(method, Bucket=bucket, Key=key, **arguments)
        return answer

    async def _endpoint(self) -> str:
        client = await self.fs.set_session()
        endpoint: str = client.meta.endpoint_url
        return endpoint

    async def _takes_checksums(self) -> bool:
        endpoint = await self._endpoint()
        return is_plain(endpoint) or is_amazon(endpoint)

    @cached_property
    def _without_retries(self) -> Any:
        """The same filesystem with a client that does not retry."""
        options = dict(self.fs.storage_options)
        config = dict(options.get("config_kwargs") or {})
        config["retries"] = {"total_max_attempts": 1}
        fs = type(self.fs)(**options | {"config_kwargs": config, "skip_instance_cache": True})
        fs.retries = 1
        return fs
