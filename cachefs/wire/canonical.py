"""Canonical order: it makes two exports of one graph identical byte for byte.

Layers are sorted by blob, then by what is below them; records by digest, number of inputs, and
input by input by number of alternatives, selectors and linked digests. If the format leaves an
order open, a hash of the content below decides, so that the order of adding does not matter.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import (
    NO_PARENT,
    CacheConfig,
    Chain,
    Layer,
    LayerIndex,
    Link,
    Record,
    RecordIndex,
    Result,
    layer_indexes,
    record_indexes,
)
from cachefs.wire.walks import fold_stacks, topological

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")
Index = TypeVar("Index", RecordIndex, LayerIndex)


def canonical(config: CacheConfig) -> CacheConfig:
    """The same config in canonical order; the argument is not changed.

    Raises ManifestError if records link in a loop.
    """
    stacks = stack_hashes(config.layers)
    layer_order = sorted(
        layer_indexes(config.layers), key=lambda i: (config.layers[i].blob, stacks[i])
    )
    record_order = _record_order(config.records, stacks)
    new_layer = _inverse(layer_order)
    new_record = _inverse(record_order)
    return CacheConfig(
        layers=[_on_its_parent(config.layers[old], new_layer) for old in layer_order],
        records=[_renumbered(config.records[old], new_layer, new_record) for old in record_order],
    )


def stack_hashes(layers: Sequence[Layer]) -> list[bytes]:
    """For each layer, a hash of its blob and of all blobs below it."""

    def hashed(index: LayerIndex, below: bytes) -> bytes:
        return hashlib.sha256(below + layers[index].blob.encode()).digest()

    return fold_stacks(layers, b"", hashed)


def _record_order(records: Sequence[Record], stacks: Sequence[bytes]) -> list[RecordIndex]:
    keys = [_order_key(record, records) for record in records]
    if len(set(keys)) == len(keys):
        return sorted(record_indexes(records), key=keys.__getitem__)
    content = _content_hashes(records, stacks)
    return sorted(record_indexes(records), key=lambda i: (keys[i], content[i]))


def _order_key(record: Record, records: Sequence[Record]) -> tuple[object, ...]:
    return (
        record.digest,
        len(record.inputs),
        tuple(
            (len(alts), tuple(sorted((k.selector, records[k.link].digest) for k in alts)))
            for alts in record.inputs
        ),
    )


def _content_hashes(records: Sequence[Record], stacks: Sequence[bytes]) -> list[bytes]:
    """For each record, a hash of its key, of everything it is built on, and of its results."""
    content = [b""] * len(records)
    for index in topological(records):
        record = records[index]
        inputs = [sorted((k.selector, content[k.link]) for k in alts) for alts in record.inputs]
        results = sorted((result.created_at, stacks[result.layer]) for result in record.layers)
        chains = sorted((c.created_at, [stacks[i] for i in c.layers]) for c in record.chains)
        text = repr((record.digest, inputs, results, chains))
        content[index] = hashlib.sha256(text.encode()).digest()
    return content


def _inverse(order: Sequence[Index]) -> list[Index]:
    inverse = list(order)
    for new, old in enumerate(order):
        inverse[old] = cast("Index", new)
    return inverse


def _on_its_parent(layer: Layer, new_layer: Sequence[LayerIndex]) -> Layer:
    parent = NO_PARENT if layer.parent == NO_PARENT else new_layer[layer.parent]
    return Layer(layer.blob, parent, layer.annotations)


def _renumbered(
    record: Record, layers: Sequence[LayerIndex], records: Sequence[RecordIndex]
) -> Record:
    """The record with all indexes rewritten, and its lists sorted."""
    results = (Result(layers[r.layer], r.created_at) for r in record.layers)
    chains = (moved(chain, layers) for chain in record.chains)
    inputs = (
        (Link(selector=k.selector, link=records[k.link]) for k in alternatives)
        for alternatives in record.inputs
    )
    return Record(
        _sorted(results, lambda r: (r.layer, _moment(r.created_at))),
        _sorted(chains, lambda c: (c.layers, _moment(c.created_at))),
        record.digest,
        tuple(_sorted(links, lambda k: (k.link, k.selector)) for links in inputs),
    )


def _sorted(items: Iterable[T], key: Callable[[T], Any]) -> tuple[T, ...]:
    """The items, sorted. Most records have one result and one alternative, which need no key."""
    found = tuple(items)
    return tuple(sorted(found, key=key)) if len(found) > 1 else found


def moved(chain: Chain, new_layer: Mapping[LayerIndex, LayerIndex] | Sequence[LayerIndex]) -> Chain:
    """The chain with the new indexes of its layers."""
    return Chain(layers=tuple(new_layer[i] for i in chain.layers), created_at=chain.created_at)


def _moment(text: str) -> tuple[int, str]:
    return timestamps.nanoseconds(text), text
