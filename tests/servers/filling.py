"""Many objects at once in the moto server of this process, without a request for each."""

from __future__ import annotations

from collections.abc import Iterable

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends


def fill(bucket: str, objects: Iterable[tuple[str, bytes]]) -> None:
    """Put the objects, by key, into a bucket of the fixture ``moto_s3``."""
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for key, data in objects:
        backend.put_object(bucket, key, data)
