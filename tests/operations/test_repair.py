"""Repair restores what a replica has, and turns exactly what no replica has into misses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cachefs
import cachefs.testing
from cachefs.wire import codec
from tests.damaging import Folder, MakePlace, Place, damage_some, delete, flip, lengthen, truncate
from tests.programs import run as run_program
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

GARBAGE = [b"", b"{", b'{"layers":[{"blob":"sha256:0","parent":0}]}', b"\xff\x00"]

Results = Counter[tuple[str, tuple[str, ...], str]]


@pytest.fixture(params=["keyed", "oci", "s3"])
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


def results(graph: cachefs.RecordGraph) -> Results:
    """Each result: its record, its blobs from the bottom up, its time."""
    return Counter(
        (record.digest, tuple(graph.layers[i].blob for i in found.layers), found.created_at)
        for index, record in enumerate(graph.records)
        for found in graph.results([index])
    )


def graphs(place: Place) -> dict[str, cachefs.RecordGraph]:
    return {each.name: place.cache.load(each.name) for each in place.cache.names()}


def without(found: Results, lost: Iterable[str]) -> Results:
    gone = set(lost)
    return Counter({key: count for key, count in found.items() if not gone & set(key[1])})


def repaired(
    place: Place, replicas: Iterable[Place] = (), *, remove_unreadable: bool = False
) -> cachefs.RepairReport:
    sources = [replica.cache for replica in replicas]
    plan = place.cache.plan_repair(sources, read_data=1.0, remove_unreadable=remove_unreadable)
    # A plan is plain data: all of it comes through JSON.
    assert msgspec.json.decode(msgspec.json.encode(plan), type=cachefs.RepairPlan) == plan
    return plan.execute()


def assert_clean(place: Place) -> None:
    report = place.cache.verify(read_data=1.0)
    assert report.faults == []
    assert place.cache.plan_repair(read_data=1.0).is_empty
    for name in report.names:
        config = place.cache.manifest(name).config
        raw = codec.encode(config)
        assert codec.encode(codec.decode(raw)) == raw
        assert codec.encode(cachefs.RecordGraph(config).to_config()) == raw
        used = {
            index
            for record in config.records
            for result in record.layers
            for index in cachefs.RecordGraph(config).chain(result.layer)
        }
        assert used == set(range(len(config.layers)))


def test_what_is_whole_is_left_alone(place: Place) -> None:
    before = dict(place.objects)
    plan = place.cache.plan_repair(read_data=1.0)
    assert plan.is_empty
    assert plan.execute() == cachefs.RepairReport()
    assert dict(place.objects) == before


@pytest.mark.parametrize("seed", range(3))
def test_what_nobody_has_becomes_a_miss_and_the_rest_stays(place: Place, seed: int) -> None:
    before = graphs(place)
    done = damage_some(place, seed)
    report = repaired(place)
    assert report.left == {}
    assert report.deleted == sorted(d for d, damage in done.items() if damage != "delete")
    assert_clean(place)
    for name, graph in graphs(place).items():
        assert results(graph) == without(results(before[name]), done)
        assert Counter(r.digest for r in graph.records) == Counter(
            r.digest for r in before[name].records
        )
        assert (name in report.rewritten) == bool(before[name].blobs().keys() & done.keys())
    assert not {place.blob_key(digest) for digest in done} & set(place.objects)


@pytest.mark.parametrize("replica_kind", ["keyed", "oci"])
def test_what_a_replica_has_comes_back(
    place: Place, replica_kind: str, make_place: MakePlace
) -> None:
    before = dict(place.objects)
    done = damage_some(place, 1)
    replica = make_place(replica_kind)
    kept = dict(replica.objects)
    report = repaired(place, [replica])
    assert (report.fetched.blobs, report.rewritten, report.deleted) == (len(done), [], [])
    assert dict(place.objects) == before
    assert dict(replica.objects) == kept


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    records=st.integers(1, 25),
    kinds=st.tuples(*2 * [st.sampled_from(["keyed", "oci"])]),
    damages=st.tuples(*2 * [st.integers(0, 1000)]),
    broken=st.sets(st.sampled_from(["main", "pr-1"])),
)
def test_any_damage_to_any_cache_is_repaired(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    records: int,
    kinds: tuple[str, str],
    damages: tuple[int, int],
    broken: set[str],
) -> None:
    place, replica = (generated(tmp_path_factory.mktemp("place"), k, seed, records) for k in kinds)
    before = graphs(place)
    done = damage_some(place, damages[0])
    done_there = damage_some(replica, damages[1])
    keys = {place.manifest_key(name) for name in broken}
    for key in keys:
        truncate(place.objects, key)
    report = repaired(place, [replica])
    assert report.left == {}
    assert set(report.restored) == broken
    assert_clean(place)
    lost = done.keys() & done_there.keys()
    after = graphs(place)
    assert after.keys() == before.keys()
    for name, graph in after.items():
        assert results(graph) == without(results(before[name]), lost)


def generated(folder: Path, kind: str, seed: int, records: int) -> Place:
    location = f"type=local,dest={folder}" if kind == "oci" else str(folder)
    cache = cachefs.open(location)
    cachefs.testing.write_random_cache(
        cache, names=["main", "pr-1"], seed=seed, records=records, blob_size=64
    )
    return Place(location, Folder(folder), cache)


def test_replicas_complete_each_other_and_the_rest_is_lost(make_place: MakePlace) -> None:
    place, first, second = (make_place("keyed") for _ in range(3))
    before = graphs(place)
    damaged, absent, cut, lost, *_ = sorted(before["app"].blobs())
    for digest in (damaged, absent, cut, lost):
        delete(place.objects, place.blob_key(digest))
    flip(first.objects, first.blob_key(damaged))
    delete(first.objects, first.blob_key(absent))
    truncate(first.objects, first.blob_key(cut))
    for replica in (first, second):
        if replica is first or lost in dict(replica.cache.load("app").blobs()):
            replica.objects.pop(replica.blob_key(lost))
    report = repaired(place, [first, second])
    assert report.fetched.blobs == 3
    assert_clean(place)
    for name, graph in graphs(place).items():
        assert results(graph) == without(results(before[name]), [lost])


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_broken_manifest_is_restored(place: Place, garbage: bytes, make_place: MakePlace) -> None:
    before = dict(place.objects)
    replica = make_place("keyed")
    place.objects[place.manifest_key("app-v2")] = garbage
    only = sorted(place.cache.load("app").blobs().keys() ^ replica.cache.load("app-v2").blobs())
    for digest in only[:1]:
        place.objects.pop(place.blob_key(digest), None)
    report = repaired(place, [replica])
    assert (report.restored, report.left) == (["app-v2"], {})
    assert dict(place.objects) == before


def test_a_broken_manifest_is_restored_without_what_nobody_has(make_place: MakePlace) -> None:
    place, replica = make_place("oci"), make_place("keyed")
    before = graphs(place)
    flip(place.objects, place.manifest_key("app-v2"))
    lost = min(before["app-v2"].blobs().keys() - before["app"].blobs().keys())
    delete(place.objects, place.blob_key(lost))
    delete(replica.objects, replica.blob_key(lost))
    assert repaired(place, [replica]).restored == ["app-v2"]
    assert results(place.cache.load("app-v2")) == without(results(before["app-v2"]), [lost])
    assert results(place.cache.load("app")) == results(before["app"])


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_broken_manifest_that_nobody_has_stays_or_is_dropped(
    place: Place, garbage: bytes
) -> None:
    key = place.manifest_key("app-v2")
    place.objects[key] = garbage
    before = dict(place.objects)
    report = repaired(place)
    assert list(report.left) == ["app-v2"]
    assert dict(place.objects) == before
    assert repaired(place, remove_unreadable=True).removed == ["app-v2"]
    assert [name.name for name in place.cache.names()] == ["app"]
    assert_clean(place)


def test_tags_that_share_a_broken_manifest_are_restored_or_dropped_together(
    make_place: MakePlace,
) -> None:
    place, replica = make_place("oci"), make_place("keyed")
    graph = place.cache.load("app")
    for cache in (place.cache, replica.cache):
        cache.export(graph, {}, names=["one", "two"], mode="max")
    whole = dict(place.objects)
    flip(place.objects, place.manifest_key("one"))
    report = repaired(place, [replica])
    assert (sorted(report.restored)[-2:], report.left) == (["one", "two"], {})
    assert dict(place.objects) == whole
    flip(place.objects, place.manifest_key("one"))
    dropped = repaired(place, remove_unreadable=True)
    assert dropped.removed[-2:] == ["one", "two"]
    assert len(dropped.deleted) == 1
    assert_clean(place)


def test_a_part_of_a_cache_that_is_damaged_and_unnamed_is_deleted(make_place: MakePlace) -> None:
    place = make_place("keyed")
    orphan = place.blob_key(str(cachefs.Digest.of(b"orphan")))
    before = dict(place.objects)
    place.objects[orphan] = b"0rphan"
    assert len(repaired(place).deleted) == 1
    assert dict(place.objects) == before


def test_a_wrong_size_in_a_manifest_is_corrected(make_place: MakePlace) -> None:
    place = make_place("keyed")
    before = dict(place.objects)
    key = place.manifest_key("app")
    config = json.loads(place.objects[key])
    config["layers"][0]["annotations"]["size"] += 1
    place.objects[key] = json.dumps(config).encode()
    (publication,) = place.cache.plan_repair().publish
    assert (publication.lost, publication.misses) == ([], 0)
    assert repaired(place).rewritten == ["app"]
    assert dict(place.objects) == before


def test_what_changed_since_the_plan_is_left(place: Place) -> None:
    graph = place.cache.load("app-v2")
    lost = min(graph.blobs().keys() & place.cache.load("app").blobs().keys())
    whole = place.objects[place.blob_key(lost)]
    flip(place.objects, place.blob_key(lost))
    plan = place.cache.plan_repair(read_data=1.0)
    assert ([p.name for p in plan.publish], plan.delete) == (["app", "app-v2"], [str(lost)])
    # Another process exports app again, unaware of the damage.
    graph.add(cachefs.output_key("new", 0))
    place.cache.export(graph, {}, names=["app"], mode="max")
    report = plan.execute()
    assert list(report.left) == ["app"]
    assert (report.rewritten, report.deleted) == (["app-v2"], [])
    # Another process sends the blob again: there is nothing to delete any more.
    plan = place.cache.plan_repair(read_data=1.0)
    place.objects[place.blob_key(lost)] = whole
    assert plan.execute().deleted == []
    assert place.objects[place.blob_key(lost)] == whole


def test_a_broken_manifest_that_was_written_meanwhile_is_left(make_place: MakePlace) -> None:
    place, replica = make_place("keyed"), make_place("oci")
    key = place.manifest_key("app")
    whole = place.objects[place.manifest_key("app-v2")]
    place.objects[key] = b"{"
    restoring = place.cache.plan_repair([replica.cache])
    dropping = place.cache.plan_repair(remove_unreadable=True)
    assert dropping.remove == ["app"]
    place.objects[key] = whole
    assert list(restoring.execute().left) == ["app"]
    assert list(dropping.execute().left) == ["app"]
    assert place.objects[key] == whole


def test_a_replica_that_lost_it_meanwhile_leaves_the_fault(make_place: MakePlace) -> None:
    place, replica = make_place("keyed"), make_place("keyed")
    digest = min(place.needs()["app"])
    delete(place.objects, place.blob_key(digest))
    before = dict(place.objects)
    plan = place.cache.plan_repair([replica.cache])
    delete(replica.objects, replica.blob_key(digest))
    assert list(plan.execute().left) == [digest]
    assert dict(place.objects) == before


def test_a_replica_that_cannot_be_asked_is_an_error(
    make_place: MakePlace, moto_s3: S3Server
) -> None:
    place = make_place("keyed")
    delete(place.objects, place.blob_key(min(place.needs()["app"])))
    with pytest.raises(cachefs.StoreError):
        place.cache.plan_repair([moto_s3.attributes("no-such-bucket")])
    with pytest.raises(cachefs.UsageError, match="there is no cache to repair from"):
        place.cache.plan_repair([moto_s3.attributes(moto_s3.bucket())])


def test_with_names_given_no_blob_is_deleted(make_place: MakePlace) -> None:
    place = make_place("keyed")
    shared = min(place.needs()["app"].keys() & place.needs()["app-v2"].keys())
    flip(place.objects, place.blob_key(shared))
    one = cachefs.open(f"type=fsspec,url=file://{place.location},name=app")
    plan = one.plan_repair(read_data=1.0)
    assert ([p.name for p in plan.publish], plan.delete) == (["app"], [])


def test_the_command(make_place: MakePlace) -> None:
    place, replica = make_place("keyed"), make_place("oci")
    assert run_program("repair", place.location).out == "there are no faults\n"
    whole = dict(place.objects)
    digest = min(place.needs()["app"])
    lengthen(place.objects, place.blob_key(digest))
    before = dict(place.objects)
    dry = run_program("repair", place.location, "--from", replica.location, "--dry-run")
    assert dry.status == 1
    assert "fetch" in dry.out
    document = json.loads(run_program("repair", place.location, "--dry-run", "--json").out)
    assert document["plan"]["delete"] == [digest]
    unasked = run_program("repair", place.location)
    assert unasked.status == 2
    assert "--yes" in unasked.err
    assert dict(place.objects) == before
    done = run_program("repair", place.location, "--from", replica.location, "--yes", "--json")
    assert done.status == 0
    assert json.loads(done.out)["report"]["fetched"]["blobs"] == 1
    assert dict(place.objects) == whole
    place.objects[place.manifest_key("app")] = b"{"
    assert run_program("repair", place.location, "--dry-run").status == 1
    assert "none of these can be repaired" in run_program("repair", place.location).out
    dropped = run_program("repair", place.location, "--remove-unreadable", "-y")
    assert dropped.status == 0
    assert "removed 1 name" in dropped.out


def test_the_folder_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(cachefs.NoCacheError):
        cachefs.open(tmp_path / "none").plan_repair()
    assert not (tmp_path / "none").exists()


def test_a_name_that_is_written_during_its_repair_is_left(
    recording: Callable[[S3Server], RecordingProxy], moto_s3: S3Server
) -> None:
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    through = cachefs.open(proxy.server.attributes(bucket))
    past = cachefs.open(moto_s3.attributes(bucket))
    old, new = (cachefs.testing.random_graph(seed, records=4) for seed in range(2))
    past.export(old.graph, old.blobs, "main", mode="max")
    blob = next(key for key in moto_s3.keys(bucket) if "blobs/" in key)
    moto_s3.client.delete_object(Bucket=bucket, Key=blob)
    plan = through.plan_repair()
    assert [one.name for one in plan.publish] == ["main"]
    proxy.inject(
        when=lambda request: request.method == "PUT" and request.path.endswith("manifests/main"),
        act=lambda: past.export(new.graph, new.blobs, "main", mode="max"),
    )
    report = plan.execute()
    assert (report.rewritten, list(report.left)) == ([], ["main"])
    assert past.load("main").blobs() == new.graph.blobs()
