"""Merging names: the laws, what is read back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

import cachefs
from cachefs.testing import random_graph
from cachefs.wire import codec
from tests.damaging import MakePlace, flip
from tests.graphs import graphs
from tests.programs import run as run_program
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server


def canonical(*merged: cachefs.RecordGraph) -> bytes:
    return codec.encode(cachefs.RecordGraph.union(merged).to_config())


def stored(cache: cachefs.Cache, name: str) -> bytes:
    raw: bytes | None = cache.manifest(name).raw
    assert raw is not None
    return raw


def test_a_union_reads_back_as_the_graphs_say(make_place: MakePlace) -> None:
    cache = make_place("keyed").cache
    report = cachefs.merge([cache.with_names(["app", "app-v2"])], cache, ["both", "again"])
    assert report.names == ["both", "again"]
    assert report.uploaded.blobs == 0
    assert stored(cache, "both") == stored(cache, "again")
    assert stored(cache, "both") == canonical(cache.load("app"), cache.load("app-v2"))
    assert cache.load("both").blobs() == cache.load("app").blobs() | cache.load("app-v2").blobs()
    assert cache.verify(read_data=1.0).faults == []


def test_the_laws_hold_in_a_store(make_place: MakePlace) -> None:
    cache = make_place("keyed").cache
    for first, second, into in (
        ("app", "app-v2", "one"),
        ("app-v2", "app", "other"),
        ("one", "app", "more"),
        ("one", "one", "same"),
    ):
        cachefs.merge([cache.with_names([first, second])], cache, [into])
    expected = stored(cache, "one")
    assert {stored(cache, name) for name in ("other", "more", "same")} == {expected}


@settings(max_examples=50)
@given(graphs(), graphs(), graphs())
def test_the_laws_hold_for_any_graphs(
    a: cachefs.RecordGraph, b: cachefs.RecordGraph, c: cachefs.RecordGraph
) -> None:
    union = canonical(a, b, c)
    assert canonical(c, a, b) == canonical(b, a, c) == union
    assert (
        canonical(cachefs.RecordGraph.union([a, b]), c)
        == canonical(a, cachefs.RecordGraph.union([b, c]))
        == union
    )
    assert canonical(cachefs.RecordGraph(codec.decode(union)), a) == union


@pytest.mark.parametrize("kind", ["keyed", "oci", "s3"])
def test_caches_are_merged_across_kinds(
    make_place: MakePlace, recorded: Path, tmp_path: Path, kind: str
) -> None:
    first = cachefs.open(recorded / "s3" / "max")
    second = make_place(kind).cache
    target = cachefs.open(f"type=local,dest={tmp_path / 'target'}")
    cachefs.merge([first.with_names("app"), second.with_names("app-v2")], target, ["all"])
    union = cachefs.RecordGraph.union([first.load("app"), second.load("app-v2")])
    assert target.load("all").blobs() == union.blobs()
    assert len(target.load("all")) == len(union)
    assert target.verify(read_data=1.0).faults == []


def test_a_plan_is_plain_and_changes_nothing(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("keyed")
    before = dict(place.objects)
    source, target = place.cache, cachefs.open(tmp_path / "target")
    plan = cachefs.plan_merge([source], target, ["all"])
    assert [merged.name for merged in plan.sources] == sorted(place.needs())
    assert plan.upload == plan.blobs
    assert plan.replaces == []
    assert dict(place.objects) == before
    assert not (tmp_path / "target").exists()
    # A name that is not among the sources keeps what it holds, or else is lost.
    chosen, into = source.with_names(["app"]), ["app", "app-v2"]
    joining = cachefs.plan_merge([chosen], source, into)
    assert (joining.joins, joining.replaces) == (["app-v2"], [])
    assert joining.records > cachefs.plan_merge([chosen], source, ["new"]).records
    replacing = cachefs.plan_merge([chosen], source, into, on_conflict="replace")
    assert (replacing.joins, replacing.replaces) == ([], ["app-v2"])


def test_missing_names_are_all_told(make_place: MakePlace) -> None:
    cache = make_place("keyed").cache
    with pytest.raises(cachefs.UsageError, match=r"nobody.*none"):
        cachefs.plan_merge([cache.with_names(["app", "none", "nobody"])], cache, ["all"])
    with pytest.raises(cachefs.UsageError):
        cachefs.plan_merge([cache.with_names(["app"])], cache, [])
    assert "all" not in [name.name for name in cache.names()]


def test_names_that_change_meanwhile_stop_the_merge(make_place: MakePlace) -> None:
    cache = make_place("keyed").cache
    sources = [cache.with_names(["app", "app-v2"])]
    plan = cachefs.plan_merge(sources, cache, ["all"])
    key = next(name.key for name in cache.names() if name.name == "app")
    path = Path(cache.layout.store.root, key)
    path.write_bytes(b'{"layers":[],"records":[]}')
    with pytest.raises(cachefs.CacheError, match="plan again"):
        plan.execute()
    assert "all" not in [name.name for name in cache.names()]


def test_a_blob_that_no_source_has_whole_stops_the_merge(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place("keyed")
    target = cachefs.open(tmp_path / "target")
    flip(place.objects, place.blob_key(next(iter(place.needs()["app"]))))
    with pytest.raises(cachefs.IntegrityError):
        cachefs.merge([place.cache.with_names("app")], target, ["all"])
    assert target.names() == []


def test_a_config_that_builders_refuse_is_told_before(tmp_path: Path) -> None:
    graph = cachefs.RecordGraph()
    for number in range(14_000):
        graph.add(str(cachefs.Digest.of(str(number).encode())))
    source = cachefs.open(tmp_path / "source")
    source.export(graph, {}, names=["large"])
    oci = cachefs.open(f"type=local,dest={tmp_path / 'oci'}")
    keyed = cachefs.open(tmp_path / "keyed")
    assert cachefs.plan_merge([source], oci, ["all"]).over_limit
    assert not cachefs.plan_merge([source], keyed, ["all"]).over_limit


def test_the_command(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("keyed")
    pair = ["--name", "app", "--name", "app-v2"]
    unnamed = run_program("merge", place.location, *pair)
    assert unnamed.status == 2
    assert "--into" in unnamed.err
    planned = run_program("merge", place.location, *pair, "--into", "both", "--dry-run", "--json")
    assert json.loads(planned.out)["plan"]["names"] == ["both"]
    assert "both" not in place.needs()
    done = run_program("merge", place.location, *pair, "--into", "both")
    assert (done.status, done.err) == (0, "")
    assert "both" in place.needs()
    both = len(place.cache.load("both"))
    joined = run_program("merge", place.location, "--name", "app", "--into", "both", "--json")
    assert json.loads(joined.out)["plan"]["unchanged"] == ["both"]
    assert len(place.cache.load("both")) == both
    replacing = ["merge", place.location, "--name", "app", "--into", "both", "--replace"]
    refused = run_program(*replacing)
    assert refused.status == 2
    assert "--yes" in refused.err
    replaced = run_program(*replacing, "--yes", "--json")
    assert json.loads(replaced.out)["plan"]["replaces"] == ["both"]
    assert len(place.cache.load("both")) < both
    across = run_program("merge", place.location, str(tmp_path / "elsewhere"), "--into", "all")
    assert across.status == 0
    assert [name.name for name in cachefs.open(tmp_path / "elsewhere").names()] == ["all"]
    missing = run_program("merge", place.location, "--name", "nobody", "--into", "x")
    assert missing.status == 2
    assert "nobody" in missing.err


def test_a_source_that_is_also_the_target_is_read_once(
    recording: Callable[[S3Server], RecordingProxy], moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    cache = cachefs.open(proxy.server.attributes(proxy.server.bucket()))
    generated = random_graph(1, records=3)
    cache.export(generated.graph, generated.blobs, ["main", "all"], mode="max")
    proxy.clear()
    assert cachefs.plan_merge(cache.with_names("all"), cache, ["all", "main"]).is_empty
    read = [each.path.rpartition("/")[2] for each in proxy.requests if "/manifests/" in each.path]
    assert sorted(read) == ["all", "main"]
