"""A prune keeps the signatures of what names hold, and removes all others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import cachefs
from tests.signing import export, keys, public, signatures


def aged(root: Path) -> None:
    """Make everything a week old."""
    week = time.time() - 7 * 86_400
    for path in root.rglob("*"):
        os.utime(path, (week, week))


@pytest.mark.parametrize("kind", ["keyed", "oci"])
def test_signatures_go_with_what_they_are_for(tmp_path: Path, kind: str) -> None:
    first, second = keys(tmp_path, "first", "second")
    root = tmp_path / "cache"
    location = f"type=local,dest={root}" if kind == "oci" else str(root)
    writer = cachefs.open(location, signing_key=first)
    export(writer, "main", "gone")
    before = set(signatures(root))
    export(writer, "main", seed=2)
    cachefs.open(location, signing_key=second).sign("main")
    aged(root)
    policy = cachefs.PrunePolicy(keep_last={"gone": 0})
    plan = cachefs.open(location).plan_prune(policy)
    assert {root / each.key for each in plan.signatures} == before
    report = plan.execute()
    assert (report.removed, report.signatures) == (["gone"], 2)
    assert len(signatures(root)) == 2
    for key in (first, second):
        assert cachefs.open(location, signed_by=public(key)).load("main").records


def test_young_signatures_and_those_of_other_caches_stay(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    root = tmp_path / "cache"
    other = {"blobs_prefix": "b/", "manifests_prefix": "m/"}
    export(cachefs.open(root, signing_key=key, **other), "main", seed=3)  # type: ignore[arg-type]
    writer = cachefs.open(root, signing_key=key)
    export(writer, "main", seed=1)
    aged(root)
    export(writer, "main", seed=2)
    export(writer, "main", seed=1)  # so the signature of seed 2 is for nothing, but young
    assert cachefs.open(root).plan_prune().signatures == []
    assert len(signatures(root)) == 3


def test_a_signature_that_is_written_again_after_the_plan_stays(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    root = tmp_path / "cache"
    writer = cachefs.open(root, signing_key=key)
    export(writer, "main", seed=1)
    export(writer, "main", seed=2)
    aged(root)
    plan = cachefs.open(root).plan_prune()
    assert len(plan.signatures) == 1
    export(writer, "main", seed=1)
    plan.execute()
    assert cachefs.open(root, signed_by=public(key)).load("main").records


def test_pruning_needs_no_signatures(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    root = tmp_path / "cache"
    export(cachefs.open(root), "main")
    aged(root)
    assert cachefs.open(root, signed_by=public(key)).plan_prune().is_empty
