"""How two caches, or two names of one, differ. Reads only.

Records are compared by content: two are equal when their digests are, and all that they are built
on. So are layers: by blob, and all below. Results are compared by the blobs of their layers. Where
something was made at another time and is otherwise equal, nothing differs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec import Struct

from cachefs.amount import Amount
from cachefs.concurrency import LOOKUPS, for_each
from cachefs.errors import NotFoundError, UsageError
from cachefs.graph import RecordGraph
from cachefs.wire.cacheconfig import NO_PARENT
from cachefs.wire.walks import topological

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from cachefs.layout.base import Layout

T = TypeVar("T")


class Change(Struct, frozen=True, kw_only=True):
    """Digests that the second side has more and less than the first; sorted.

    Attributes:
        gained: of what only the second has.
        lost: of what only the first has.
        kept: how many both have.
    """

    gained: list[str]
    lost: list[str]
    kept: int


class Divergence(Struct, frozen=True, kw_only=True):
    """Where two chains of records part.

    Attributes:
        digest: the lowest record of the second side that the first lacks. All that it is built on
            is in both.
        depth: how many records lie below it, one on the other.
        counterpart: the digest of the record of the first side that stands in its place, if any.
        input: the first input, from 0, in which the two differ; None where their digests do.
        reason: one line.
    """

    digest: str
    depth: int
    counterpart: str | None
    input: int | None
    reason: str


class CacheDiff(Struct, frozen=True, kw_only=True):
    """How the second side differs from the first.

    Attributes:
        records: digests of records. One is here twice, gained and lost, whose inputs differ.
        results: digests of records that both have, with a result that one of them lacks.
        layers: the blobs of layers. One is here twice that lies on something else.
        blobs: digests of blobs.
        gained: the blobs that only the second needs.
        lost: the blobs that only the first needs.
        divergence: the first record from which the chains part; None where no record is gained.
    """

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
        return not any(change.gained or change.lost for change in changes)


async def load(layout: Layout, names: Collection[str] = ()) -> RecordGraph:
    """The records of these names together, by default of all.

    Raises UsageError for names that are not there, ManifestError and IntegrityError where one is
    damaged, and StoreError: a difference is told of all or of nothing.
    """
    wanted = list(dict.fromkeys(names)) or [name.name for name in await layout.names()]
    found: dict[str, RecordGraph] = {}
    absent: list[str] = []

    async def one(name: str) -> None:
        try:
            found[name] = RecordGraph((await layout.read(name)).config)
        except NotFoundError:
            absent.append(name)

    await for_each(wanted, one, LOOKUPS)
    if absent:
        raise UsageError(
            f"there is no {', '.join(sorted(absent))} to compare; 'cachefs ls' lists the names",
            operation="read",
            key=layout.store.root,
        )
    return (
        found[wanted[0]] if len(wanted) == 1 else RecordGraph.union(found[name] for name in wanted)
    )


def compare(first: RecordGraph, second: RecordGraph) -> CacheDiff:
    """How the second graph differs from the first."""
    contents = _Contents()
    a, b = _Side(first, contents), _Side(second, contents)
    old, new = first.blobs(), second.blobs()
    both = a.records.keys() & b.records.keys()
    results_of_a = {(content, r) for content in both for r in a.results.get(content, ())}
    results_of_b = {(content, r) for content in both for r in b.results.get(content, ())}
    return CacheDiff(
        records=_change(a.records, b.records),
        results=Change(
            gained=sorted(a.records[content] for content, _ in results_of_b - results_of_a),
            lost=sorted(a.records[content] for content, _ in results_of_a - results_of_b),
            kept=len(results_of_a & results_of_b),
        ),
        layers=_change(a.layers, b.layers),
        blobs=_change({d: str(d) for d in old}, {d: str(d) for d in new}),
        gained=Amount(len(new.keys() - old), sum(new[d] for d in new.keys() - old)),
        lost=Amount(len(old.keys() - new), sum(old[d] for d in old.keys() - new)),
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
    """Numbers for contents: equal contents have one number, whichever graph they come from.

    A content names those that it is built on by their numbers, so that none is ever deep.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, content: Hashable) -> int:
        return self._numbers.setdefault(content, len(self._numbers))


Inputs = tuple[tuple[tuple[int, str], ...], ...]
"""For each input its alternatives, sorted: a record's content and a selector."""


class _Key(NamedTuple):
    """What makes a record: its digest, and for each input its alternatives."""

    digest: str
    inputs: Inputs


class _Side:
    """One of two graphs, by content.

    Attributes:
        records: the digest of each content of a record.
        keys: what each of these is made of.
        depths: the records below it, one on the other.
        layers: the blob of each content of a layer.
        results: for each content of a record, the blobs of its results.
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
        """The content of each layer: its blob and what is below."""
        numbers: list[int | None] = [None] * len(graph.layers)
        for start in range(len(graph.layers)):
            walked = []
            index = start
            while index != NO_PARENT and numbers[index] is None:
                walked.append(index)
                index = graph.layers[index].parent
            below = NO_PARENT if index == NO_PARENT else numbers[index]
            for step in reversed(walked):
                blob = graph.layers[step].blob
                below = numbers[step] = contents.number((blob, below))
                self.layers[below] = blob
        return [number for number in numbers if number is not None]

    @cached_property
    def uses(self) -> dict[int, Counter[tuple[str, int, str]]]:
        """What each record is used for: by records of which digest, in which input, which part."""
        found: dict[int, Counter[tuple[str, int, str]]] = defaultdict(Counter)
        for key in self.keys.values():
            for position, alternatives in enumerate(key.inputs):
                for content, selector in alternatives:
                    found[content][key.digest, position, selector] += 1
        return found


# --- where chains part ---------------------------------------------------------------------------


def _divergence(a: _Side, b: _Side) -> Divergence | None:
    """The lowest record of b that a lacks: all that lies below it is lower, so a has that.

    Of several at one depth, one comes first that plainly stands in another's place.
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
    return _told(b.keys[content], None if other is None else a.keys[other], depth)


def _counterpart(content: int, a: _Side, b: _Side, lost: Sequence[int]) -> int | None:
    """The lost record that is nearest: of this digest, or else built on the same.

    Of several, that with the most equal inputs, then that which is used for the same.
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


def _told(key: _Key, other: _Key | None, depth: int) -> Divergence:
    position = None
    if other is None:
        reason = "there is nothing in its place"
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
