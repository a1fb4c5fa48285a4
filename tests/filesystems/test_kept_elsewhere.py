"""What S3 keeps where it cannot be read or is not seen: archives, versions, unfinished uploads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import cachefs
from cachefs.errors import ArchivedError
from tests.programs import run as run_program
from tests.servers.s3 import S3Server

ENGINES = ["s3fs", "obstore"]


@dataclass
class Filled:
    server: S3Server
    bucket: str
    location: str

    def archive(self, key: str, tier: str = "GLACIER") -> None:
        body = self.server.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        self.server.client.put_object(Bucket=self.bucket, Key=key, Body=body, StorageClass=tier)


@pytest.fixture(params=ENGINES)
def filled(request: pytest.FixtureRequest, moto_s3: S3Server, recorded: Path) -> Filled:
    bucket = moto_s3.bucket()
    location = moto_s3.attributes(bucket, engine=request.param)
    cachefs.copy(recorded / "s3" / "max", location)
    return Filled(moto_s3, bucket, location)


def test_archived_blobs_are_told_and_sent_again(filled: Filled, recorded: Path) -> None:
    first, second = filled.server.keys(filled.bucket, "blobs/")[:2]
    filled.archive(first)
    filled.archive(second, "DEEP_ARCHIVE")
    cache = cachefs.open(filled.location)
    for share, read in ((0.0, 0), (1.0, 9)):
        report = cache.verify(read_data=share)
        assert [(fault.kind, fault.key) for fault in report.faults] == [
            ("archived", f"{filled.bucket}/{first}"),
            ("archived", f"{filled.bucket}/{second}"),
        ]
        assert report.read.blobs == read
    assert not cache.read_blob(first.removeprefix("blobs/"))
    assert "archived" in str(cache.misses[-1])

    again = cachefs.copy(recorded / "s3" / "max", f"{filled.location},touch_refresh=0s")
    assert (again.uploaded.blobs, again.touched.blobs) == (2, 9)
    assert not cache.verify(read_data=1.0).faults


def test_an_archived_manifest_is_unreadable_and_the_others_are_verified(filled: Filled) -> None:
    filled.archive("manifests/app")
    cache = cachefs.open(filled.location)
    (fault,) = cache.verify().faults
    assert (fault.kind, fault.names) == ("manifest", ["app"])
    assert "archived" in fault.reason
    assert not cache.load("app").records
    with pytest.raises(ArchivedError, match="restore it"):
        cache.manifest("app")


def test_a_bucket_that_keeps_versions(filled: Filled) -> None:
    assert not cachefs.open(filled.location).plan_prune().versioned
    filled.server.client.put_bucket_versioning(
        Bucket=filled.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    plan = cachefs.open(filled.location).plan_prune()
    assert plan.versioned
    assert plan.execute().versioned
    ended = run_program("prune", filled.location, "--dry-run")
    assert "NoncurrentVersionExpiration" in ended.err


def test_uploads_that_killed_exports_left(filled: Filled) -> None:
    client = filled.server.client
    client.create_multipart_upload(Bucket=filled.bucket, Key="blobs/sha256:" + "1" * 64)
    plan = cachefs.open(filled.location).plan_prune(grace=0)
    assert [leftover.key for leftover in plan.leftovers] == ["blobs/sha256:" + "1" * 64]
    assert plan.execute().leftovers == 1
    assert "Uploads" not in client.list_multipart_uploads(Bucket=filled.bucket)
