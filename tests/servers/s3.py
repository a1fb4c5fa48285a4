"""The address and the credentials of an S3 server."""

from __future__ import annotations

import dataclasses
import functools
import uuid
from typing import Any

import boto3
from botocore.config import Config


@dataclasses.dataclass(frozen=True)
class S3Server:
    """A running S3 server, with credentials that allow everything."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"
    metrics_url: str | None = None
    """The URL of its metrics in Prometheus's format, if it has some."""

    @functools.cached_property
    def client(self) -> Any:
        """A boto3 client, to inspect the server without the code under test. It does not retry."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            config=Config(
                connect_timeout=5,
                proxies={},
                retries={"total_max_attempts": 1, "mode": "standard"},
                s3={"addressing_style": "path"},
            ),
        )

    @property
    def storage_options(self) -> dict[str, Any]:
        """The keywords that s3fs takes; a fresh dictionary each time."""
        return {
            "key": self.access_key_id,
            "secret": self.secret_access_key,
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": self.region},
            "config_kwargs": {"s3": {"addressing_style": "path"}},
            "use_listings_cache": False,
        }

    def attributes(self, bucket: str, **more: str) -> str:
        """A location as builders write it; ``more`` adds attributes or replaces those from here."""
        pairs = {
            "type": "s3",
            "bucket": bucket,
            "region": self.region,
            "endpoint_url": self.endpoint_url,
            "use_path_style": "true",
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            **more,
        }
        return ",".join(f"{name}={value}" for name, value in pairs.items())

    def bucket(self) -> str:
        """Make a new, empty bucket and return its name."""
        name = f"test-{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys of the bucket that begin with the prefix, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))
