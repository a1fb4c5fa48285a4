"""Joining records that a builder takes for one.

This is done to a union of manifests, so that a builder finds in it whatever it would have found in
them, in whatever order it goes through the records: see "Merging" in ``docs/format.md``.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar

from cachefs.errors import ManifestError
from cachefs.wire.cacheconfig import CacheConfig, Link, Record, RecordIndex, record_indexes
from cachefs.wire.walks import in_order, link_targets, topological

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence

Key = TypeVar("Key", bound="Hashable")
Alternative = tuple[RecordIndex, str]

_EACH: Final = 16
_ALWAYS: Final = 50_000
"""Joining takes so many steps at most: as many for each record, and these besides. A step is a look
at a record in a pass over all, or a comparison of two."""


class _Effort:
    """What joining may still cost. The records of builds use up little of it, hostile ones all."""

    def __init__(self, records: int) -> None:
        self._left = _EACH * records + _ALWAYS

    def allows(self, steps: int) -> bool:
        """Take so many steps, if as many are left."""
        self._left -= steps
        return self._left >= 0


def joined(config: CacheConfig) -> CacheConfig:
    """The config in which records are one that a builder takes for one when it imports them.

    These are records with the same digest that share, for every input, at least one alternative:
    the joined record has the alternatives and the results of both. That may make the inputs of
    other records equal, so it is repeated. A link that closes a loop of joined records is left out,
    as a builder does. The layers are those of the argument, which is not changed.

    The time that this takes is bounded. What is not joined within it stays apart, which no manifest
    of a builder comes near.
    """
    alike = _alike(config.records)
    if not alike:
        return config
    effort = _Effort(len(config.records))
    one_pass = len(config.records)
    classes = _Classes(config.records)
    while effort.allows(one_pass) and classes.join_upwards(alike, effort):
        pass
    while effort.allows(one_pass) and classes.join(list(_overlaps(classes, alike, effort))):
        pass
    return CacheConfig(config.layers, classes.records()) if classes.any_joined() else config


def _alike(records: Sequence[Record]) -> list[list[RecordIndex]]:
    """Groups of several records that have the same digest and the same number of inputs."""
    groups: dict[tuple[str, int], list[RecordIndex]] = defaultdict(list)
    for index in record_indexes(records):
        groups[records[index].digest, len(records[index].inputs)].append(index)
    return [group for group in groups.values() if len(group) > 1]


class _Classes:
    """Records in classes, each of which is to become one record; at first, each is on its own."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._joined_to = [*record_indexes(records)]
        self._cut: set[tuple[int, RecordIndex]] = set()

    def of(self, index: RecordIndex) -> RecordIndex:
        """The record that stands for the class of this one."""
        to = self._joined_to
        while to[index] != index:
            to[index] = index = to[to[index]]
        return index

    def any_joined(self) -> bool:
        """Whether any class has several records."""
        return any(index != joined_to for index, joined_to in enumerate(self._joined_to))

    def members(self, indexes: Iterable[RecordIndex]) -> dict[RecordIndex, list[RecordIndex]]:
        """The classes of these records, each with its members among them."""
        members: dict[RecordIndex, list[RecordIndex]] = defaultdict(list)
        for index in indexes:
            members[self.of(index)].append(index)
        return members

    def inputs(self, members: Sequence[RecordIndex]) -> list[set[Alternative]]:
        """For each input, the alternatives of these records together, as classes."""
        return [
            {
                (self.of(link.link), link.selector)
                for index, alternatives in zip(members, of_all, strict=True)
                for link in alternatives
                if (index, link.link) not in self._cut
            }
            for of_all in zip(*(self._records[index].inputs for index in members), strict=True)
        ]

    def join_upwards(self, alike: Iterable[Sequence[RecordIndex]], effort: _Effort) -> bool:
        """Join records from the roots up, each with those before it, unless that closes a loop.

        What is built on joined records is joined in the same pass. Returns whether another pass
        may join more.
        """
        before = self._joined_to.copy()
        wanted = {index for group in alike for index in group}
        known: dict[tuple[str, int, int, Alternative], set[RecordIndex]] = defaultdict(set)
        inputs: dict[RecordIndex, list[set[Alternative]]] = {}
        for index in topological(self._records):
            if index not in wanted:
                continue
            digest, own = self._records[index].digest, self.inputs([index])
            keys = [
                [(digest, len(own), at, alternative) for alternative in alternatives]
                for at, alternatives in enumerate(own)
            ]
            near = _fewest(known, keys)
            if not effort.allows(len(near)):
                break
            for other in {self.of(i) for i in near}:
                if not any(map(set.isdisjoint, own, inputs[other])):
                    own = [one | more for one, more in zip(own, inputs[other], strict=True)]
                    self._join(index, other)
            inputs[self.of(index)] = own
            for key in chain.from_iterable(keys):
                known[key].add(index)
        if self._joined_to != before and self._have_loop():
            self._joined_to = before
            return False
        return [self.of(i) for i in before] != [self.of(i) for i in self._joined_to]

    def join(self, pairs: Sequence[tuple[RecordIndex, RecordIndex]]) -> bool:
        """Join pairs of classes, or the first if that closes a loop. Returns whether it did."""
        before = self._joined_to.copy()
        for one, other in pairs:
            self._join(one, other)
        if self._have_loop():
            self._joined_to = before
            # One at a time: without the links that are left out, others may share nothing.
            self._cut_loops(self._join(*min(pairs)))
        return bool(pairs)

    def _join(self, one: RecordIndex, other: RecordIndex) -> RecordIndex:
        first, second = sorted((self.of(one), self.of(other)))
        self._joined_to[second] = first
        return first

    def _cut_loops(self, joined_class: RecordIndex) -> None:
        """Leave out the links of a class to what is built on it."""
        above: dict[RecordIndex, list[RecordIndex]] = defaultdict(list)
        for index, links in enumerate(self._links()):
            for target in links:
                above[self.of(target)].append(RecordIndex(index))
        built = {joined_class}
        waiting = [joined_class]
        while waiting:
            new = {self.of(index) for index in above[waiting.pop()]} - built
            built |= new
            waiting += new
        for index, links in enumerate(self._links()):
            if self.of(RecordIndex(index)) == joined_class:
                self._cut |= {(index, target) for target in links if self.of(target) in built}

    def _links(self) -> list[list[RecordIndex]]:
        """The records that each record links to, without what was cut."""
        return [
            [target for target in targets if (index, target) not in self._cut]
            for index, targets in enumerate(link_targets(self._records))
        ]

    def _have_loop(self) -> bool:
        targets: list[list[RecordIndex]] = [[] for _ in self._records]
        for index, links in enumerate(self._links()):
            targets[self.of(RecordIndex(index))] += map(self.of, links)
        try:
            in_order(targets, list(chain.from_iterable(targets)))
        except ManifestError:
            return True
        return False

    def records(self) -> list[Record]:
        """One record for each class."""
        members = self.members(record_indexes(self._records))
        position = {old: RecordIndex(new) for new, old in enumerate(members)}
        new = [position[self.of(index)] for index in record_indexes(self._records)]
        cut = {index for index, _ in self._cut}
        return [
            _renumbered(self._records[first], new)
            if len(group) == 1 and first not in cut
            else self._as_one(group, position)
            for first, group in members.items()
        ]

    def _as_one(
        self, members: Sequence[RecordIndex], new: Mapping[RecordIndex, RecordIndex]
    ) -> Record:
        records = [self._records[index] for index in members]
        return Record(
            tuple({(r.layer, r.created_at): r for x in records for r in x.layers}.values()),
            tuple({(c.layers, c.created_at): c for x in records for c in x.chains}.values()),
            records[0].digest,
            tuple(
                _links_to((new[one], selector) for one, selector in alternatives)
                for alternatives in self.inputs(members)
            ),
        )


def _renumbered(record: Record, new: Sequence[RecordIndex]) -> Record:
    """The record with the new indexes of what it links to, each alternative once."""
    inputs = [
        _links_to({(new[link.link], link.selector) for link in links})
        if len(links) > 1
        else (Link(selector=links[0].selector, link=new[links[0].link]),)
        for links in record.inputs
    ]
    return Record(record.layers, record.chains, record.digest, tuple(inputs))


def _links_to(alternatives: Iterable[Alternative]) -> tuple[Link, ...]:
    return tuple([Link(selector=selector, link=index) for index, selector in alternatives])


def _overlaps(
    classes: _Classes, alike: Iterable[Sequence[RecordIndex]], effort: _Effort
) -> Iterator[tuple[RecordIndex, RecordIndex]]:
    """Pairs of classes that share an alternative for every input."""
    for group in alike:
        inputs = {one: classes.inputs(of) for one, of in classes.members(group).items()}
        with_alternative: dict[tuple[int, Alternative], set[RecordIndex]] = defaultdict(set)
        for one, own in inputs.items():
            keys = [[(at, found) for found in of] for at, of in enumerate(own)]
            near = _fewest(with_alternative, keys)
            if not effort.allows(len(near)):
                return
            for other in near:
                if not any(map(set.isdisjoint, own, inputs[other])):
                    yield one, other
            for key in chain.from_iterable(keys):
                with_alternative[key].add(one)


def _fewest(
    known: Mapping[Key, Collection[RecordIndex]], keys: Iterable[Sequence[Key]]
) -> set[RecordIndex]:
    """The records that share an alternative for the input for which the fewest do."""
    fewest = min(keys, key=lambda of: sum(len(known.get(key, ())) for key in of), default=())
    return {index for key in fewest for index in known.get(key, ())}
