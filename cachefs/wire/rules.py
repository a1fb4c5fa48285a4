"""The rules that make a cache config valid, checked without recursion.

A loop among records or layers, an index out of range, an empty list of alternatives, a blob without
a digest, a time that is none: each is refused with a message that says which record or layer.
Checks run over everything at once where they pass, and look for the culprit only when they fail.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, chain
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from cachefs.digest import Digest, all_digests
from cachefs.errors import DigestError, ManifestError
from cachefs.wire.timestamps import all_timestamps, is_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.wire.cacheconfig import Annotations, CacheConfig, Chain, Layer, Record, Result


def check(config: CacheConfig) -> None:
    """Raise ManifestError unless the config is valid."""
    targets = _targets(config.records)
    links = list(chain.from_iterable(targets))
    if not _passes(config, links):
        _find_fault(config)
    _check_parents_end(config.layers)
    _in_order(targets, links)


def _passes(config: CacheConfig, links: Sequence[int]) -> bool:
    """Whether everything in it is valid, loops aside."""
    layers, records = config.layers, config.records
    facts = [layer.annotations for layer in layers if layer.annotations is not None]
    results = list(chain.from_iterable(map(attrgetter("layers"), records)))
    chains = list(chain.from_iterable(map(attrgetter("chains"), records)))
    named = [result.layer for result in results]
    named += [index for chained in chains for index in chained.layers]
    dated: tuple[Sequence[Annotations | Result | Chain], ...] = (facts, results, chains)
    return (
        all_digests([layer.blob for layer in layers])
        and _are_within([layer.parent for layer in layers], -1, len(layers))
        and min([one.size for one in facts], default=0) >= 0
        and _are_within(links, 0, len(records))
        and _are_within(named, 0, len(layers))
        and all_timestamps({one.created_at for part in dated for one in part})
    )


def _are_within(indexes: Sequence[int], first: int, end: int) -> bool:
    return not indexes or (min(indexes) >= first and max(indexes) < end)


def _find_fault(config: CacheConfig) -> None:
    """Raise the ManifestError that says what is wrong, and where."""
    for index, layer in enumerate(config.layers):
        _check_layer(index, layer, len(config.layers))
    for index, record in enumerate(config.records):
        _check_record(index, record, config)


def _check_layer(index: int, layer: Layer, count: int) -> None:
    try:
        Digest(layer.blob)
    except DigestError as error:
        raise ManifestError(f"layer {index}: blob {error}") from error
    if not _are_within([layer.parent], -1, count):
        raise ManifestError(f"layer {index} has the parent {layer.parent} of {count} layers")
    if layer.annotations is not None:
        if layer.annotations.size < 0:
            raise ManifestError(f"layer {index} has the size {layer.annotations.size}")
        _check_time(f"layer {index}", layer.annotations.created_at)


def _check_record(index: int, record: Record, config: CacheConfig) -> None:
    count, layers = len(config.records), len(config.layers)
    for alternatives in record.inputs:
        if not alternatives:
            raise ManifestError(f"record {index} has an input without alternatives")
        for link in alternatives:
            if not 0 <= link.link < count:
                raise ManifestError(f"record {index} links {link.link} of {count} records")
    named = [result.layer for result in record.layers]
    named += [layer for chained in record.chains for layer in chained.layers]
    if not _are_within(named, 0, layers):
        raise ManifestError(f"record {index} names one of {named} of {layers} layers")
    times = [result.created_at for result in record.layers]
    for text in (*times, *(chained.created_at for chained in record.chains)):
        _check_time(f"record {index}", text)


def _check_time(where: str, text: str) -> None:
    if not is_timestamp(text):
        raise ManifestError(f"{where}: {text[:40]!r} is not an RFC 3339 time")


def _check_parents_end(layers: Sequence[Layer]) -> None:
    """Every chain of parents ends: each layer is walked over once, whatever the depth."""
    parents = [layer.parent for layer in layers]
    walk_of = [-1] * len(layers)
    for start in range(len(layers)):
        index = start
        while index != -1 and walk_of[index] == -1:
            walk_of[index] = start
            index = parents[index]
        if index != -1 and walk_of[index] == start:
            raise ManifestError(f"layer {index} is in a loop of parents")


def topological(records: Sequence[Record]) -> list[int]:
    """Record indexes in an order in which every record comes after those it links to.

    Raises ManifestError, naming a record, when there is a loop.
    """
    targets = _targets(records)
    return _in_order(targets, list(chain.from_iterable(targets)))


class _Nowhere(NamedTuple):
    """Stands where an input has no alternatives, so that one look over all links finds it."""

    link: int = -1


def _targets(records: Sequence[Record]) -> list[list[int]]:
    """The records that each record links to."""
    return [
        [link.link for alternatives in record.inputs for link in alternatives or (_Nowhere(),)]
        for record in records
    ]


def _in_order(targets: Sequence[list[int]], links: Sequence[int]) -> list[int]:
    """Take away records that nothing links to, until none is left: the reverse of that order.

    Args:
        targets: the records that each record links to.
        links: all of them in one.
    """
    waiting = [0] * len(targets)
    for target in links:
        waiting[target] += 1
    order = [index for index, count in enumerate(waiting) if not count]
    # Side by side in memory: they are walked in no order, and most of the time is waiting for them.
    beside = array("q", links)
    starts = array("q", accumulate(map(len, targets), initial=0))
    for index in order:
        for target in beside[starts[index] : starts[index + 1]]:
            left = waiting[target] - 1
            waiting[target] = left
            if not left:
                order.append(target)
    if len(order) != len(targets):
        culprit = next(index for index, count in enumerate(waiting) if count)
        raise ManifestError(f"record {culprit} is in a loop of links, or below one")
    order.reverse()
    return order
