"""A model of how a builder imports a manifest and looks up steps in it.

It was written from an understanding of BuildKit's importer (``cache/remotecache/v1``), which goes
through Go's maps, so in random order: here ``order`` decides. It keeps what makes the order matter:

- Records with one digest that share an alternative for every input become one item. If several
  items are joined, one of them stays, and the alternatives of the others are lost.
- Items are stored leaf by leaf. An item that an earlier leaf has stored is taken once more by a
  later leaf; when that leaf comes to it again, the link is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from cachefs.wire.cacheconfig import Record

Where = tuple[str, int, str]
"""Of a link: the digest of the record that has it, the position of the input, the selector."""


@dataclass(eq=False)
class Item:
    digest: str
    number: int = field(default_factory=count().__next__)
    parents: list[set[tuple[Item, str]]] = field(default_factory=list)
    children: dict[Where, set[Item]] = field(default_factory=lambda: defaultdict(set))

    def below(self) -> set[Item]:
        """This item and all that are built on it."""
        seen = {self}
        waiting = [self]
        while waiting:
            for items in waiting.pop().children.values():
                waiting += items - seen
                seen |= items
        return seen


class Imported:
    """A manifest as a builder has it after the import."""

    def __init__(self, records: Sequence[Record], order: random.Random) -> None:
        self._order = order
        self._roots: dict[str, Item] = {}
        self._links: dict[Item, dict[Where, list[Item]]] = {}
        items: dict[int, Item] = {}
        for index in range(len(records)):
            self._parse(records, index, items)
        for leaf in self._any_order(self._leaves()):
            self._store(leaf, {})

    def root(self, digest: str) -> set[Item]:
        item = self._roots.get(digest)
        return {item} if item in self._links else set()

    def linked(self, item: Item, where: Where) -> list[Item]:
        return self._links[item].get(where, [])

    def _any_order(self, items: Iterable[Item]) -> list[Item]:
        found = sorted(items, key=lambda item: item.number)
        self._order.shuffle(found)
        return found

    # --- from records to items -----------------------------------------------------------------

    def _parse(self, records: Sequence[Record], index: int, items: dict[int, Item]) -> Item:
        if index not in items:
            record = records[index]
            inputs = [
                [(self._parse(records, link.link, items), link.selector) for link in alternatives]
                for alternatives in record.inputs
            ]
            assert all(inputs), f"invalid empty input for record {index}"
            items[index] = self._add(record.digest, inputs)
        return items[index]

    def _add(self, digest: str, inputs: list[list[tuple[Item, str]]]) -> Item:
        if not inputs:
            return self._roots.setdefault(digest, Item(digest))
        per_input = [
            set().union(*(item.children[digest, i, selector] for item, selector in alternatives))
            for i, alternatives in enumerate(inputs)
        ]
        matching = self._any_order(set.intersection(*per_input))
        item = matching[0] if matching else Item(digest)
        for other in matching[1:]:
            self._join(item, other)
        forbidden = item.below() if matching else set()
        for i, alternatives in enumerate(inputs):
            for source, selector in alternatives:
                if source not in forbidden:
                    self._link(source, item, i, selector)
        return item

    def _join(self, main: Item, other: Item) -> None:
        for where, children in other.children.items():
            main.children[where] |= children
            for child in children:
                child.parents = [
                    {(main if item is other else item, selector) for item, selector in links}
                    for links in child.parents
                ]

    def _link(self, source: Item, item: Item, position: int, selector: str) -> None:
        source.children[item.digest, position, selector].add(item)
        while len(item.parents) <= position:
            item.parents.append(set())
        item.parents[position].add((source, selector))

    # --- from items to what is looked up -------------------------------------------------------

    def _leaves(self) -> set[Item]:
        everything = set().union(*(root.below() for root in self._roots.values()))
        return {item for item in everything if not any(item.children.values())}

    def _store(self, item: Item, visited: dict[Item, bool]) -> bool:
        """Store what an item is built on, then the item. False for one to be left out."""
        if item in visited:
            return visited[item]
        visited[item] = False
        if item in self._links:
            return True  # Not noted as visited: the next time from this leaf, it is left out.
        for position, links in enumerate(item.parents):
            order = self._any_order(source for source, _ in links)
            for source, selector in sorted(links, key=lambda link: order.index(link[0])):
                if self._store(source, visited):
                    self._links[source].setdefault((item.digest, position, selector), []).append(
                        item
                    )
        self._links[item] = {}
        visited[item] = True
        return True


def found(records: Sequence[Record], caches: Sequence[Imported]) -> set[int]:
    """Those of the records whose steps a build finds in any of the caches.

    A step's inputs are the steps of its record's alternatives.
    """
    keys: dict[tuple[int, int], set[Item]] = {}

    def look_up(index: int, number: int) -> set[Item]:
        if (index, number) not in keys:
            record, cache = records[index], caches[number]
            matches = [
                {
                    item
                    for link in alternatives
                    for key in look_up(link.link, number)
                    for item in cache.linked(key, (record.digest, position, link.selector))
                }
                for position, alternatives in enumerate(record.inputs)
            ]
            of_root = cache.root(record.digest) if not matches else set()
            keys[index, number] = set.intersection(*matches) if matches else of_root
        return keys[index, number]

    return {
        index
        for index in range(len(records))
        if any(look_up(index, number) for number in range(len(caches)))
    }
