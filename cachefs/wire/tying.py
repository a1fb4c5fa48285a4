"""Tying together what a builder would import apart.

This is done to a union of manifests that was joined (:mod:`cachefs.wire.joining`): see "Merging" in
``docs/format.md``.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from itertools import combinations
from operator import or_
from typing import TYPE_CHECKING, Final

from cachefs.digest import Digest
from cachefs.wire.cacheconfig import CacheConfig, Link, Record, RecordIndex, record_indexes
from cachefs.wire.walks import link_targets, topological

if TYPE_CHECKING:
    from collections.abc import Sequence

TIE: Final = str(Digest.of(b"cachefs: every record of this manifest"))
"""The digest of the record that ties a union together. No step has it."""

_MOST_LEAVES: Final = 1024
"""A set of more leaves than this is not kept for each record: it would take a lot of memory."""

_MOST_SETS: Final = 16
"""Of more links to a record than this, not every two are compared."""


def tied(config: CacheConfig) -> CacheConfig:
    """The config with a record on top of all its leaves, if a builder may lose links without.

    A leaf is a record that no other is built on. A builder imports what is below one leaf after
    the other, in random order. A record that an earlier leaf has brought, and that it reaches from
    a later leaf more than once, keeps only the first of these links. With a single leaf nothing is
    lost. Nothing is ever found by the tie itself, because no step has its digest, and a tie that
    would not be needed does no harm. So very large configs get one if links may be lost at all.
    """
    above = _links_to(config.records)
    leaves = [index for index in record_indexes(config.records) if not above[index]]
    if not _may_lose_links(config.records, above, leaves):
        return config
    tie = Record(digest=TIE, inputs=(tuple(Link(link=index) for index in leaves),))
    return CacheConfig(config.layers, [*config.records, tie])


def _links_to(records: Sequence[Record]) -> list[list[RecordIndex]]:
    """For each record, those that link to it, as often as they do."""
    above: list[list[RecordIndex]] = [[] for _ in records]
    for index, targets in zip(record_indexes(records), link_targets(records), strict=True):
        for target in targets:
            above[target].append(index)
    return above


def _may_lose_links(
    records: Sequence[Record],
    above: Sequence[Sequence[RecordIndex]],
    leaves: Sequence[RecordIndex],
) -> bool:
    """Whether one leaf may bring a record that another then reaches by two links of its own."""
    # Two links of one leaf, and one of another, lead to the same record; so some record has two.
    if len(leaves) < 2 or max(map(len, above)) < 3 or max(map(len, link_targets(records))) < 2:
        return False
    if len(leaves) > _MOST_LEAVES:
        return True
    bit = {leaf: 1 << position for position, leaf in enumerate(leaves)}
    # The leaves that each record is below, as a set of bits.
    reached = [0] * len(records)
    for index in reversed(topological(records)):
        sets = [reached[one] for one in above[index]]
        reached[index] = reduce(or_, sets, bit.get(index, 0))
        if len(sets) > 2 and _may_lose_one(sets, reached[index]):
            return True
    return False


def _may_lose_one(sets: Sequence[int], every: int) -> bool:
    """Whether one leaf is in two of the sets, and another in neither of these two.

    Args:
        sets: for each link to a record, the leaves that it leads to it from.
        every: the union of the sets.
    """
    if sum(map(int.bit_count, sets)) == every.bit_count():
        return False  # no leaf is in two of them
    links = Counter(sets)
    if len(links) > _MOST_SETS:
        return True
    pairs = [*combinations(links, 2), *((of, of) for of, count in links.items() if count > 1)]
    return any(one & other and every & ~(one | other) for one, other in pairs)
