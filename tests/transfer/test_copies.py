"""Copies that a store makes itself: what it must prove, and what happens if it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.filesystems.s3.checksums import sha256_header
from cachefs.testing.checks import MIB, noise
from tests.damaging import Bucket
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]

LARGE = (MIB, MIB // 2, MIB // 4)
SMALL = (100, 2000)


def blobs_of(sizes: Sequence[int]) -> dict[str, bytes]:
    """Different blobs of these sizes."""
    bodies = [b"%020d" % size + noise(size - 20) for size in sizes]
    return {cachefs.Digest.of(body): body for body in bodies}


def fill(location: str, sizes: Sequence[int] = (*LARGE, *SMALL)) -> dict[str, bytes]:
    """Write a cache in which each blob has a name, by the blob's position; and its blobs."""
    cache = cachefs.open(location)
    blobs = blobs_of(sizes)
    for number, (digest, body) in enumerate(blobs.items()):
        graph = cachefs.RecordGraph()
        layer = graph.add_layer(digest, diff_id=digest, size=len(body))
        graph.add_result(graph.add(digest), layer)
        cache.export(graph, {digest: body}, [f"n{number}"], mode="max")
    return blobs


class Pair:
    """Two buckets of one server behind a proxy, the first with a cache."""

    def __init__(self, server: S3Server, proxy: RecordingProxy, **attributes: str) -> None:
        self.proxy = proxy
        first, second = server.bucket(), server.bucket()
        self.source = proxy.server.attributes(first, **attributes)
        self.target = proxy.server.attributes(second, **attributes)
        self.there = Bucket(server, first)
        self.here = Bucket(server, second)

    def unfinished(self) -> int:
        found = self.here.server.client.list_multipart_uploads(Bucket=self.here.bucket)
        return len(found.get("Uploads", ()))


@pytest.fixture
def pair(seaweed_s3: S3Server, recording: Recording) -> Pair:
    """On a server that states SHA-256."""
    return Pair(seaweed_s3, recording(seaweed_s3))


@pytest.fixture(params=["s3fs", "obstore"])
def each(request: pytest.FixtureRequest, seaweed_s3: S3Server, recording: Recording) -> Pair:
    """The same, by each engine."""
    return Pair(seaweed_s3, recording(seaweed_s3), engine=request.param)


@pytest.fixture
def silent_pair(moto_s3: S3Server, recording: Recording) -> Pair:
    """On a server that states no checksums of parts."""
    return Pair(moto_s3, recording(moto_s3))


def kind(request: Request) -> str:
    """What is requested of a blob; empty for requests of other objects."""
    if "/blobs/" not in request.path:
        return ""
    if request.method == "POST":
        return "begin" if "uploads" in request.parameters else "complete"
    if request.method == "DELETE" and "uploadId" in request.parameters:
        return "abort"
    if "x-amz-copy-source" in request.headers:
        return "copy part" if "uploadId" in request.parameters else "copy"
    return request.method


def kinds(proxy: RecordingProxy) -> Counter[str]:
    """The requests of blobs, without looking them up."""
    found = Counter(map(kind, proxy.requests))
    return Counter({each: n for each, n in found.items() if each not in {"", "HEAD"}})


def copies(request: Request) -> bool:
    return "x-amz-copy-source" in request.headers


def key(digest: str) -> str:
    return f"blobs/{digest}"


def test_the_server_copies_large_blobs_and_only_small_ones_travel(each: Pair) -> None:
    blobs = fill(each.source)
    each.proxy.clear()
    report = cachefs.copy(each.source, each.target)
    requests = kinds(each.proxy)
    large, small = len(LARGE), len(SMALL)
    assert requests == {
        **dict.fromkeys(("begin", "copy part", "complete"), large),
        **dict.fromkeys(("GET", "PUT"), small),
    }
    assert report.uploaded == cachefs.Amount(large + small, sum(map(len, blobs.values())))
    assert report.copied == cachefs.Amount(large, sum(LARGE))
    assert report.trusted == cachefs.Amount()
    assert {k: each.here[key(k)] for k in blobs} == blobs
    assert cachefs.open(each.target).verify(read_data=1.0).faults == []


def test_a_copy_is_seen_only_when_it_is_complete(pair: Pair) -> None:
    fill(pair.source, [MIB])
    seen: list[int] = []
    pair.proxy.inject(
        when=lambda r: kind(r) == "complete",
        act=lambda: seen.append(sum(one.startswith("blobs/") for one in pair.here)),
    )
    assert cachefs.copy(pair.source, pair.target).copied.blobs == 1
    assert seen == [0]


def test_what_the_server_read_is_what_counts_if_the_source_changes(each: Pair) -> None:
    (digest,) = fill(each.source, [MIB])

    def replace() -> None:
        each.there[key(digest)] = noise(MIB)

    each.proxy.inject(when=copies, act=replace)
    with pytest.raises(cachefs.CopyError, match="is damaged"):
        cachefs.copy(each.source, each.target)
    assert list(each.here) == []
    assert each.unfinished() == 0


@pytest.mark.parametrize("damaged", range(3))
def test_a_damaged_blob_is_not_copied_and_the_others_are(pair: Pair, damaged: int) -> None:
    blobs = fill(pair.source, LARGE)
    victim = list(blobs)[damaged]
    pair.there[key(victim)] = noise(len(blobs[victim]))
    with pytest.raises(cachefs.CopyError) as refused:
        cachefs.copy(pair.source, pair.target)
    others = {k: v for k, v in blobs.items() if k != victim}
    assert {k: pair.here[key(k)] for k in others} == others
    assert key(victim) not in list(pair.here)
    assert f"n{damaged}" not in refused.value.report.names
    assert len(refused.value.report.names) == len(others)
    assert pair.unfinished() == 0


def test_a_blob_that_the_source_lost_does_not_keep_the_server_from_copying(pair: Pair) -> None:
    blobs = fill(pair.source, LARGE)
    smallest = min(blobs, key=lambda digest: len(blobs[digest]))
    del pair.there[key(smallest)]
    with pytest.raises(cachefs.CopyError) as refused:
        cachefs.copy(pair.source, pair.target)
    assert refused.value.report.copied.blobs == len(LARGE) - 1


def test_a_server_that_states_nothing_is_asked_once(silent_pair: Pair) -> None:
    blobs = fill(silent_pair.source)
    silent_pair.proxy.clear()
    report = cachefs.copy(silent_pair.source, silent_pair.target)
    requests = kinds(silent_pair.proxy)
    assert [requests[one] for one in ("begin", "copy part", "abort")] == [1, 1, 1]
    assert requests["GET"] == requests["PUT"] == len(blobs)
    assert (report.uploaded.blobs, report.copied.blobs) == (len(blobs), 0)
    assert {k: silent_pair.here[key(k)] for k in blobs} == blobs
    assert silent_pair.unfinished() == 0


LIE = (
    b'<CopyPartResult><ETag>"0"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>%s'
    b"</CopyPartResult>"
)


@pytest.mark.parametrize("stated", ["", "AAAA"])
def test_a_server_that_lies_is_asked_once_and_nothing_of_it_is_seen(
    pair: Pair, stated: str
) -> None:
    blobs = fill(pair.source, LARGE)
    said = f"<ChecksumSHA256>{stated}</ChecksumSHA256>" if stated else ""
    pair.proxy.inject(times=100, when=copies, status=200, body=LIE % said.encode())
    pair.proxy.clear()
    report = cachefs.copy(pair.source, pair.target)
    assert kinds(pair.proxy)["copy part"] == 1
    assert (report.uploaded.blobs, report.copied.blobs) == (len(LARGE), 0)
    assert {k: pair.here[key(k)] for k in blobs} == blobs
    assert pair.unfinished() == 0


def test_a_server_that_states_the_digest_and_copies_nothing_gets_the_bytes(pair: Pair) -> None:
    blobs = fill(pair.source, [MIB])
    (digest,) = blobs
    said = f"<ChecksumSHA256>{sha256_header(cachefs.Digest(digest))}</ChecksumSHA256>"
    pair.proxy.inject(when=copies, status=200, body=LIE % said.encode())
    report = cachefs.copy(pair.source, pair.target)
    assert (report.uploaded.blobs, report.copied.blobs) == (1, 0)
    assert {k: pair.here[key(k)] for k in blobs} == blobs


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidRequest"), (500, "Broken")],
)
def test_a_server_that_refuses_is_asked_once(pair: Pair, status: int, code: str) -> None:
    blobs = fill(pair.source, LARGE)
    pair.proxy.inject(times=100, when=copies, status=status, code=code)
    pair.proxy.clear()
    report = cachefs.copy(pair.source, pair.target)
    assert kinds(pair.proxy)["begin"] == 1
    assert (report.uploaded.blobs, report.copied.blobs) == (len(LARGE), 0)
    assert {k: pair.here[key(k)] for k in blobs} == blobs


def test_a_server_that_refuses_a_checksum_at_the_start_is_asked_once(each: Pair) -> None:
    fill(each.source, LARGE)
    each.proxy.inject(
        times=100, when=lambda r: "x-amz-checksum-algorithm" in r.headers, status=501, code="No"
    )
    each.proxy.clear()
    assert cachefs.copy(each.source, each.target).uploaded.blobs == len(LARGE)
    assert kinds(each.proxy)["begin"] == 1


@pytest.mark.parametrize("status", [200, 503])
def test_a_copy_that_failed_is_tried_again(pair: Pair, status: int) -> None:
    """Also one that failed after the server had answered 200 and waited."""
    fill(pair.source, [MIB])
    pair.proxy.inject(when=copies, status=status, code="InternalError")
    assert cachefs.copy(pair.source, pair.target).copied.blobs == 1


@pytest.mark.parametrize("which", ["copy part", "complete"])
def test_a_lost_response_costs_no_blob(pair: Pair, which: str) -> None:
    blobs = fill(pair.source, [MIB])
    pair.proxy.inject(when=lambda r: kind(r) == which, lose=True)
    report = cachefs.copy(pair.source, pair.target)
    assert report.uploaded.blobs == 1
    assert {k: pair.here[key(k)] for k in blobs} == blobs
    assert pair.unfinished() == 0


def test_only_a_range_makes_some_servers_hash_again(pair: Pair) -> None:
    """S3 takes ranges above 5 MiB only. Without one, a server may repeat what it stored."""
    fill(pair.source, [MIB, 6 * MIB])
    pair.proxy.clear()
    cachefs.copy(pair.source, pair.target)
    ranges = [r.headers.get("x-amz-copy-source-range") for r in pair.proxy.requests if copies(r)]
    assert sorted(ranges, key=str) == [None, f"bytes=0-{6 * MIB - 1}"]


def test_what_is_written_is_as_an_upload_would_be(silent_pair: Pair) -> None:
    fill(silent_pair.source, [MIB])
    silent_pair.proxy.clear()
    target = (
        f"{silent_pair.target},storage_class=STANDARD_IA,server_side_encryption=AES256,acl=private"
    )
    for trust_store in (False, True):
        cachefs.copy(
            silent_pair.source, f"{target},prefix=a{trust_store}/", trust_store=trust_store
        )
    for which in ("begin", "copy"):
        (request,) = [r for r in silent_pair.proxy.requests if kind(r) == which]
        assert request.headers["x-amz-storage-class"] == "STANDARD_IA"
        assert request.headers["x-amz-server-side-encryption"] == "AES256"
        assert request.headers["x-amz-acl"] == "private"


def test_what_was_kept_and_is_deleted_meanwhile_is_copied_too(pair: Pair) -> None:
    blobs = fill(pair.source, LARGE)
    first, *_ = blobs
    cachefs.copy(f"{pair.source},name=n0", pair.target)
    pair.proxy.inject(when=copies, act=lambda: pair.here.pop(key(first)))
    report = cachefs.copy(pair.source, pair.target)
    assert {k: pair.here[key(k)] for k in blobs} == blobs
    assert (report.copied.blobs, report.kept.blobs) == (len(LARGE), 0)


def limit(location: str, most: int) -> cachefs.Cache:
    """The cache on a server that copies no larger objects at once."""
    cache = cachefs.open(location)
    filesystem: Any = cache.layout.store.filesystem
    filesystem.copy_limit = most
    filesystem.copy_part = 5 * MIB
    return cache


def test_what_is_too_large_for_one_copy_travels(pair: Pair) -> None:
    blobs = fill(pair.source, [6 * MIB, MIB])
    report = cachefs.copy(pair.source, limit(pair.target, 5 * MIB))
    assert (report.uploaded.blobs, report.copied.blobs) == (2, 1)
    assert {k: pair.here[key(k)] for k in blobs} == blobs


def test_what_is_too_large_for_one_copy_is_copied_in_parts_if_trusted(pair: Pair) -> None:
    blobs = fill(pair.source, [6 * MIB])
    pair.proxy.clear()
    report = cachefs.copy(pair.source, limit(pair.target, 5 * MIB), trust_store=True)
    assert kinds(pair.proxy) == {"begin": 1, "copy part": 2, "complete": 1}
    assert report.trusted == cachefs.Amount(1, 6 * MIB)
    assert {k: pair.here[key(k)] for k in blobs} == blobs


def test_a_trusted_server_copies_everything_in_one_request_each(each: Pair) -> None:
    blobs = fill(each.source)
    each.proxy.clear()
    report = cachefs.copy(each.source, each.target, trust_store=True)
    assert kinds(each.proxy) == {"copy": len(blobs)}
    assert (report.uploaded, report.copied) == (report.trusted, cachefs.Amount())
    assert {k: each.here[key(k)] for k in blobs} == blobs


def test_what_a_trusted_server_states_counts(silent_pair: Pair) -> None:
    """This one states the SHA-256 of whole copies."""
    blobs = fill(silent_pair.source)
    silent_pair.proxy.clear()
    report = cachefs.copy(silent_pair.source, silent_pair.target, trust_store=True)
    assert kinds(silent_pair.proxy) == {"copy": len(blobs)}
    assert (report.copied, report.trusted) == (report.uploaded, cachefs.Amount())


def test_what_a_trusted_server_states_to_be_damaged_does_not_stay(silent_pair: Pair) -> None:
    blobs = fill(silent_pair.source, LARGE)
    victim = next(iter(blobs))
    silent_pair.there[key(victim)] = noise(len(blobs[victim]))
    with pytest.raises(cachefs.CopyError) as refused:
        cachefs.copy(silent_pair.source, silent_pair.target, trust_store=True)
    assert refused.value.report.names == ["n1", "n2"]
    assert key(victim) not in list(silent_pair.here)


def test_a_merge_copies_from_each_server_that_can(
    pair: Pair, moto_s3: S3Server, tmp_path: Path
) -> None:
    blobs = fill(pair.source, LARGE)
    elsewhere = moto_s3.attributes(moto_s3.bucket())
    more = fill(elsewhere, [3 * MIB])
    pair.proxy.clear()
    report = cachefs.merge([elsewhere, pair.source], pair.target, "all")
    assert (report.uploaded.blobs, report.copied.blobs) == (len(LARGE) + 1, len(LARGE))
    assert {k: pair.here[key(k)] for k in blobs | more} == blobs | more
    assert "GET" not in kinds(pair.proxy)


def test_between_two_servers_nobody_is_asked_to_copy(
    pair: Pair, moto_s3: S3Server, tmp_path: Path
) -> None:
    fill(pair.source, LARGE)
    pair.proxy.clear()
    for target in (moto_s3.attributes(moto_s3.bucket()), tmp_path / "disk"):
        report = cachefs.copy(pair.source, target, trust_store=True)
        assert (report.uploaded.blobs, report.copied.blobs) == (len(LARGE), 0)
    assert not any(map(copies, pair.proxy.requests))


def test_bytes_that_are_needed_here_travel(pair: Pair) -> None:
    """A diffID that is missing is worked out from the bytes."""
    (digest,) = fill(pair.source, [MIB])
    named = f'"diffID":"{digest}",'.encode()
    pair.there["manifests/n0"] = pair.there["manifests/n0"].replace(named, b"")
    assert cachefs.open(pair.source).load("n0").layers[0].annotations.diff_id == ""
    for repair, copied in ((False, 1), (True, 0)):
        target = f"{pair.target},prefix=r{repair}/"
        assert cachefs.copy(pair.source, target, repair=repair).copied.blobs == copied


def test_a_copy_may_be_silent_for_as_long_as_its_size_takes(pair: Pair) -> None:
    fill(pair.source, [40 * MIB])
    pair.proxy.inject(when=copies, delay=2.5)
    report = cachefs.copy(pair.source, f"{pair.target},patience=1s")
    assert report.copied.blobs == 1
