"""Totals of what caches saved."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachefs.running.policy import Policy
from cachefs.user_cache import statistics
from cachefs.user_cache.statistics import Saving, count, reset, totals
from tests.running.in_place import run


def test_runs_are_counted_by_command_and_cache(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    policy = Policy(cache=(str(tmp_path / "cache"),))
    for _ in range(3):
        run(place, "echo > out; : --token hunter2", "out", policy=policy)
    hits, misses = totals()
    assert (hits.hits, hits.misses, hits.cache) == (2, 0, f"{tmp_path}/cache/")
    assert (misses.hits, misses.misses, misses.cache) == (0, 1, "")
    assert hits.command == misses.command == "sh -c 'echo > out; : --token ***'"
    assert hits.saved > 0 < misses.spent
    reset()
    assert totals() == []


def test_they_survive_concurrency_damage_and_growth(
    nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_LARGEST", 2000)
    with ThreadPoolExecutor(8) as pool:
        for number in range(100):
            pool.submit(count, Saving(command=f"c{number % 3}", hits=1, saved=0.5))
    file = nobodys_home / ".cache" / "cachefs" / "stats"
    assert file.stat().st_size < 2500
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("ab") as damaged:
        damaged.write(b'{"hits": "x"}\n\xff\n{"hi')
    found = totals()
    assert [one.hits for one in found] == [34, 33, 33]
    assert sum(one.saved for one in found) == 50.0


def test_they_are_not_essential(nobodys_home: Path) -> None:
    (nobodys_home / ".cache" / "cachefs").mkdir(parents=True, exist_ok=True)
    (nobodys_home / ".cache" / "cachefs" / "stats").mkdir()
    count(Saving(hits=1))
