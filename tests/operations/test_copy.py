"""Copying: a plan says what will be sent, and errors say which side they concern."""

from __future__ import annotations

from pathlib import Path

import pytest

import cachefs
from cachefs.testing import random_graph
from tests.programs import run as run_program
from tests.servers.s3 import S3Server


def filled(location: Path) -> cachefs.Cache:
    cache = cachefs.open(location)
    generated = random_graph(1, records=5)
    cache.export(generated.graph, generated.blobs, ["main", "other"], mode="max")
    return cache


def test_errors_name_the_side_of_a_cache_that_was_opened_before(
    tmp_path: Path, moto_s3: S3Server
) -> None:
    nowhere = cachefs.open(moto_s3.attributes("no-such-bucket"))
    with pytest.raises(cachefs.StoreError) as reading:
        cachefs.copy(nowhere, tmp_path / "target")
    with pytest.raises(cachefs.StoreError) as writing:
        cachefs.copy(filled(tmp_path / "source"), nowhere)
    assert (reading.value.side, writing.value.side) == ("source", "target")


def test_a_plan_tells_what_executing_it_does(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    plan = cachefs.plan_copy(source, tmp_path / "target")
    assert plan.names == {"main": ["main"], "other": ["other"]}
    assert (plan.unreadable, plan.remove, plan.keep) == ({}, [], cachefs.Amount())
    assert not (tmp_path / "target").exists()
    report = plan.execute()
    assert (report.names, report.uploaded) == (["main", "other"], plan.upload)
    again = cachefs.plan_copy(source, tmp_path / "target")
    assert (again.upload, again.keep) == (cachefs.Amount(), plan.upload)


def test_a_plan_of_a_mirror_tells_what_is_removed(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    target = filled(tmp_path / "target")
    cachefs.merge([target], target, "extra")
    plan = cachefs.plan_copy(source, target, delete=True)
    assert plan.remove == ["extra"]
    assert "extra" in target
    assert plan.execute().removed == ["extra"]
    assert list(target) == ["main", "other"]


def test_a_plan_tells_what_cannot_be_copied(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    (tmp_path / "source" / "manifests" / "main").write_bytes(b"[")
    plan = cachefs.plan_copy(source, tmp_path / "target")
    assert (list(plan.names), list(plan.unreadable)) == (["other"], ["main"])
    with pytest.raises(cachefs.CopyError) as refused:
        plan.execute()
    assert refused.value.report.names == ["other"]


def test_a_failure_that_is_to_be_ignored_is_in_the_plans_report(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    (tmp_path / "source" / "manifests" / "main").write_bytes(b"[")
    target = cachefs.open(tmp_path / "target", ignore_error=True)
    report = cachefs.plan_copy(source, target).execute()
    assert report.names == ["other"]
    assert report.error is not None
    assert "main" in report.error


def test_names_that_clash_on_a_disk_do_not_stop_the_others(tmp_path: Path) -> None:
    source = cachefs.open(f"type=local,dest={tmp_path / 'source'}")
    for name in ("feature", "feature/x", "main"):
        cachefs.copy(filled(tmp_path / "made").with_names("main"), source.with_names(name))
    with pytest.raises(cachefs.CopyError, match="'feature/x' cannot be beside 'feature' here") as e:
        cachefs.copy(source, tmp_path / "target")
    assert "type=local,dest=DIR" in str(e.value)
    assert e.value.report.names == ["feature", "main"]
    assert list(cachefs.open(tmp_path / "target")) == ["feature", "main"]
    both = f"type=local,dest={tmp_path / 'both'}"
    cachefs.copy(source, both)
    assert list(cachefs.open(both)) == ["feature", "feature/x", "main"]


def test_a_first_build_has_no_cache_to_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(cachefs.NoCacheError):
        cachefs.copy(tmp_path / "none", tmp_path / "target")
    report = cachefs.copy(tmp_path / "none", tmp_path / "target", ignore_missing=True)
    assert report.names == []
    assert "there is nothing here" in caplog.text
    source = filled(tmp_path / "source").with_names(["main", "branch"])
    assert cachefs.plan_copy(source, tmp_path / "target", ignore_missing=True).execute().names == [
        "main"
    ]
    assert "branch is not there" in caplog.text
    with pytest.raises(cachefs.CopyError, match="branch"):
        cachefs.copy(source, tmp_path / "target")


def test_names_are_joined_if_asked(tmp_path: Path) -> None:
    caches = [cachefs.open(tmp_path / str(number)) for number in range(2)]
    graphs = []
    for number, cache in enumerate(caches):
        generated = random_graph(number, records=5)
        cache.export(generated.graph, generated.blobs, "main", mode="max")
        graphs.append(cache.load("main"))
    target = cachefs.open(tmp_path / "target")
    for cache in caches:
        cachefs.copy(cache, target, on_conflict="merge")
    union = cachefs.RecordGraph.union(graphs)
    assert target.load("main").blobs() == union.blobs()
    assert cachefs.copy(caches[0], target, on_conflict="merge").unchanged == ["main"]
    assert target.verify(read_data=1.0).faults == []
    with pytest.raises(cachefs.CopyError, match="main holds what another writer wrote"):
        cachefs.copy(caches[0], target, on_conflict="fail")
    assert target.load("main").blobs() == union.blobs()
    assert cachefs.copy(caches[0], target).unchanged == []
    assert target.load("main").blobs() == graphs[0].blobs()


def test_a_mirror_joins_nothing(tmp_path: Path) -> None:
    """It would delete the blobs of what it joined."""
    source = filled(tmp_path / "source")
    with pytest.raises(cachefs.UsageError, match="leave one of them out"):
        cachefs.copy(source, tmp_path / "target", delete=True, on_conflict="merge")
    assert not (tmp_path / "target").exists()


def test_the_command_joins(tmp_path: Path) -> None:
    source, target = filled(tmp_path / "source"), cachefs.open(tmp_path / "target")
    other = random_graph(2, records=5)
    target.export(other.graph, other.blobs, "main", mode="max")
    caches = [str(tmp_path / "source"), str(tmp_path / "target")]
    done = run_program("copy", "--merge", "--name", "main", *caches)
    assert (done.status, done.err) == (0, "")
    expected = source.load("main").blobs() | other.graph.blobs()
    assert target.load("main").blobs() == expected


def test_names_are_everywhere_in_natural_order(recorded: Path, tmp_path: Path) -> None:
    source = cachefs.open(recorded / "s3" / "max")
    name = source.names()[0].name
    cache = cachefs.open(tmp_path / "cache")
    ordered = ["pr-2", "Pr-9", "pr-10", "q"]
    cachefs.copy(source.with_names(name), cache.with_names(reversed(ordered)))
    empty = cachefs.open(tmp_path / "empty")
    cachefs.copy(source.with_names(name), empty.with_names("a"))
    assert [one.name for one in cache.names()] == ordered
    assert list(cachefs.plan_copy(cache, tmp_path / "other").names) == ordered
    assert cachefs.plan_copy(empty, cache, delete=True).remove == ordered
    plan = cache.plan_prune()
    assert [one.name for one in plan.staying[0]] == ordered
    found = cache.diff(empty).names
    assert found is not None
    assert found.lost == ordered
    for path in (tmp_path / "cache" / "blobs").iterdir():
        path.unlink()
    assert {tuple(fault.names) for fault in cache.verify().faults} == {tuple(ordered)}
    oci = tmp_path / "oci"
    cachefs.copy(source.with_names(name), cachefs.open(f"type=local,dest={oci}").with_names("v10"))
    cachefs.copy(source.with_names(name), cachefs.open(f"type=local,dest={oci}").with_names("v9"))
    assert [one.name for one in cachefs.open(f"type=local,src={oci}").names()] == ["v9", "v10"]
