"""Taking back a prune: on real servers that keep versions, and whatever happens meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.operations import record
from tests import programs
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server
from tests.signing import keys, public

ALL = cachefs.PrunePolicy(keep_last={"app*": 0}, keep=("app",))
"""Removes app-v2 of the recorded cache, with what only it needs if the grace period is zero."""

SERVERS = ["moto_s3", "seaweed_s3"]


@dataclass
class Kept:
    """The recorded cache in a bucket with versions."""

    server: S3Server
    bucket: str
    engine: str

    @property
    def location(self) -> str:
        return self.server.attributes(self.bucket, engine=self.engine)

    def open(self) -> cachefs.Cache:
        return cachefs.open(self.location)

    def through(self, proxy: RecordingProxy) -> cachefs.Cache:
        return cachefs.open(proxy.server.attributes(self.bucket, engine=self.engine))

    def visible(self) -> list[str]:
        return [key for key in self.server.keys(self.bucket) if ".cachefs-" not in key]

    def records(self) -> list[str]:
        return [key for key in self.server.keys(self.bucket) if record.NAME in key]

    def version(self, status: str) -> None:
        self.server.client.put_bucket_versioning(
            Bucket=self.bucket, VersioningConfiguration={"Status": status}
        )

    def expire(self, key: str) -> None:
        """As a lifecycle rule for earlier versions does: the marker stays."""
        found = self.server.client.list_object_versions(Bucket=self.bucket, Prefix=key)
        for item in found["Versions"]:
            if item["Key"] == key:
                self.server.client.delete_object(
                    Bucket=self.bucket, Key=key, VersionId=item["VersionId"]
                )


@pytest.fixture(params=[f"{s}-{e}" for s in SERVERS for e in ("s3fs", "obstore")])
def kept(request: pytest.FixtureRequest, recorded: Path) -> Kept:
    name, _, engine = str(request.param).partition("-")
    return filled(request.getfixturevalue(name), engine, recorded)


@pytest.fixture
def quick(moto_s3: S3Server, recorded: Path) -> Kept:
    return filled(moto_s3, "s3fs", recorded)


def filled(server: S3Server, engine: str, recorded: Path) -> Kept:
    kept = Kept(server, server.bucket(), engine)
    kept.version("Enabled")
    cachefs.copy(recorded / "s3" / "max", kept.location)
    return kept


def is_blob(key: str) -> bool:
    return key.startswith("blobs/sha256:")


def test_what_a_prune_took_comes_back(kept: Kept) -> None:
    before = kept.visible()
    cache = kept.open()
    raw = cache.manifest("app-v2").raw
    report = cache.prune(ALL, grace=0)
    assert report.removed == ["app-v2"]
    assert report.deleted.blobs > 0
    assert len(kept.visible()) == len(before) - 1 - report.deleted.blobs

    plan = kept.open().plan_undo_prune()
    assert (plan.names, plan.returns, plan.ended) == (["app-v2"], report.deleted, True)
    assert (plan.present, plan.left, plan.lost) == ([], {}, [])
    done = plan.execute()
    assert (done.names, done.blobs, done.left) == (["app-v2"], report.deleted, {})
    assert done.lost == []
    assert kept.visible() == before
    again = kept.open()
    assert again.manifest("app-v2").raw == raw
    assert again.verify(read_data=1.0).faults == []
    assert kept.records() == []


def test_a_name_comes_back_signed(quick: Kept, tmp_path: Path) -> None:
    (key,) = keys(tmp_path, "ci")
    cachefs.open(quick.location, signing_key=key).sign(["app-v2"])
    assert quick.open().prune(ALL, grace=0).removed == ["app-v2"]
    quick.open().undo_prune()
    assert cachefs.open(quick.location, signed_by=public(key)).load("app-v2").records
    # Without an undo, the prune after that removes the signature.
    quick.open().prune(ALL, grace=0)
    assert quick.open().prune(ALL, grace=0).signatures == 1


def test_undone_twice_it_takes_back_the_prune_before(quick: Kept, recorded: Path) -> None:
    before = quick.visible()
    quick.open().prune(ALL, grace=0)
    cachefs.copy(recorded / "s3" / "multi", quick.location)
    between = quick.visible()
    policy = cachefs.PrunePolicy(keep_last={"*": 0}, keep=("app",))
    assert quick.open().prune(policy, grace=0).removed
    quick.open().undo_prune()
    assert quick.visible() == between
    quick.open().undo_prune()
    assert set(quick.visible()) >= set(before)
    assert quick.open().verify(read_data=1.0).faults == []
    with pytest.raises(cachefs.UsageError, match="there is no prune to take back"):
        quick.open().undo_prune()


def test_a_prune_that_changes_nothing_does_not_count(quick: Kept) -> None:
    quick.open().prune(ALL, grace=0)
    quick.open().prune(grace=0)
    assert len(quick.records()) == 1
    assert quick.open().undo_prune().names == ["app-v2"]


def test_the_record_of_other_manifests_is_not_taken(quick: Kept, recorded: Path) -> None:
    """Two caches over the same blobs, pruned one after the other."""
    bucket = quick.server.bucket()
    quick = Kept(quick.server, bucket, "s3fs")
    quick.version("Enabled")
    mine = cachefs.open(f"{quick.location},manifests_prefix=a/")
    theirs = cachefs.open(f"{quick.location},manifests_prefix=b/")
    for cache in (mine, theirs):
        cachefs.copy(recorded / "s3" / "max", cache)
    before = quick.visible()
    assert mine.prune(ALL, also=theirs, grace=0).deleted.blobs == 0
    deleted = theirs.prune(ALL, also=mine, grace=0).deleted
    assert mine.plan_undo_prune().returns.blobs == 0
    done = mine.undo_prune()
    assert list(done.left) == ["app-v2"], "its blobs went with the other one"
    assert theirs.undo_prune().blobs == deleted
    assert mine.undo_prune().names == ["app-v2"], "so it was not forgotten"
    assert quick.visible() == before
    with pytest.raises(cachefs.UsageError, match="no prune to take back"):
        mine.undo_prune()


def test_what_was_written_since_stays(kept: Kept, recorded: Path) -> None:
    kept.open().prune(ALL, grace=0)
    cachefs.copy(recorded / "s3" / "max", kept.location)
    cachefs.copy(kept.open().with_names("app"), kept.location + ",name=app-v2")
    raw = kept.open().manifest("app-v2").raw
    plan = kept.open().plan_undo_prune()
    assert (plan.names, plan.present) == ([], ["app-v2"])
    assert plan.is_empty
    plan.execute()
    assert kept.open().manifest("app-v2").raw == raw
    assert kept.records() == []


def test_a_name_that_is_written_during_the_undo_stays(
    kept: Kept, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    """An export is faster than the removal of the marker."""
    kept.open().prune(ALL, grace=0)
    proxy = recording(kept.server)
    body = b'{"layers":[],"records":[]}'

    def is_revealing(request: Request) -> bool:
        return request.method == "DELETE" and request.path.endswith("manifests/app-v2")

    proxy.inject(
        when=is_revealing,
        act=lambda: kept.server.client.put_object(
            Bucket=kept.bucket, Key="manifests/app-v2", Body=body
        ),
    )
    kept.through(proxy).undo_prune()
    found = kept.server.client.get_object(Bucket=kept.bucket, Key="manifests/app-v2")
    assert found["Body"].read() == body


def test_a_name_that_was_deleted_again_since_stays_deleted(quick: Kept, recorded: Path) -> None:
    """Its marker is not of the time of the prune."""
    quick.open().prune(ALL, grace=0)
    [key] = quick.records()
    raw = json.loads(quick.server.client.get_object(Bucket=quick.bucket, Key=key)["Body"].read())
    later = raw | {"began": raw["began"] - 1000.0}
    quick.server.client.put_object(Bucket=quick.bucket, Key=key, Body=json.dumps(later))
    cachefs.copy(recorded / "s3" / "max", quick.location)
    monkey = pytest.MonkeyPatch()
    try:
        monkey.setattr(record, "COARSE", -1.0)  # all of this happens within a second
        cache = quick.open()
        run(cache.layout.remove(["app-v2"]))
        plan = cache.plan_undo_prune()
    finally:
        monkey.undo()
    assert plan.names == []
    assert plan.left == {"app-v2": "it was deleted again since"}


def test_expired_versions_are_told_and_their_names_do_not_come_back(kept: Kept) -> None:
    cache = kept.open()
    only = set(cache.load("app-v2").blobs()) - set(cache.load("app").blobs())
    cache.prune(ALL, grace=0)
    lost = min(only)
    kept.expire(f"blobs/{lost}")
    plan = kept.open().plan_undo_prune()
    assert plan.lost == [lost]
    done = plan.execute()
    assert done.names == []
    assert "it lacks 1 blob" in done.left["app-v2"]
    assert [name.name for name in kept.open().names()] == ["app"]
    assert kept.open().verify(read_data=1.0).faults == []
    assert kept.records() == [], "no other try could succeed"


def test_an_expired_name_is_told(quick: Kept) -> None:
    quick.open().prune(ALL, grace=0)
    quick.expire("manifests/app-v2")
    plan = quick.open().plan_undo_prune()
    assert plan.left == {"app-v2": "its version has expired, or was deleted for good"}
    assert plan.execute().blobs == plan.returns


def stop_after(proxy: RecordingProxy, writes: int) -> None:
    """From then on no write reaches the store, as if the process had been killed."""
    seen = 0

    def too_late(request: Request) -> bool:
        nonlocal seen
        seen += request.method in ("DELETE", "PUT")
        return seen > writes

    proxy.inject(when=too_late, status=403, code="AccessDenied", times=10_000)


@pytest.mark.slow
def test_a_prune_that_is_killed_can_be_taken_back(
    quick: Kept, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    """Wherever it is killed."""
    before = quick.visible()
    ended = False
    killed = -1
    while not ended:
        killed += 1
        proxy = recording(quick.server)
        plan = quick.through(proxy).plan_prune(ALL, grace=0)
        stop_after(proxy, killed)
        try:
            plan.execute()
            ended = True
        except cachefs.StoreError:
            if not quick.records():
                continue  # it did not even begin
        undo = quick.open().plan_undo_prune()
        assert undo.ended or not ended
        undo.execute()
        assert quick.visible() == before
        assert quick.open().verify(read_data=1.0).faults == []
    assert killed > 5


@pytest.mark.slow
def test_an_undo_that_is_killed_is_finished_by_the_next(
    quick: Kept, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    before = quick.visible()
    ended = False
    killed = -1
    while not ended:
        killed += 1
        quick.open().prune(ALL, grace=0)
        proxy = recording(quick.server)
        plan = quick.through(proxy).plan_undo_prune()
        stop_after(proxy, killed)
        try:
            plan.execute()
            ended = True
        except cachefs.StoreError:
            assert [f for f in quick.open().verify(read_data=1.0).faults if f.names] == []
            quick.open().undo_prune()
        assert quick.visible() == before
        assert quick.open().verify(read_data=1.0).faults == []
        assert quick.records() == []
    assert killed > 2


def test_blobs_of_names_that_come_back_get_a_new_time(quick: Kept) -> None:
    """Else a prune at the same moment could delete them, as it does not know the name yet."""
    location = quick.location + ",touch_refresh=0s"
    cachefs.open(location).prune(ALL, grace=0)
    other = cachefs.open(location)
    plan = other.plan_undo_prune()
    started = dt.datetime.now(dt.UTC).timestamp() - 2
    plan.execute()
    for digest in other.load("app-v2").blobs():
        stat = run(other.layout.store.stat(other.layout.blob_key(digest)))
        assert stat is not None
        assert stat.modified is not None
        assert stat.modified >= started
    versions = quick.server.client.list_object_versions(Bucket=quick.bucket)["Versions"]
    counts = [item["Key"] for item in versions]
    needed = {f"blobs/{digest}" for digest in other.load("app-v2").blobs()}
    assert all(counts.count(key) == 2 for key in needed), "each was touched"


def test_a_look_up_that_is_refused_is_an_error_of_the_store(
    quick: Kept, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    """Not an internal one, although several look-ups run side by side."""
    quick.open().prune(cachefs.PrunePolicy(keep_last={"*": 0}), grace=0)
    proxy = recording(quick.server)
    proxy.inject(
        times=100, when=lambda request: "versions" in request.query, status=403, code="AccessDenied"
    )
    with pytest.raises(cachefs.AccessError):
        quick.through(proxy).undo_prune()


def test_where_versions_were_suspended_the_last_prune_is_still_known(
    seaweed_s3: S3Server, recorded: Path
) -> None:
    """An earlier prune is not taken for the last one.

    SeaweedFS does not remove the markers that it makes then, although it says so.
    """
    kept = filled(seaweed_s3, "s3fs", recorded)
    cachefs.copy(recorded / "s3" / "multi", kept.location)
    kept.open().prune(ALL, grace=0)
    kept.version("Suspended")
    policy = cachefs.PrunePolicy(keep_last={"*": 0}, keep=("app",))
    plan = kept.open().plan_prune(policy, grace=0)
    assert (plan.versioned, plan.recorded) == (False, True)
    report = plan.execute()
    assert report.removed == ["multi"]
    again = kept.open().plan_undo_prune()
    assert (again.names, again.returns) == (["multi"], report.deleted)
    done = again.execute()
    assert (done.names, done.blobs.blobs, len(done.lost)) == ([], 0, report.deleted.blobs)
    assert "it lacks" in done.left["multi"]
    assert len(kept.records()) == 2, "another try may succeed"
    assert kept.open().verify(read_data=1.0).faults == []


def test_what_had_no_version_cannot_come_back(seaweed_s3: S3Server, recorded: Path) -> None:
    kept = filled(seaweed_s3, "s3fs", recorded)
    kept.open().prune(ALL, grace=0)
    kept.version("Suspended")
    cachefs.copy(recorded / "s3" / "max", kept.location)
    kept.open().prune(ALL, grace=0)
    plan = kept.open().plan_undo_prune()
    assert plan.ended
    done = plan.execute()
    assert kept.open().verify(read_data=1.0).faults == []
    assert done.names == [] or "app-v2" in kept.open()


def test_of_two_prunes_in_one_second_the_later_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = cachefs.open(tmp_path).layout
    endings = iter(["ffffffff", "00000000"])
    monkeypatch.setattr(record, "secrets", SimpleNamespace(token_hex=lambda _: next(endings)))
    for name in ("earlier", "later"):
        run(record.Recording.begin(layout, [name], {}, reference=1000.0))
    for path in tmp_path.rglob(f"{record.NAME}*"):
        os.utime(path, (1000.0, 1000.0))
    last = run(record.last_pruned(layout))
    assert last is not None
    assert last.record.names == ["later"]


def test_few_records_stay(quick: Kept, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "KEPT", 2)
    for _ in range(4):
        cachefs.copy(recorded / "s3" / "max", quick.location)
        quick.open().prune(ALL, grace=0)
    assert len(quick.records()) == 2


def test_records_are_no_leftovers(quick: Kept) -> None:
    quick.open().prune(ALL, grace=0)
    plan = quick.open().plan_prune(grace=0)
    assert plan.leftovers == []
    assert plan.recorded
    assert [name.name for name in quick.open().names()] == ["app"]
    assert quick.open().verify().faults == []


def test_without_versions_nothing_is_recorded(moto_s3: S3Server, recorded: Path) -> None:
    kept = Kept(moto_s3, moto_s3.bucket(), "s3fs")
    cachefs.copy(recorded / "s3" / "max", kept.location)
    kept.open().prune(ALL, grace=0)
    assert kept.records() == []
    with pytest.raises(cachefs.UsageError, match="needs a bucket with versioning"):
        kept.open().undo_prune()


def test_a_local_cache_has_nothing_to_take_back(recorded: Path, tmp_path: Path) -> None:
    cachefs.copy(recorded / "s3" / "max", tmp_path / "c")
    with pytest.raises(cachefs.UsageError, match="--backup-to"):
        cachefs.open(tmp_path / "c").plan_undo_prune()


def test_a_mirror_is_taken_back_too(quick: Kept, recorded: Path, tmp_path: Path) -> None:
    cachefs.copy(cachefs.open(recorded / "s3" / "max").with_names("app"), tmp_path / "c")
    cachefs.copy(tmp_path / "c", quick.location, delete=True)
    assert [name.name for name in quick.open().names()] == ["app"]
    assert quick.open().undo_prune().names == ["app-v2"]


# --- the command ----------------------------------------------------------------------------------


def test_the_command_brings_it_back(quick: Kept) -> None:
    ended = programs.run("prune", quick.location, "--keep-last", "app-v*=0", "--grace=0s", "--yes")
    assert ended.status == 0, ended.err
    ended = programs.run("prune", quick.location, "--undo", "--dry-run")
    assert ended.status == 0, ended.err
    assert "bring back 1 name" in ended.out
    assert "app-v2" not in [name.name for name in quick.open().names()]
    ended = programs.run("prune", quick.location, "--undo", "--json")
    document: dict[str, Any] = json.loads(ended.out)
    assert document["report"]["names"] == ["app-v2"]
    assert "app-v2" in quick.open()
    ended = programs.run("prune", quick.location, "--undo")
    assert ended.status == 2
    assert "there is no prune to take back" in ended.err


def test_the_command_takes_no_policy_with_it(quick: Kept) -> None:
    ended = programs.run("prune", quick.location, "--undo", "--keep-last", "1", "--grace", "1h")
    assert ended.status == 2
    assert "--undo removes nothing: leave out --keep-last, --grace" in ended.err


def test_the_command_tells_what_is_lost(quick: Kept) -> None:
    quick.open().prune(ALL, grace=0)
    quick.expire("manifests/app-v2")
    ended = programs.run("prune", quick.location, "--undo")
    assert ended.status == 1
    assert "app-v2 does not come back: its version has expired" in ended.err


def test_a_plan_that_was_executed_by_another_is_refused(quick: Kept) -> None:
    before = quick.visible()
    quick.open().prune(ALL, grace=0)
    plans = [quick.open().plan_undo_prune() for _ in range(2)]
    plans[0].execute()
    with pytest.raises(cachefs.UsageError, match="plan again"):
        plans[1].execute()
    assert quick.visible() == before


def test_options_of_every_command_go_with_it(quick: Kept) -> None:
    quick.open().prune(ALL, grace=0)
    ended = programs.run("prune", quick.location, "--undo", "--engine", "s3fs", "--verbose")
    assert ended.status == 0, ended.err
    assert "app-v2" in quick.open()


def test_a_url_and_attributes_are_the_same_cache(moto_s3: S3Server, recorded: Path) -> None:
    """They split the path differently into a root and keys."""
    quick = Kept(moto_s3, moto_s3.bucket(), "s3fs")
    quick.version("Enabled")
    attributes = f"{quick.location},prefix=app/"
    url = cachefs.open(f"s3://{quick.bucket}/app/", storage_options=moto_s3.storage_options)
    cachefs.copy(recorded / "s3" / "max", attributes)
    url.prune(ALL, grace=0)
    assert cachefs.open(attributes).undo_prune().names == ["app-v2"]
    cachefs.open(attributes).prune(ALL, grace=0)
    assert url.undo_prune().names == ["app-v2"]


def test_without_a_prune_the_error_names_the_cache(quick: Kept) -> None:
    with pytest.raises(cachefs.UsageError) as raised:
        cachefs.open(f"{quick.location},prefix=app/").plan_undo_prune()
    assert raised.value.key == f"{quick.bucket}/app/"
