"""The one write path: what is sent, touched and kept, and what a failure leaves."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.callbacks import Callback

import cachefs
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]


def built(*contents: bytes) -> tuple[cachefs.RecordGraph, dict[str, bytes | Path | str]]:
    """A graph with one step for each content, and the blobs."""
    graph = cachefs.RecordGraph()
    blobs: dict[str, bytes | Path | str] = {}
    for content in contents:
        digest = cachefs.Digest.of(content)
        layer = graph.add_layer(digest, size=len(content), created_at="2026-01-01T00:00:00Z")
        graph.add_result(graph.add(digest), layer, "2026-01-01T00:00:00Z")
        blobs[digest] = content
    return graph, blobs


def blob_path(folder: Path, content: bytes) -> Path:
    return folder / "blobs" / cachefs.Digest.of(content)


def counts(report: cachefs.ExportReport) -> tuple[int, int, int]:
    return report.uploaded.blobs, report.touched.blobs, report.kept.blobs


def test_what_is_fresh_is_kept_and_what_is_old_is_touched(tmp_path: Path) -> None:
    graph, blobs = built(b"one", b"two", b"three")
    cache = cachefs.open(tmp_path, touch_refresh="1h")
    assert counts(cache.export(graph, blobs)) == (3, 0, 0)
    assert counts(cache.export(graph, blobs)) == (0, 0, 3)
    old = blob_path(tmp_path, b"one")
    os.utime(old, (time.time() - 3700,) * 2)
    assert counts(cache.export(graph, {})) == (0, 1, 2)
    assert time.time() - old.stat().st_mtime < 60
    assert old.read_bytes() == b"one"
    assert counts(cachefs.open(tmp_path, touch_refresh="0s").export(graph, {})) == (0, 3, 0)


def test_a_blob_from_the_future_is_touched(tmp_path: Path) -> None:
    graph, blobs = built(b"one")
    cache = cachefs.open(tmp_path)
    cache.export(graph, blobs)
    os.utime(blob_path(tmp_path, b"one"), (time.time() + 86_400,) * 2)
    assert counts(cache.export(graph, {})) == (0, 1, 0)


def test_a_blob_of_the_wrong_size_is_sent_again(tmp_path: Path) -> None:
    graph, blobs = built(b"one", b"two")
    cache = cachefs.open(tmp_path)
    cache.export(graph, blobs)
    blob_path(tmp_path, b"one").write_bytes(b"on")
    assert counts(cache.export(graph, blobs)) == (1, 0, 1)
    assert blob_path(tmp_path, b"one").read_bytes() == b"one"


def test_blobs_come_from_bytes_paths_and_other_caches(tmp_path: Path) -> None:
    graph, _ = built(b"bytes", b"path", b"elsewhere")
    file = tmp_path / "file"
    file.write_bytes(b"path")
    other = cachefs.open(tmp_path / "other")
    other.export(*built(b"elsewhere"))
    cache = cachefs.open(tmp_path / "cache")
    here = cachefs.open(tmp_path / "here")
    here.export(
        built(b"bytes", b"path")[0],
        {cachefs.Digest.of(b"bytes"): b"bytes", cachefs.Digest.of(b"path"): file},
    )
    assert counts(cache.export(graph, [here, other], mode="max")) == (3, 0, 0)
    for content in (b"bytes", b"path", b"elsewhere"):
        assert cache.read_blob(cachefs.Digest.of(content)) == content


def test_several_names_and_the_same_bytes_twice(tmp_path: Path) -> None:
    graph, blobs = built(b"one", b"two")
    cache = cachefs.open(tmp_path, name="main;team/app")
    report = cache.export(graph, blobs)
    assert report.names == ["main", "team/app"]
    first = (tmp_path / "manifests" / "main").read_bytes()
    assert (tmp_path / "manifests" / "team" / "app").read_bytes() == first
    cache.export(graph, blobs)
    assert (tmp_path / "manifests" / "main").read_bytes() == first
    assert [name.name for name in cache.names()] == ["main", "team/app"]


def test_mode_min_sends_only_the_final_layers(tmp_path: Path) -> None:
    graph = cachefs.RecordGraph()
    below = graph.add(cachefs.Digest.of(b"below"))
    graph.add_result(below, graph.add_layer(cachefs.Digest.of(b"below"), size=5))
    final = graph.add(cachefs.Digest.of(b"final"), [[cachefs.Key(below)]])
    graph.add_result(final, graph.add_layer(cachefs.Digest.of(b"final"), size=5))
    blobs: dict[str, bytes] = {cachefs.Digest.of(c): c for c in (b"below", b"final")}
    assert counts(cachefs.open(tmp_path / "min").export(graph, blobs)) == (1, 0, 0)
    assert counts(cachefs.open(tmp_path / "max", mode="max").export(graph, blobs)) == (2, 0, 0)
    assert len(cachefs.open(tmp_path / "min").load().records) == 2


def test_a_source_without_the_blob_leaves_the_name_as_it_was(tmp_path: Path) -> None:
    cache = cachefs.open(tmp_path)
    cache.export(*built(b"one"))
    before = (tmp_path / "manifests" / "buildkit").read_bytes()
    graph, blobs = built(b"two", b"three")
    del blobs[cachefs.Digest.of(b"three")]
    with pytest.raises(cachefs.NotFoundError, match="no source has this blob"):
        cache.export(graph, blobs, mode="max")
    assert (tmp_path / "manifests" / "buildkit").read_bytes() == before


@pytest.mark.parametrize("wrong", [b"onE", b"on", b"onee"])
def test_bytes_that_are_not_the_blobs_never_become_visible(tmp_path: Path, wrong: bytes) -> None:
    graph, _ = built(b"one")
    digest = cachefs.Digest.of(b"one")
    with pytest.raises(cachefs.IntegrityError) as raised:
        cachefs.open(tmp_path).export(graph, {digest: wrong})
    assert raised.value.digest == digest
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_ignore_error_makes_a_failure_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph, _ = built(b"one")
    report = cachefs.open(tmp_path, ignore_error=True).export(graph, {})
    assert report.names == []
    assert report.error is not None
    assert "no source has this blob" in report.error
    assert "is ignored" in caplog.text


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    graph, blobs = built(b"x" * 1000, b"y" * 234)
    callback = Callback()
    cachefs.open(tmp_path).export(graph, blobs, mode="max", callback=callback)
    assert (callback.size, callback.value) == (1234, 1234)


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_manifests_go_last_and_uploads_are_bounded(
    engine: str, recording: Recording, moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    contents = [str(number).encode() for number in range(40)]
    cache = cachefs.open(
        proxy.server.attributes(bucket, engine=engine, upload_parallelism="3", mode="max")
    )
    cache.names()
    proxy.clear()
    cache.export(*built(*contents))
    puts = [request.path for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 41
    assert puts[-1] == f"/{bucket}/manifests/buildkit"
    assert 2 <= proxy.most_at_once <= 3


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_nothing_changed_takes_a_listing_and_the_manifest(
    engine: str, recording: Recording, moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    graph, blobs = built(*(str(number).encode() for number in range(60)))
    location = proxy.server.attributes(moto_s3.bucket(), engine=engine, mode="max")
    cache = cachefs.open(location)
    cache.export(graph, blobs)
    proxy.clear()
    assert counts(cache.export(graph, {})) == (0, 0, 60)
    assert sorted(request.method for request in proxy.requests) == ["GET", "PUT"]


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_touch_sends_no_bytes(engine: str, recording: Recording, moto_s3: S3Server) -> None:
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    graph, blobs = built(b"x" * 5000, b"y" * 5000)
    cache = cachefs.open(
        proxy.server.attributes(bucket, engine=engine, mode="max", touch_refresh="0s")
    )
    cache.export(graph, blobs)
    proxy.clear()
    assert counts(cache.export(graph, {})) == (0, 2, 0)
    copies = [r for r in proxy.requests if r.method == "PUT" and "x-amz-copy-source" in r.headers]
    assert len(copies) == 2
    assert all(r.headers["x-amz-metadata-directive"] == "REPLACE" for r in copies)
    assert cache.read_blob(cachefs.Digest.of(b"x" * 5000)) == b"x" * 5000


def test_a_blob_that_goes_between_plan_and_publish_is_sent_again(tmp_path: Path) -> None:
    graph, blobs = built(b"kept", b"new")
    cache = cachefs.open(tmp_path, mode="max")
    cache.export(*built(b"kept"))

    class PrunedMeanwhile:
        """A source during whose reading somebody deletes what the plan wanted to keep."""

        async def chunks(self, digest: cachefs.Digest, size: int | None) -> AsyncIterator[bytes]:
            del size
            blob_path(tmp_path, b"kept").unlink(missing_ok=True)
            content = blobs[digest]
            assert isinstance(content, bytes)
            yield content

    report = cache.export(graph, PrunedMeanwhile())
    assert counts(report) == (2, 0, 0)
    assert blob_path(tmp_path, b"kept").read_bytes() == b"kept"


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_blobs_that_go_before_their_touch_are_sent_within_the_bounds(
    engine: str, recording: Recording, moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    graph, blobs = built(*(f"{number:04}".encode() for number in range(24)))
    location = proxy.server.attributes(
        bucket, engine=engine, mode="max", touch_refresh="0s", upload_parallelism="2"
    )
    cache = cachefs.open(location)
    cache.export(graph, blobs)
    sending: list[int] = []
    most: list[int] = []

    class Pruned:
        """A source of blobs that are all gone by the time they would be touched."""

        async def chunks(self, digest: cachefs.Digest, size: int | None) -> AsyncIterator[bytes]:
            del size
            sending.append(1)
            most.append(len(sending))
            await asyncio.sleep(0.01)
            sending.pop()
            content = blobs[digest]
            assert isinstance(content, bytes)
            yield content

    proxy.inject(
        times=24,
        when=lambda r: "x-amz-copy-source" in r.headers,
        status=404,
        code="NoSuchKey",
    )
    callback = Callback()
    report = cache.export(graph, Pruned(), callback=callback)
    assert counts(report) == (24, 0, 0)
    assert max(most) <= 2
    assert (callback.size, callback.value) == (96, 96)


def test_sixteen_exporters_of_one_name_leave_a_complete_cache(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            cache = cachefs.open(tmp_path, mode="max")
            cache.export(*built(b"shared", str(number).encode()))
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    cache = cachefs.open(tmp_path)
    graph = cache.load()
    assert len(graph.records) == 2
    for digest, size in graph.blobs().items():
        assert isinstance(cache.read_blob(digest, size), bytes)
    assert not list(tmp_path.rglob(".cachefs-*"))


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_sixteen_threads_share_one_cache_on_s3(engine: str, seaweed_s3: S3Server) -> None:
    bucket = seaweed_s3.bucket()
    cache = cachefs.open(seaweed_s3.attributes(bucket, engine=engine, mode="max"))

    def work(number: int) -> int:
        return cache.export(*built(b"shared", str(number).encode())).uploaded.blobs

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(work, range(16))) >= 17
    graph = cache.load()
    assert len(graph.records) == 2
    for digest, size in graph.blobs().items():
        assert isinstance(cache.read_blob(digest, size), bytes)
    assert len(seaweed_s3.keys(bucket, "blobs/")) == 17
