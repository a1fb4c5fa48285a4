"""Deletes that compare: where a store can see a touch, and how servers are found out."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import cachefs
from cachefs.concurrency import run
from cachefs.errors import AccessError
from cachefs.filesystems import local
from cachefs.filesystems.base import Stat
from cachefs.store import Store
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

ENGINES = ["s3fs", "obstore"]
SERVERS = ["moto_s3", "seaweed_s3"]


def is_delete(request: Request) -> bool:
    return request.method == "DELETE" and request.path.endswith("blobs/one")


def opened(server: S3Server, bucket: str, engine: str) -> Store:
    return cachefs.open(server.attributes(bucket, engine=engine)).layout.store


async def written(store: Store, data: bytes = b"bytes") -> Stat:
    await store.put("blobs/one", data)
    stat = await store.stat("blobs/one")
    assert stat is not None
    return stat


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def versioned(server: S3Server) -> str:
    """A bucket that keeps versions."""
    bucket = server.bucket()
    server.client.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    return bucket


# --- disks and memory -----------------------------------------------------------------------------


def test_a_file_that_is_touched_in_the_moment_of_its_delete_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The touch is after the last look: only moving the file aside shows it."""
    store = cachefs.open(tmp_path).layout.store
    seen = run(written(store))
    look = local._stat
    looks = 0

    def touched_after_it(path: str) -> Stat | None:
        nonlocal looks
        looks += 1
        found = look(path)
        if looks == 1:
            (tmp_path / "blobs/one").touch()
        return found

    monkeypatch.setattr(local, "_stat", touched_after_it)
    assert not run(store.delete_unchanged(seen))
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["one"]
    assert (tmp_path / "blobs/one").read_bytes() == b"bytes"


def test_a_file_that_is_written_again_while_it_is_aside_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cachefs.open(tmp_path).layout.store
    seen = run(written(store))
    look = local._stat

    def written_when_it_is_aside(path: str) -> Stat | None:
        found = look(path)
        if ".cachefs-" in path:
            (tmp_path / "blobs/one").write_bytes(b"again")
            return found and found._replace(modified=0.0)
        return found

    monkeypatch.setattr(local, "_stat", written_when_it_is_aside)
    assert not run(store.delete_unchanged(seen))
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["one"]
    assert (tmp_path / "blobs/one").read_bytes() == b"again"


def test_where_files_have_no_links_a_touched_file_is_moved_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cachefs.open(tmp_path).layout.store
    seen = run(written(store))

    def refused(*_: object) -> None:
        raise PermissionError(1, "no links")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    look = local._stat

    def touched_when_aside(path: str) -> Stat | None:
        found = look(path)
        return found and (found._replace(modified=0.0) if ".cachefs-" in path else found)

    monkeypatch.setattr(local, "_stat", touched_when_aside)
    assert not run(store.delete_unchanged(seen))
    assert (tmp_path / "blobs/one").read_bytes() == b"bytes"


def test_memory_compares(tmp_path: Path) -> None:
    store = cachefs.open(f"memory://{tmp_path.name}/", fs=MemoryFileSystem()).layout.store

    async def work() -> None:
        seen = await written(store)
        await store.touch(seen)
        assert not await store.delete_unchanged(seen)
        now = await store.stat("blobs/one")
        assert now is not None
        assert await store.delete_unchanged(now)

    run(work())


# --- buckets that keep versions -------------------------------------------------------------------


def test_a_touch_in_the_moment_of_a_delete_takes_it_back(
    server: S3Server, versioned: str, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    """A touch is a new version, and the marker turns out to hide that one."""
    proxy = recording(server)
    store, past = opened(proxy.server, versioned, engine), opened(server, versioned, "s3fs")
    seen = run(written(store))
    assert seen.generation

    def touch() -> None:
        server.client.copy_object(
            Bucket=versioned,
            Key="blobs/one",
            CopySource={"Bucket": versioned, "Key": "blobs/one"},
            MetadataDirective="REPLACE",
        )

    proxy.inject(when=is_delete, act=touch)
    assert not run(store.delete_unchanged(seen))
    assert run(past.read("blobs/one", 100)) == b"bytes"
    now = run(store.stat("blobs/one"))
    assert now is not None
    assert run(store.delete_unchanged(now))
    assert run(past.stat("blobs/one")) is None


def test_what_is_written_after_the_delete_is_left_alone(
    server: S3Server, versioned: str, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy = recording(server)
    store = opened(proxy.server, versioned, engine)
    seen = run(written(store))
    proxy.inject(
        when=lambda request: "versions" in request.parameters,
        act=lambda: server.client.put_object(Bucket=versioned, Key="blobs/one", Body=b"again"),
    )
    assert not run(store.delete_unchanged(seen))
    assert run(store.read("blobs/one", 100)) == b"again"


def test_without_the_right_to_list_versions_it_is_told_once(
    moto_s3: S3Server,
    engine: str,
    recording: Callable[[S3Server], RecordingProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    bucket = moto_s3.bucket()
    moto_s3.client.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    proxy = recording(moto_s3)
    proxy.inject(
        when=lambda request: "versions" in request.parameters,
        status=403,
        code="AccessDenied",
        times=10,
    )
    store = opened(proxy.server, bucket, engine)

    async def work() -> None:
        for _ in range(2):
            assert await store.delete_unchanged(await written(store))

    with caplog.at_level(logging.WARNING):
        run(work())
    assert caplog.text.count("s3:ListBucketVersions") == 1


def test_a_marker_that_may_not_be_removed_is_an_error_that_says_so(
    moto_s3: S3Server, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    bucket = moto_s3.bucket()
    moto_s3.client.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    proxy = recording(moto_s3)
    store = opened(proxy.server, bucket, engine)
    seen = run(written(store))
    proxy.inject(
        when=is_delete,
        act=lambda: moto_s3.client.put_object(Bucket=bucket, Key="blobs/one", Body=b"bytes"),
    )
    proxy.inject(
        when=lambda request: "versionId" in request.parameters, status=403, code="AccessDenied"
    )
    with pytest.raises(AccessError, match="permit s3:DeleteObjectVersion"):
        run(store.delete_unchanged(seen))


# --- conditions of servers ------------------------------------------------------------------------


def test_a_server_that_compares_etags_leaves_other_bytes(
    server: S3Server, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy, bucket = recording(server), server.bucket()
    store = opened(proxy.server, bucket, engine)
    seen = run(written(store))
    proxy.inject(
        when=is_delete,
        act=lambda: server.client.put_object(Bucket=bucket, Key="blobs/one", Body=b"other"),
    )
    assert not run(store.delete_unchanged(seen))
    assert run(store.read("blobs/one", 100)) == b"other"
    [conditional] = [request for request in proxy.requests if is_delete(request)]
    assert "if-match" in conditional.headers
    assert "x-amz-if-match-last-modified-time" not in conditional.headers, "it is ignored here"
    assert not [key for key in server.keys(bucket) if ".cachefs-" in key]


def test_a_server_that_ignores_conditions_is_found_out_once(
    moto_s3: S3Server, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy, bucket = recording(moto_s3), moto_s3.bucket()
    proxy.drops = frozenset({"if-match"})
    store = opened(proxy.server, bucket, engine)

    async def work() -> None:
        for _ in range(3):
            assert await store.delete_unchanged(await written(store))

    run(work())
    deletes = [request for request in proxy.requests if request.method == "DELETE"]
    tried = [request for request in deletes if ".cachefs-" in request.path]
    assert ["if-match" in request.headers for request in tried] == [True, False]
    assert not any("if-match" in request.headers for request in deletes if is_delete(request))


def test_a_server_that_refuses_conditions_is_found_out(
    moto_s3: S3Server, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy, bucket = recording(moto_s3), moto_s3.bucket()
    proxy.inject(
        when=lambda request: request.method == "DELETE" and "if-match" in request.headers,
        status=501,
        code="NotImplemented",
        times=10,
    )
    store = opened(proxy.server, bucket, engine)
    assert run(store.delete_unchanged(run(written(store))))
    assert moto_s3.keys(bucket) == []


class ComparesTimes:
    """A model of S3 Express One Zone and Ceph, from their documentation, in front of moto.

    They refuse a delete whose ``x-amz-if-match-last-modified-time`` is not the object's.
    """

    def __init__(self, proxy: RecordingProxy, server: S3Server) -> None:
        self._server = server
        proxy.inject(when=self._differs, status=412, code="PreconditionFailed", times=1_000_000)

    def _differs(self, request: Request) -> bool:
        wanted = request.headers.get("x-amz-if-match-last-modified-time")
        if request.method != "DELETE" or wanted is None:
            return False
        bucket, _, key = request.path.lstrip("/").partition("/")
        try:
            head = self._server.client.head_object(Bucket=bucket, Key=key)
        except self._server.client.exceptions.ClientError:
            return False
        there: dt.datetime = head["LastModified"]
        return email.utils.parsedate_to_datetime(wanted) != there


def test_a_server_that_compares_times_notices_a_touch(
    moto_s3: S3Server, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy, bucket = recording(moto_s3), moto_s3.bucket()
    ComparesTimes(proxy, moto_s3)
    store = opened(proxy.server, bucket, engine)

    async def work() -> None:
        seen = await written(store)
        await asyncio.sleep(1.1)
        await store.touch(seen)
        assert not await store.delete_unchanged(seen)
        now = await store.stat("blobs/one")
        assert now is not None
        assert await store.delete_unchanged(now)

    run(work())
    assert moto_s3.keys(bucket) == []


def test_concurrent_deletes_try_a_server_once(
    moto_s3: S3Server, engine: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy, bucket = recording(moto_s3), moto_s3.bucket()
    store = opened(proxy.server, bucket, engine)

    async def work() -> None:
        for number in range(8):
            await store.put(f"blobs/{number}", b"bytes")
        stats = await store.list("blobs/")
        assert all(await asyncio.gather(*(store.delete_unchanged(stat) for stat in stats)))

    run(work())
    assert proxy.count("PUT", lambda request: ".cachefs-" in request.path) == 1
    assert moto_s3.keys(bucket) == []
