"""Walks over layers and records in which parents and links come first, without recursion."""

from __future__ import annotations

from array import array
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

from cachefs.errors import ManifestError
from cachefs.wire.cacheconfig import NO_PARENT, RecordIndex, layer_indexes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cachefs.wire.cacheconfig import Layer, LayerIndex, Record

T = TypeVar("T")

_UNSEEN: Final = -1
_ENDED: Final = -2


def parents_first(
    layers: Sequence[Layer], tops: Iterable[LayerIndex] | None = None
) -> list[LayerIndex]:
    """Layer indexes in an order in which every layer comes after its parent.

    Args:
        layers: the layers; their parents are in range.
        tops: only these layers and all layers below them, each once; by default all layers.

    Raises ManifestError, naming a layer, if there is a loop.
    """
    parents = [layer.parent for layer in layers]
    # The extra item is for index -1: every walk ends below a root layer.
    walk_of = [_UNSEEN] * len(layers) + [_ENDED]
    order: list[LayerIndex] = []
    for walk, top in enumerate(layer_indexes(layers) if tops is None else tops):
        index = parents[top]
        if walk_of[top] != _UNSEEN:
            continue
        walk_of[top] = walk
        if walk_of[index] == _UNSEEN:
            walked = [top]
            while walk_of[index] == _UNSEEN:
                walk_of[index] = walk
                walked.append(index)
                index = parents[index]
            walked.reverse()
            order += walked
        else:
            order.append(top)
        if walk_of[index] == walk:
            raise ManifestError(f"layer {index} is in a loop of parents")
    return order


def fold_stacks(
    layers: Sequence[Layer], base: T, function: Callable[[LayerIndex, T], T]
) -> list[T]:
    """Compute a value for each layer from its index and its parent's value.

    Args:
        layers: the layers; their parents are in range.
        base: the value below a root layer.
        function: called once for each layer, parents first.

    The height of each stack is ``fold_stacks(layers, 0, lambda _, below: below + 1)``. Raises
    ManifestError, naming a layer, if there is a loop.
    """
    values = [base] * len(layers)
    for index in parents_first(layers):
        parent = layers[index].parent
        values[index] = function(index, base if parent == NO_PARENT else values[parent])
    return values


def topological(records: Sequence[Record]) -> list[RecordIndex]:
    """Record indexes in an order in which every record comes after those it links to.

    Raises ManifestError, naming a record, if there is a loop.
    """
    targets = link_targets(records)
    return in_order(targets, list(chain.from_iterable(targets)))


NO_ALTERNATIVES: Final = RecordIndex(-(2**63))
"""Stands for an input without alternatives, so that one check of all links finds it."""


class _NoLink(NamedTuple):
    link: RecordIndex = NO_ALTERNATIVES


def link_targets(records: Sequence[Record]) -> list[list[RecordIndex]]:
    """The records that each record links to."""
    return [
        [link.link for alternatives in record.inputs for link in alternatives or (_NoLink(),)]
        for record in records
    ]


def in_order(
    targets: Sequence[list[RecordIndex]], links: Sequence[RecordIndex]
) -> list[RecordIndex]:
    """The order of :func:`topological`: remove records that nothing links to, then reverse.

    Args:
        targets: the records that each record links to.
        links: all these targets in one sequence.
    """
    waiting = [0] * len(targets)
    for target in links:
        waiting[target] += 1
    order = [RecordIndex(index) for index, count in enumerate(waiting) if not count]
    # Flat arrays: the walk jumps around, and spends most of its time waiting for memory.
    flat = cast("Sequence[RecordIndex]", array("q", links))
    starts = array("q", accumulate(map(len, targets), initial=0))
    for index in order:
        for target in flat[starts[index] : starts[index + 1]]:
            left = waiting[target] - 1
            waiting[target] = left
            if not left:
                order.append(target)
    if len(order) != len(targets):
        culprit = next(index for index, count in enumerate(waiting) if count)
        raise ManifestError(f"record {culprit} is in a loop of links, or below one")
    order.reverse()
    return order
