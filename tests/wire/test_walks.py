"""Walks in which parents and links come first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.wire.cacheconfig import Layer
from cachefs.wire.walks import fold_stacks, parents_first
from tests.graphs import graphs


@given(graphs(), st.data())
def test_parents_come_first_and_each_layer_once(
    graph: cachefs.RecordGraph, data: st.DataObject
) -> None:
    everything = list(range(len(graph.layers)))
    tops = data.draw(st.none() | st.lists(st.sampled_from(everything))) if everything else None
    order = parents_first(graph.layers, tops)
    wanted = everything if tops is None else {i for top in tops for i in graph.chain(top)}
    assert sorted(order) == sorted(wanted)
    for index in order:
        parent = graph.layers[index].parent
        assert parent == -1 or order.index(parent) < order.index(index)


@given(graphs())
def test_heights_are_folded(graph: cachefs.RecordGraph) -> None:
    heights = fold_stacks(graph.layers, 0, lambda _, below: below + 1)
    assert heights == [len(graph.chain(index)) for index in range(len(graph.layers))]


@pytest.mark.parametrize("parents", [[0], [1, 0], [-1, 2, 1], [2, 0, 1, -1], [0, 0]])
def test_a_loop_is_an_error(parents: list[int]) -> None:
    layers = [Layer("blob", parent) for parent in parents]
    with pytest.raises(cachefs.ManifestError, match="is in a loop of parents"):
        parents_first(layers)
    with pytest.raises(cachefs.ManifestError, match="is in a loop of parents"):
        fold_stacks(layers, 0, max)
