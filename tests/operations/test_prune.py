"""Prune: what a model says is deleted, the rest is as it was; on any doubt nothing is deleted."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs import testing
from cachefs.cli.main import program
from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.filesystems.base import Stat
from cachefs.operations import prune
from cachefs.operations.retention import Candidate, PrunePolicy, choose
from cachefs.wire import codec
from tests import programs
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

DAY = 86_400.0


def age_all(folder: Path, days: float) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            age(path, days)


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(cache: cachefs.Cache) -> list[str]:
    return [name.name for name in cache.names()]


def put_orphan(folder: Path, content: bytes, days: float) -> str:
    digest = str(Digest.of(content))
    path = folder / "blobs" / digest
    path.write_bytes(content)
    age(path, days)
    return digest


def pruned(cache: cachefs.Cache, policy: PrunePolicy | None = None, **options: Any) -> Any:
    plan = cache.plan_prune(policy, **options)
    report = plan.execute()
    assert report.deleted == plan.frees
    assert report.spared.blobs == 0
    assert report.spared_names == []
    return plan


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """The recorded ``app`` and ``app-v2``, ten days old."""
    shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    age_all(tmp_path / "cache", 10)
    return tmp_path / "cache"


# --- recorded caches ------------------------------------------------------------------------------


def test_without_a_policy_only_old_orphans_go(folder: Path) -> None:
    before = files(folder)
    old = put_orphan(folder, b"old", days=3.1)
    young = put_orphan(folder, b"young", days=2.9)
    plan = pruned(cachefs.open(folder))
    assert [blob.digest for blob in plan.delete] == [old]
    assert plan.delete[0].size == 3
    assert plan.waiting == cachefs.Amount(1, 5)
    assert plan.kept.blobs == 11
    assert plan.remove == []
    assert files(folder) == before | {f"blobs/{young}": b"young"}


def test_a_recorded_cache_has_nothing_to_prune(recorded: Path, tmp_path: Path) -> None:
    for cache in ("local-max", "local-index", "local-zstd", "s3/multi", "s3/min"):
        shutil.copytree(recorded / cache, tmp_path / cache)
        age_all(tmp_path / cache, 10)
        before = files(tmp_path / cache)
        assert pruned(cachefs.open(tmp_path / cache)).is_empty
        assert files(tmp_path / cache) == before


def test_the_plan_shows_what_a_name_frees(folder: Path) -> None:
    age(folder / "manifests" / "app", 40)
    cache = cachefs.open(folder)
    only_app = set(cache.load("app").blobs()) - set(cache.load("app-v2").blobs())
    plan = pruned(cache, PrunePolicy(older_than=30 * DAY))
    [going] = plan.remove
    assert going.manifest.name == "app"
    assert going.reason == "too old"
    assert going.age == pytest.approx(40 * DAY, abs=600)
    assert {blob.digest for blob in plan.delete} == only_app
    assert going.frees == sum(blob.size for blob in plan.delete)
    assert going.later == 0
    assert names(cache) == ["app-v2"]
    assert all(
        isinstance(cache.read_blob(b, s), bytes) for b, s in cache.load("app-v2").blobs().items()
    )


def test_blobs_of_a_name_that_goes_stay_for_the_grace(folder: Path) -> None:
    age(folder / "manifests" / "app", 40)
    for blob in (folder / "blobs").iterdir():
        age(blob, 1)
    plan = pruned(cachefs.open(folder), PrunePolicy(older_than=30 * DAY))
    assert plan.delete == []
    assert plan.remove[0].frees == 0
    assert plan.remove[0].later == plan.waiting.bytes > 0
    assert names(cachefs.open(folder)) == ["app-v2"]


def test_tags_go_from_an_oci_directory(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "local-max", tmp_path / "oci")
    age_all(tmp_path / "oci", 10)
    cache = cachefs.open(tmp_path / "oci")
    needed = run(cache.layout.references("v2"))
    plan = pruned(cache, PrunePolicy(keep_last={"*": 0}, keep=("v*",)))
    assert [name.manifest.name for name in plan.remove] == ["latest"]
    assert names(cache) == ["v2"]
    blobs = {path.name for path in (tmp_path / "oci" / "blobs" / "sha256").iterdir()}
    assert blobs == {digest.hex for digest in needed}
    assert cache.load("v2").records


def test_what_an_index_holds_without_a_tag_is_needed(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "local-max", tmp_path / "oci")
    index = json.loads((tmp_path / "oci" / "index.json").read_bytes())
    del index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    (tmp_path / "oci" / "index.json").write_text(json.dumps(index))
    age_all(tmp_path / "oci", 10)
    assert pruned(cachefs.open(tmp_path / "oci")).is_empty


def test_a_plan_is_plain_data(folder: Path) -> None:
    put_orphan(folder, b"old", days=4)
    cache = cachefs.open(folder)
    plan = cache.plan_prune(PrunePolicy(keep_last={"*": 1}))
    again = msgspec.json.decode(msgspec.json.encode(plan), type=cachefs.PrunePlan)
    assert again == plan
    with pytest.raises(cachefs.UsageError, match="plan again"):
        again.execute()
    assert plan.execute().removed == [name.manifest.name for name in plan.remove]


# --- several manifests over the same blobs, missing blobs, leftovers ------------------------------


def test_other_manifests_over_the_same_blobs_are_honoured(folder: Path) -> None:
    (folder / "others").mkdir()
    shutil.move(folder / "manifests" / "app-v2", folder / "others" / "app-v2")
    cache = cachefs.open(folder)
    other = cachefs.open(f"type=fsspec,url=file://{folder}/,manifests_prefix=others/")
    before = files(folder)
    with pytest.raises(cachefs.UsageError, match="same location with manifests_prefix=others/"):
        cache.plan_prune()
    assert pruned(cache, also=[other]).is_empty
    pruned(other, PrunePolicy(keep_last={"*": 0}), also=[cache])
    assert names(other) == []
    assert set(files(folder)) < set(before)
    assert all(isinstance(cache.read_blob(b), bytes) for b in cache.load("app").blobs())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("manifests/", "manifests-b/"),
        ("manifests/a/", "manifests/b/"),
        ("a/manifests/", "b/manifests/"),
        ("a/manifests/", "x"),
        ("ci-", "pr-"),
    ],
)
def test_manifests_beside_are_found(folder: Path, ours: str, theirs: str) -> None:
    for name, prefix in (("app", ours), ("app-v2", theirs)):
        path = folder / f"{prefix}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "manifests" / name, path)
    caches = [
        cachefs.open(f"type=fsspec,url=file://{folder}/,manifests_prefix={prefix}")
        for prefix in (ours, theirs)
    ]
    for one, other in (caches, reversed(caches)):
        with pytest.raises(cachefs.UsageError, match="other manifests need blobs of this cache"):
            one.plan_prune()
        one.plan_prune(also=[other])


def test_what_only_looks_like_manifests_beside_is_none(folder: Path, recorded: Path) -> None:
    """Another cache, also without a slash in its prefix, other files, and another cache's blobs."""
    shutil.copytree(recorded / "s3" / "max", folder / "another")
    for part in ("blobs", "manifests"):
        shutil.copytree(recorded / "s3" / "max" / part, folder / f"ci-{part}")
    (folder / "notes").mkdir()
    (folder / "notes" / "list.json").write_text("[]")
    (folder / "notes" / "config.json").write_text('{"layers": [], "records": []}')
    (folder / "README").write_text("text")
    assert cachefs.open(folder).plan_prune().remove == []


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_looking_beside_takes_one_request(
    engine: str,
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
    recorded: Path,
) -> None:
    proxy, bucket = recording(moto_s3), moto_s3.bucket()
    cachefs.copy(recorded / "s3" / "max", moto_s3.attributes(bucket, prefix="app/"))
    cache = cachefs.open(proxy.server.attributes(bucket, prefix="app/", engine=engine))
    cache.plan_prune()
    assert proxy.count(when=lambda request: "delimiter" in request.query) == 1
    cachefs.copy(
        recorded / "s3" / "max",
        moto_s3.attributes(bucket, prefix="app/", manifests_prefix="others/"),
    )
    proxy.clear()
    with pytest.raises(cachefs.UsageError, match="manifests_prefix=others/"):
        cache.plan_prune()
    assert proxy.count(when=lambda request: "delimiter" in request.query) == 2


def test_a_pattern_that_matches_nothing_is_a_warning(folder: Path) -> None:
    arguments = ("--keep", "mian", "--keep", "app*", "--keep-last", "pr-*=3", "--dry-run")
    ended = programs.run("prune", str(folder), *arguments)
    assert ended.status == 0
    assert ended.err.splitlines() == [
        f"cachefs: warning: the pattern {pattern!r} matches no name, so it keeps nothing"
        for pattern in ("pr-*", "mian")
    ]
    assert "2 names will stay: app, app-v2" in ended.out


def test_a_plan_remembers_the_other_manifests_it_was_made_with(folder: Path) -> None:
    (folder / "others").mkdir()
    shutil.copy(folder / "manifests" / "app", folder / "others" / "app")
    cache = cachefs.open(folder)
    other = cachefs.open(f"type=fsspec,url=file://{folder}/,manifests_prefix=others/")
    plan = cache.plan_prune(PrunePolicy(wanted=frozenset({"app"})), also=[other], grace=0.0)
    assert plan.frees.blobs
    shutil.copy(folder / "manifests" / "app-v2", folder / "others" / "app-v2")
    report = plan.execute()
    assert (report.deleted.blobs, report.spared) == (0, plan.frees)
    with pytest.raises(cachefs.UsageError, match="no blobs in common"):
        cache.plan_prune(also=[cachefs.open(folder / "elsewhere")])


def test_names_with_missing_blobs_are_told_and_go_only_when_asked(folder: Path) -> None:
    cache = cachefs.open(folder)
    lost = sorted(set(cache.load("app-v2").blobs()) - set(cache.load("app").blobs()))
    (folder / "blobs" / lost[0]).unlink()
    plan = pruned(cache)
    assert plan.is_empty
    assert [(b.name, b.blobs) for b in plan.missing_blobs] == [("app-v2", [lost[0]])]
    plan = pruned(cache, PrunePolicy(missing_blobs=True))
    assert [name.reason for name in plan.remove] == ["blobs are missing"]
    assert names(cache) == ["app"]
    assert not any((folder / "blobs" / blob).exists() for blob in lost)


def test_what_interrupted_writes_left_goes_after_the_grace(folder: Path) -> None:
    before = files(folder)
    for place, days in (("blobs", 4), ("manifests", 4), ("blobs", 1)):
        path = folder / place / f".cachefs-{days}"
        path.write_bytes(b"half")
        age(path, days)
    plan = pruned(cachefs.open(folder))
    assert [left.key for left in plan.leftovers] == ["blobs/.cachefs-4", "manifests/.cachefs-4"]
    assert files(folder) == before | {"blobs/.cachefs-1": b"half"}


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_what_was_left_in_a_bucket_is_no_name(
    moto_s3: S3Server, recorded: Path, engine: str
) -> None:
    bucket = moto_s3.bucket()
    cache = cachefs.open(moto_s3.attributes(bucket, engine=engine, manifests_prefix=""))
    cachefs.copy(recorded / "s3" / "max", cache)
    moto_s3.client.put_object(Bucket=bucket, Key="blobs/.cachefs-left", Body=b"half")
    assert names(cache) == ["app", "app-v2"]
    assert cache.plan_prune().is_empty
    time.sleep(1.1)
    plan = pruned(cache, grace=0.0)
    assert [left.key for left in plan.leftovers] == ["blobs/.cachefs-left"]
    assert plan.delete == []
    assert not [key for key in moto_s3.keys(bucket) if ".cachefs-" in key]


def test_uploads_that_never_ended_are_aborted(moto_s3: S3Server, recorded: Path) -> None:
    bucket = moto_s3.bucket()
    cache = cachefs.open(moto_s3.attributes(bucket))
    cachefs.copy(recorded / "s3" / "max", cache)
    key = f"blobs/{Digest.of(b'large')}"
    moto_s3.client.create_multipart_upload(Bucket=bucket, Key=key)
    plan = pruned(cache)  # this server dates all uploads 2010
    assert [left.key for left in plan.leftovers] == [key]
    assert not moto_s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


# --- on any doubt nothing is deleted --------------------------------------------------------------


def damage(folder: Path, how: str) -> None:
    manifests = folder / "manifests"
    if how == "not JSON":
        (manifests / "app").write_bytes(b"{")
    elif how == "another format":
        (manifests / "app").write_bytes(b'{"layers": [{"blob": "md5:1"}]}')
    elif how == "no names":
        shutil.rmtree(manifests)
    elif how == "a name that nobody can read":
        (manifests / "two\\parts").write_bytes((manifests / "app").read_bytes())


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("not JSON", cachefs.ManifestError),
        ("another format", cachefs.ManifestError),
        ("no names", cachefs.UsageError),
        ("a name that nobody can read", cachefs.ManifestError),
    ],
)
def test_a_doubt_stops_everything(folder: Path, how: str, error: type[Exception]) -> None:
    put_orphan(folder, b"old", days=100)
    cache = cachefs.open(folder)
    plan = cache.plan_prune(PrunePolicy(older_than=0.0, keep=("app",)))
    assert plan.delete
    damage(folder, how)
    blobs = {path for path in files(folder) if path.startswith("blobs/")}
    with pytest.raises(error):
        cache.plan_prune(PrunePolicy(older_than=0.0))
    assert blobs == {path for path in files(folder) if path.startswith("blobs/")}
    if how != "no names":
        with pytest.raises(error):
            plan.execute()
        assert blobs == {path for path in files(folder) if path.startswith("blobs/")}


def test_nothing_is_written_where_there_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(cachefs.NoCacheError, match="there is nothing here"):
        cachefs.open(tmp_path / "nowhere").plan_prune()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("skew", [-3600.0, -301.0, 301.0, DAY])
def test_clocks_that_differ_stop_it(folder: Path, skew: float) -> None:
    layout = cachefs.open(folder).layout
    put_orphan(folder, b"old", days=100)
    with pytest.raises(cachefs.StoreError, match="clock"):
        run(prune.plan_prune([layout], clock=lambda: time.time() + skew))


@pytest.mark.parametrize("skew", [-290.0, 0.0, 290.0])
def test_clocks_that_nearly_agree_do_not(folder: Path, skew: float) -> None:
    layout = cachefs.open(folder).layout
    assert run(prune.plan_prune([layout], clock=lambda: time.time() + skew)).is_empty


def test_a_blob_from_the_future_stays(folder: Path) -> None:
    orphan = put_orphan(folder, b"future", days=-1)
    pruned(cachefs.open(folder), grace=0.0)
    assert (folder / "blobs" / orphan).exists()


def test_the_default_grace_is_longer_where_touches_are_rarer(folder: Path) -> None:
    assert cachefs.open(folder).plan_prune().grace == 72 * 3600
    assert cachefs.open(folder, touch_refresh="96h").plan_prune().grace == 144 * 3600


# --- between plan and execution -------------------------------------------------------------------


def test_a_blob_that_was_touched_since_the_plan_stays(folder: Path) -> None:
    orphan = put_orphan(folder, b"old", days=4)
    cache = cachefs.open(folder)
    plan = cache.plan_prune()
    os.utime(folder / "blobs" / orphan)
    report = plan.execute()
    assert (report.deleted.blobs, report.spared) == (0, cachefs.Amount(1, 3))
    assert (folder / "blobs" / orphan).exists()


def test_a_blob_that_a_new_name_needs_stays(folder: Path) -> None:
    orphan = put_orphan(folder, b"old", days=4)
    cache = cachefs.open(folder)
    plan = cache.plan_prune()
    graph = cachefs.RecordGraph()
    layer = graph.add_layer(orphan, size=3)
    graph.add_result(graph.add(orphan), layer)
    (folder / "manifests" / "new").write_bytes(codec.encode(graph.to_config()))
    report = plan.execute()
    assert (report.deleted.blobs, report.spared.blobs) == (0, 1)
    assert cache.read_blob(orphan) == b"old"


def test_a_name_that_was_written_since_the_plan_stays_with_its_blobs(folder: Path) -> None:
    age(folder / "manifests" / "app", 40)
    cache = cachefs.open(folder)
    plan = cache.plan_prune(PrunePolicy(older_than=30 * DAY))
    before = files(folder)
    (folder / "manifests" / "app").write_bytes(before["manifests/app"])
    report = plan.execute()
    assert (report.removed, report.spared_names) == ([], ["app"])
    assert report.spared == plan.frees
    assert files(folder) == before


class Losing:
    """Deletes whose answer is lost: some take effect first, some do not, and one is overtaken."""

    def __init__(self, layout: Any, effect: bool, between: Callable[[str], None]) -> None:
        self.sent: list[str] = []
        self._delete = layout.store.filesystem.delete
        self._effect = effect
        self._between = between
        layout.store.filesystem.delete = self

    async def __call__(self, path: str, unless_changed: Stat | None = None) -> bool:
        if unless_changed is None or path in self.sent:
            return bool(await self._delete(path, unless_changed))
        self.sent.append(path)
        if self._effect:
            await self._delete(path, unless_changed)
        self._between(path)
        raise ConnectionError("no answer")


@pytest.mark.parametrize("effect", [True, False])
def test_a_delete_whose_answer_is_lost_is_looked_up(folder: Path, effect: bool) -> None:
    orphan = put_orphan(folder, b"old", days=4)
    cache = cachefs.open(folder)
    plan = cache.plan_prune()
    lost = Losing(cache.layout, effect, lambda _path: None)
    report = plan.execute()
    assert len(lost.sent) == 1
    assert report.deleted == cachefs.Amount(1, 3)
    assert not (folder / "blobs" / orphan).exists()


def test_what_was_sent_again_after_a_lost_answer_stays(folder: Path) -> None:
    orphan = put_orphan(folder, b"old", days=4)
    cache = cachefs.open(folder)
    plan = cache.plan_prune()
    Losing(cache.layout, effect=True, between=lambda path: Path(path).write_bytes(b"old") and None)
    report = plan.execute()
    assert report.spared.blobs == 1
    assert cache.read_blob(orphan) == b"old"


# --- generated caches on every kind of store, against a model -------------------------------------


@pytest.fixture(params=["local", "memory", "s3fs", "obstore"])
def store(request: pytest.FixtureRequest, tmp_path: Path, moto_s3: S3Server) -> Iterator[Any]:
    if request.param == "local":
        yield cachefs.open(tmp_path / "cache")
    elif request.param == "memory":
        fs = fsspec.filesystem("memory", skip_instance_cache=True)
        root = f"memory://prune-{tmp_path.name}-{os.getpid()}/"
        yield cachefs.open(root, fs=fs)
        fs.rm(root, recursive=True)
    else:
        yield cachefs.open(moto_s3.attributes(moto_s3.bucket(), engine=request.param, prefix="ci/"))


def test_a_generated_cache_is_pruned_as_the_model_says(store: cachefs.Cache) -> None:
    """No store lets a test set times, so here the grace is none and time is what passes."""
    written = testing.write_random_cache(store, names=("main", "pr-1", "pr-2", "team/x"), seed=3)
    expected = {name for name in written if not name.startswith("pr-")}
    needed = {blob for name in expected for blob in written[name].blobs}
    everything = {blob: len(data) for w in written.values() for blob, data in w.blobs.items()}
    orphans = set(everything) - needed
    time.sleep(1.1)  # S3 has whole seconds
    policy = PrunePolicy(keep_last={"pr-*": 0})
    plan = store.plan_prune(policy, grace=0.0)
    assert {name.manifest.name for name in plan.remove} == {"pr-1", "pr-2"}
    assert {blob.digest for blob in plan.delete} == orphans
    assert plan.frees.bytes == sum(everything[blob] for blob in orphans)
    assert sum(name.frees for name in plan.remove) == plan.frees.bytes
    assert plan.kept.bytes == sum(everything[blob] for blob in needed)
    report = plan.execute()
    assert sorted(report.removed) == ["pr-1", "pr-2"]
    assert report.deleted == plan.frees
    assert set(names(store)) == expected
    for name in expected:
        for blob in written[name].blobs:
            assert store.read_blob(blob) == written[name].blobs[blob]
    for blob in orphans:
        assert run(store.layout.store.stat(store.layout.blob_key(Digest(blob)))) is None
    assert store.plan_prune(grace=0.0).is_empty


# --- policies -------------------------------------------------------------------------------------

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))
SIZES = {A: 1, B: 10, C: 100}


def candidate(name: str, days: float, *blobs: Digest) -> Candidate:
    return Candidate(name, days * DAY, frozenset(blobs), misses_blobs=False)


CANDIDATES = [
    candidate("main", 50, A),
    candidate("main-2", 1, A, B),
    candidate("pr-1", 40, B),
    candidate("pr-2", 20, C),
    candidate("pr-3", 2, B, C),
]


@pytest.mark.parametrize(
    ("policy", "going"),
    [
        (PrunePolicy(), []),
        (PrunePolicy(older_than=30 * DAY), ["main", "pr-1"]),
        (PrunePolicy(older_than=30 * DAY, keep=("main*",)), ["pr-1"]),
        (PrunePolicy(keep_last={"*": 2}), ["main", "pr-1", "pr-2"]),
        (PrunePolicy(keep_last={"pr-*": 1}), ["pr-1", "pr-2"]),
        (PrunePolicy(keep_last={"pr-*": 1, "*": 1}), ["main", "pr-1", "pr-2"]),
        (PrunePolicy(keep_last={"*": 4}, older_than=10 * DAY), ["main"]),
        (PrunePolicy(max_size=111), []),
        (PrunePolicy(max_size=110), ["main", "pr-1", "pr-2", "pr-3"]),
        (PrunePolicy(max_size=110, keep=("pr-3",)), ["main", "pr-1", "pr-2", "main-2"]),
        (PrunePolicy(max_size=0, keep=("*",)), []),
        (PrunePolicy(wanted=frozenset({"main", "pr-1"})), ["pr-2", "pr-3", "main-2"]),
    ],
)
def test_who_goes(policy: PrunePolicy, going: list[str]) -> None:
    assert list(choose(CANDIDATES, policy, SIZES)) == going


POLICIES = st.builds(
    PrunePolicy,
    older_than=st.none() | st.integers(0, 60).map(lambda days: days * DAY),
    keep_last=st.dictionaries(st.sampled_from(["*", "main*", "pr-*"]), st.integers(0, 3)),
    keep=st.lists(st.sampled_from(["main*", "pr-1", "nothing"]), max_size=2).map(tuple),
    max_size=st.none() | st.integers(0, 120),
)


@given(POLICIES)
def test_laws_of_policies(policy: PrunePolicy) -> None:
    going = choose(CANDIDATES, policy, SIZES)
    staying = [c for c in CANDIDATES if c.name not in going]
    assert not any(fnmatchcase(name, pattern) for name in going for pattern in policy.keep)
    assert not choose(staying, policy, SIZES) or policy.keep_last
    for name, reason in going.items():
        if reason == "too old":
            assert policy.older_than is not None
            age_of = next(c.age for c in CANDIDATES if c.name == name)
            assert age_of is not None
            assert age_of > policy.older_than
    if "*" in policy.keep_last:
        assert (
            len(staying) >= min(policy.keep_last["*"], len(CANDIDATES)) or len(policy.keep_last) > 1
        )


@pytest.mark.parametrize(
    "policy",
    [PrunePolicy(older_than=-1.0), PrunePolicy(keep_last={"*": -1}), PrunePolicy(max_size=-1)],
)
def test_policies_that_make_no_sense_are_refused(policy: PrunePolicy) -> None:
    with pytest.raises(cachefs.UsageError):
        choose(CANDIDATES, policy, SIZES)


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> Any:
    return CliRunner().invoke(program, ["prune", *map(str, arguments)])


def test_the_command_deletes_only_when_told(folder: Path) -> None:
    put_orphan(folder, b"old", days=4)
    before = files(folder)
    shown = command(folder, "--keep-last", "1", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "not among the last" in shown.output
    refused = command(folder, "--keep-last", "1")
    assert refused.exit_code == 2
    assert files(folder) == before
    done = command(folder, "--keep-last", "1", "--yes")
    assert done.exit_code == 0, done.output
    assert "removed 1 name and " in done.output
    assert len(names(cachefs.open(folder))) == 1


def test_the_command_prints_one_document(folder: Path) -> None:
    orphan = put_orphan(folder, b"old", days=4)
    shown = json.loads(command(folder, "--dry-run", "--json").stdout)
    assert [blob["digest"] for blob in shown["plan"]["delete"]] == [orphan]
    assert shown["report"] is None
    done = json.loads(command(folder, "--yes", "--json").stdout)
    assert done["report"]["deleted"] == {"blobs": 1, "bytes": 3}


def test_the_command_takes_all_policies(folder: Path) -> None:
    (folder / "others").mkdir()
    shutil.copy(folder / "manifests" / "app", folder / "others" / "app")
    also = f"type=fsspec,url=file://{folder}/,manifests_prefix=others/"
    options: Sequence[object] = ("--older-than", "1w", "--keep", "app", "--max-size", "10GiB")
    done = command(folder, *options, "--also", also, "--grace", "1h30m", "--missing-blobs", "--yes")
    assert done.exit_code == 0, done.output
    assert names(cachefs.open(folder)) == ["app"]


@pytest.mark.parametrize(
    "option",
    [("--older-than", "soon"), ("--older-than", ""), ("--max-size", "1X"), ("--keep-last", "a=b")],
)
def test_quantities_that_make_no_sense_are_refused(folder: Path, option: tuple[str, str]) -> None:
    done = command(folder, *option, "--yes")
    assert done.exit_code == 2
    assert "write" in done.output


def test_a_broken_name_that_stays_shows_in_the_status(folder: Path) -> None:
    cache = cachefs.open(folder)
    only_v2 = set(cache.load("app-v2").blobs()) - set(cache.load("app").blobs())
    (folder / "blobs" / min(only_v2)).unlink()
    for options, status in ((["--yes"], 1), (["--missing-blobs", "--yes"], 0)):
        arguments = ["prune", str(folder), *options]
        done = CliRunner().invoke(program, arguments, standalone_mode=False)
        assert done.return_value == status, done.output
    assert names(cache) == ["app"]
