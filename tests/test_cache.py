"""The cache object: names given in one way, membership, iteration, and plans."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgspec
import pytest

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
    with pytest.raises(cachefs.CacheNameError):
        assert "../x" not in cache


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
    assert plan.execute().names == ["pr/1"]


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
