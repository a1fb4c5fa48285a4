"""A store that falls silent in the middle of an operation: what is requested, what is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachefs
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server
from tests.transfer.test_exporter import built

PATIENCE = 1.0
MANY = 40
"""More than are requested at a time."""

LARGE = 17 * 1024 * 1024
"""Sent in parts."""

Recording = Callable[[S3Server], RecordingProxy]
engines = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


def reads_blobs(request: Request) -> bool:
    return request.method == "GET" and "/blobs/" in request.path


def reads_manifests(request: Request) -> bool:
    return request.method == "GET" and "/manifests/" in request.path


def deletes(request: Request) -> bool:
    return request.method == "DELETE" or "delete" in request.parameters


def begins_upload(request: Request) -> bool:
    return request.method == "POST" and "uploads" in request.parameters


def sends_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.parameters


def completes_upload(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.parameters


def writes_manifest(request: Request) -> bool:
    return request.method == "PUT" and "/manifests/" in request.path


class Server:
    """A cache with a proxy before its store."""

    def __init__(self, proxy: RecordingProxy, bucket: str, engine: Any) -> None:
        self.proxy = proxy
        location = proxy.server.attributes(bucket, engine=engine)
        self.cache = cachefs.open(location, patience=PATIENCE)

    def asked_for(self, when: Callable[[Request], bool]) -> int:
        """The number of objects, as libraries repeat requests."""
        return len({request.path for request in self.proxy.requests if when(request)})

    def falls_silent(self, when: Callable[[Request], bool]) -> None:
        self.proxy.clear()
        self.proxy.inject(times=1_000_000, when=when, silent=True)


@pytest.fixture
def server(engine: str, moto_s3: S3Server, recording: Recording) -> Server:
    return Server(recording(moto_s3), moto_s3.bucket(), engine)


@engines
@pytest.mark.parametrize("when", [begins_upload, sends_part, completes_upload, writes_manifest])
def test_every_phase_of_an_export(when: Any, server: Server) -> None:
    server.falls_silent(when)
    with pytest.raises(cachefs.UnreachableError, match=r"no response .*more time with patience"):
        server.cache.export(*built(os.urandom(LARGE)))
    assert server.proxy.count(when=when) > 0


@engines
def test_a_copy_does_not_wait_for_every_blob(server: Server, tmp_path: Path) -> None:
    server.cache.export(*built(*(os.urandom(128 * 1024 + 1) for _ in range(MANY))))
    server.falls_silent(reads_blobs)
    with pytest.raises(cachefs.UnreachableError, match="no response"):
        cachefs.copy(server.cache, tmp_path / "copy")
    assert 0 < server.asked_for(reads_blobs) < MANY
    assert not list(tmp_path.glob("copy/manifests/*"))


@engines
def test_loading_does_not_wait_for_every_name(server: Server) -> None:
    names = [f"name-{number}" for number in range(MANY)]
    server.cache.with_names(names).export(*built(b"one"))
    server.falls_silent(reads_manifests)
    graph = server.cache.load(names)
    assert not graph.records
    assert len(server.cache.misses) == MANY
    assert 0 < server.asked_for(reads_manifests) < MANY


@engines
def test_a_repair_does_not_wait_for_every_blob_of_a_replica(server: Server, tmp_path: Path) -> None:
    graph, blobs = built(*(os.urandom(128 * 1024 + 1) for _ in range(MANY)))
    server.cache.export(graph, blobs)
    here = cachefs.open(tmp_path / "here")
    here.export(graph, blobs)
    for blob in tmp_path.glob("here/blobs/*"):
        blob.unlink()
    plan = here.plan_repair([server.cache])
    server.falls_silent(reads_blobs)
    report = plan.execute()
    assert len(report.left) == MANY
    assert all("no response" in reason for reason in report.left.values())
    assert 0 < server.asked_for(reads_blobs) < MANY


@engines
def test_a_prune_does_not_repeat_a_delete_without_a_response(server: Server) -> None:
    graph, blobs = built(b"one", b"two", b"three")
    server.cache.export(graph, blobs)
    plan = server.cache.plan_prune(cachefs.PrunePolicy(max_size=0), grace=0.0)
    assert len(plan.delete) == 3
    server.falls_silent(deletes)
    with pytest.raises(cachefs.UnreachableError, match="no response"):
        plan.execute()
    assert 0 < server.proxy.count(when=deletes) <= 3
