"""The one read path: misses with a reason, verified blobs, nothing pulled before it is needed."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.concurrency import run
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.transfer.test_exporter import blob_path, built

Recording = Callable[[S3Server], RecordingProxy]


def test_a_missing_cache_is_an_empty_one(tmp_path: Path) -> None:
    cache = cachefs.open(tmp_path / "nowhere")
    assert cache.names() == []
    assert not cache.load()
    assert [miss.absent for miss in cache.misses] == [True]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("raw", [b"", b"{", b'{"records":[{"inputs":[[{"link":0}]]}]}'])
def test_an_invalid_manifest_is_a_miss_with_a_reason(
    tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cachefs.open(tmp_path, name="good;bad")
    cache.export(*built(b"one"), names=["good"])
    (tmp_path / "manifests" / "bad").write_bytes(raw)
    assert len(cache.load().records) == 1
    (miss,) = cache.misses
    assert (miss.what, miss.absent) == ("bad", False)
    assert str(tmp_path / "manifests" / "bad") in miss.reason
    assert "bad" in caplog.text
    with pytest.raises(cachefs.ManifestError):
        cache.manifest("bad")


def test_an_unreachable_store_is_a_miss_for_a_build_and_an_error_for_ls() -> None:
    text = (
        "type=s3,bucket=b,region=r,endpoint_url=http://127.0.0.1:9,use_path_style=true,"
        "access_key_id=a,secret_access_key=hush-hush,retry_max_attempts=1"
    )
    cache = cachefs.open(text)
    assert not cache.load()
    assert "no response from the store" in cache.misses[0].reason
    with pytest.raises(cachefs.UnreachableError, match="check the endpoint") as raised:
        cache.names()
    assert "hush-hush" not in str(raised.value)


def test_the_callers_mistakes_are_errors(tmp_path: Path) -> None:
    cache = cachefs.open(tmp_path)
    with pytest.raises(cachefs.CacheNameError):
        cache.load("../outside")
    with pytest.raises(cachefs.DigestError):
        cache.read_blob("sha256:../../x")
    with pytest.raises(cachefs.LocationError):
        cachefs.open("type=s3,buket=b")

    async def inside() -> None:
        cache.names()

    with pytest.raises(cachefs.UsageError, match="IO loop"):
        run(inside())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "no such object"),
        (lambda path: path.write_bytes(b"content"[:-1]), "has 6 bytes, not the 7"),
        (lambda path: path.write_bytes(b"contenT"), "damaged"),
        (lambda path: path.write_bytes(b"content" * 9), "more than the 7 bytes"),
    ],
)
def test_a_missing_or_bad_blob_is_a_miss(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    cache = cachefs.open(tmp_path / "cache")
    cache.export(*built(b"content"))
    digest = cachefs.Digest.of(b"content")
    damage(blob_path(tmp_path / "cache", b"content"))
    target = tmp_path / "target"
    target.write_bytes(b"what was there")
    for miss in (
        cache.read_blob(digest, 7),
        cache.open_blob(digest, 7),
        cache.fetch_blob(digest, target, 7),
    ):
        assert isinstance(miss, cachefs.Miss)
        assert not miss
        assert reason in miss.reason
    assert target.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "target"]


def test_blobs_are_read_opened_and_fetched(tmp_path: Path) -> None:
    cache = cachefs.open(tmp_path / "cache")
    cache.export(*built(b"content"))
    digest = cachefs.Digest.of(b"content")
    assert cache.read_blob(digest) == b"content"
    opened = cache.open_blob(digest)
    assert not isinstance(opened, cachefs.Miss)
    with opened:
        assert opened.read() == b"content"
    assert cache.fetch_blob(digest, tmp_path / "target") == tmp_path / "target"
    assert (tmp_path / "target").read_bytes() == b"content"


def test_a_path_that_cannot_be_written_is_the_callers_mistake(tmp_path: Path) -> None:
    cache = cachefs.open(tmp_path / "cache")
    cache.export(*built(b"content"))
    digest = cachefs.Digest.of(b"content")
    with pytest.raises(cachefs.UsageError, match="there is no directory"):
        cache.fetch_blob(digest, tmp_path / "nowhere" / "target")
    (tmp_path / "folder").mkdir()
    with pytest.raises(cachefs.UsageError, match="is a directory"):
        cache.fetch_blob(digest, tmp_path / "folder")
    assert not cache.misses
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "folder"]


def test_results_are_pulled_when_they_are_needed(
    tmp_path: Path, recording: Recording, moto_s3: S3Server, recorded: Path
) -> None:
    proxy = recording(moto_s3)
    location = proxy.server.attributes(moto_s3.bucket())
    cachefs.copy(recorded / "s3" / "max", location)
    proxy.clear()
    cache = cachefs.open(location)
    graph = cache.load("app")
    result = cache.result(cachefs.Matches(graph, frozenset(graph.finals())))
    assert not isinstance(result, cachefs.Miss)
    assert len(result.layers) == 5
    assert [request.path.rpartition("/")[2] for request in proxy.requests] == ["app"]
    paths = result.pull(tmp_path / "made" / "for it")
    assert isinstance(paths, list)
    assert len(proxy.requests) == 6
    for path in paths:
        assert cachefs.Digest.of(path.read_bytes()).hex == path.name


def test_a_build_walks_from_the_roots_to_a_hit(recorded: Path) -> None:
    cache = cachefs.open(recorded / "s3" / "max", name="app")
    graph = cache.load()
    matched: dict[int, cachefs.Matches] = {}
    waiting = list(range(len(graph.records)))
    while waiting:
        index = waiting.pop(0)
        record = graph.records[index]
        if any(link.link not in matched for alts in record.inputs for link in alts):
            waiting.append(index)
            continue
        inputs = [[cachefs.Key(k.link, k.selector) for k in alts] for alts in record.inputs]
        matched[index] = graph.find(record.digest, inputs)
        assert index in matched[index]
    miss = cache.result(graph.find("sha256:" + "0" * 64))
    assert isinstance(miss, cachefs.Miss)


def test_several_names_are_merged(recorded: Path) -> None:
    cache = cachefs.open(recorded / "s3" / "max")
    union = cache.load(["app", "app-v2"])
    assert {r.digest for r in union.records} == {
        r.digest for name in ("app", "app-v2") for r in cache.load(name).records
    }


def test_a_body_that_comes_damaged_is_fetched_once_more(
    recording: Recording, moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    cache = cachefs.open(proxy.server.attributes(moto_s3.bucket()))
    cache.export(*built(b"x" * 100_000))
    proxy.clear()
    proxy.inject(cut_after=50_000, when=lambda r: "/blobs/" in r.path and r.method == "GET")
    digest = cachefs.Digest.of(b"x" * 100_000)
    assert cache.read_blob(digest, 100_000) == b"x" * 100_000
    assert len(proxy.requests) == 2


def test_a_cache_travels_in_a_pickle_and_shows_no_secret(moto_s3: S3Server) -> None:
    cache = cachefs.open(moto_s3.attributes(moto_s3.bucket()))
    cache.export(*built(b"one"))
    again = pickle.loads(pickle.dumps(cache))  # noqa: S301 - made here
    assert [name.name for name in again.names()] == ["buildkit"]
    assert "moto-secret" not in repr(again)


def test_ctrl_c_ends_the_work_before_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            ended.append("cleaned up")

    def interrupted(_futures: object, timeout: float | None = None) -> None:
        import time

        time.sleep(0.1)  # the work has begun
        raise KeyboardInterrupt

    monkeypatch.setattr("cachefs.concurrency.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert ended == ["cleaned up"]
