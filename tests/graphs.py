"""Random valid graphs for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import cachefs
from cachefs.wire.timestamps import from_nanoseconds

MOMENTS = st.integers(0, 2_000_000_000_000_000_000).map(from_nanoseconds)


def digest_of(number: int) -> str:
    return cachefs.Digest.of(str(number).encode())


@st.composite
def graphs(draw: Any, most: int = 12) -> cachefs.RecordGraph:
    """Few digests on purpose: one blob on several parents, one digest with several inputs."""
    graph = cachefs.RecordGraph()
    digests = st.integers(0, 4).map(digest_of)
    for _ in range(draw(st.integers(0, most))):
        graph.add_layer(
            draw(digests),
            parent=draw(st.integers(-1, len(graph.layers) - 1)),
            diff_id=draw(digests),
            size=draw(st.integers(0, 100)),
            created_at=draw(MOMENTS),
        )
    for _ in range(draw(st.integers(0, most))):
        keys = st.builds(
            cachefs.Key,
            st.integers(0, max(0, len(graph.records) - 1)),
            st.sampled_from(["", digest_of(7)]),
        )
        inputs = draw(st.lists(st.lists(keys, min_size=1, max_size=3), max_size=3))
        record = graph.add(draw(digests), inputs if graph.records else [])
        if graph.layers and draw(st.booleans()):
            layer = draw(st.integers(0, len(graph.layers) - 1))
            graph.add_result(record, layer, draw(MOMENTS))
    return graph


def shuffled(graph: cachefs.RecordGraph, order: Any) -> cachefs.RecordGraph:
    """The same graph, added in another order that links allow."""
    again = cachefs.RecordGraph()
    layers: dict[int, int] = {}
    records: dict[int, int] = {}
    waiting = list(range(len(graph.layers)))
    while waiting:
        ready = [i for i in waiting if graph.layers[i].parent in {-1, *layers}]
        index = order.choice(ready)
        waiting.remove(index)
        layer = graph.layers[index]
        assert layer.annotations is not None
        layers[index] = again.add_layer(
            layer.blob,
            parent=layers.get(layer.parent, -1),
            diff_id=layer.annotations.diff_id,
            size=layer.annotations.size,
            media_type=layer.annotations.media_type,
            created_at=layer.annotations.created_at,
        )
    waiting = list(range(len(graph.records)))
    while waiting:
        ready = [
            i
            for i in waiting
            if all(k.link in records for alts in graph.records[i].inputs for k in alts)
        ]
        index = order.choice(ready)
        waiting.remove(index)
        record = graph.records[index]
        records[index] = again.add(
            record.digest,
            [[cachefs.Key(records[k.link], k.selector) for k in alts] for alts in record.inputs],
        )
        for result in order.sample(record.layers, len(record.layers)):
            again.add_result(records[index], layers[result.layer], result.created_at)
    return again
