"""Canonical order: it makes two exports of one graph identical byte for byte.

Layers are sorted by blob, then by what is below them; records by digest, number of inputs, and
input by input by number of alternatives, selectors and linked digests. If the format leaves an
order open, a hash of the content below decides, so that the order of adding does not matter.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, TypeVar, cast

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
    from collections.abc import Iterable, Mapping, Sequence

Index = TypeVar("Index", RecordIndex, LayerIndex)


def canonical(config: CacheConfig) -> CacheConfig:
    """The same config in canonical order; the argument is not changed.

    Raises ManifestError if records link in a loop.
    """
    order = layer_order(config.layers)
    record_order = _record_order(config)
    new_layer, new_record = inverse(order), inverse(record_order)
    return CacheConfig(
        layers=placed(config.layers, order, new_layer),
        records=[
            Record(
                sorted_results([Result(new_layer[r.layer], r.created_at) for r in record.layers]),
                sorted_chains([moved(one, new_layer) for one in record.chains]),
                record.digest,
                tuple([_sorted_links(links, new_record) for links in record.inputs]),
            )
            for record in map(config.records.__getitem__, record_order)
        ],
    )


def layer_order(layers: Sequence[Layer]) -> list[LayerIndex]:
    """The canonical order: by blob, and of layers with the same blob, by what is below."""
    blobs = [layer.blob for layer in layers]
    if len(set(blobs)) == len(blobs):
        return sorted(layer_indexes(layers), key=blobs.__getitem__)
    stacks = _stack_hashes(layers)
    return sorted(layer_indexes(layers), key=lambda index: (blobs[index], stacks[index]))


def placed(
    layers: Sequence[Layer], order: Iterable[LayerIndex], new: Sequence[LayerIndex]
) -> list[Layer]:
    """The layers in an order, on the new indexes of their parents."""
    parents = [*new, NO_PARENT]  # the last one is for the index -1
    return [
        Layer(layer.blob, parents[layer.parent], layer.annotations)
        for layer in map(layers.__getitem__, order)
    ]


def _stack_hashes(layers: Sequence[Layer]) -> list[bytes]:
    """For each layer, a hash of its blob and of all blobs below it."""

    def hashed(index: LayerIndex, below: bytes) -> bytes:
        return hashlib.sha256(below + layers[index].blob.encode()).digest()

    return fold_stacks(layers, b"", hashed)


def _record_order(config: CacheConfig) -> list[RecordIndex]:
    """By digest, then by all else: what only few records need is only worked out for these."""
    records = config.records
    indexes = record_indexes(records)
    digests = [record.digest for record in records]
    counts = Counter(digests)
    if len(counts) == len(digests):
        return sorted(indexes, key=digests.__getitem__)
    inputs = {
        index: _inputs_key(records[index], digests)
        for index in indexes
        if counts[digests[index]] > 1
    }
    ties = Counter((digests[index], key) for index, key in inputs.items())
    tied = [index for index, key in inputs.items() if ties[digests[index], key] > 1]
    content = _content_hashes(config, tied) if tied else {}
    return sorted(
        indexes, key=lambda index: (digests[index], inputs.get(index), content.get(index, b""))
    )


def _inputs_key(record: Record, digests: Sequence[str]) -> tuple[object, ...]:
    return (
        len(record.inputs),
        *[
            (len(alts), tuple(sorted([(k.selector, digests[k.link]) for k in alts])))
            for alts in record.inputs
        ],
    )


def _content_hashes(config: CacheConfig, wanted: Iterable[RecordIndex]) -> dict[RecordIndex, bytes]:
    """For each of these records, a hash of its key, of all it is built on, and of its results."""
    stacks = _stack_hashes(config.layers)
    needed = _with_all_below(config.records, wanted)
    content: dict[RecordIndex, bytes] = {}
    for index in topological(config.records):
        if index not in needed:
            continue
        record = config.records[index]
        inputs = [sorted((k.selector, content[k.link]) for k in alts) for alts in record.inputs]
        results = sorted((result.created_at, stacks[result.layer]) for result in record.layers)
        chains = sorted((c.created_at, [stacks[i] for i in c.layers]) for c in record.chains)
        text = repr((record.digest, inputs, results, chains))
        content[index] = hashlib.sha256(text.encode()).digest()
    return content


def _with_all_below(records: Sequence[Record], wanted: Iterable[RecordIndex]) -> set[RecordIndex]:
    """These records, and all that they are built on."""
    found = set(wanted)
    waiting = [*found]
    while waiting:
        for alternatives in records[waiting.pop()].inputs:
            for link in alternatives:
                if link.link not in found:
                    found.add(link.link)
                    waiting.append(link.link)
    return found


def inverse(order: Sequence[Index]) -> list[Index]:
    """For each index, its position in the order."""
    found = list(order)
    for new, old in enumerate(order):
        found[old] = cast("Index", new)
    return found


def _sorted_links(links: tuple[Link, ...], new_record: Sequence[RecordIndex]) -> tuple[Link, ...]:
    if len(links) == 1:
        return (Link(selector=links[0].selector, link=new_record[links[0].link]),)
    found = sorted([(new_record[link.link], link.selector) for link in links])
    return tuple([Link(selector=selector, link=index) for index, selector in found])


def sorted_results(results: Sequence[Result]) -> tuple[Result, ...]:
    """The results in canonical order. Most records have one, which needs no key."""
    if len(results) > 1:
        results = sorted(results, key=lambda one: (one.layer, _moment(one.created_at)))
    return tuple(results)


def sorted_chains(chains: Sequence[Chain]) -> tuple[Chain, ...]:
    """The chains in canonical order."""
    if len(chains) > 1:
        chains = sorted(chains, key=lambda one: (one.layers, _moment(one.created_at)))
    return tuple(chains)


def moved(chain: Chain, new_layer: Mapping[LayerIndex, LayerIndex] | Sequence[LayerIndex]) -> Chain:
    """The chain with the new indexes of its layers."""
    return Chain(layers=tuple(new_layer[i] for i in chain.layers), created_at=chain.created_at)


def _moment(text: str) -> tuple[int, str]:
    return timestamps.nanoseconds(text), text
