"""The record graph: what a manifest means, apart from where it came from.

A graph has *layers*, each a blob on top of at most one parent layer, and *records*, each a cache
key (a digest with, for every input, the alternatives that satisfy it) with the results known for
it. Both are named by their index, as on the wire. Nothing here touches a store, and nothing
recurses: a chain 100,000 records deep is as good as any.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from cachefs.collector import collection_paused
from cachefs.digest import Digest
from cachefs.errors import UsageError
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import (
    NO_PARENT,
    Annotations,
    CacheConfig,
    Layer,
    Link,
    Record,
    Result,
)
from cachefs.wire.canonical import canonical, moved, parents_first
from cachefs.wire.rules import check, topological

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

Mode = Literal["min", "max"]

RANDOM: Final = "random:"
"""Records whose digest begins with this are good for one build only and never stored."""


class Key(NamedTuple):
    """A record as an input of another: all of its content, or the part a selector names."""

    record: int
    selector: str = ""


class Found(NamedTuple):
    """One result of a record: layer indexes from the bottom up, and when it was made."""

    layers: tuple[int, ...]
    created_at: str


def output_key(vertex: str, output: int) -> Digest:
    """The record digest of a vertex's output: ``sha256("{vertex}@{output}")``."""
    return Digest.of(f"{vertex}@{output}".encode())


class RecordGraph:
    """Records and layers: grown with :meth:`add`, asked with :meth:`find`, stored as a config.

    Args:
        config: a decoded cache config to start from; the graph takes it over. Empty by default.
    """

    def __init__(self, config: CacheConfig | None = None) -> None:
        self._config = config or CacheConfig(layers=[], records=[])

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers; a layer's index is its name."""
        return self._config.layers

    @property
    def records(self) -> Sequence[Record]:
        """The records; a record's index is its name."""
        return self._config.records

    def __len__(self) -> int:
        return len(self.records)

    def __bool__(self) -> bool:
        """Whether there is any record."""
        return bool(self.records)

    def __repr__(self) -> str:
        return f"<RecordGraph of {len(self.records)} records and {len(self.layers)} layers>"

    # --- growing -------------------------------------------------------------------------------

    def add_layer(
        self,
        blob: str,
        *,
        parent: int = NO_PARENT,
        diff_id: str = "",
        size: int = 0,
        media_type: str = "application/vnd.oci.image.layer.v1.tar+gzip",
        created_at: str | None = None,
    ) -> int:
        """Put a blob on top of a layer (-1: on nothing) and return the new layer's index.

        The same blob on the same parent is the same layer: its index is returned and the other
        arguments are ignored. ``size`` is the blob's size in bytes. ``diff_id`` is the digest of
        the uncompressed archive: BuildKit refuses to import a cache where a layer has none. Raises
        DigestError and UsageError.
        """
        if not NO_PARENT <= parent < len(self.layers):
            raise UsageError(f"there is no layer {parent} to put a layer on")
        place = (Digest(blob), parent)
        if place not in self._layer_places:
            facts = Annotations(
                media_type=media_type,
                diff_id=str(Digest(diff_id)) if diff_id else "",
                size=size,
                created_at=created_at or timestamps.now(),
            )
            self._layer_places[place] = len(self.layers)
            self._config.layers.append(Layer(str(place[0]), parent, facts))
        return self._layer_places[place]

    def add(self, digest: str, inputs: Sequence[Iterable[Key]] = ()) -> int:
        """Add a record and return its index.

        Args:
            digest: the record's digest (see :func:`output_key` for a vertex's output).
            inputs: for each input the alternatives that satisfy it, at least one.

        A record with this digest and these alternatives that is there already is returned.
        """
        keys = tuple(tuple(sorted(set(alternatives))) for alternatives in inputs)
        for position, alternatives in enumerate(keys):
            if not alternatives:
                raise UsageError(f"input {position} of record {digest} has no alternatives")
            if not all(0 <= key.record < len(self.records) for key in alternatives):
                raise UsageError(
                    f"input {position} of record {digest} names a record not added yet"
                )
        place = (digest, keys)
        if place not in self._record_places:
            self._record_places[place] = len(self.records)
            self._note_digest(digest, len(self.records))
            links = tuple(
                tuple(Link(selector=str(k.selector), link=k.record) for k in alternatives)
                for alternatives in keys
            )
            self._config.records.append(Record(digest=str(digest), inputs=links))
        return self._record_places[place]

    def add_result(self, record: int, layer: int, created_at: str | None = None) -> None:
        """Say that a record's result is this layer with all below it."""
        if not 0 <= layer < len(self.layers):
            raise UsageError(f"there is no layer {layer}")
        result = Result(layer, created_at or timestamps.now())
        if result not in self.records[record].layers:
            self.records[record].layers += (result,)

    # --- asking --------------------------------------------------------------------------------

    def find(self, digest: str, inputs: Sequence[Collection[Key]] = ()) -> frozenset[int]:
        """The records that a step's cache key matches; empty for a miss.

        Args:
            digest: the step's record digest.
            inputs: for each input, every record that it matched, with the selector of the part
                that is used (empty: all of it). A record matches when each of its inputs has an
                alternative among them.
        """
        wanted = [frozenset(keys) for keys in inputs]
        return frozenset(
            index for index in self._with_digest(digest) if self._satisfied(index, wanted)
        )

    def _with_digest(self, digest: str) -> Iterator[int]:
        """The records with this digest, the last one first."""
        index = self._last_with.get(digest)
        while index is not None:
            yield index
            index = self._before.get(index)

    def _satisfied(self, index: int, wanted: Sequence[frozenset[Key]]) -> bool:
        inputs = self.records[index].inputs
        return len(inputs) == len(wanted) and all(
            any((link.link, link.selector) in keys for link in alternatives)
            for alternatives, keys in zip(inputs, wanted, strict=True)
        )

    def results(self, records: Iterable[int]) -> list[Found]:
        """All results of these records, the newest first; of one moment, ordered by their blobs."""
        found = {result for index in records for result in self._results(self.records[index])}
        return sorted(found, key=self._age, reverse=True)

    def _age(self, found: Found) -> tuple[object, ...]:
        # Not by index: a graph that was stored and read again has its layers elsewhere.
        blobs = [self.layers[index].blob for index in found.layers]
        return timestamps.nanoseconds(found.created_at), found.created_at, blobs

    def _results(self, record: Record) -> Iterator[Found]:
        for result in record.layers:
            yield Found(self.chain(result.layer), result.created_at)
        for chain in record.chains:
            yield Found(tuple(chain.layers), chain.created_at)

    def chain(self, layer: int) -> tuple[int, ...]:
        """The layer and all below it, from the bottom up."""
        chain = []
        while layer != NO_PARENT:
            chain.append(layer)
            layer = self.layers[layer].parent
        return tuple(reversed(chain))

    def finals(self) -> list[int]:
        """The records that have a result and that no other record is built on."""
        linked = {link.link for r in self.records for alts in r.inputs for link in alts}
        return [
            index
            for index, record in enumerate(self.records)
            if index not in linked and (record.layers or record.chains)
        ]

    def blobs(self) -> dict[Digest, int]:
        """Each blob that a layer names, with its size in bytes (0 where no layer says it)."""
        sizes: dict[Digest, int] = {}
        for layer in self.layers:
            size = layer.annotations.size if layer.annotations else 0
            blob = Digest(layer.blob)
            sizes[blob] = max(size, sizes.get(blob, 0))
        return sizes

    # --- deriving ------------------------------------------------------------------------------

    def select(self, mode: Mode, finals: Collection[int] | None = None) -> RecordGraph:
        """What an export with this mode stores: all storable records, and the mode's layers.

        ``max`` keeps every result, ``min`` only those whose layers are part of the results of
        ``finals`` (by default :meth:`finals`).
        """
        keep: set[int] | None = None
        if mode == "min":
            chosen = self.finals() if finals is None else finals
            keep = set(self._with_those_below(self._result_layers(self.records[i] for i in chosen)))
        return self.filtered(
            record=lambda record: not record.digest.startswith(RANDOM),
            layer=None if keep is None else keep.__contains__,
        )

    def without_blobs(self, lost: Collection[str]) -> RecordGraph:
        """The graph in which every result that needs one of these blobs is a miss."""
        return self.filtered(layer=lambda index: self.layers[index].blob not in lost)

    @collection_paused()
    def filtered(
        self,
        *,
        record: Callable[[Record], bool] | None = None,
        layer: Callable[[int], bool] | None = None,
    ) -> RecordGraph:
        """The part whose records and layers (by index) pass; None lets all pass.

        What hangs in the air goes too: results with a layer that is gone, links to records that are
        gone, records with an input nothing satisfies any more, layers that no result needs.
        """
        records = self._kept_records(record)
        passed = self._kept_layers(layer)
        kept = CacheConfig(layers=[], records=[])
        layer_map: dict[int, int] = {}
        for old in records:
            source = self.records[old]
            results = [r for r in source.layers if passed[r.layer]]
            chains = [c for c in source.chains if all(passed[i] for i in c.layers)]
            named = (*(r.layer for r in results), *(i for c in chains for i in c.layers))
            for index in self._with_those_below(named, known=layer_map):
                layer_map[index] = len(layer_map)
            kept.records.append(
                Record(
                    tuple(Result(layer_map[r.layer], r.created_at) for r in results),
                    tuple(moved(chain, layer_map) for chain in chains),
                    source.digest,
                    tuple(
                        tuple(
                            Link(selector=link.selector, link=records[link.link])
                            for link in alternatives
                            if link.link in records
                        )
                        for alternatives in source.inputs
                    ),
                )
            )
        for old in layer_map:
            source_layer = self.layers[old]
            parent = layer_map.get(source_layer.parent, NO_PARENT)
            kept.layers.append(Layer(source_layer.blob, parent, source_layer.annotations))
        return RecordGraph(kept)

    @staticmethod
    def _result_layers(records: Iterable[Record]) -> Iterator[int]:
        """The layers that results name: the top of each, or all of a chain."""
        for record in records:
            yield from (result.layer for result in record.layers)
            for chain in record.chains:
                yield from chain.layers

    def _with_those_below(
        self, layers: Iterable[int], known: Collection[int] = ()
    ) -> Iterator[int]:
        """The layers and all below them that are not known, each once, parents first."""
        met: set[int] = set()
        for layer in layers:
            walked = []
            index = layer
            while index != NO_PARENT and index not in met and index not in known:
                met.add(index)
                walked.append(index)
                index = self.layers[index].parent
            yield from reversed(walked)

    def _kept_records(self, passes: Callable[[Record], bool] | None) -> dict[int, int]:
        """Old index to new index, links before the records that need them, in the old order."""
        kept: set[int] = set()
        for index in topological(self.records):
            record = self.records[index]
            if (passes is None or passes(record)) and all(
                any(link.link in kept for link in alternatives) for alternatives in record.inputs
            ):
                kept.add(index)
        return {old: new for new, old in enumerate(sorted(kept))}

    def _kept_layers(self, passes: Callable[[int], bool] | None) -> list[bool]:
        """Whether each layer passes together with everything below it."""
        verdict = [True] * len(self.layers)
        for index in parents_first(self.layers):
            parent = self.layers[index].parent
            below = parent == NO_PARENT or verdict[parent]
            verdict[index] = below and (passes is None or passes(index))
        return verdict

    # --- joining ---------------------------------------------------------------------------------

    @staticmethod
    @collection_paused()
    def union(graphs: Iterable[RecordGraph]) -> RecordGraph:
        """Join graphs. Idempotent, commutative and associative up to canonical bytes.

        Two records are one when their digests and all that they are built on are equal; it then has
        the results of both. Two layers are one when they and all below them have the same blobs;
        the newer facts are kept.
        """
        union = RecordGraph()
        for graph in graphs:
            _merge_into(union, graph)
        return union

    # --- storing -------------------------------------------------------------------------------

    @collection_paused()
    def to_config(self) -> CacheConfig:
        """The graph in canonical order: the same graph gives the same bytes, however it was built.

        Raises ManifestError when a builder would refuse it.
        """
        check(self._config)
        return canonical(self._config)

    # --- indexes, made when first asked ----------------------------------------------------------

    @cached_property
    def _last_with(self) -> dict[str, int]:
        """The last record with each digest: few share one, so it needs no list for each."""
        digests = [record.digest for record in self.records]
        return dict(zip(digests, range(len(digests)), strict=True))

    @cached_property
    def _before(self) -> dict[int, int]:
        """For a record, the one before it with the same digest, where there is one."""
        last: dict[str, int] = {}
        before: dict[int, int] = {}
        if len(self._last_with) == len(self.records):
            return before
        for index, record in enumerate(self.records):
            if record.digest in last:
                before[index] = last[record.digest]
            last[record.digest] = index
        return before

    def _note_digest(self, digest: str, index: int) -> None:
        if digest in self._last_with:
            self._before[index] = self._last_with[digest]
        self._last_with[digest] = index

    @cached_property
    def _layer_places(self) -> dict[tuple[str, int], int]:
        return {(layer.blob, layer.parent): index for index, layer in enumerate(self.layers)}

    @cached_property
    def _record_places(self) -> dict[tuple[str, tuple[tuple[Key, ...], ...]], int]:
        return {
            (
                record.digest,
                tuple(
                    tuple(sorted({Key(k.link, k.selector) for k in alts})) for alts in record.inputs
                ),
            ): index
            for index, record in enumerate(self.records)
        }


def _merge_into(union: RecordGraph, graph: RecordGraph) -> None:
    layers: list[int] = [NO_PARENT] * len(graph.layers)
    for index in parents_first(graph.layers):
        layers[index] = _merge_layer(union, graph.layers[index], layers)
    records: list[int] = [0] * len(graph.records)
    for index in topological(graph.records):
        source = graph.records[index]
        target = union.add(
            source.digest,
            [[Key(records[k.link], k.selector) for k in alts] for alts in source.inputs],
        )
        records[index] = target
        for result in source.layers:
            union.add_result(target, layers[result.layer], result.created_at)
        for chain in source.chains:
            with_new_indexes = moved(chain, layers)
            if with_new_indexes not in union.records[target].chains:
                union.records[target].chains += (with_new_indexes,)


def _merge_layer(union: RecordGraph, layer: Layer, merged: Sequence[int]) -> int:
    parent = NO_PARENT if layer.parent == NO_PARENT else merged[layer.parent]
    facts = layer.annotations or Annotations(created_at=timestamps.ZERO)
    known = len(union.layers)
    index = union.add_layer(
        layer.blob,
        parent=parent,
        diff_id=facts.diff_id,
        size=facts.size,
        media_type=facts.media_type,
        created_at=facts.created_at,
    )
    if index < known:
        there = union.layers[index]
        there.annotations = max(there.annotations or facts, facts, key=_newer)
    return index


def _newer(facts: Annotations) -> tuple[object, ...]:
    moment = timestamps.nanoseconds(facts.created_at)
    return (moment, facts.created_at, facts.media_type, facts.diff_id, facts.size)
