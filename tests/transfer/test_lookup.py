"""Looking up once: what is found, and how many requests it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.concurrency import run
from cachefs.layout.base import Layout
from cachefs.layout.opening import open_layout
from cachefs.location.parsing import parse
from cachefs.transfer import lookup
from cachefs.transfer.lookup import Slice, list_blobs, list_slice, look_up, slices
from tests.graphs import digest_of
from tests.servers.filling import fill
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]
ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


@pytest.fixture(scope="module")
def full_bucket(moto_s3: S3Server) -> tuple[str, list[cachefs.Digest]]:
    """A store of 2,200 blobs: three pages."""
    bucket = moto_s3.bucket()
    digests = [cachefs.Digest(digest_of(number)) for number in range(2200)]
    fill(bucket, ((f"blobs/{digest}", b"x") for digest in digests))
    return bucket, digests


@contextmanager
def opened(proxy: RecordingProxy, bucket: str, engine: str) -> Iterator[Layout]:
    layout = open_layout(parse(proxy.server.attributes(bucket, engine=engine)))
    run(layout.names())
    proxy.clear()
    yield layout


def kinds(proxy: RecordingProxy) -> dict[str, int]:
    heads = proxy.count("HEAD")
    lists = proxy.count("GET", lambda r: "list-type" in r.parameters)
    assert heads + lists == len(proxy.requests)
    return {"HEAD": heads, "LIST": lists}


ABSENT = [cachefs.Digest(digest_of(number)) for number in range(10_000, 12_000)]


@ENGINES
def test_a_few_blobs_are_looked_up_one_by_one(
    engine: str,
    recording: Recording,
    moto_s3: S3Server,
    full_bucket: tuple[str, list[cachefs.Digest]],
) -> None:
    bucket, there = full_bucket
    proxy = recording(moto_s3)
    with opened(proxy, bucket, engine) as layout:
        found = run(look_up(layout, there[:6] + ABSENT[:4]))
    assert set(found) == set(there[:6])
    assert kinds(proxy) == {"HEAD": 10, "LIST": 0}


@ENGINES
def test_a_small_store_answers_with_one_page(
    engine: str, recording: Recording, moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    with opened(proxy, moto_s3.bucket(), engine) as layout:
        assert run(look_up(layout, ABSENT)) == {}
    assert kinds(proxy) == {"HEAD": 0, "LIST": 1}


@ENGINES
def test_many_blobs_of_a_large_store_are_listed_in_slices(
    engine: str,
    recording: Recording,
    moto_s3: S3Server,
    full_bucket: tuple[str, list[cachefs.Digest]],
) -> None:
    bucket, there = full_bucket
    proxy = recording(moto_s3)
    with opened(proxy, bucket, engine) as layout:
        found = run(look_up(layout, there[:1000] + ABSENT))
    assert set(found) == set(there[:1000])
    assert all(stat.size == 1 for stat in found.values())
    counted = kinds(proxy)
    assert counted["HEAD"] == 0
    assert counted["LIST"] <= 12


@ENGINES
def test_a_store_of_many_pages_is_not_listed_for_a_few_blobs(
    engine: str,
    recording: Recording,
    moto_s3: S3Server,
    full_bucket: tuple[str, list[cachefs.Digest]],
) -> None:
    bucket, there = full_bucket
    proxy = recording(moto_s3)
    with opened(proxy, bucket, engine) as layout:
        found = run(look_up(layout, there[:20] + ABSENT[:20]))
    assert set(found) == set(there[:20])
    counted = kinds(proxy)
    assert counted["LIST"] == 1
    assert 10 < counted["HEAD"] < 32


@ENGINES
def test_the_whole_store_and_its_slices_are_listed(
    engine: str,
    recording: Recording,
    moto_s3: S3Server,
    full_bucket: tuple[str, list[cachefs.Digest]],
) -> None:
    bucket, there = full_bucket
    proxy = recording(moto_s3)
    with opened(proxy, bucket, engine) as layout:
        everything = run(list_blobs(layout))
        parts = [run(list_slice(layout, part)) for part in slices(3)]
    assert list(everything) == sorted(there)
    assert [digest for part in parts for digest in part] == sorted(there)


@ENGINES
def test_what_is_no_blob_is_passed_over(
    engine: str, recording: Recording, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "PAGE", 10)
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    there = sorted(cachefs.Digest(digest_of(number)) for number in range(20))
    foreign = [f"{there[9]}.part{number}" for number in range(12)]
    foreign += ["sha256:zz", "sha256:README", "sha256:", "sha512:00"]
    for name in (*there, *foreign):
        moto_s3.client.put_object(Bucket=bucket, Key=f"blobs/{name}", Body=b"x")
    with opened(proxy, bucket, engine) as layout:
        assert list(run(list_blobs(layout))) == there
        assert set(run(look_up(layout, there + ABSENT[:100]))) == set(there)
    only_foreign = moto_s3.bucket()
    for number in range(15):
        key = f"blobs/sha256:zz{number:02}"
        moto_s3.client.put_object(Bucket=only_foreign, Key=key, Body=b"x")
    with opened(proxy, only_foreign, engine) as layout:
        assert run(list_blobs(layout)) == {}
        assert run(look_up(layout, ABSENT[:100])) == {}


@given(st.integers(1, 70_000), st.integers(0, 20_000))
def test_slices_are_a_partition(count: int, number: int) -> None:
    digest = cachefs.Digest(digest_of(number))
    parts = slices(count)
    assert sum(part.holds(digest) for part in parts) == 1
    assert parts[0].start == ""
    assert parts[-1].end == ""
    assert all(one.end == other.start for one, other in pairwise(parts))


def test_a_slice_takes_its_start_and_leaves_its_end() -> None:
    edge = cachefs.Digest.from_hex("8".ljust(64, "0"))
    assert Slice("8", "9").holds(edge)
    assert not Slice("", "8").holds(edge)
