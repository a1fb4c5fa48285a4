"""Round trips: how many requests wait for one another, and what happens if a server refuses some.

Behind a line, the time of small work is the round trip times the depth: the longest chain of
requests of which each begins after the one before it has ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.filesystems.level import START
from tests.running.in_place import run
from tests.servers.filling import fill
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.whole.test_lean_requests import blobs_of, export, graph_of

Recording = Callable[[S3Server], RecordingProxy]

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])

LINE = 0.2
"""Seconds that each request takes: so long that requests sent side by side overlap."""


@pytest.fixture
def proxy(recording: Recording, moto_s3: S3Server) -> RecordingProxy:
    return recording(moto_s3)


def opened(proxy: RecordingProxy, engine: str, **attributes: str) -> cachefs.Cache:
    return cachefs.open(proxy.server.attributes(proxy.server.bucket(), engine=engine, **attributes))


def begin_to_count(proxy: RecordingProxy) -> None:
    proxy.clear()
    proxy.inject(times=1_000_000, delay=LINE)


@ENGINES
@pytest.mark.parametrize("count", [1, 20, 100])
def test_nothing_changed_takes_two_round_trips(
    proxy: RecordingProxy, engine: str, count: int
) -> None:
    cache = opened(proxy, engine)
    export(cache, blobs_of(count))
    begin_to_count(proxy)
    assert export(cache, blobs_of(count)).kept.blobs == count
    assert proxy.depth == 2


@pytest.mark.parametrize("engine", [pytest.param("s3fs", marks=pytest.mark.slow), "obstore"])
def test_nothing_changed_in_a_large_store_takes_three(proxy: RecordingProxy, engine: str) -> None:
    bucket, blobs = proxy.server.bucket(), blobs_of(1200)
    fill(bucket, ((f"blobs/{digest}", data) for digest, data in blobs.items()))
    cache = cachefs.open(proxy.server.attributes(bucket, engine=engine))
    assert export(cache, blobs).kept.blobs == 1200
    begin_to_count(proxy)
    assert export(cache, blobs).kept.blobs == 1200
    assert proxy.depth <= 3


@ENGINES
def test_a_hit_of_one_layer_takes_two_round_trips(
    proxy: RecordingProxy, engine: str, tmp_path: Path
) -> None:
    cache = opened(proxy, engine)
    blobs = blobs_of(1)
    (digest,) = blobs
    export(cache, blobs)
    begin_to_count(proxy)
    graph = cachefs.open(cache.location).load()
    assert graph
    result = cache.result(graph.find(digest))
    assert result
    assert result.pull(tmp_path)
    assert proxy.depth == 2


@ENGINES
def test_a_hit_of_a_step_takes_three_round_trips(
    proxy: RecordingProxy, engine: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    where = proxy.server.attributes(proxy.server.bucket(), engine=engine)
    assert run(place, "echo said; echo made > out", "out", cache=where).outcome == "ran"
    (place / "out").unlink()
    begin_to_count(proxy)
    assert run(place, "echo said; echo made > out", "out", cache=where).outcome == "hit"
    assert proxy.depth == 3


@ENGINES
def test_small_blobs_are_sent_and_fetched_many_at_a_time(
    proxy: RecordingProxy, engine: str, tmp_path: Path
) -> None:
    cache = opened(proxy, engine)
    begin_to_count(proxy)
    export(cache, blobs_of(60))
    assert proxy.most_at_once >= START
    proxy.clear()
    assert cachefs.copy(cache, tmp_path / "mirror").uploaded.blobs == 60
    assert proxy.most_at_once >= START


@ENGINES
def test_a_number_that_is_given_bounds_uploads(proxy: RecordingProxy, engine: str) -> None:
    cache = opened(proxy, engine, upload_parallelism="3")
    blobs = blobs_of(60) | blobs_of(6, size=256 * 1024, first=100)
    proxy.inject(times=1_000_000, delay=0.02)
    assert cache.export(graph_of(blobs), blobs, mode="max").uploaded.blobs == 66
    assert proxy.most_at_once == 3


@ENGINES
def test_a_server_that_refuses_every_third_request_fails_nothing(
    proxy: RecordingProxy, engine: str, tmp_path: Path
) -> None:
    numbers = random.Random(engine)  # noqa: S311 - not for secrets
    cache = opened(proxy, engine, touch_refresh="0s")
    blobs = blobs_of(150) | blobs_of(1, size=20 * 1024 * 1024, first=1000)
    proxy.inject(
        times=1_000_000, when=lambda _: numbers.random() < 0.3, status=503, code="SlowDown"
    )
    assert export(cache, blobs).uploaded.blobs == 151
    assert export(cache, blobs).touched.blobs == 151
    assert cachefs.copy(cache, tmp_path / "mirror").uploaded.blobs == 151
    assert cache.names()


@ENGINES
def test_a_given_number_of_attempts_is_kept(proxy: RecordingProxy, engine: str) -> None:
    cache = opened(proxy, engine, retry_max_attempts="2")
    proxy.inject(times=1_000_000, status=503, code="SlowDown")
    with pytest.raises(cachefs.StoreError, match="throttles requests"):
        export(cache, blobs_of(100))
    # Two to look up, and one to find out why that was refused.
    assert len(proxy.requests) <= 2 + 2


@ENGINES
def test_a_refused_blob_with_a_status_in_its_key_is_not_taken_for_an_empty_one(
    proxy: RecordingProxy, engine: str
) -> None:
    blobs = {digest: data for digest, data in blobs_of(100).items() if "416" in digest}
    (digest, *_) = blobs
    cache = opened(proxy, engine)
    export(cache, blobs)
    proxy.inject(times=1_000_000, status=403, code="AccessDenied")
    missed = cache.read_blob(digest, size=64)
    assert "access is denied" in str(missed)
