"""Unions: the fast one is, byte for byte, the plain one that is written here."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cachefs import RecordGraph
from cachefs.wire import codec, timestamps
from cachefs.wire.cacheconfig import (
    Annotations,
    CacheConfig,
    Chain,
    Layer,
    LayerIndex,
    Link,
    Record,
    Result,
)
from cachefs.wire.joining import joined
from cachefs.wire.tying import TIE
from cachefs.wire.uniting import united
from tests.graphs import graphs

TIMES: Final = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2025-01-01T00:00:00Z")


@st.composite
def manifests(draw: Any) -> CacheConfig:
    """With all that a builder's manifest may have and :class:`RecordGraph` does not write."""
    config = msgspec.convert(msgspec.to_builtins(draw(graphs(8)).to_config()), CacheConfig)
    rarely = st.integers(0, 5).map(lambda number: not number)
    for layer in config.layers:
        if layer.annotations and draw(rarely):
            layer.annotations.diff_id = draw(st.sampled_from(["", "no digest"]))
        elif draw(rarely):
            layer.annotations = None
    for record in config.records:
        if config.layers and draw(rarely):
            index = st.integers(0, len(config.layers) - 1).map(LayerIndex)
            layers = st.lists(index, max_size=3).map(tuple)
            chain = st.builds(Chain, layers=layers, created_at=st.sampled_from(TIMES))
            record.chains = tuple(draw(st.lists(chain, max_size=3)))
        if record.inputs and draw(rarely):
            record.inputs = tuple(links + links[:1] for links in record.inputs)
        if draw(rarely):
            record.digest = draw(st.sampled_from([TIE, record.digest, "other"]))
    return config


class Plain:
    """A union made of dictionaries whose keys are whole contents, with nothing made to be fast."""

    def __init__(self) -> None:
        self.layers: dict[tuple[str, ...], Annotations] = {}
        self.records: dict[tuple[Any, ...], tuple[list[Any], list[Any]]] = {}

    def add(self, config: CacheConfig) -> None:
        """Add what a config has."""
        stacks = [self._layer(config.layers, layer) for layer in config.layers]
        left_out = object()
        keys: dict[int, Any] = {}

        def key(index: int) -> Any:
            if index not in keys:
                record = config.records[index]
                inputs = [{(key(k.link), k.selector) for k in links} for links in record.inputs]
                inputs = [{one for one in of if one[0] is not left_out} for of in inputs]
                gone = record.digest == TIE or not all(inputs)
                keys[index] = left_out if gone else (record.digest, *map(frozenset, inputs))
            return keys[index]

        for index, record in enumerate(config.records):
            if key(index) is not left_out:
                results, chains = self.records.setdefault(key(index), ([], []))
                results += [(stacks[r.layer], r.created_at) for r in record.layers]
                chains += [([stacks[i] for i in c.layers], c.created_at) for c in record.chains]

    def _layer(self, layers: list[Layer], layer: Layer) -> tuple[str, ...]:
        below = self._layer(layers, layers[layer.parent]) if layer.parent >= 0 else ()
        stack = (*below, layer.blob)
        facts = layer.annotations or Annotations(created_at=timestamps.ZERO)
        known = self.layers.get(stack, facts)
        newest = max(known, facts, key=newness)
        named = (Layer(annotations=one).diff_id for one in (newest, known, facts))
        self.layers[stack] = replace(newest, diff_id=next(filter(None, named), ""))
        return stack

    def config(self) -> CacheConfig:
        """The union, without what is joined, in any order."""
        layer = {stack: LayerIndex(index) for index, stack in enumerate(self.layers)}
        record: dict[Any, Any] = {key: index for index, key in enumerate(self.records)}
        return CacheConfig(
            [
                Layer(stack[-1], layer[stack[:-1]] if stack[:-1] else LayerIndex(-1), facts)
                for stack, facts in self.layers.items()
            ],
            [
                Record(
                    tuple({(s, t): Result(layer[s], t) for s, t in results}.values()),
                    tuple(
                        {
                            (*stacks, when): Chain(
                                layers=tuple(layer[s] for s in stacks), created_at=when
                            )
                            for stacks, when in chains
                        }.values()
                    ),
                    key[0],
                    tuple(
                        tuple(Link(selector=selector, link=record[one]) for one, selector in of)
                        for of in key[1:]
                    ),
                )
                for key, (results, chains) in self.records.items()
            ],
        )


def newness(facts: Annotations) -> tuple[object, ...]:
    """By when it was made, and if that is the same, by all else."""
    moment = timestamps.nanoseconds(facts.created_at)
    return (moment, facts.created_at, facts.media_type, facts.diff_id, facts.size)


@settings(max_examples=200)
@given(st.lists(manifests(), min_size=1, max_size=3))
def test_a_union_is_what_the_plain_one_is(configs: list[CacheConfig]) -> None:
    plain = Plain()
    before = list(map(codec.encode, configs))
    for config in configs:
        plain.add(config)
    union = RecordGraph.union(map(RecordGraph, configs))
    by_the_book = RecordGraph(joined(plain.config())).to_config()
    assert codec.encode(union.to_config()) == codec.encode(by_the_book)
    assert list(map(codec.encode, configs)) == before


@given(manifests(), manifests())
def test_a_union_is_in_canonical_order(one: CacheConfig, other: CacheConfig) -> None:
    union = united([one, other])
    assert codec.encode(RecordGraph(union).to_config()) == codec.encode(union)


@given(st.lists(manifests(), min_size=1, max_size=2))
def test_what_was_stored_of_a_union_does_not_change_when_it_grows(
    configs: list[CacheConfig],
) -> None:
    union = RecordGraph.union(map(RecordGraph, configs))
    stored = union.to_config()
    before = codec.encode(stored)
    layer = union.add_layer("sha256:" + "f" * 64)
    for record in [union.add("sha256:" + "0" * 64), *range(len(union.records))]:
        union.add_result(record, layer)
    assert codec.encode(stored) == before
    again = RecordGraph(codec.decode(codec.encode(union.to_config())))
    assert codec.encode(again.to_config()) == codec.encode(union.to_config())
    assert len(again.records) == len(union.records)
