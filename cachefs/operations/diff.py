"""How two caches, or two names of one cache, differ. Reads only.

Records are compared by content: two are equal if their digests and everything that they are built
on are equal. Layers are compared the same way, by their blobs, and results by the blobs of their
layers. Times are not compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from cachefs.amount import Amount
from cachefs.errors import CacheError, NotFoundError, UsageError
from cachefs.graph import RecordGraph
from cachefs.location.keys import in_order
from cachefs.operations.nearby import require_cache
from cachefs.transfer.manifests import read_names
from cachefs.wire.cacheconfig import NO_PARENT
from cachefs.wire.walks import fold_stacks, topological

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from cachefs.layout.base import Layout
    from cachefs.wire.cacheconfig import LayerIndex

T = TypeVar("T")


class Change(Struct, frozen=True, kw_only=True):
    """The differences in one kind of item, as sorted digests.

    Attributes:
        gained: digests of items that only the second side has.
        lost: digests of items that only the first side has.
        kept: how many items both have.
    """

    gained: list[str]
    lost: list[str]
    kept: int


class Divergence(Struct, frozen=True, kw_only=True):
    """Where two chains of records first differ.

    Attributes:
        digest: the lowest record of the second side that the first side lacks. Both sides have
            everything that it is built on.
        depth: length of the longest chain of records below it.
        counterpart: the digest of the first side's record that corresponds to it, if any.
        input: the first input, counted from 0, in which the two differ; None if their digests do.
        reason: one line.
    """

    digest: str
    depth: int
    counterpart: str | None
    input: int | None
    reason: str


class NamesDiff(Struct, frozen=True, kw_only=True):
    """How the names of two sides differ; each list is sorted.

    Attributes:
        gained: names that only the second side has.
        lost: names that only the first side has.
        changed: names that both have, with other records, results, layers or blobs.
        kept: how many names are the same on both sides.
    """

    gained: list[str]
    lost: list[str]
    changed: list[str]
    kept: int


class CacheDiff(Struct, frozen=True, kw_only=True):
    """How the second side differs from the first.

    Attributes:
        names: names; None if one name was compared with one other name.
        records: digests of records. A record whose inputs differ is both gained and lost.
        results: digests of records that both sides have, with a result that one of them lacks.
        layers: blobs of layers. A layer whose parent differs is both gained and lost.
        blobs: digests of blobs.
        gained: blobs that only the second side needs.
        lost: blobs that only the first side needs.
        divergence: where the chains first differ; None if no record is gained.
    """

    names: NamesDiff | None
    records: Change
    results: Change
    layers: Change
    blobs: Change
    gained: Amount
    lost: Amount
    divergence: Divergence | None

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        changes = (self.records, self.results, self.layers, self.blobs)
        named = self.names
        return not (
            any(change.gained or change.lost for change in changes)
            or (named is not None and (named.gained or named.lost or named.changed))
        )


class Named(NamedTuple):
    """What one side has by name; ``is_one`` if it is one name that was asked for."""

    graphs: dict[str, RecordGraph]
    is_one: bool

    @property
    def union(self) -> RecordGraph:
        """The records of all names."""
        graphs = list(self.graphs.values())
        return graphs[0] if len(graphs) == 1 else RecordGraph.union(graphs)


async def load(layout: Layout, names: Collection[str] = ()) -> Named:
    """The records of these names, by default of all names.

    Raises NoCacheError, UsageError for names that do not exist, ManifestError and IntegrityError if
    a manifest is unreadable, and StoreError: a partial comparison would be misleading.
    """
    wanted = list(names) or [name.name for name in await layout.names()]
    if not wanted:
        await require_cache(layout)

    async def read(held: Layout, name: str) -> RecordGraph:
        return RecordGraph((await held.read(name)).config)

    graphs: dict[str, RecordGraph] = {}
    absent: list[str] = []
    for name, found in (await read_names(layout, wanted, read)).items():
        if isinstance(found, NotFoundError):
            absent.append(name)
        elif isinstance(found, CacheError):
            raise found
        else:
            graphs[name] = found
    if absent:
        if not graphs:
            await require_cache(layout)
        raise UsageError(
            f"there is no {', '.join(in_order(absent))} to compare; 'cachefs ls' lists the names",
            operation="read",
            key=layout.store.root,
        )
    return Named(graphs, is_one=len(names) == 1)


def compare_named(first: Named, second: Named) -> CacheDiff:
    """How the second side differs from the first, by name and together."""
    found = compare(first.union, second.union)
    if first.is_one and second.is_one:
        return found
    return replace(found, names=_names(first.graphs, second.graphs))


def _names(first: Mapping[str, RecordGraph], second: Mapping[str, RecordGraph]) -> NamesDiff:
    both = first.keys() & second.keys()
    changed = [name for name in both if not _is_same(first[name], second[name])]
    return NamesDiff(
        gained=in_order(second.keys() - first.keys()),
        lost=in_order(first.keys() - second.keys()),
        changed=in_order(changed),
        kept=len(both) - len(changed),
    )


def _is_same(first: RecordGraph, second: RecordGraph) -> bool:
    # Mostly they are equal to the byte, which is found out much faster.
    same = (first.layers, first.records) == (second.layers, second.records)
    return same or compare(first, second).is_equal


def compare(first: RecordGraph, second: RecordGraph) -> CacheDiff:
    """How the second graph differs from the first."""
    contents = _Contents()
    a, b = _Side(first, contents), _Side(second, contents)
    old, new = first.blobs(), second.blobs()
    both = a.records.keys() & b.records.keys()
    results_of_a = {(content, r) for content in both for r in a.results.get(content, ())}
    results_of_b = {(content, r) for content in both for r in b.results.get(content, ())}
    return CacheDiff(
        names=None,
        records=_change(a.records, b.records),
        results=Change(
            gained=sorted(a.records[content] for content, _ in results_of_b - results_of_a),
            lost=sorted(a.records[content] for content, _ in results_of_a - results_of_b),
            kept=len(results_of_a & results_of_b),
        ),
        layers=_change(a.layers, b.layers),
        blobs=_change({d: str(d) for d in old}, {d: str(d) for d in new}),
        gained=Amount.of(new[d] for d in new.keys() - old),
        lost=Amount.of(old[d] for d in old.keys() - new),
        divergence=_divergence(a, b),
    )


def _change(first: Mapping[T, str], second: Mapping[T, str]) -> Change:
    return Change(
        gained=sorted(second[content] for content in second.keys() - first.keys()),
        lost=sorted(first[content] for content in first.keys() - second.keys()),
        kept=len(first.keys() & second.keys()),
    )


# --- content -------------------------------------------------------------------------------------


class _Contents:
    """Numbers for contents: equal contents have the same number, whichever graph they come from.

    A content refers to those that it is built on by number, so that no content is deeply nested.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, content: Hashable) -> int:
        return self._numbers.setdefault(content, len(self._numbers))


Inputs = tuple[tuple[tuple[int, str], ...], ...]
"""For each input, its sorted alternatives: a record's content and a selector."""


class _Key(NamedTuple):
    """What identifies a record: its digest, and for each input its alternatives."""

    digest: str
    inputs: Inputs


class _Side:
    """One of two graphs, by content.

    Attributes:
        records: the digest of each record, by content.
        keys: what identifies each record, by content.
        depths: the length of the longest chain of records below each record, by content.
        layers: the blob of each layer, by content.
        results: the contents of each record's result layers, by the record's content.
    """

    def __init__(self, graph: RecordGraph, contents: _Contents) -> None:
        self.records: dict[int, str] = {}
        self.keys: dict[int, _Key] = {}
        self.depths: dict[int, int] = {}
        self.layers: dict[int, str] = {}
        self.results: dict[int, set[int]] = {}
        on_layer = self._take_layers(graph, contents)
        content_of = [0] * len(graph.records)
        for index in topological(graph.records):
            record = graph.records[index]
            inputs = tuple(
                tuple(sorted({(content_of[k.link], k.selector) for k in alternatives}))
                for alternatives in record.inputs
            )
            key = _Key(record.digest, inputs)
            content = content_of[index] = contents.number(key)
            self.records[content] = record.digest
            self.keys[content] = key
            below = (self.depths[c] for alternatives in inputs for c, _ in alternatives)
            self.depths[content] = max(below, default=-1) + 1
            results = self.results.setdefault(content, set())
            results |= {on_layer[result.layer] for result in record.layers}
            for chain in record.chains:
                top: int = NO_PARENT
                for layer in chain.layers:
                    top = contents.number((graph.layers[layer].blob, top))
                results.add(top)

    def _take_layers(self, graph: RecordGraph, contents: _Contents) -> list[int]:
        """The content of each layer: its blob and the content below it."""

        def content(index: LayerIndex, below: int) -> int:
            blob = graph.layers[index].blob
            number = contents.number((blob, below))
            self.layers[number] = blob
            return number

        return fold_stacks(graph.layers, NO_PARENT, content)

    @cached_property
    def uses(self) -> dict[int, Counter[tuple[str, int, str]]]:
        """How each record is used: the digest of the using record, the input and the selector."""
        found: dict[int, Counter[tuple[str, int, str]]] = defaultdict(Counter)
        for key in self.keys.values():
            for position, alternatives in enumerate(key.inputs):
                for content, selector in alternatives:
                    found[content][key.digest, position, selector] += 1
        return found


# --- divergence ----------------------------------------------------------------------------------


def _divergence(a: _Side, b: _Side) -> Divergence | None:
    """The lowest record of b that a lacks; a has everything below it.

    If there are several at one depth, a record with an evident counterpart is preferred.
    """
    gained = b.keys.keys() - a.keys.keys()
    if not gained:
        return None
    depth = min(b.depths[content] for content in gained)
    lost = [content for content in a.keys if content not in b.keys]
    digests = {a.keys[content].digest for content in lost}
    inputs = {a.keys[content].inputs for content in lost}
    uses = {use for content in lost for use in a.uses.get(content, ())}

    def rank(content: int) -> tuple[int, _Key]:
        key = b.keys[content]
        if key.digest in digests:
            return 0, key
        if key.inputs not in inputs:
            return 2, key
        return int(uses.isdisjoint(b.uses.get(content, ()))), key

    content = min((content for content in gained if b.depths[content] == depth), key=rank)
    other = _counterpart(content, a, b, lost)
    return _explained(b.keys[content], None if other is None else a.keys[other], depth)


def _counterpart(content: int, a: _Side, b: _Side, lost: Sequence[int]) -> int | None:
    """The most similar lost record: with the same digest, or else with the same inputs.

    If there are several, the one with the most equal inputs, then the one with the most equal uses.
    """
    key = b.keys[content]
    uses = b.uses.get(content, Counter())

    def distance(other: int) -> tuple[int, int, _Key]:
        its = a.keys[other]
        same = sum(one == another for one, another in zip(key.inputs, its.inputs, strict=False))
        return -same, -(uses & a.uses.get(other, Counter())).total(), its

    same_digest = [other for other in lost if a.keys[other].digest == key.digest]
    same_inputs = [other for other in lost if a.keys[other].inputs == key.inputs]
    return min(same_digest or same_inputs, key=distance, default=None)


def _explained(key: _Key, other: _Key | None, depth: int) -> Divergence:
    position = None
    if other is None:
        reason = "there is no counterpart"
    elif other.digest != key.digest:
        reason = "digest differs"
    elif len(other.inputs) != len(key.inputs):
        position = min(len(other.inputs), len(key.inputs))
        reason = f"it has {len(key.inputs)} inputs, not {len(other.inputs)}"
    else:
        position = _first_difference(key.inputs, other.inputs)
        reason = f"input {position} differs"
    return Divergence(
        digest=key.digest,
        depth=depth,
        counterpart=other.digest if other else None,
        input=position,
        reason=reason,
    )


def _first_difference(inputs: Sequence[object], others: Sequence[object]) -> int:
    pairs = enumerate(zip(inputs, others, strict=True))
    return next(position for position, (mine, its) in pairs if mine != its)
