"""What is sent: how many requests each operation takes, and nothing superfluous in them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import cachefs
from cachefs.filesystems.s3.session import session
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]
Source = dict[str, bytes | Path | str]

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


def blobs_of(count: int, size: int = 64, first: int = 0) -> dict[str, bytes]:
    datas = [f"{number:08}".encode() * (size // 8) for number in range(first, first + count)]
    return {cachefs.Digest.of(data): data for data in datas}


def graph_of(blobs: dict[str, bytes]) -> cachefs.RecordGraph:
    graph = cachefs.RecordGraph()
    for digest, data in blobs.items():
        graph.add_result(graph.add(digest), graph.add_layer(digest, size=len(data)))
    return graph


def export(cache: cachefs.Cache, blobs: dict[str, bytes]) -> cachefs.ExportReport:
    return cache.export(graph_of(blobs), blobs, mode="max")


def is_list(request: Request) -> bool:
    return request.method == "GET" and "list-type" in request.parameters


def kinds(proxy: RecordingProxy) -> dict[str, int]:
    """How often each kind of request was made."""
    found: dict[str, int] = {}
    for request in proxy.requests:
        kind = request.method
        if is_list(request):
            kind = "LIST"
        elif "x-amz-copy-source" in request.headers:
            kind = "COPY"
        found[kind] = found.get(kind, 0) + 1
    return found


@pytest.fixture
def proxy(recording: Recording, moto_s3: S3Server) -> RecordingProxy:
    return recording(moto_s3)


def opened(
    proxy: RecordingProxy, moto_s3: S3Server, engine: str, **attributes: str
) -> cachefs.Cache:
    location = proxy.server.attributes(moto_s3.bucket(), engine=engine, **attributes)
    return cachefs.open(location)


@ENGINES
def test_few_blobs_are_looked_up_sent_once_and_named(
    proxy: RecordingProxy, moto_s3: S3Server, engine: str
) -> None:
    cache = opened(proxy, moto_s3, engine)
    assert export(cache, blobs_of(10)).uploaded.blobs == 10
    assert kinds(proxy) == {"HEAD": 10, "PUT": 11}


@ENGINES
def test_many_blobs_are_asked_for_with_one_listing(
    proxy: RecordingProxy, moto_s3: S3Server, engine: str
) -> None:
    cache = opened(proxy, moto_s3, engine)
    export(cache, blobs_of(100))
    assert kinds(proxy) == {"LIST": 1, "PUT": 101}
    proxy.clear()
    # Nothing was sent since the first look-up, so it is also the last one.
    assert export(cache, blobs_of(100)).kept.blobs == 100
    assert kinds(proxy) == {"LIST": 1, "PUT": 1}
    proxy.clear()
    assert export(cache, blobs_of(101)).kept.blobs == 100
    assert kinds(proxy) == {"LIST": 2, "PUT": 2}


@ENGINES
def test_each_old_blob_is_copied_onto_itself_once(
    proxy: RecordingProxy, moto_s3: S3Server, engine: str
) -> None:
    cache = opened(proxy, moto_s3, engine, touch_refresh="0s")
    export(cache, blobs_of(40))
    proxy.clear()
    assert export(cache, blobs_of(40)).touched.blobs == 40
    assert kinds(proxy) == {"LIST": 2, "COPY": 40, "PUT": 1}
    copies = [request for request in proxy.requests if "x-amz-copy-source" in request.headers]
    # AWS refuses a header of its own kind that is not signed.
    assert all("x-amz-metadata-directive" in r.headers["authorization"] for r in copies)
    assert {r.headers["x-amz-metadata-directive"] for r in copies} == {"REPLACE"}


@ENGINES
def test_a_small_blob_takes_one_request_to_fetch(
    proxy: RecordingProxy, moto_s3: S3Server, engine: str, tmp_path: Path
) -> None:
    cache = opened(proxy, moto_s3, engine)
    export(cache, blobs_of(40))
    proxy.clear()
    report = cachefs.copy(cache, tmp_path / "mirror")
    assert report.uploaded == cachefs.Amount(40, 40 * 64)
    # One listing for the names; then the manifest, and each blob once.
    assert kinds(proxy) == {"LIST": 1, "GET": 41}


@ENGINES
def test_no_request_says_more_than_it_must(
    proxy: RecordingProxy, moto_s3: S3Server, engine: str
) -> None:
    export(opened(proxy, moto_s3, engine), blobs_of(3, size=16 * 1024))
    puts = [r for r in proxy.requests if r.method == "PUT" and "/blobs/" in r.path]
    assert len(puts) == 3
    for put in puts:
        assert "expect" not in put.headers  # a round trip before the body
        assert "x-amz-sdk-checksum-algorithm" not in put.headers
        assert "x-amz-trailer" not in put.headers
        # The hash that is known: a server compares it with what it receives.
        assert put.headers["x-amz-content-sha256"] == put.path[-64:]
        assert len(put.headers["user-agent"]) < 40


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-23T21:14:13.000Z", datetime(2026, 11, 23, 21, 14, 13, tzinfo=UTC)),
        ("2026-11-23T21:14:13.123456789Z", datetime(2026, 11, 23, 21, 14, 13, 123456, tzinfo=UTC)),
        ("2026-11-23T22:14:13+01:00", datetime(2026, 11, 23, 21, 14, 13, tzinfo=UTC)),
        ("Mon, 23 Nov 2026 21:14:13 GMT", datetime(2026, 11, 23, 21, 14, 13, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_botocore_reads_them(text: str | int, time: datetime) -> None:
    factory = session().get_component("response_parser_factory")
    parser = factory.create_parser("rest-xml")
    assert parser._timestamp_parser(text) == time
