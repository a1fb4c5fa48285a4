"""The union of cache configs: what is the same in several of them once, in canonical order.

Nothing is made only to be thrown away: a record stays the struct that was read, with the number of
its config, until its place in the union is known. Then its new struct is written once.
"""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from operator import eq
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from cachefs.digest import is_digest
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import (
    NO_PARENT,
    Annotations,
    CacheConfig,
    Chain,
    Layer,
    LayerIndex,
    Link,
    Record,
    RecordIndex,
    Result,
    record_indexes,
)
from cachefs.wire.canonical import (
    canonical,
    inverse,
    layer_order,
    moved,
    placed,
    sorted_chains,
    sorted_results,
)
from cachefs.wire.joining import joined
from cachefs.wire.tying import TIE
from cachefs.wire.walks import parents_first, topological

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    _Results = tuple[Sequence[Result], Sequence[Chain]]

_LEFT_OUT = RecordIndex(-1)

_Inputs = tuple[tuple[tuple[RecordIndex, str], ...], ...]


def united(configs: Sequence[CacheConfig]) -> CacheConfig:
    """The union of valid configs, which are not changed, in canonical order.

    Two layers become one if they and all layers below them have the same blobs; the newer facts are
    kept. Two records become one if they have the same digest and share an alternative for every
    input (:func:`cachefs.wire.joining.joined`), with the results of both. Ties
    (:func:`cachefs.wire.tying.tied`) are left out.
    """
    layers = _Layers(configs)
    records = _Records(configs)
    if not records.may_join():
        return CacheConfig(layers.in_order(), records.in_order(layers))
    as_added = CacheConfig(layers.as_added(), records.as_added(layers))
    return canonical(joined(as_added))


class _Layers:
    """The layers of all configs, each once, numbered as they are met: those below first."""

    def __init__(self, configs: Sequence[CacheConfig]) -> None:
        self.of_config: list[list[LayerIndex]] = []
        """For each config, the new index of each layer, and NO_PARENT at the end, for index -1."""
        self._blobs: list[str] = []
        self._parents: list[LayerIndex] = []
        self._facts: list[Annotations] = []
        known: dict[tuple[str, LayerIndex], LayerIndex] = {}
        for config in configs:
            self._add(config.layers, known)

    def _add(
        self, layers: Sequence[Layer], known: dict[tuple[str, LayerIndex], LayerIndex]
    ) -> None:
        new = [NO_PARENT] * (len(layers) + 1)
        self.of_config.append(new)
        for old in parents_first(layers):
            layer = layers[old]
            parent = new[layer.parent]
            index = known.setdefault((layer.blob, parent), LayerIndex(len(self._blobs)))
            new[old] = index
            if index < len(self._blobs):
                self._facts[index] = _newest(self._facts[index], layer)
            else:
                self._blobs.append(str(layer.blob))  # it may be a Digest
                self._parents.append(parent)
                self._facts.append(_facts(layer))

    def as_added(self) -> list[Layer]:
        """The layers by their new index."""
        return list(map(Layer, self._blobs, self._parents, self._facts))

    def in_order(self) -> list[Layer]:
        """The layers in canonical order, by which :attr:`of_config` is numbered from then on."""
        layers = self.as_added()
        order = layer_order(layers)
        new = inverse(order)
        final = [*new, NO_PARENT]
        self.of_config = [list(map(final.__getitem__, old)) for old in self.of_config]
        return placed(layers, order, new)


def _facts(layer: Layer) -> Annotations:
    """What is known about a layer. A diffID that is no digest is as good as none."""
    facts = layer.annotations
    if facts is None:
        return Annotations(created_at=timestamps.ZERO)
    if not facts.diff_id or is_digest(facts.diff_id):
        return facts
    return replace(facts, diff_id="")


def _newest(known: Annotations, layer: Layer) -> Annotations:
    """The newer of two layers' facts, with a diffID if either has one."""
    facts = layer.annotations or Annotations(created_at=timestamps.ZERO)
    if facts == known:
        return known
    best = max(known, facts, key=_newer)
    diff_id = Layer(annotations=best).diff_id or known.diff_id or layer.diff_id
    return replace(best, diff_id=diff_id)


def _newer(facts: Annotations) -> tuple[object, ...]:
    moment = timestamps.nanoseconds(facts.created_at)
    return (moment, facts.created_at, facts.media_type, facts.diff_id, facts.size)


class _Source(NamedTuple):
    """A record as it was read, and the number of the config that it was read from."""

    record: Record
    config: int


class _Records:
    """The records of all configs, each once, numbered as they are met: those linked to first."""

    def __init__(self, configs: Sequence[CacheConfig]) -> None:
        self._of_config: list[Sequence[RecordIndex]] = []
        """For each config, the new index of each record; -1 if it is left out."""
        self._records: list[Record] = []
        self._configs: list[int] = []
        self._same: dict[RecordIndex, list[_Source]] = {}
        """Further records that are the same as one."""
        digests = Counter(record.digest for config in configs for record in config.records)
        self._repeated = {digest for digest, count in digests.items() if count > 1}
        simple = not self._repeated and TIE not in digests
        known: dict[tuple[str, _Inputs], RecordIndex] = {}
        for number, config in enumerate(configs):
            if simple:
                self._add_all(number, config.records)
            else:
                self._add(number, config.records, known)

    def _add_all(self, number: int, records: Sequence[Record]) -> None:
        """Add records that differ from each other and from all others."""
        first = len(self._records)
        self._records += records
        self._configs += repeat(number, len(records))
        self._of_config.append(record_indexes(self._records)[first:])

    def _add(
        self, number: int, records: Sequence[Record], known: dict[tuple[str, _Inputs], RecordIndex]
    ) -> None:
        new = [_LEFT_OUT] * len(records)
        self._of_config.append(new)
        left_out = False
        for old in topological(records):
            record = records[old]
            index = RecordIndex(len(self._records))
            if left_out or record.digest in self._repeated or record.digest == TIE:
                inputs = tuple([tuple(_kept(links, new)) for links in record.inputs])
                if record.digest == TIE or not all(inputs):
                    # Another union needs another tie, or none.
                    left_out = True
                    continue
                index = known.setdefault((record.digest, inputs), index)
            new[old] = index
            if index < len(self._records):
                if record.has_result:
                    self._same.setdefault(index, []).append(_Source(record, number))
            else:
                self._records.append(record)
                self._configs.append(number)

    def may_join(self) -> bool:
        """Whether several records have the same digest and the same number of inputs."""
        return len(self._repeated) > 0 and any(
            count > 1
            for count in Counter(
                (record.digest, len(record.inputs))
                for record in self._records
                if record.digest in self._repeated
            ).values()
        )

    def as_added(self, layers: _Layers) -> list[Record]:
        """The records by their new index."""
        return self._written(record_indexes(self._records), layers)

    def in_order(self, layers: _Layers) -> list[Record]:
        """The records in canonical order, if none of them may be joined."""
        records = self._records
        if self._repeated:
            keys: Sequence[object] = [(one.digest, len(one.inputs)) for one in records]
        else:
            keys = [one.digest for one in records]
        order = sorted(record_indexes(records), key=keys.__getitem__)  # type: ignore[arg-type]
        final = inverse(order)
        final.append(_LEFT_OUT)  # for index -1
        self._of_config = [list(map(final.__getitem__, new)) for new in self._of_config]
        return self._written(order, layers)

    def _written(self, order: Iterable[RecordIndex], layers: _Layers) -> list[Record]:
        written = []
        for index in order:
            record, config = self._records[index], self._configs[index]
            new = self._of_config[config]
            inputs = tuple([_links(links, new) for links in record.inputs])
            one = Record(digest=str(record.digest), inputs=inputs)  # it may be a Digest
            if index in self._same or record.chains or len(record.layers) > 1:
                sources = [_Source(record, config), *self._same.get(index, ())]
                one.layers, one.chains = _results(sources, layers.of_config)
            elif record.layers:
                [only] = record.layers
                one.layers = (Result(layers.of_config[config][only.layer], only.created_at),)
            written.append(one)
        return written


def _results(
    sources: Iterable[_Source], new_layer: Sequence[Sequence[LayerIndex]]
) -> tuple[tuple[Result, ...], tuple[Chain, ...]]:
    """The results of records that are the same, each once, in canonical order."""
    results: dict[tuple[LayerIndex, str], Result] = {}
    chains: dict[tuple[tuple[LayerIndex, ...], str], Chain] = {}
    for record, config in sources:
        new = new_layer[config]
        for result in record.layers:
            found = new[result.layer], result.created_at
            results[found] = Result(*found)
        for chain in record.chains:
            moved_chain = moved(chain, new)
            chains[moved_chain.layers, chain.created_at] = moved_chain
    return sorted_results([*results.values()]), sorted_chains([*chains.values()])


def _links(links: Sequence[Link], new: Sequence[RecordIndex]) -> tuple[Link, ...]:
    """The alternatives for an input without those left out, each once, in canonical order."""
    if len(links) == 1:
        [only] = links
        return (Link(selector=only.selector, link=new[only.link]),)
    return tuple([Link(selector=selector, link=index) for index, selector in _kept(links, new)])


def _kept(links: Sequence[Link], new: Sequence[RecordIndex]) -> list[tuple[RecordIndex, str]]:
    found = [(new[link.link], link.selector) for link in links]
    if len(found) == 1 and found[0][0] != _LEFT_OUT:
        return found
    found.sort()
    if found and (found[0][0] == _LEFT_OUT or any(map(eq, found, found[1:]))):
        return [*dict.fromkeys(one for one in found if one[0] != _LEFT_OUT)]
    return found
