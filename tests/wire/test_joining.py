"""Unions: a builder finds in one whatever it would have found in what was merged."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cachefs
from cachefs.wire import codec
from cachefs.wire.cacheconfig import CacheConfig
from cachefs.wire.joining import joined
from cachefs.wire.tying import TIE, tied
from tests.graphs import digest_of
from tests.importing import Imported, found

BRANCHES: Final = Path(__file__).parent.parent / "data" / "builders"


def config_of(name: str) -> CacheConfig:
    return codec.decode((BRANCHES / f"{name}.json").read_bytes())


def merged(*configs: CacheConfig) -> CacheConfig:
    """As :func:`cachefs.merge` writes it."""
    union = cachefs.RecordGraph.union(map(cachefs.RecordGraph, configs))
    return cachefs.RecordGraph(tied(union.to_config())).to_config()


def most_missed(built: CacheConfig, *caches: CacheConfig) -> int:
    """How many steps of a build are missed, in the worst of many orders."""
    return max(
        len(built.records)
        - len(found(built.records, [Imported(c.records, random.Random(order)) for c in caches]))  # noqa: S311 - an order, no secret
        for order in range(100)
    )


@pytest.mark.parametrize("branch", ["one", "two"])
def test_a_builder_finds_every_step_of_two_branches_in_their_union(branch: str) -> None:
    """With records of two branches side by side, one build in three missed half of its steps."""
    one, two, side_by_side = config_of("one"), config_of("two"), config_of("both")
    union = merged(one, two)
    built = config_of(branch)
    assert most_missed(built, one, two) == 0
    assert most_missed(built, side_by_side) > 0
    assert most_missed(built, union) == 0


def test_what_was_merged_without_a_tie_gets_one() -> None:
    mended = merged(config_of("both"))
    assert codec.encode(mended) == codec.encode(merged(config_of("two"), config_of("one")))
    assert codec.encode(mended) == codec.encode(merged(mended, config_of("one")))
    assert [record.digest for record in mended.records].count(TIE) == 1


def test_a_tie_is_no_final_result() -> None:
    one, two = (cachefs.RecordGraph(config_of(name)) for name in ("one", "two"))
    union = cachefs.RecordGraph(merged(config_of("one"), config_of("two")))
    finals = {union.records[index].digest for index in union.finals()}
    both = [{graph.records[index].digest for index in graph.finals()} for graph in (one, two)]
    assert finals == both[0] | both[1]


def test_records_that_share_an_alternative_for_every_input_become_one() -> None:
    """And so do those that are built on them."""
    graph = cachefs.RecordGraph()
    a, b, c = (graph.add(digest_of(number)) for number in range(3))
    first = graph.add("step", [[cachefs.Key(a)], [cachefs.Key(c)]])
    second = graph.add("step", [[cachefs.Key(b)], [cachefs.Key(c)]])
    graph.add("last", [[cachefs.Key(first)]])
    graph.add("last", [[cachefs.Key(second)]])
    apart = joined(graph.to_config())
    assert len(apart.records) == len(graph.records)
    graph.add("step", [[cachefs.Key(a), cachefs.Key(b)], [cachefs.Key(c)]])
    together = cachefs.RecordGraph(joined(graph.to_config()))
    assert sorted(record.digest for record in together.records) == sorted(
        [*map(digest_of, range(3)), "step", "last"]
    )
    step = together.find("step", [together.find(digest_of(1)), together.find(digest_of(2))])
    assert together.find("last", [step])


def test_a_link_that_closes_a_loop_of_joined_records_is_left_out() -> None:
    graph = cachefs.RecordGraph()
    root = graph.add(digest_of(0))
    lower = graph.add("step", [[cachefs.Key(root)]])
    between = graph.add("between", [[cachefs.Key(lower)]])
    graph.add("step", [[cachefs.Key(root), cachefs.Key(between)]])
    found = joined(graph.to_config()).records
    assert sorted(record.digest for record in found) == ["between", digest_of(0), "step"]


@st.composite
def builds(draw: Any) -> cachefs.RecordGraph:
    """Records of steps that have the same number of inputs and are not built on themselves."""
    graph = cachefs.RecordGraph()
    heights: list[int] = []
    for _ in range(draw(st.integers(1, 12))):
        keys = st.builds(
            cachefs.Key, st.integers(0, max(0, len(heights) - 1)), st.sampled_from(["", "part"])
        )
        inputs = draw(st.lists(st.lists(keys, min_size=1, max_size=3), max_size=2))
        inputs = inputs if heights else []
        height = max((heights[key.record] + 1 for keys in inputs for key in keys), default=0)
        record = graph.add(f"{draw(st.integers(0, 2))}/{len(inputs)}/{height}", inputs)
        heights += [height] * (record == len(heights))
    return graph


@settings(max_examples=200)
@given(builds(), builds(), st.integers(0, 2**32))
def test_everything_found_in_two_caches_is_found_in_their_union(
    a: cachefs.RecordGraph, b: cachefs.RecordGraph, seed: int
) -> None:
    """In whatever order a builder goes through the records."""
    order = random.Random(seed)  # noqa: S311 - an order, no secret
    union = tied(cachefs.RecordGraph.union([a, b]).to_config())
    apart = [Imported(graph.records, order) for graph in (a, b)]
    together = [Imported(union.records, order)]
    for graph in (a, b):
        assert found(graph.records, apart) <= found(graph.records, together)


# --- what nobody builds ---------------------------------------------------------------------------

NONE: Final = "2026-08-01T12:00:00Z"


def hub() -> CacheConfig:
    """Many leaves on one record, none of which reaches it twice."""
    records = [{"digest": "root"}]
    records += [{"digest": f"{i}", "inputs": [[{"link": 0}]]} for i in range(30_000)]
    return msgspec.convert({"records": records}, CacheConfig)


def fan() -> CacheConfig:
    """Many leaves that reach one record in two ways each."""
    records: list[dict[str, Any]] = [{"digest": "root"}]
    for i in range(4000):
        at = len(records)
        records.append({"digest": f"{i}", "inputs": [[{"link": 0}]]})
        records.append({"digest": f"top {i}", "inputs": [[{"link": 0}], [{"link": at}]]})
    return msgspec.convert({"records": records}, CacheConfig)


def loops() -> CacheConfig:
    """Many pairs of records, each of which closes a loop if it becomes one."""
    records: list[dict[str, Any]] = [{"digest": "root"}]
    for i in range(1500):
        at = len(records)
        records.append({"digest": f"step {i}", "inputs": [[{"link": 0}]]})
        records.append({"digest": f"between {i}", "inputs": [[{"link": at}]]})
        records.append({"digest": f"step {i}", "inputs": [[{"link": 0}, {"link": at + 1}]]})
    return msgspec.convert({"records": records}, CacheConfig)


def results() -> CacheConfig:
    """A record with many results."""
    of_record = [{"layer": 0, "createdAt": f"{NONE[:-1]}.{i:09}Z"} for i in range(30_000)]
    layer = {"blob": digest_of(0), "parent": -1}
    records = [{"digest": "step", "layers": of_record}] * 2
    return msgspec.convert({"layers": [layer], "records": records}, CacheConfig)


@pytest.mark.parametrize("hostile", [hub, fan, loops, results], ids=lambda one: one.__name__)
def test_a_merge_of_what_nobody_builds_ends(hostile: Callable[[], CacheConfig]) -> None:
    """Each took minutes, or for ever, because its time grew with the square of the records."""
    union = merged(hostile())
    ties = [record.digest for record in union.records].count(TIE)
    assert ties == (hostile in {fan, loops})
    if hostile is results:
        assert [len(record.layers) for record in union.records] == [30_000]
