"""The rules that make a cache config valid, checked without recursion.

A loop among records or layers, an index out of range, an empty list of alternatives, a blob without
a digest, a time that is none: each is refused with a message that says which record or layer.
Checks run over everything at once where they pass, and look for the culprit only when they fail.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cachefs.digest import Digest, all_digests
from cachefs.errors import DigestError, ManifestError
from cachefs.wire.timestamps import all_timestamps, is_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefs.wire.cacheconfig import CacheConfig, Layer, Record


def check(config: CacheConfig) -> None:
    """Raise ManifestError unless the config is valid."""
    _check_layers(config.layers)
    _check_records(config.records, len(config.layers))
    _check_times(config)
    _check_parents_end(config.layers)
    _check_links_end(config.records)


def _check_layers(layers: Sequence[Layer]) -> None:
    count = len(layers)
    for index, layer in enumerate(layers):
        if not -1 <= layer.parent < count:
            raise ManifestError(f"layer {index} has the parent {layer.parent} of {count} layers")
        if layer.annotations is not None and layer.annotations.size < 0:
            raise ManifestError(f"layer {index} has the size {layer.annotations.size}")
    if not all_digests([layer.blob for layer in layers]):
        for index, layer in enumerate(layers):
            try:
                Digest(layer.blob)
            except DigestError as error:
                raise ManifestError(f"layer {index}: blob {error}") from error


def _check_records(records: Sequence[Record], layers: int) -> None:
    count = len(records)
    for index, record in enumerate(records):
        for alternatives in record.inputs:
            if not alternatives:
                raise ManifestError(f"record {index} has an input without alternatives")
            for link in alternatives:
                if not 0 <= link.link < count:
                    raise ManifestError(f"record {index} links {link.link} of {count} records")
        named = [result.layer for result in record.layers]
        for chained in record.chains:
            named += chained.layers
        if named and not (min(named) >= 0 and max(named) < layers):
            raise ManifestError(f"record {index} names one of {named} of {layers} layers")


def _times(config: CacheConfig) -> Iterator[tuple[str, int, str]]:
    for index, layer in enumerate(config.layers):
        if layer.annotations is not None:
            yield "layer", index, layer.annotations.created_at
    for index, record in enumerate(config.records):
        for result in record.layers:
            yield "record", index, result.created_at
        for chained in record.chains:
            yield "record", index, chained.created_at


def _check_times(config: CacheConfig) -> None:
    results = [result.created_at for record in config.records for result in record.layers]
    chains = [result.created_at for record in config.records for result in record.chains]
    layers = [la.annotations.created_at for la in config.layers if la.annotations is not None]
    if not (all_timestamps(results) and all_timestamps(chains) and all_timestamps(layers)):
        for kind, index, text in _times(config):
            if not is_timestamp(text):
                raise ManifestError(f"{kind} {index}: {text[:40]!r} is not an RFC 3339 time")


def _check_parents_end(layers: Sequence[Layer]) -> None:
    """Every chain of parents ends: each layer is walked over once, whatever the depth."""
    walk_of = [-1] * len(layers)
    for start in range(len(layers)):
        index = start
        while index != -1 and walk_of[index] == -1:
            walk_of[index] = start
            index = layers[index].parent
        if index != -1 and walk_of[index] == start:
            raise ManifestError(f"layer {index} is in a loop of parents")


def _check_links_end(records: Sequence[Record]) -> None:
    """No record reaches itself: take away records nothing links to, until none is left."""
    for _ in topological(records):
        pass


def topological(records: Sequence[Record]) -> list[int]:
    """Record indexes in an order in which every record comes after those it links to.

    Raises ManifestError, naming a record, when there is a loop.
    """
    targets = [[link.link for alts in record.inputs for link in alts] for record in records]
    waiting = [0] * len(records)
    for target in chain.from_iterable(targets):
        waiting[target] += 1
    order = [index for index, count in enumerate(waiting) if not count]
    for index in order:
        for target in targets[index]:
            waiting[target] -= 1
            if not waiting[target]:
                order.append(target)
    if len(order) != len(records):
        culprit = next(index for index, count in enumerate(waiting) if count)
        raise ManifestError(f"record {culprit} is in a loop of links, or below one")
    order.reverse()
    return order
