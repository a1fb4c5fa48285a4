"""A prefix that begins with a slash, which builders accept: their keys on S3 begin with one."""

from __future__ import annotations

from pathlib import Path

import pytest

import cachefs
from tests.servers.s3 import S3Server


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_cache_of_a_builder_below_a_slash_is_read_and_written(
    engine: str, moto_s3: S3Server, recorded: Path
) -> None:
    bucket = moto_s3.bucket()
    source = recorded / "s3" / "max"
    for path in source.rglob("*"):
        if path.is_file():
            key = f"/ci/{path.relative_to(source).as_posix()}"
            moto_s3.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    written = moto_s3.keys(bucket)
    cache = cachefs.open(moto_s3.attributes(bucket, prefix="/ci/", engine=engine))
    assert [name.name for name in cache.names()] == ["app", "app-v2"]
    assert cache.verify(read_data=1).faults == []
    cachefs.copy(source, moto_s3.attributes(bucket, prefix="/ci/"))
    cache.prune(grace=0)
    assert moto_s3.keys(bucket) == written


@pytest.mark.parametrize("prefix", ["//ci/", "/../ci/", "ci//", "/ci//x"])
def test_other_prefixes_that_stores_change_stay_refused(prefix: str) -> None:
    with pytest.raises(cachefs.LocationError):
        cachefs.open(f"type=s3,bucket=b,region=r,prefix={prefix}")


def test_a_server_that_drops_the_slash_is_noticed(seaweed_s3: S3Server, recorded: Path) -> None:
    bucket = seaweed_s3.bucket()
    cachefs.copy(recorded / "s3" / "max", seaweed_s3.attributes(bucket, prefix="ci/"))
    cache = cachefs.open(seaweed_s3.attributes(bucket, prefix="/ci/", engine="s3fs"))
    with pytest.raises(cachefs.StoreError, match="one without a slash at its beginning"):
        cache.names()
