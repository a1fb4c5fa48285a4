"""Several caches with rights: which are read, which are written, and what a hit renews."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.concurrency import run as wait
from cachefs.running.policy import Policy
from cachefs.transfer.renewing import DAY, renew
from cachefs.wire import timestamps
from tests.running.in_place import Ran, run
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.whole.test_lean_requests import kinds

SCRIPT = "cat in > out; echo ran >> ../log; echo said"

Recording = Callable[[S3Server], RecordingProxy]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    (place / "in").write_text("1")
    return place


def made(place: Path, policy: Policy) -> Ran:
    return run(place, SCRIPT, "out", inputs=("in",), policy=policy)


def names(*folders: Path) -> list[int]:
    """How many names each cache has."""
    return [len(cachefs.open(folder).names()) for folder in folders]


def test_a_miss_is_written_to_every_writable_cache(place: Path) -> None:
    one, two, read, to = (place.parent / name for name in ("1", "2", "read", "to"))
    policy = Policy(cache=(str(one), str(two)), cache_from=(str(read),), cache_to=(str(to),))
    assert made(place, policy).outcome == "ran"
    assert names(one, two, to) == [1, 1, 1]
    assert not read.exists()
    for folder in (one, two, to):
        assert cachefs.open(folder).verify(read_data=1.0).faults == []
        hit = made(place, Policy(cache_from=(str(folder),)))
        assert (hit.outcome, hit.report.cache) == ("hit", f"{folder}/")


def test_a_hit_fills_the_caches_before_and_those_that_are_only_written(place: Path) -> None:
    first, second, third, to = (place.parent / name for name in ("1", "2", "3", "to"))
    made(place, Policy(cache=(str(second),)))
    policy = Policy(cache=(str(first), str(second), str(third)), cache_to=(str(to),))
    (place / "out").unlink()  # what is in place is not fetched
    hit = made(place, policy)
    assert (hit.outcome, hit.report.cache) == ("hit", f"{second}/")
    assert names(first, second, to) == [1, 1, 1]
    assert not third.exists()
    assert cachefs.open(first).verify(read_data=1.0).faults == []
    again = made(place, Policy(cache=(str(first),)))
    assert (again.outcome, again.said) == ("hit", b"said\n")


def test_a_cache_that_is_only_read_is_never_written(place: Path) -> None:
    shared = place.parent / "shared"
    made(place, Policy(cache=(str(shared),)))
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*")}
    assert made(place, Policy(cache_from=(str(shared),))).outcome == "hit"
    (place / "in").write_text("2")
    assert made(place, Policy(cache_from=(str(shared),))).outcome == "ran"
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*")} == before


def test_a_cache_that_is_only_written_is_not_read(place: Path) -> None:
    policy = Policy(cache_to=(str(place.parent / "to"),))
    assert [made(place, policy).outcome for _ in range(2)] == ["ran", "ran"]


def test_a_damaged_result_is_taken_from_the_next_cache(place: Path) -> None:
    first, second = place.parent / "1", place.parent / "2"
    policy = Policy(cache=(str(first), str(second)))
    made(place, policy)
    for blob in (first / "blobs").iterdir():
        blob.write_bytes(b"damaged")
    (place / "out").unlink()
    hit = made(place, policy)
    assert (hit.outcome, hit.report.cache) == ("hit", f"{second}/")
    assert (place / "out").read_text() == "1"


def test_one_failing_cache_is_a_warning_and_the_others_are_written(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place.parent / "file").touch()
    good = place.parent / "good"
    ran = made(place, Policy(cache=(str(place.parent / "file" / "below"), str(good))))
    assert ran.outcome == "ran"
    assert names(good) == [1]
    assert "failed and is ignored" in caplog.text


def test_a_build_is_exported_to_several_caches(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    targets = [tmp_path / "1", tmp_path / "file" / "below", tmp_path / "2"]
    with pytest.raises(cachefs.StoreError), cachefs.Build([], targets) as build:
        build.step(["touch", "out"], outputs=["out"])
    assert names(targets[0], targets[2]) == [1, 1]
    assert [report.error is None for report in build.report.exports] == [True, False, True]


# --- policies -----------------------------------------------------------------------------------


def test_force_runs_and_replaces_the_result(place: Path) -> None:
    policy = Policy(cache=(str(place.parent / "cache"),))
    forced = Policy(cache=policy.cache, force=True)
    script = "date +%N > out"
    run(place, script, "out", policy=policy)
    first = (place / "out").read_text()
    ran = run(place, script, "out", policy=forced)
    assert (ran.outcome, ran.report.why) == ("ran", ["it is forced to run"])
    second = (place / "out").read_text()
    assert run(place, script, "out", policy=policy).outcome == "hit"
    assert first != second == (place / "out").read_text()


def test_nothing_is_written_without_the_right(place: Path) -> None:
    cache = place.parent / "cache"
    policy = Policy(cache=(str(cache),), write=False)
    assert made(place, policy).outcome == "ran"
    assert not cache.exists()
    made(place, Policy(cache=(str(cache),)))
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    other = place.parent / "other"
    hit = made(place, Policy(cache=(str(other), str(cache)), write=False))
    assert hit.outcome == "hit"
    assert not other.exists()
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_a_result_that_is_too_old_is_a_miss_and_replaced(place: Path) -> None:
    cache = (str(place.parent / "cache"),)
    made(place, Policy(cache=cache))
    assert made(place, Policy(cache=cache, ttl=3600.0)).outcome == "hit"
    old = made(place, Policy(cache=cache, ttl=0.0))
    assert old.outcome == "ran"
    assert "is too old" in old.report.why[0]
    assert made(place, Policy(cache=cache, ttl=3600.0)).outcome == "hit"


def everything(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def test_a_dry_run_says_what_would_be_and_changes_nothing(place: Path) -> None:
    cache = (str(place.parent / "cache"),)
    dry = Policy(cache=cache, dry_run=True)
    empty = made(place, dry)
    assert (empty.outcome, empty.said) == ("would run", b"")
    assert sorted(path.name for path in place.parent.rglob("*")) == ["in", "place"]
    made(place, Policy(cache=cache))
    (place / "out").write_text("other")
    before = everything(place.parent)
    hit = made(place, dry)
    assert (hit.outcome, hit.report.cache, hit.said) == ("would hit", f"{cache[0]}/", b"")
    assert hit.report.fetched > 0
    (place / "in").write_text("2")
    before = everything(place.parent)
    miss = made(place, dry)
    assert (miss.outcome, miss.report.why[1:]) == (
        "would run",
        ["input in changed: its content changed"],
    )
    assert made(place, Policy(cache=cache, dry_run=True, force=True)).outcome == "would run"
    assert everything(place.parent) == before


# --- renewing -----------------------------------------------------------------------------------


def test_a_hit_within_the_day_costs_no_request_more(
    place: Path, recording: Recording, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = recording(moto_s3)
    location = proxy.server.attributes(moto_s3.bucket())
    policy = Policy(cache=(location,))
    made(place, policy)

    def requests_of_a_hit() -> dict[str, int]:
        proxy.clear()
        (place / "out").unlink()
        assert made(place, policy).outcome == "hit"
        return kinds(proxy)

    young = requests_of_a_hit()
    assert young == {"GET": 3}  # the manifest, the files and the log
    monkeypatch.setattr(timestamps, "age", lambda _created_at: 2 * DAY)
    assert requests_of_a_hit() == {"GET": 3, "HEAD": 1}  # is the name's time a day old?
    assert requests_of_a_hit() == young


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_name_and_its_blobs_are_renewed_by_touches(
    place: Path, recording: Recording, moto_s3: S3Server, engine: str
) -> None:
    proxy = recording(moto_s3)
    cache = cachefs.open(proxy.server.attributes(moto_s3.bucket()), engine=engine)
    made(place, Policy(cache=(cache.location,)))
    (name,) = cache.names()
    blobs = cache.load([name.name]).blobs()
    before = cache.manifest(name.name).raw
    proxy.clear()
    now = name.modified or 0.0
    for age, copies in ((DAY - 60, 0), (DAY + 60, len(blobs) + 1)):
        work = renew(
            cache.layout, name.name, blobs, touch_refresh=DAY, clock=lambda age=age: now + age
        )
        assert wait(work)
        assert kinds(proxy).get("COPY", 0) == copies
        assert "PUT" not in kinds(proxy)
    assert cache.manifest(name.name).raw == before
    assert not wait(renew(cache.layout, "other", {}, touch_refresh=DAY))


@pytest.mark.parametrize("kind", ["{}", "type=local,dest={}"])
def test_the_age_of_a_name_says_when_it_was_used(
    place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cachefs.open(kind.format(place.parent / "cache"))
    policy = Policy(cache=(cache.location,))
    made(place, policy)
    (name,) = cache.names()
    key = cache.layout.store.root + name.key
    old = 1_600_000_000
    os.utime(key, (old, old))
    monkeypatch.setattr(timestamps, "age", lambda _created_at: 2 * DAY)
    assert made(place, policy).outcome == "hit"
    renewed = Path(key).stat().st_mtime
    assert renewed > old + 1
    os.utime(key, (old, old))
    assert made(place, policy).outcome == "hit"  # at most once a day
    assert Path(key).stat().st_mtime == old
