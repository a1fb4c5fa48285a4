"""What ``str()`` of a plan says: one line for logs and notebooks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cachefs
from cachefs.amount import counted_names
from tests.transfer.test_exporter import blob_path, built


@pytest.fixture
def cache(tmp_path: Path) -> cachefs.Cache:
    made = cachefs.open(tmp_path / "cache")
    made.export(*built(b"one", b"three"), ["main", "pr-1"])
    return made


def test_a_prune(cache: cachefs.Cache, tmp_path: Path) -> None:
    os.utime(tmp_path / "cache" / "manifests" / "pr-1", (1.0, 1.0))
    plan = cache.plan_prune(cachefs.PrunePolicy(older_than=60.0, keep=("main",)), grace=0.0)
    assert str(plan) == (
        "prune: remove 1 name: pr-1; delete 0 blobs (0 bytes); keep 2 blobs (8 bytes)"
    )


def test_a_copy_and_a_mirror(cache: cachefs.Cache, tmp_path: Path) -> None:
    there = tmp_path / "there"
    planned = "copy: write 2 names: main, pr-1; send 2 blobs (8 bytes)"
    assert str(cachefs.plan_copy(cache, there)) == planned
    cachefs.open(there, name="old").export(*built(b"old"))
    mirror = str(cachefs.plan_copy(cache, there, delete=True))
    assert mirror.startswith(f"{planned}; then prune: remove 1 name: old; delete 0 blobs")


def test_a_merge(cache: cachefs.Cache) -> None:
    assert str(cachefs.plan_merge(cache, cache, "both")) == (
        "merge: 2 names: main, pr-1; write 1 name: both; send 0 blobs (0 bytes)"
    )


def test_a_repair(cache: cachefs.Cache, tmp_path: Path) -> None:
    assert str(cache.plan_repair()).startswith("repair: 0 faults; fetch 0 blobs")
    replica = cachefs.open(tmp_path / "replica")
    cachefs.copy(cache, replica)
    blob_path(tmp_path / "cache", b"one").unlink()
    assert str(cache.plan_repair(replica)) == (
        "repair: 1 fault; fetch 1 blob (3 bytes); write no name; remove no name; "
        "delete 0 damaged blobs; leave 0 faults"
    )


def test_many_names_are_cut() -> None:
    names = [f"n{number}" for number in range(8)]
    assert counted_names(names) == "8 names: n0, n1, n2, n3, n4 and 3 more"
