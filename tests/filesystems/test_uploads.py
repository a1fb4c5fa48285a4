"""Uploads in parts to S3: empty ones, failed ones, cancelled ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from cachefs.concurrency import run
from cachefs.errors import IntegrityError, StoreError
from cachefs.filesystems.base import CHUNK_SIZE
from cachefs.filesystems.connecting import connect
from cachefs.filesystems.obstore.filesystem import SENDING
from cachefs.filesystems.obstore.s3 import DONE_IN
from cachefs.filesystems.s3.options import ANSWERED_IN
from cachefs.location.parsing import parse
from cachefs.store import Store
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


def opened(server: S3Server, bucket: str, engine: str, **attributes: str) -> Store:
    return Store(*connect(parse(server.attributes(bucket, engine=engine, **attributes))))


async def parts(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number]) * CHUNK_SIZE


async def failing_after_a_part() -> AsyncIterator[bytes]:
    yield b"x" * CHUNK_SIZE
    raise IntegrityError("the source's own words")


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.parameters


@pytest.fixture(params=["moto_s3", "seaweed_s3"])
def server(request: pytest.FixtureRequest) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    return server


@ENGINES
def test_a_blob_of_unknown_size_may_be_empty(server: S3Server, engine: str) -> None:
    store = opened(server, server.bucket(), engine)
    assert run(store.upload("blobs/empty", parts(0), None)) == 0
    assert run(store.read("blobs/empty", 10)) == b""


def test_failed_uploads_leave_later_ones_as_quick_as_before(
    recording: Recording, moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    store = opened(proxy.server, moto_s3.bucket(), "s3fs")
    for _ in range(8):
        with pytest.raises(IntegrityError, match="the source's own words"):
            run(store.upload("blobs/one", failing_after_a_part(), None))
    proxy.clear()
    proxy.inject(times=6, when=is_part, delay=0.3)
    assert run(store.upload("blobs/one", parts(6), None)) == 6 * CHUNK_SIZE
    assert proxy.most_at_once == 4


@ENGINES
def test_as_many_blobs_are_under_way_as_are_asked_for(
    recording: Recording, moto_s3: S3Server, engine: str
) -> None:
    proxy = recording(moto_s3)
    store = opened(proxy.server, moto_s3.bucket(), engine, upload_parallelism="70")
    proxy.inject(times=70, when=lambda request: request.method == "PUT", delay=2)
    run(store.put_batch([(f"blobs/{number}", b"one") for number in range(70)]))
    assert proxy.most_at_once == 70


def test_what_went_wrong_first_comes_out(recording: Recording, moto_s3: S3Server) -> None:
    proxy = recording(moto_s3)
    store = opened(proxy.server, moto_s3.bucket(), "s3fs")
    proxy.inject(times=9, when=lambda r: r.method == "DELETE", status=500)
    with pytest.raises(IntegrityError, match="the source's own words"):
        run(store.upload("blobs/one", failing_after_a_part(), None))


@ENGINES
def test_a_part_that_is_refused_ends_the_upload(
    recording: Recording, seaweed_s3: S3Server, engine: str
) -> None:
    bucket = seaweed_s3.bucket()
    proxy = recording(seaweed_s3)
    store = opened(proxy.server, bucket, engine)
    proxy.inject(times=99, when=is_part, status=400, code="InvalidRequest")
    with pytest.raises(StoreError) as raised:
        run(store.upload("blobs/one", parts(6), None))
    assert (raised.value.operation, raised.value.key) == ("upload", f"{bucket}/blobs/one")
    assert unfinished(seaweed_s3, bucket) == []
    assert seaweed_s3.keys(bucket) == []


@ENGINES
def test_a_cancelled_upload_leaves_nothing(server: S3Server, engine: str) -> None:
    bucket = server.bucket()
    store = opened(server, bucket, engine)

    async def endless(begun: asyncio.Event) -> AsyncIterator[bytes]:
        async for part in parts(3):
            yield part
        begun.set()
        await asyncio.sleep(60)

    async def work() -> None:
        begun = asyncio.Event()
        upload = asyncio.create_task(store.upload("blobs/one", endless(begun), None))
        await begun.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload

    run(asyncio.wait_for(work(), 60))
    assert server.keys(bucket) == []
    assert unfinished(server, bucket) == []


def unfinished(server: S3Server, bucket: str) -> list[str]:
    answer = server.client.list_multipart_uploads(Bucket=bucket)
    return [upload["Key"] for upload in answer.get("Uploads", ())]


@pytest.mark.parametrize(
    ("engine", "limit", "a_second"),
    [
        ("s3fs", "s3.options.ANSWERED_IN", 1),
        ("obstore", "obstore.s3.DONE_IN", timedelta(seconds=1)),
    ],
)
def test_a_slow_answer_is_waited_for_as_long_as_ours_say(
    recording: Recording,
    moto_s3: S3Server,
    engine: str,
    limit: str,
    a_second: int | timedelta,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not as long as the libraries would: they give up a blob that a slow line could carry."""
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    patient = opened(proxy.server, bucket, engine, retry_max_attempts="1")
    monkeypatch.setattr(f"cachefs.filesystems.{limit}", a_second)
    impatient = opened(proxy.server, bucket, engine, retry_max_attempts="1")
    proxy.inject(times=2, when=lambda request: request.method == "PUT", delay=2)
    with pytest.raises(StoreError):
        run(impatient.put("blobs/one", b"one"))
    run(patient.put("blobs/one", b"one"))
    assert proxy.count("PUT") == 2


def test_a_slow_line_has_time_for_all_parts_in_flight() -> None:
    """For 2 Mbit/s by obstore; s3fs counts from when the kernel has taken the last bytes."""
    bytes_a_second = SENDING * CHUNK_SIZE / DONE_IN.total_seconds()
    assert bytes_a_second * 8 < 2e6
    assert ANSWERED_IN >= 60
