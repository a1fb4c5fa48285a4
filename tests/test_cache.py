"""The cache object: names given in one way, membership, iteration, and plans."""

from __future__ import annotations

import asyncio
import os
import pickle
from pathlib import Path

import msgspec
import pytest
from fsspec.asyn import get_loop

import cachefs
from cachefs.testing import random_graph


@pytest.fixture
def cache(tmp_path: Path) -> cachefs.Cache:
    cache = cachefs.open(tmp_path / "cache")
    for seed, name in enumerate(["main", "pr/1"]):
        generated = random_graph(seed, records=4)
        cache.export(generated.graph, generated.blobs, name, mode="max")
    return cache


def test_one_name_or_several_are_given_in_the_same_way(cache: cachefs.Cache) -> None:
    assert len(cache.load("main")) == len(cache.load(["main"])) == len(cache.load(("main",)))
    assert len(cache.load(["main", "pr/1"])) > len(cache.load("main"))
    assert [one.name for one in cache.summaries("pr/1")] == ["pr/1"]
    assert [one.name for one in cache.usage("pr/1").names] == ["pr/1"]
    assert cache.verify("pr/1").names == ["pr/1"]
    assert cache.with_names("pr/1").verify().names == ["pr/1"]
    assert cache.plan_repair(names="main").is_empty


def test_a_cache_contains_its_names(cache: cachefs.Cache) -> None:
    assert list(cache) == ["main", "pr/1"]
    assert "pr/1" in cache
    assert "pr" not in cache
    assert cachefs.Digest.of(b"") not in cache
    assert "../x" not in cache
    assert b"main" not in cache


def test_an_oci_directory_contains_its_tags(cache: cachefs.Cache, tmp_path: Path) -> None:
    oci = cachefs.open(f"type=local,dest={tmp_path / 'oci'}")
    assert "main" not in oci
    cachefs.copy(cache.with_names("main"), oci)
    assert "main" in oci
    assert "latest" not in oci


def test_a_cache_with_other_names_is_the_same_cache(cache: cachefs.Cache) -> None:
    other = cache.with_names(["main"])
    assert other.layout is cache.layout
    assert (other.default_names, cache.default_names) == (("main",), ("buildkit",))
    assert other.misses is not cache.misses


def test_plans_are_empty_when_there_is_nothing_to_do(cache: cachefs.Cache, tmp_path: Path) -> None:
    assert cache.plan_prune().is_empty
    assert cache.plan_repair().is_empty
    assert not cachefs.plan_merge([cache], cache, "all").is_empty
    cachefs.merge([cache], cache, "all")
    assert cachefs.plan_merge([cache.with_names("all")], cache, "all").is_empty
    assert not cachefs.plan_copy(cache, tmp_path / "copy").is_empty


def test_a_plan_that_was_decoded_or_pickled_is_not_executed(cache: cachefs.Cache) -> None:
    plan = cache.plan_prune(cachefs.PrunePolicy(wanted=frozenset({"main"})))
    decoded = msgspec.json.decode(msgspec.json.encode(plan), type=cachefs.PrunePlan)
    pickled = pickle.loads(pickle.dumps(plan))  # noqa: S301 - our own
    for other in (decoded, pickled, msgspec.structs.replace(plan)):
        assert other == plan
        with pytest.raises(cachefs.UsageError, match="plan again"):
            other.execute()
    assert plan.execute().removed == ["pr/1"]


def test_a_merge_without_a_name_is_a_usage_error(cache: cachefs.Cache) -> None:
    with pytest.raises(cachefs.UsageError, match="needs a name"):
        cachefs.plan_merge([cache], cache)
    assert cachefs.merge([cache], cache.with_names("all")).names == ["all"]


def test_recompression_is_refused_before_anything_is_written(
    cache: cachefs.Cache, tmp_path: Path
) -> None:
    target = f"type=local,dest={tmp_path / 'oci'},compression=zstd,force-compression=true"
    generated = random_graph(1, records=3)
    with pytest.raises(cachefs.LocationError, match="force-compression"):
        cachefs.copy(cache, target)
    with pytest.raises(cachefs.LocationError, match="force-compression"):
        cachefs.plan_merge([cache], cachefs.open(target), "all")
    with pytest.raises(cachefs.LocationError, match="force-compression"):
        cachefs.open(target).export(generated.graph, generated.blobs)
    assert not (tmp_path / "oci").exists()


def test_one_cache_is_not_taken_for_its_names(
    cache: cachefs.Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache can be iterated, and its names are relative paths."""
    monkeypatch.chdir(tmp_path)
    cachefs.copy(cache, "main")
    assert len(cachefs.plan_merge(cache, "target", "u").sources) == 2
    assert len(cachefs.plan_merge(str(tmp_path / "cache"), "target", "u").sources) == 2
    assert cache.plan_repair(tmp_path / "cache").is_empty
    assert cache.plan_prune(also=tmp_path / "cache").is_empty
    with pytest.raises(cachefs.UsageError, match="nothing to merge"):
        cachefs.merge([], cache, "main")
    assert len(cache.load("main"))


def test_invalid_names_are_refused_everywhere(cache: cachefs.Cache) -> None:
    for call in (cache.summaries, cache.usage, cache.load, cache.verify, cache.with_names):
        for name in ("../x", "", [1], [b"main"]):
            with pytest.raises(cachefs.CacheNameError):
                call(name)  # type: ignore[operator]


def test_a_location_with_a_digest_selects_one_manifest(
    cache: cachefs.Cache, tmp_path: Path
) -> None:
    oci = f"type=local,dest={tmp_path / 'oci'}"
    cachefs.copy(cache, oci)
    (key,) = {name.key for name in cachefs.open(oci).names() if name.name == "pr/1"}
    chosen = cachefs.open(f"type=local,src={tmp_path / 'oci'},digest=sha256:{Path(key).name}")
    assert [one.fault for one in chosen.summaries()] == [None, None]
    report = cachefs.copy(chosen, tmp_path / "one")
    assert report.names == ["latest"]
    assert len(cachefs.open(tmp_path / "one").load("latest")) == len(cache.load("pr/1"))


def test_a_refused_call_in_the_loop_leaves_no_coroutine(cache: cachefs.Cache) -> None:
    async def call() -> None:
        cachefs.copy(cache, "memory://target")

    with pytest.raises(cachefs.UsageError, match="loop"):
        asyncio.run_coroutine_threadsafe(call(), get_loop()).result()


def test_a_merge_that_is_old_is_not_up_to_date(cache: cachefs.Cache, tmp_path: Path) -> None:
    cachefs.merge([cache], cache, "all")
    again = cache.with_names("all")
    assert cachefs.plan_merge(again, cache, "all").is_empty
    blob = next((tmp_path / "cache" / "blobs").iterdir())
    os.utime(blob, (0, 0))
    assert cachefs.plan_merge(again, cache, "all").touch.blobs == 1
    os.truncate(blob, 0)
    plan = cachefs.plan_merge(again, cache, "all")
    assert (plan.upload.blobs, plan.is_empty) == (1, False)


def test_a_merge_that_is_repeated_replaces_nothing(cache: cachefs.Cache) -> None:
    sources = cache.with_names(["main", "pr/1"])
    cachefs.merge(sources, cache, "all")
    plan = cachefs.plan_merge(sources, cache, "all")
    assert (plan.replaces, plan.unchanged, plan.is_empty) == ([], ["all"], True)
    assert cachefs.plan_merge(sources, cache, ["main"]).replaces == []
    main = cache.with_names("main")
    joined = cachefs.plan_merge(main, cache, ["all"])
    assert (joined.replaces, joined.unchanged, joined.is_empty) == ([], ["all"], True)
    other = cachefs.plan_merge(main, cache, ["all"], on_conflict="replace")
    assert (other.replaces, other.is_empty) == (["all"], False)
    with pytest.raises(cachefs.UsageError, match="cannot be fail"):
        cachefs.plan_merge(main, cache, ["all"], on_conflict="fail")  # type: ignore[arg-type]


def test_text_is_not_taken_for_several_patterns(cache: cachefs.Cache) -> None:
    policy = cachefs.PrunePolicy(keep="main", older_than=0.0)  # type: ignore[arg-type]
    with pytest.raises(cachefs.UsageError, match="tuple of patterns"):
        cache.plan_prune(policy)
