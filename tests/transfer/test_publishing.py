"""Names that others write at the same moment: joined, refused or replaced, and what is promised."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import cachefs
from cachefs.concurrency import run
from cachefs.layout.contention import ATTEMPTS, pause
from cachefs.wire import codec
from tests.damaging import MakePlace
from tests.graphs import digest_of
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server


def result(number: int) -> tuple[cachefs.RecordGraph, dict[str, bytes]]:
    """A graph of one result, which others do not have."""
    data = f"blob {number}".encode()
    blob = str(cachefs.Digest.of(data))
    graph = cachefs.RecordGraph()
    made = "2026-01-01T00:00:00Z"
    layer = graph.add_layer(blob, diff_id=digest_of(number), size=len(data), created_at=made)
    graph.add_result(graph.add(digest_of(number)), layer, made)
    return graph, {blob: data}


def write(cache: cachefs.Cache, number: int, **more: object) -> cachefs.ExportReport:
    graph, blobs = result(number)
    return cache.export(graph, blobs, "main", **more)  # type: ignore[arg-type]


def join(cache: cachefs.Cache, number: int) -> cachefs.ExportReport:
    return write(cache, number, on_conflict="merge")


def held(cache: cachefs.Cache) -> set[int]:
    """The numbers of the results that the name holds."""
    digests = {record.digest for record in cache.load("main").records if record.has_result}
    return {number for number in range(100) if digest_of(number) in digests}


def is_publishing(request: Request) -> bool:
    return request.method == "PUT" and request.path.endswith("manifests/main")


Behind = tuple[cachefs.Cache, cachefs.Cache, RecordingProxy]


@pytest.fixture(params=["s3fs", "obstore"])
def behind(
    request: pytest.FixtureRequest,
    recording: Callable[[S3Server], RecordingProxy],
    moto_s3: S3Server,
) -> Behind:
    """A cache through a proxy, by either engine, and the same cache past it."""
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    through = cachefs.open(proxy.server.attributes(bucket, engine=request.param))
    return through, cachefs.open(moto_s3.attributes(bucket)), proxy


@pytest.fixture(params=["keyed", "oci", "memory", "oci-memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> cachefs.Cache:
    kind: str = request.param
    fs = MemoryFileSystem() if "memory" in kind else None
    is_oci = kind.startswith("oci")
    return cachefs.open(f"type=local,dest={tmp_path}/c" if is_oci else f"{tmp_path}/c", fs=fs)


def test_a_join_keeps_what_is_there(cache: cachefs.Cache) -> None:
    assert join(cache, 1).unchanged == []
    first, _ = result(1)
    assert cache.load("main").blobs() == first.blobs()
    assert join(cache, 2).names == ["main"]
    assert held(cache) == {1, 2}
    assert join(cache, 1).unchanged == ["main"]
    assert held(cache) == {1, 2}
    assert cache.verify(read_data=1.0).faults == []
    assert [name.name for name in cache.names()] == ["main"]


def test_joins_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    caches = [cachefs.open(tmp_path / str(n)) for n in range(2)]
    for cache, order in zip(caches, ((1, 2, 3), (3, 1, 2)), strict=True):
        for number in order:
            join(cache, number)
    one, other = (cache.manifest("main").raw for cache in caches)
    assert one == other
    union = cachefs.RecordGraph.union([result(n)[0] for n in (1, 2, 3)])
    assert one == codec.encode(union.to_config())


def test_writers_in_threads_lose_nothing(cache: cachefs.Cache) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: join(cache, number), range(12)))
    assert held(cache) == set(range(12))


def test_tags_of_concurrent_writers_are_all_kept(tmp_path: Path) -> None:
    cache = cachefs.open(f"type=local,dest={tmp_path}/tags", fs=MemoryFileSystem())
    graph, blobs = result(1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: cache.export(graph, blobs, f"tag-{number}"), range(12)))
    assert sorted(cache) == sorted(f"tag-{number}" for number in range(12))


def test_a_name_that_exists_can_be_refused(cache: cachefs.Cache) -> None:
    assert write(cache, 1, on_conflict="fail").names == ["main"]
    assert write(cache, 1, on_conflict="fail").unchanged == ["main"]
    with pytest.raises(cachefs.ConflictError, match="main holds what another writer wrote"):
        write(cache, 2, on_conflict="fail")
    assert held(cache) == {1}
    assert write(cache, 2).names == ["main"]
    assert held(cache) == {2}


def test_a_wrong_choice_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(cachefs.UsageError, match="replace, merge, fail"):
        write(cachefs.open(tmp_path / "c"), 1, on_conflict="overwrite")
    assert not (tmp_path / "c").exists()


def test_the_caller_may_join(cache: cachefs.Cache) -> None:
    """Such as by keeping only what is newest."""

    def newest(own: cachefs.RecordGraph, stored: cachefs.RecordGraph) -> cachefs.RecordGraph:
        assert len(stored) == 1
        return own

    join(cache, 1)
    write(cache, 2, on_conflict="merge", join=newest)
    assert held(cache) == {2}


def test_a_writer_in_between_is_joined(behind: Behind) -> None:
    through, past, proxy = behind
    join(past, 1)
    proxy.inject(when=is_publishing, act=lambda: join(past, 2))
    join(through, 3)
    assert held(past) == {1, 2, 3}
    proxy.clear()
    proxy.inject(when=is_publishing, act=lambda: write(past, 4))
    join(through, 5)
    assert held(past) == {4, 5}
    assert proxy.count("PUT", is_publishing) == 2


def test_a_first_writer_in_between_is_joined(behind: Behind) -> None:
    through, past, proxy = behind
    proxy.inject(when=is_publishing, act=lambda: join(past, 1))
    join(through, 2)
    assert held(past) == {1, 2}


def test_a_name_that_is_removed_in_between_is_written(behind: Behind) -> None:
    through, past, proxy = behind
    join(past, 1)

    proxy.inject(when=is_publishing, act=lambda: run(past.layout.remove(["main"])))
    join(through, 2)
    assert held(past) == {2}, "what was removed does not come back"


@pytest.mark.parametrize("before", [False, True])
def test_a_lost_response_is_no_conflict(behind: Behind, before: bool) -> None:
    """The client repeats the request, and is told that the condition does not hold any more."""
    through, past, proxy = behind
    if before:
        join(past, 1)
    proxy.inject(when=is_publishing, lose=True)
    join(through, 2)
    assert held(past) == ({1, 2} if before else {2})
    proxy.inject(when=is_publishing, lose=True, act=lambda: join(past, 3))
    join(through, 4)
    assert held(past) >= {2, 3, 4}
    assert proxy.count("PUT", is_publishing) >= 4


def test_a_store_that_ignores_conditions_is_noticed(
    behind: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers 200, as some servers do; then a join may lose, and says so."""
    through, past, proxy = behind
    proxy.drops = frozenset({"if-match", "if-none-match"})
    with pytest.raises(cachefs.StoreError, match="does not compare before it writes"):
        write(through, 1, on_conflict="fail")
    join(past, 1)
    with caplog.at_level(logging.WARNING):
        join(through, 2)
    assert "does not compare before it writes" in caplog.text
    assert held(past) == {1, 2}
    proxy.inject(when=is_publishing, act=lambda: join(past, 3))
    join(through, 4)
    assert held(past) == {1, 2, 4}, "a control: without conditions, 3 is lost"
    tries = proxy.count("PUT", lambda request: "/.cachefs-" in request.path)
    assert tries == 3, "it was tried once"


def test_a_store_that_refuses_conditions_is_noticed(behind: Behind) -> None:
    through, past, proxy = behind
    conditional = lambda request: "if-match" in request.headers  # noqa: E731
    proxy.inject(when=conditional, status=501, code="NotImplemented", times=100)
    join(through, 1)
    join(through, 2)
    assert held(past) == {1, 2}


def test_trying_conditions_leaves_nothing(behind: Behind, moto_s3: S3Server) -> None:
    through, _, proxy = behind
    join(through, 1)
    asked = proxy.requests
    bucket = asked[0].path.split("/")[1]
    assert [key for key in moto_s3.keys(bucket) if ".cachefs-" in key] == []
    proxy.clear()
    write(through, 1)
    assert proxy.count(when=lambda request: ".cachefs-" in request.path) == 0


def test_attempts_are_bounded(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer is faster every time. The pauses are of no interest here."""
    through, past, proxy = behind
    monkeypatch.setattr("cachefs.transfer.publishing.pause", lambda _: 0.0)
    monkeypatch.setattr("cachefs.transfer.publishing.ATTEMPTS", 3)
    numbers = iter(range(10, 20))
    proxy.inject(when=is_publishing, act=lambda: write(past, next(numbers)), times=100)
    with pytest.raises(cachefs.ConflictError, match="others were faster 3 times: try again"):
        join(through, 1)
    assert proxy.count("PUT", is_publishing) == 3
    assert held(past) == {12}


def test_all_attempts_wait_a_minute_at_most() -> None:
    assert sum(max(pause(attempt) for _ in range(20)) for attempt in range(ATTEMPTS)) <= 62.5


def test_what_is_there_and_unreadable_is_not_lost(make_place: MakePlace) -> None:
    for kind in ("keyed", "oci"):
        place = make_place(kind)
        key = next(name.key for name in place.cache.names() if name.name == "app")
        place.objects[key] = b"{"
        graph, blobs = result(1)
        with pytest.raises(
            cachefs.ManifestError, match=r"app cannot be joined.* repair or replace"
        ):
            place.cache.export(graph, blobs, "app", on_conflict="merge")
        assert place.objects[key] == b"{"


def test_a_stored_result_whose_blob_is_lost_is_left_out(
    cache: cachefs.Cache, caplog: pytest.LogCaptureFixture
) -> None:
    join(cache, 1)
    _, blobs = result(1)
    store = cache.layout.store
    key = cache.layout.blob_key(cachefs.Digest(next(iter(blobs))))
    run(store.delete(key))
    join(cache, 2)
    assert held(cache) == {2}
    assert "is left out" in caplog.text
    assert cache.verify(read_data=1.0).faults == []
