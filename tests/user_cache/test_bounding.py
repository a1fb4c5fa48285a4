"""The user's own cache stays below a size, and runs lose nothing that they use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import cachefs
from cachefs.layers import leftovers
from cachefs.running.policy import Policy
from cachefs.user_cache import bounding
from cachefs.user_cache.bounding import keep_bound
from cachefs.user_directory import own_cache
from tests.running.in_place import run

HOURS_AGO = 7200


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def policy() -> Policy:
    return Policy(cache=(str(own_cache()),))


def make(place: Path, policy: Policy, number: int) -> str:
    """Make a result of 100 kB; its outcome."""
    script = f"head -c 100000 /dev/urandom > out; : {number}"
    return run(place, script, "out", policy=policy).outcome


def age(seconds: float = HOURS_AGO) -> None:
    """Let everything in the own cache become older, in the order in which it was used."""
    for path in (*own_cache().rglob("*"), own_cache().parent / "measured"):
        if path.is_file():
            at = path.stat().st_mtime - seconds
            os.utime(path, (at, at))


def test_what_was_not_used_for_longest_is_removed(
    place: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", "450kB")
    monkeypatch.setattr("cachefs.running.tiers.HELD", 0.0)
    for number in range(4):
        assert make(place, policy, number) == "ran"
        age()
    assert make(place, policy, 0) == "hit"  # now it is the one that was used last
    age()
    assert make(place, policy, 4) == "ran"
    assert len(cachefs.open(own_cache()).names()) < 5
    assert make(place, policy, 0) == "hit"
    assert make(place, policy, 4) == "hit"
    assert make(place, policy, 1) == "ran"


def test_what_was_written_within_the_hour_stays(
    place: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make(place, policy, number)
    blobs = set((own_cache() / "blobs").iterdir())
    age(1000)
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", "1kB")
    keep_bound(10_000)
    assert set((own_cache() / "blobs").iterdir()) == blobs


def test_it_is_measured_once_a_day_or_when_it_has_grown(
    place: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place, policy, 0)
    marker = own_cache().parent / "measured"
    at = time.time() - 3600
    os.utime(marker, (at, at))
    make(place, policy, 1)
    assert marker.stat().st_mtime == at
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", "200kB")
    make(place, policy, 2)
    assert marker.stat().st_mtime > at
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", "unlimited")
    at = time.time() - 90_000
    os.utime(marker, (at, at))
    make(place, policy, 3)
    assert marker.stat().st_mtime > at


def test_a_size_that_is_none_is_a_warning(
    place: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", "much")
    assert make(place, policy, 0) == "ran"
    assert '$CACHEFS_CACHE_SIZE: "much" is not a valid size' in caplog.text
    assert make(place, policy, 0) == "hit"


def test_other_caches_are_not_bounded(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", "1kB")
    policy = Policy(cache=(str(tmp_path / "cache"),))
    for number in range(3):
        make(place, policy, number)
    assert len(cachefs.open(tmp_path / "cache").names()) == 3
    assert not (own_cache().parent / "measured").exists()


def test_a_hit_is_held_before_it_is_used(
    place: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place, policy, 0)
    age()
    plan = cachefs.open(own_cache()).plan_prune(
        cachefs.PrunePolicy(max_size=0), grace=bounding.GRACE
    )
    assert len(plan.remove) == 1
    monkeypatch.setattr("cachefs.running.tiers.HELD", 0.0)
    assert make(place, policy, 0) == "hit"
    report = plan.execute()  # by another process, which looked before
    assert (report.removed, report.deleted.blobs) == ([], 0)
    assert make(place, policy, 0) == "hit"


def test_scratch_directories_of_killed_runs_are_removed(
    place: Path, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    killed = tmp_path / "tmp" / f"{leftovers.SCRATCH}killed"
    (killed / "blobs").mkdir(parents=True)
    used, lock = leftovers.locked_directory(tmp_path / "tmp", leftovers.SCRATCH)
    make(place, policy, 0)
    assert sorted((tmp_path / "tmp").iterdir()) == [used]
    os.close(lock)
