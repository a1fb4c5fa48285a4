"""Verifying by the checksums that a store noted: what is asked for, what is read, what is found."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.concurrency import run
from tests.programs import run as run_program
from tests.servers.answering import Answer, answering, refusal
from tests.servers.observing import Observed, empty_bucket, observing
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server
from tests.whole.test_lean_requests import blobs_of, export, graph_of

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])
MIB = 1024 * 1024
BIG = 17 * MIB
"""The size of a blob that is sent in parts."""


def of_blobs(request: Request) -> bool:
    return "/blobs/sha256:" in request.path


def kinds(proxy: RecordingProxy) -> dict[str, int]:
    """How often each kind of request was made for a blob."""
    found: dict[str, int] = {}
    for request in proxy.requests:
        if of_blobs(request):
            asked = "x-amz-checksum-mode" in request.headers
            kind = "HEAD for a checksum" if request.method == "HEAD" and asked else request.method
            found[kind] = found.get(kind, 0) + 1
    return found


@pytest.fixture
def proxy(recording: Callable[[S3Server], RecordingProxy], seaweed_s3: S3Server) -> RecordingProxy:
    return recording(seaweed_s3)


def opened(proxy: RecordingProxy, seaweed_s3: S3Server, engine: str) -> cachefs.Cache:
    return cachefs.open(proxy.server.attributes(seaweed_s3.bucket(), engine=engine))


@ENGINES
def test_only_what_has_no_checksum_is_read(
    proxy: RecordingProxy, seaweed_s3: S3Server, engine: str
) -> None:
    cache = opened(proxy, seaweed_s3, engine)
    blobs = blobs_of(5) | blobs_of(1, size=BIG, first=5)
    export(cache, blobs)
    proxy.clear()
    report = cache.verify(stored_checksums=True)
    assert report.faults == []
    assert report.stated == cachefs.Amount(5, 5 * 64)
    assert report.read == cachefs.Amount(1, BIG)
    assert kinds(proxy) == {"HEAD for a checksum": 6, "GET": 3}  # it is read in ranges of 8 MiB


@ENGINES
def test_a_touch_keeps_the_checksum(
    proxy: RecordingProxy, seaweed_s3: S3Server, engine: str
) -> None:
    location = proxy.server.attributes(seaweed_s3.bucket(), engine=engine, touch_refresh="0s")
    cache = cachefs.open(location)
    export(cache, blobs_of(3))
    assert export(cache, blobs_of(3)).touched.blobs == 3
    assert cache.verify(stored_checksums=True).stated.blobs == 3


@ENGINES
def test_another_checksum_is_a_reason_to_read(
    proxy: RecordingProxy, seaweed_s3: S3Server, engine: str
) -> None:
    cache = opened(proxy, seaweed_s3, engine)
    blobs = blobs_of(2)
    export(cache, blobs)
    first = next(iter(blobs))
    bucket = cache.layout.store.root.partition("/")[0]
    seaweed_s3.client.put_object(
        Bucket=bucket, Key=f"blobs/{first}", Body=b"x" * 64, ChecksumAlgorithm="SHA256"
    )
    proxy.clear()
    report = cache.verify(stored_checksums=True)
    assert [(fault.kind, fault.digest) for fault in report.faults] == [("damaged", first)]
    assert (report.stated.blobs, report.read.blobs) == (1, 1)
    assert kinds(proxy)["GET"] == 2  # a damaged blob is fetched once more


@ENGINES
def test_a_checksum_is_the_stores_word_and_a_sample_is_read_in_any_case(
    proxy: RecordingProxy, seaweed_s3: S3Server, engine: str
) -> None:
    """A store whose disks lost a bit still states what it received."""
    cache = opened(proxy, seaweed_s3, engine)
    blobs = blobs_of(8)
    export(cache, blobs)
    proxy.inject(when=lambda r: r.method == "GET" and of_blobs(r), times=100, flip="response")
    assert cache.verify(stored_checksums=True).faults == []
    part = cache.verify(read_data=0.5, start=0.0, stored_checksums=True)
    read = {digest for digest in blobs if digest < "sha256:8"}
    assert {fault.digest for fault in part.faults} == read
    assert part.stated.blobs == 8 - len(read)
    whole = cache.verify(read_data=1.0, stored_checksums=True)
    assert (len(whole.faults), whole.stated.blobs) == (8, 0)


def test_names_limit_what_is_asked_for(proxy: RecordingProxy, seaweed_s3: S3Server) -> None:
    cache = opened(proxy, seaweed_s3, "s3fs")
    for name, first in (("a", 0), ("b", 3), ("c", 6)):
        blobs = blobs_of(3, first=first)
        cache.export(graph_of(blobs), blobs, name, mode="max")
    assert cache.verify(("a", "b"), stored_checksums=True).stated.blobs == 6
    assert cache.verify(stored_checksums=True).stated.blobs == 9


def test_orphaned_blobs_are_asked_for_too(proxy: RecordingProxy, seaweed_s3: S3Server) -> None:
    cache = opened(proxy, seaweed_s3, "s3fs")
    export(cache, blobs_of(3))
    export(cache, blobs_of(1, first=9))  # the same name
    assert cache.verify(stored_checksums=True).stated.blobs == 4


@ENGINES
@pytest.mark.parametrize("kind", ["moto_s3", "local", "oci"])
def test_a_store_that_states_none_is_read(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, engine: str
) -> None:
    locations = {"local": str(tmp_path), "oci": f"type=local,dest={tmp_path}"}
    location = locations.get(kind)
    if location is None:
        server: S3Server = request.getfixturevalue("moto_s3")
        location = server.attributes(server.bucket(), engine=engine)
    cache = cachefs.open(location)
    export(cache, blobs_of(3))
    report = cache.verify(stored_checksums=True)
    assert (report.faults, report.stated.blobs) == ([], 0)
    assert report.read.blobs == cache.verify(read_data=1.0).read.blobs >= 3


@ENGINES
def test_what_other_clients_uploaded_with_a_checksum(moto_s3: S3Server, engine: str) -> None:
    bucket = moto_s3.bucket()
    cache = cachefs.open(moto_s3.attributes(bucket, engine=engine))
    blobs = blobs_of(3)
    export(cache, blobs)
    for digest, data in list(blobs.items())[:2]:
        key = f"blobs/{digest}"
        moto_s3.client.put_object(Bucket=bucket, Key=key, Body=data, ChecksumAlgorithm="SHA256")
    report = cache.verify(stored_checksums=True)
    assert (report.faults, report.stated.blobs, report.read.blobs) == ([], 2, 1)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-amz-checksum-sha256": "not base64!"},
        {"x-amz-checksum-sha256": "c2hvcnQ="},
        {"x-amz-checksum-sha256": "{right}-1"},
        {"x-amz-checksum-sha256": "{right}", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="},
        None,
    ],
    ids=["none", "not base64", "too short", "of parts", "composite", "another kind", "refused"],
)
def test_what_is_no_checksum_of_the_object(headers: dict[str, str] | None) -> None:
    data = b"the blob"
    right = base64.b64encode(hashlib.sha256(data).digest()).decode()

    def answer(request: object) -> Answer:
        if headers is None:
            return refusal(501, "NotImplemented")
        more = {name: text.format(right=right) for name, text in headers.items()}
        modified = "Mon, 23 Nov 2026 21:14:13 GMT"
        return Answer(200, data, {"Last-Modified": modified, "ETag": '"1"', **more})

    with answering(answer) as server:
        cache = cachefs.open(server.attributes("b", retry_max_attempts="1"))
        keys = [cache.layout.blob_key(cachefs.Digest.of(data))]
        assert run(cache.layout.store.stated_digests(keys)) == [None]


@ENGINES
def test_amazon_is_given_the_checksum_of_every_small_blob(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with observing(tmp_path) as observer:
        monkeypatch.setenv("HTTPS_PROXY", observer.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(observer.authority))
        location = "type=s3,bucket=b,region=eu-west-3,access_key_id=k,secret_access_key=s"
        cache = cachefs.open(f"{location},engine={engine}")
        blobs = blobs_of(3)

        def answer(request: Observed) -> Answer:
            known = any(r.method == "PUT" and r.url == request.url for r in observer.requests)
            if request.method == "HEAD" and known:
                time = "Mon, 23 Nov 2026 21:14:13 GMT"
                return Answer(200, b"x" * 64, {"ETag": '"1"', "Last-Modified": time})
            return empty_bucket(request)

        observer.answer = answer
        export(cache, blobs)
        puts = [r for r in observer.requests if r.method == "PUT" and "/blobs/" in r.url]
        assert len(puts) == 3
        for put in puts:
            digest = bytes.fromhex(put.url[-64:])
            assert put.headers["x-amz-checksum-sha256"] == base64.b64encode(digest).decode()


def test_the_command(proxy: RecordingProxy, seaweed_s3: S3Server) -> None:
    location = proxy.server.attributes(seaweed_s3.bucket())
    cache = cachefs.open(location)
    for name, first in (("a", 0), ("b", 3)):
        blobs = blobs_of(3, first=first)
        cache.export(graph_of(blobs), blobs, name, mode="max")
    asked = run_program("verify", location, "--stored-checksums")
    assert (asked.status, asked.err) == (0, "")
    assert asked.out == (
        "verified 2 names with 6 blobs (384 B), 0 blobs (0 B) read, 6 blobs (384 B) by the store's "
        "checksums: 0 faults\n"
    )
    words = ("--name", "a", "--name", "b", "--stored-checksums", "--json")
    document = run_program("verify", location, *words)
    assert document.status == 0, document.err
    assert json.loads(document.out)["stated"] == {"blobs": 6, "bytes": 384}
