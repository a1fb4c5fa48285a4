"""The record graph: look-ups against a plain model, selection, and the algebra of merging."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs import Key, RecordGraph
from cachefs.wire.cacheconfig import CacheConfig, Layer, Record, Result
from cachefs.wire.codec import encode
from tests.graphs import digest_of, graphs, shuffled

CREATED = "2026-01-01T00:00:00Z"

WHEN = "2026-11-23T09:08:18Z"


def canonical(graph: RecordGraph) -> bytes:
    return encode(graph.to_config())


def found_by_the_book(
    graph: RecordGraph, digest: str, inputs: Sequence[Sequence[Key]]
) -> frozenset[int]:
    """As the format says it: the sets reachable over (digest, k, selector), intersected."""
    if not inputs:
        return frozenset(
            i for i, r in enumerate(graph.records) if r.digest == digest and not r.inputs
        )
    reachable = [
        {
            index
            for index, record in enumerate(graph.records)
            if record.digest == digest and len(record.inputs) == len(inputs)
            for link in record.inputs[k]
            for key in keys
            if (link.link, link.selector) == key
        }
        for k, keys in enumerate(inputs)
    ]
    return frozenset(set.intersection(*reachable))


@given(graphs(), st.data())
def test_find_is_what_the_format_says(graph: RecordGraph, data: st.DataObject) -> None:
    keys = st.builds(
        Key, st.integers(0, max(0, len(graph.records))), st.sampled_from(["", digest_of(7)])
    )
    inputs = data.draw(st.lists(st.lists(keys, max_size=4), max_size=3))
    digest = data.draw(st.integers(0, 5).map(digest_of))
    assert graph.find(digest, inputs).records == found_by_the_book(graph, digest, inputs)


@given(graphs(), st.randoms(use_true_random=False))
def test_every_record_finds_itself_by_its_own_key(graph: RecordGraph, order: random.Random) -> None:
    for index, record in enumerate(graph.records):
        one_each = [[Key(k.link, k.selector)] for k in (order.choice(a) for a in record.inputs)]
        assert index in graph.find(record.digest, one_each)


def test_what_find_gives_is_what_the_next_find_takes() -> None:
    graph = RecordGraph()
    base, other = graph.add(digest_of(1)), graph.add(digest_of(2))
    whole = graph.add(digest_of(3), [[Key(base)], [Key(other, "part")]])
    found = graph.find(digest_of(1))
    assert found == cachefs.Matches(graph, frozenset({base}))
    assert list(found) == [base]
    assert len(found) == 1
    inputs = [found.keys(), graph.find(digest_of(2)).keys("part")]
    assert graph.find(digest_of(3), inputs).records == {whole}
    assert not graph.find(digest_of(3), [found.keys(), found.keys()])
    assert not graph.find(digest_of(4)).keys()


def test_a_part_is_chosen_by_index() -> None:
    """Two records may be equal, field by field, and only one of them be wanted."""
    layers = [Layer(digest_of(1), -1), Layer(digest_of(2), 0), Layer(digest_of(1), -1)]
    records = [Record((Result(index, WHEN),), (), digest_of(3)) for index in (1, 2, 1)]
    graph = RecordGraph(CacheConfig(layers, records))
    second = graph.filtered(records=[1])
    assert [layer.blob for layer in second.layers] == [digest_of(1)]
    assert len(second.records) == 1
    on_nothing = graph.filtered(layers=[1, 2])
    assert [len(record.layers) for record in on_nothing.records] == [0, 1, 0]


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_adding_never_shows(graph: RecordGraph, order: random.Random) -> None:
    assert canonical(shuffled(graph, order)) == canonical(graph)


@given(graphs())
def test_merging_is_idempotent_and_empty_is_neutral(graph: RecordGraph) -> None:
    assert canonical(RecordGraph.union([graph, graph])) == canonical(RecordGraph.union([graph]))
    assert canonical(RecordGraph.union([graph, RecordGraph()])) == canonical(
        RecordGraph.union([graph])
    )


@given(graphs(), graphs())
def test_merging_is_commutative(one: RecordGraph, other: RecordGraph) -> None:
    assert canonical(RecordGraph.union([one, other])) == canonical(RecordGraph.union([other, one]))


@given(graphs(8), graphs(8), graphs(8))
def test_merging_is_associative(one: RecordGraph, two: RecordGraph, three: RecordGraph) -> None:
    left = RecordGraph.union([RecordGraph.union([one, two]), three])
    right = RecordGraph.union([one, RecordGraph.union([two, three])])
    assert canonical(left) == canonical(right) == canonical(RecordGraph.union([three, one, two]))


@given(graphs(8), graphs(8))
def test_a_merged_graph_has_all_that_its_parts_have(one: RecordGraph, other: RecordGraph) -> None:
    union = RecordGraph.union([one, other])
    digests = {r.digest for r in one.records} | {r.digest for r in other.records}
    assert {r.digest for r in union.records} == digests
    assert set(union.blobs()) == set(one.blobs()) | set(other.blobs())


@given(graphs(), st.sets(st.integers(0, 4).map(digest_of)))
def test_without_blobs_every_result_that_needs_one_is_a_miss(
    graph: RecordGraph, lost: set[str]
) -> None:
    rest = graph.without_blobs(lost)
    canonical(rest)  # checks the rules of the format
    assert not set(rest.blobs()) & lost
    kept = [
        [[graph.layers[i].blob for i in f.layers] for f in graph.results([index])]
        for index in range(len(graph.records))
    ]
    expected = [[chain for chain in chains if not lost & set(chain)] for chains in kept]
    assert [
        [[rest.layers[i].blob for i in f.layers] for f in rest.results([index])]
        for index in range(len(rest.records))
    ] == expected


@given(graphs())
def test_min_keeps_the_records_and_only_layers_of_the_final_results(graph: RecordGraph) -> None:
    chosen = graph.select("min")
    needed = {blob_chain(graph, i) for f in graph.results(graph.finals()) for i in f.layers}
    assert len(chosen.records) == len(graph.records)
    assert {blob_chain(chosen, i) for i in range(len(chosen.layers))} == needed


def blob_chain(graph: RecordGraph, layer: int) -> tuple[str, ...]:
    return tuple(graph.layers[i].blob for i in graph.chain(layer))


def test_random_records_are_not_stored_nor_what_needs_them() -> None:
    graph = RecordGraph()
    layer = graph.add_layer(digest_of(1))
    source = graph.add("random:once")
    stable = graph.add(digest_of(2))
    only_random = graph.add(digest_of(3), [[Key(source)]])
    either = graph.add(digest_of(4), [[Key(source), Key(stable)]])
    above = graph.add(digest_of(5), [[Key(only_random)]])
    for record in (only_random, either, above):
        graph.add_result(record, layer)
    stored = graph.select("max")
    assert {r.digest for r in stored.records} == {digest_of(2), digest_of(4)}
    assert [len(alts) for r in stored.records for alts in r.inputs] == [1]


def test_the_newest_result_wins_by_nanoseconds_not_by_text() -> None:
    graph = RecordGraph()
    record = graph.add(digest_of(0))
    layers = [graph.add_layer(digest_of(i)) for i in range(3)]
    for layer, when in zip(
        layers,
        ("2026-11-23T09:08:18.61023137Z", "2026-11-23T09:08:18.610231371Z", "2026-11-23T09:08:18Z"),
        strict=True,
    ):
        graph.add_result(record, layer, when)
    assert [found.layers for found in graph.results([record])] == [(1,), (0,), (2,)]


def test_what_makes_no_sense_is_refused() -> None:
    graph = RecordGraph()
    with pytest.raises(cachefs.UsageError, match="no layer 3"):
        graph.add_layer(digest_of(1), parent=3)
    with pytest.raises(cachefs.DigestError):
        graph.add_layer("sha256:short")
    with pytest.raises(cachefs.UsageError, match="no alternatives"):
        graph.add(digest_of(1), [[]])
    with pytest.raises(cachefs.UsageError, match="not added yet"):
        graph.add(digest_of(1), [[Key(0)]])
    record = graph.add(digest_of(1))
    with pytest.raises(cachefs.UsageError, match="no layer 0"):
        graph.add_result(record, 0)
    assert graph.add(digest_of(1)) == record


def test_output_keys_are_the_builders() -> None:
    vertex = "sha256:" + "ab" * 32
    assert cachefs.output_key(vertex, 1) == cachefs.Digest.of(f"{vertex}@1".encode())


def test_lost_blobs_are_not_searched_in_a_list_for_each_layer() -> None:
    class Blobs(list[str]):
        def __contains__(self, _blob: object) -> bool:
            raise AssertionError("a manifest may have a million of each")

    graph = RecordGraph()
    for number in range(2):
        layer = graph.add_layer(digest_of(number), size=1, created_at=CREATED)
        graph.add_result(graph.add(digest_of(number)), layer, CREATED)
    left = graph.without_blobs(Blobs([digest_of(0)]))
    assert set(left.blobs()) == {digest_of(1)}
