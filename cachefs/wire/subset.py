"""A part of a cache config, as a new config."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cachefs.wire.cacheconfig import (
    NO_PARENT,
    CacheConfig,
    Layer,
    LayerIndex,
    Link,
    Record,
    RecordIndex,
    Result,
    record_indexes,
)
from cachefs.wire.canonical import moved
from cachefs.wire.walks import fold_stacks, parents_first, topological

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator, Mapping, Sequence

    from cachefs.wire.cacheconfig import Chain


def subset(
    config: CacheConfig,
    records: Container[RecordIndex] | None = None,
    layers: Container[LayerIndex] | None = None,
) -> CacheConfig:
    """The part with these records and these layers; None keeps all.

    Anything left dangling is dropped: results with a layer that is not kept or is above one that is
    not, links to records that are not kept, records with an input that no alternative satisfies any
    more, and layers that no result needs.
    """
    kept = fold_stacks(
        config.layers, True, lambda index, below: below and (layers is None or index in layers)
    )
    new_record = _kept_records(config.records, records)
    results: dict[RecordIndex, tuple[list[Result], list[Chain]]] = {}
    for old in new_record:
        source = config.records[old]
        results[old] = (
            [result for result in source.layers if kept[result.layer]],
            [one for one in source.chains if all(kept[index] for index in one.layers)],
        )
    tops = chain.from_iterable(_named(*of_record) for of_record in results.values())
    new_layer = {old: LayerIndex(new) for new, old in enumerate(parents_first(config.layers, tops))}
    return CacheConfig(
        layers=[_on_its_parent(config.layers[old], new_layer) for old in new_layer],
        records=[
            Record(
                tuple(Result(new_layer[r.layer], r.created_at) for r in results[old][0]),
                tuple(moved(one, new_layer) for one in results[old][1]),
                config.records[old].digest,
                _kept_inputs(config.records[old], new_record),
            )
            for old in new_record
        ],
    )


def without_records(config: CacheConfig, gone: Collection[RecordIndex]) -> CacheConfig:
    """The config without these records, and without what no alternative satisfies any more.

    All layers stay.
    """
    kept = [index for index in record_indexes(config.records) if index not in gone]
    new_record = _kept_records(config.records, frozenset(kept))
    records = [
        Record(source.layers, source.chains, source.digest, _kept_inputs(source, new_record))
        for source in map(config.records.__getitem__, new_record)
    ]
    return CacheConfig(config.layers, records)


def result_layers(records: Sequence[Record]) -> Iterator[LayerIndex]:
    """The layers that results name: the top of each, or all of a chain."""
    return chain.from_iterable(_named(record.layers, record.chains) for record in records)


def _named(results: Sequence[Result], chains: Sequence[Chain]) -> Iterator[LayerIndex]:
    for result in results:
        yield result.layer
    for one in chains:
        yield from one.layers


def _kept_records(
    records: Sequence[Record], wanted: Container[RecordIndex] | None
) -> dict[RecordIndex, RecordIndex]:
    """Old index to new index, in the old order."""
    kept: set[RecordIndex] = set()
    for index in topological(records):
        if (wanted is None or index in wanted) and all(
            any(link.link in kept for link in alternatives)
            for alternatives in records[index].inputs
        ):
            kept.add(index)
    return {old: RecordIndex(new) for new, old in enumerate(sorted(kept))}


def _kept_inputs(
    record: Record, new_record: Mapping[RecordIndex, RecordIndex]
) -> tuple[tuple[Link, ...], ...]:
    return tuple(
        tuple(
            Link(selector=link.selector, link=new_record[link.link])
            for link in alternatives
            if link.link in new_record
        )
        for alternatives in record.inputs
    )


def _on_its_parent(layer: Layer, new_layer: Mapping[LayerIndex, LayerIndex]) -> Layer:
    parent = new_layer.get(layer.parent, NO_PARENT)
    return Layer(layer.blob, parent, layer.annotations)
