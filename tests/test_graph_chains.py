"""Results as chains of layers, which name their layers without the parents; and deep results."""

from __future__ import annotations

from cachefs import RecordGraph
from cachefs.wire.cacheconfig import CacheConfig, Chain, Layer, Link, Record, Result
from cachefs.wire.codec import encode
from tests.graphs import digest_of

WHEN = "2026-01-01T00:00:00Z"


def chained() -> RecordGraph:
    """A final result that is a chain of layer 2 alone, which lies on 1 and 0; 3 is a step's."""
    layers = [Layer(digest_of(i), parent) for i, parent in enumerate((-1, 0, 1, -1))]
    step = Record((Result(3, WHEN),), (), digest_of(10))
    final = Record((), (Chain(layers=(2,), created_at=WHEN),), digest_of(11), ((Link(link=0),),))
    return RecordGraph(CacheConfig(layers, [step, final]))


def results(graph: RecordGraph) -> dict[str, list[list[str]]]:
    return {
        record.digest: [
            [graph.layers[i].blob for i in found.layers] for found in graph.results([index])
        ]
        for index, record in enumerate(graph.records)
    }


def test_a_chain_is_the_layers_it_names() -> None:
    assert results(chained())[digest_of(11)] == [[digest_of(2)]]


def test_min_keeps_a_final_result_that_is_a_chain() -> None:
    chosen = chained().select("min")
    assert results(chosen) == {digest_of(10): [], digest_of(11): [[digest_of(2)]]}
    assert {layer.blob for layer in chosen.layers} == {digest_of(i) for i in range(3)}


def test_chains_are_merged_and_stored() -> None:
    graph = chained()
    union = RecordGraph.union([graph, chained(), RecordGraph()])
    assert results(union) == results(graph)
    assert encode(union.to_config()) == encode(RecordGraph.union([graph]).to_config())
    assert results(RecordGraph(union.to_config())) == results(graph)


def test_results_of_one_moment_come_in_one_order_however_layers_are_numbered() -> None:
    orders = []
    for numbers in ((1, 2, 3), (3, 1, 2), (2, 3, 1)):
        graph = RecordGraph()
        record = graph.add(digest_of(10))
        for number in numbers:
            graph.add_result(record, graph.add_layer(digest_of(number)), WHEN)
        again = RecordGraph(graph.to_config())
        same = (graph, again, RecordGraph.union([again, graph]), graph.select("max"))
        orders += [[g.layers[f.layers[0]].blob for f in g.results([0])] for g in same]
    assert all(order == orders[0] for order in orders)


def test_a_result_at_every_depth_of_a_deep_stack_takes_no_square_of_steps() -> None:
    depth = 50_000
    config = CacheConfig(
        [Layer(digest_of(i % 50), i - 1) for i in range(depth)],
        [Record((Result(i, WHEN),), (), str(i)) for i in range(depth)],
    )
    graph = RecordGraph(config)
    for chosen in (graph.select("max"), graph.select("min"), graph.without_blobs({"none"})):
        assert len(chosen.layers) == len(chosen.records) == depth
    assert len(RecordGraph.union([graph, graph]).records) == depth
