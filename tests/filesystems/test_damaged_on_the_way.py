"""A bit that flips on its way to or from a server over plain HTTP is noticed, at no extra request.

The proxy flips it. SeaweedFS refuses bytes that have not the announced checksum; moto checks none,
so only what it says of the stored bytes can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import cachefs
from cachefs.errors import CacheError, IntegrityError, StoreError
from cachefs.testing import random_graph
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

MIB = 1024 * 1024
Recording = Callable[[S3Server], RecordingProxy]

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])
SERVERS = pytest.mark.parametrize("kind", ["seaweed_s3", "moto_s3"])


def of_blobs(request: Request) -> bool:
    return request.method == "PUT" and "/blobs/" in request.path


def of_manifests(request: Request) -> bool:
    return "/manifests/" in request.path


@pytest.fixture
def open_cache(
    request: pytest.FixtureRequest, recording: Recording
) -> Callable[..., tuple[cachefs.Cache, RecordingProxy, S3Server, str]]:
    def opened(kind: str, engine: str) -> tuple[cachefs.Cache, RecordingProxy, S3Server, str]:
        server: S3Server = request.getfixturevalue(kind)
        proxy = recording(server)
        bucket = server.bucket()
        location = proxy.server.attributes(bucket, engine=engine, retry_max_attempts="1")
        return cachefs.open(location), proxy, server, bucket

    return opened


def blob_of(size: int) -> tuple[cachefs.RecordGraph, cachefs.Digest, bytes]:
    data = bytes(range(256)) * (size // 256)
    digest = cachefs.Digest.of(data)
    graph = cachefs.RecordGraph()
    graph.add_result(graph.add(digest), graph.add_layer(digest, size=size))
    return graph, digest, data


@ENGINES
@pytest.mark.parametrize("size", [1024, MIB, 20 * MIB], ids=["small", "whole", "in parts"])
def test_a_blob_damaged_on_its_way_up_is_refused(open_cache: Any, engine: str, size: int) -> None:
    cache, proxy, server, bucket = open_cache("seaweed_s3", engine)
    graph, digest, data = blob_of(size)
    proxy.inject(when=of_blobs, times=100, flip="request")
    with pytest.raises(StoreError, match=r"damaged on their way|400 Bad Request"):
        cache.export(graph, {digest: data}, "main")
    assert server.keys(bucket) == []


@pytest.mark.parametrize("size", [1024, MIB, 20 * MIB], ids=["small", "whole", "in parts"])
def test_a_blob_damaged_once_is_sent_again(open_cache: Any, size: int) -> None:
    cache, proxy, _, _ = open_cache("seaweed_s3", "s3fs")
    graph, digest, data = blob_of(size)
    proxy.inject(when=of_blobs, flip="request")
    cache.export(graph, {digest: data}, "main")
    assert cache.read_blob(digest) == data


@ENGINES
@SERVERS
def test_a_manifest_damaged_on_its_way_up_is_sent_again(
    open_cache: Any, engine: str, kind: str
) -> None:
    cache, proxy, _, _ = open_cache(kind, engine)
    generated = random_graph(1, records=3)
    proxy.inject(when=lambda r: r.method == "PUT" and of_manifests(r), flip="request")
    try:
        cache.export(generated.graph, generated.blobs, "main")
    except StoreError:  # obstore's error has no code, so it is not sent again
        assert (kind, engine) == ("seaweed_s3", "obstore")
        assert cache.names() == []
    else:
        assert cache.load("main").to_config() == cache.manifest("main").config


@ENGINES
@SERVERS
def test_a_manifest_damaged_on_its_way_down_is_not_accepted(
    open_cache: Any, engine: str, kind: str
) -> None:
    cache, proxy, _, _ = open_cache(kind, engine)
    generated = random_graph(1, records=3)
    cache.export(generated.graph, generated.blobs, "main")
    intact = cache.manifest("main")
    proxy.inject(when=of_manifests, flip="response")
    assert cache.manifest("main") == intact
    proxy.inject(when=of_manifests, times=9, flip="response")
    with pytest.raises(CacheError, match="were damaged on their way") as caught:
        cache.manifest("main")
    assert isinstance(caught.value, IntegrityError | StoreError)


@ENGINES
def test_checking_costs_no_request(open_cache: Any, engine: str) -> None:
    cache, proxy, _, _ = open_cache("seaweed_s3", engine)
    graph, digest, data = blob_of(MIB)
    proxy.clear()
    cache.export(graph, {digest: data}, "main")
    assert proxy.count("PUT") == 2
    proxy.clear()
    cache.manifest("main")
    assert [request.method for request in proxy.requests] == ["GET"]


def test_the_hash_of_a_blob_is_signed(open_cache: Any) -> None:
    cache, proxy, _, _ = open_cache("seaweed_s3", "s3fs")
    graph, digest, data = blob_of(MIB)
    cache.export(graph, {digest: data}, "main")
    (put,) = [request for request in proxy.requests if of_blobs(request)]
    assert put.headers["x-amz-content-sha256"] == digest.hex


def test_a_name_may_look_like_a_digest(open_cache: Any) -> None:
    cache, _, _, _ = open_cache("seaweed_s3", "s3fs")
    graph, digest, data = blob_of(1024)
    name = f"sha256:{'0' * 64}"
    cache.export(graph, {digest: data}, name)
    assert cache.load(name).find(digest)
