"""Summaries: a name's own faults are shown, and the store's are raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.testing import random_graph
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]


@pytest.fixture
def proxy(recording: Recording, moto_s3: S3Server) -> RecordingProxy:
    return recording(moto_s3)


def is_read(request: Request) -> bool:
    return request.method == "GET" and request.path.endswith("/manifests/main")


def filled(proxy: RecordingProxy) -> cachefs.Cache:
    cache = cachefs.open(proxy.server.attributes(proxy.server.bucket(), retry_max_attempts="1"))
    generated = random_graph(1, records=3)
    cache.export(generated.graph, generated.blobs, ["main", "other"], mode="max")
    return cache


def test_missing_rights_are_the_stores_fault(proxy: RecordingProxy) -> None:
    cache = filled(proxy)
    proxy.inject(times=9, when=is_read, status=403, code="AccessDenied")
    with pytest.raises(cachefs.AccessError):
        cache.summaries()


def test_a_name_that_is_not_there_is_told_beside_the_others(proxy: RecordingProxy) -> None:
    cache = filled(proxy)
    absent, main = cache.summaries(["absent", "main"])
    assert (absent.name, absent.fault) == ("absent", "there is no such name")
    assert (main.fault, main.records) == (None, len(cache.load("main")))


def test_a_manifest_that_is_not_one_is_its_names_fault(proxy: RecordingProxy) -> None:
    cache = filled(proxy)
    bucket = cache.location.url.split("/")[2]
    proxy.server.client.put_object(Bucket=bucket, Key="manifests/main", Body=b"[")
    main, other = cache.summaries()
    assert main.fault is not None
    assert "not a cache config" in main.fault
    assert (main.manifest_bytes, other.fault) == (1, None)


def test_a_manifest_that_is_too_large_is_its_names_fault(tmp_path: Path) -> None:
    cache = cachefs.open(tmp_path, max_records=100)
    generated = random_graph(1, records=3)
    cache.export(generated.graph, generated.blobs, "main", mode="max")
    (tmp_path / "manifests" / "huge").write_bytes(bytes(100_000))
    huge, main = cache.summaries()
    assert huge.fault is not None
    assert "more than the 51200 bytes" in huge.fault
    assert main.fault is None
    assert [fault.names for fault in cache.verify().faults] == [["huge"]]
