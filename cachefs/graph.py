"""The record graph: the meaning of a manifest, independent of where it came from.

A graph has *layers*, each a blob on top of at most one parent layer, and *records*, each a cache
key (a digest with, for every input, the alternatives that satisfy it) with the results known for
it. Both are referred to by their index, as on the wire. Nothing here touches a store, and nothing
recurses, so chains of 100,000 records are no problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from msgspec.structs import replace

from cachefs.collector import collection_paused
from cachefs.digest import Digest
from cachefs.errors import UsageError
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import (
    NO_PARENT,
    RANDOM,
    Annotations,
    CacheConfig,
    Chain,
    Layer,
    LayerIndex,
    Link,
    Record,
    RecordIndex,
    Result,
    layer_indexes,
    record_indexes,
)
from cachefs.wire.canonical import canonical
from cachefs.wire.rules import check, check_values
from cachefs.wire.subset import result_layers, subset
from cachefs.wire.tying import TIE
from cachefs.wire.uniting import united
from cachefs.wire.walks import parents_first

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

Mode = Literal["min", "max"]

MOST_LAYERS: Final = 1_000_000
"""How many layers :meth:`RecordGraph.results` names. A small manifest may have many results, each
with many layers."""

_COMPARED: Final = 8
"""How many layers, from the top down, order results that were made at the same time."""


class Key(NamedTuple):
    """A record as an input of another: all of its content, or the part that a selector names."""

    record: RecordIndex
    selector: str = ""


class Found(NamedTuple):
    """One result of a record: layer indexes from the bottom up, and when it was made."""

    layers: tuple[LayerIndex, ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class Matches:
    """The records that a step's cache key matches, from :meth:`RecordGraph.find`.

    False if there are none. :meth:`cachefs.Cache.result` returns their newest result.

    Attributes:
        graph: the graph that the records are in.
        records: their indexes.
    """

    graph: RecordGraph
    records: frozenset[RecordIndex]

    def __iter__(self) -> Iterator[RecordIndex]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def keys(self, selector: str = "") -> frozenset[Key]:
        """The records as an input for the next :meth:`RecordGraph.find`.

        Args:
            selector: names the part of the result that is used; empty for all of it.
        """
        return frozenset(Key(record, selector) for record in self.records)


def output_key(vertex: str, output: int) -> Digest:
    """The record digest of a vertex's output: ``sha256("{vertex}@{output}")``."""
    return Digest.of(f"{vertex}@{output}".encode())


class RecordGraph:
    """Records and layers: grown with :meth:`add`, searched with :meth:`find`, stored as a config.

    Args:
        config: a decoded cache config to start from; the graph takes it over. Empty by default.
    """

    def __init__(self, config: CacheConfig | None = None) -> None:
        self._config = config or CacheConfig(layers=[], records=[])
        self._is_canonical = False
        """Whether the config is in canonical order, and its links are known to be right."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers, by index."""
        return self._config.layers

    @property
    def records(self) -> Sequence[Record]:
        """The records, by index."""
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
        parent: LayerIndex = NO_PARENT,
        diff_id: str = "",
        size: int = 0,
        media_type: str = "application/vnd.oci.image.layer.v1.tar+gzip",
        created_at: str | None = None,
    ) -> LayerIndex:
        """Put a blob on top of a layer (-1: on none) and return the new layer's index.

        The same blob on the same parent is the same layer: its index is returned and the other
        arguments are ignored. ``size`` is the blob's size in bytes. ``diff_id`` is the digest of
        the uncompressed archive: BuildKit refuses to import a cache in which a layer has none.
        Raises DigestError and UsageError.
        """
        if not NO_PARENT <= parent < len(self.layers):
            raise UsageError(f"there is no layer {parent} to put a layer on")
        identity = (Digest(blob), parent)
        if identity not in self._layer_of:
            facts = Annotations(
                media_type=media_type,
                diff_id=str(Digest(diff_id)) if diff_id else "",
                size=size,
                created_at=created_at or timestamps.now(),
            )
            self._is_canonical = False
            self._layer_of[identity] = LayerIndex(len(self.layers))
            self._config.layers.append(Layer(str(identity[0]), parent, facts))
        return self._layer_of[identity]

    def copy_layer(self, layer: Layer, parent: LayerIndex = NO_PARENT) -> LayerIndex:
        """Put a layer of another graph on top of a layer of this one, as :meth:`add_layer` does."""
        facts = layer.annotations or Annotations(created_at=timestamps.ZERO)
        return self.add_layer(
            layer.blob,
            parent=parent,
            diff_id=layer.diff_id,
            size=facts.size,
            media_type=facts.media_type,
            created_at=facts.created_at,
        )

    def add(self, digest: str, inputs: Sequence[Iterable[Key]] = ()) -> RecordIndex:
        """Add a record and return its index.

        Args:
            digest: the record's digest (see :func:`output_key` for a vertex's output).
            inputs: for each input the alternatives that satisfy it, at least one.

        If the graph has a record with this digest and these alternatives, returns its index.
        Raises UsageError.
        """
        keys = tuple(tuple(sorted(set(alternatives))) for alternatives in inputs)
        for position, alternatives in enumerate(keys):
            if not alternatives:
                raise UsageError(f"input {position} of record {digest} has no alternatives")
            if not all(0 <= key.record < len(self.records) for key in alternatives):
                raise UsageError(
                    f"input {position} of record {digest} names a record not added yet"
                )
        identity = (digest, keys)
        if identity not in self._record_of:
            self._is_canonical = False
            index = self._record_of[identity] = RecordIndex(len(self.records))
            self._note_digest(digest, index)
            links = tuple(
                tuple(Link(selector=str(k.selector), link=k.record) for k in alternatives)
                for alternatives in keys
            )
            self._config.records.append(Record(digest=str(digest), inputs=links))
        return self._record_of[identity]

    def add_result(
        self, record: RecordIndex, layer: LayerIndex, created_at: str | None = None
    ) -> None:
        """Add a result to a record: this layer with all layers below it. Raises UsageError."""
        if not 0 <= layer < len(self.layers):
            raise UsageError(f"there is no layer {layer}")
        if not 0 <= record < len(self.records):
            raise UsageError(f"there is no record {record}")
        result = Result(layer, created_at or timestamps.now())
        if result not in self.records[record].layers:
            self._is_canonical = False
            known = self._config.records[record]
            # A new struct: a config that was made of the graph before has the old one.
            self._config.records[record] = replace(known, layers=(*known.layers, result))

    # --- searching -----------------------------------------------------------------------------

    def find(self, digest: str, inputs: Sequence[Collection[Key] | Matches] = ()) -> Matches:
        """The records that a step's cache key matches; none for a miss.

        Args:
            digest: the step's record digest.
            inputs: for each input, every record that it matched, as Matches or, if only a part of
                it is used, with the part's selector (:meth:`Matches.keys`). A record matches if
                each of its inputs has an alternative among them.
        """
        wanted = [keys.keys() if isinstance(keys, Matches) else frozenset(keys) for keys in inputs]
        found = (index for index in self._with_digest(digest) if self._satisfied(index, wanted))
        return Matches(self, frozenset(found))

    def _with_digest(self, digest: str) -> Iterator[RecordIndex]:
        """The records with this digest, the last one first."""
        index = self._last_with.get(digest)
        while index is not None:
            yield index
            index = self._before.get(index)

    def _satisfied(self, index: RecordIndex, wanted: Sequence[frozenset[Key]]) -> bool:
        inputs = self.records[index].inputs
        return len(inputs) == len(wanted) and all(
            any((link.link, link.selector) in keys for link in alternatives)
            for alternatives, keys in zip(inputs, wanted, strict=True)
        )

    def results(self, records: Iterable[RecordIndex]) -> list[Found]:
        """The results of these records, the newest first; at equal times, ordered by blobs.

        If they have more than :data:`MOST_LAYERS` layers in all, the oldest are left out.
        """
        found: dict[Found, None] = {}
        named = 0
        for one in self.ordered(records):
            layers = tuple(reversed(list(self._downwards(one))))
            named += len(layers)
            if found and named > MOST_LAYERS:
                break
            found[Found(layers, one.created_at)] = None
        return list(found)

    def ordered(self, records: Iterable[RecordIndex]) -> list[Result | Chain]:
        """The results of these records as they are stored, in the order of :meth:`results`."""
        found: list[Result | Chain] = []
        for index in records:
            found += self.records[index].layers
            found += self.records[index].chains
        return sorted(found, key=self._age, reverse=True)

    def top(self, result: Result | Chain) -> Layer | None:
        """The uppermost layer of a result; None if the result is empty."""
        top = next(self._downwards(result), None)
        return None if top is None else self.layers[top]

    def _age(self, found: Result | Chain) -> tuple[object, ...]:
        # Not by index: storing a graph renumbers its layers.
        blobs = tuple(self.layers[i].blob for i in islice(self._downwards(found), _COMPARED))
        return timestamps.nanoseconds(found.created_at), found.created_at, blobs

    def _downwards(self, found: Result | Chain) -> Iterator[LayerIndex]:
        """The layers of a result, from the top down."""
        return reversed(found.layers) if isinstance(found, Chain) else self._below(found.layer)

    def _below(self, layer: LayerIndex) -> Iterator[LayerIndex]:
        while layer != NO_PARENT:
            yield layer
            layer = self.layers[layer].parent

    def chain(self, layer: LayerIndex) -> tuple[LayerIndex, ...]:
        """The layer and all layers below it, from the bottom up."""
        return tuple(reversed(list(self._below(layer))))

    def finals(self) -> list[RecordIndex]:
        """The records that have a result and that no other record is built on."""
        built = (record for record in self.records if record.digest != TIE)
        linked = {link.link for r in built for alts in r.inputs for link in alts}
        return [
            index
            for index in record_indexes(self.records)
            if index not in linked and self.records[index].has_result
        ]

    def blobs(self) -> dict[Digest, int]:
        """Each blob that a layer names, with its size in bytes (0 if no layer states it)."""
        sizes: dict[Digest, int] = {}
        for layer in self.layers:
            blob = Digest(layer.blob)
            sizes[blob] = max(layer.size, sizes.get(blob, 0))
        return sizes

    # --- deriving ------------------------------------------------------------------------------

    def select(self, mode: Mode, finals: Collection[RecordIndex] | None = None) -> RecordGraph:
        """What an export with this mode stores: all storable records, and the mode's layers.

        ``max`` keeps every result, ``min`` only those whose layers are part of the results of
        ``finals`` (by default :meth:`finals`). Raises UsageError for another mode.
        """
        if mode not in get_args(Mode):
            raise UsageError(f"there is no mode {mode!r}: it is min or max")
        layers: frozenset[LayerIndex] | None = None
        if mode == "min":
            chosen = [self.records[i] for i in (self.finals() if finals is None else finals)]
            layers = frozenset(parents_first(self.layers, result_layers(chosen)))
        storable = frozenset(
            index
            for index in record_indexes(self.records)
            if not self.records[index].digest.startswith(RANDOM)
        )
        return self.filtered(records=storable, layers=layers)

    def without_blobs(self, lost: Collection[str]) -> RecordGraph:
        """The graph in which every result that needs one of these blobs is a miss."""
        gone = frozenset(lost)
        return self.filtered(
            layers={i for i in layer_indexes(self.layers) if self.layers[i].blob not in gone}
        )

    @collection_paused()
    def filtered(
        self,
        *,
        records: Iterable[RecordIndex] | None = None,
        layers: Iterable[LayerIndex] | None = None,
    ) -> RecordGraph:
        """The part with these records and these layers; None keeps all.

        Anything left dangling is dropped: results with a layer that is not kept or is above one
        that is not, links to records that are not kept, records with an input that no alternative
        satisfies any more, and layers that no result needs.
        """
        return RecordGraph(
            subset(
                self._config,
                None if records is None else frozenset(records),
                None if layers is None else frozenset(layers),
            )
        )

    # --- joining -------------------------------------------------------------------------------

    @staticmethod
    @collection_paused()
    def union(graphs: Iterable[RecordGraph]) -> RecordGraph:
        """Join graphs. Idempotent, commutative and associative up to canonical bytes.

        Two records with the same digest become one if they share an alternative for every input, as
        they do when a builder imports them; it has the alternatives and the results of both. Two
        layers become one if they and all layers below them have the same blobs; the newer facts are
        kept. Ties (:func:`cachefs.wire.tying.tied`) are left out.
        """
        configs = [CacheConfig([*graph.layers], [*graph.records]) for graph in graphs]
        union = RecordGraph(united(configs))
        union._is_canonical = True
        return union

    # --- storing -------------------------------------------------------------------------------

    @collection_paused()
    def to_config(self) -> CacheConfig:
        """The graph in canonical order: the same graph gives the same bytes, however it was built.

        Raises ManifestError if a builder would refuse it.
        """
        if self._is_canonical:
            check_values(self._config)
            return CacheConfig(self._config.layers.copy(), self._config.records.copy())
        check(self._config)
        return canonical(self._config)

    # --- look-up tables, made on first use -----------------------------------------------------

    @cached_property
    def _last_with(self) -> dict[str, RecordIndex]:
        """The last record with each digest: few records share one, so no lists are needed."""
        digests = [record.digest for record in self.records]
        return dict(zip(digests, record_indexes(self.records), strict=True))

    @cached_property
    def _before(self) -> dict[RecordIndex, RecordIndex]:
        """For each record, the one before it with the same digest, if any."""
        last: dict[str, RecordIndex] = {}
        before: dict[RecordIndex, RecordIndex] = {}
        if len(self._last_with) == len(self.records):
            return before
        for index in record_indexes(self.records):
            digest = self.records[index].digest
            if digest in last:
                before[index] = last[digest]
            last[digest] = index
        return before

    def _note_digest(self, digest: str, index: RecordIndex) -> None:
        if digest in self._last_with:
            self._before[index] = self._last_with[digest]
        self._last_with[digest] = index

    @cached_property
    def _layer_of(self) -> dict[tuple[str, LayerIndex], LayerIndex]:
        """The layer with a blob and a parent."""
        return {
            (self.layers[index].blob, self.layers[index].parent): index
            for index in layer_indexes(self.layers)
        }

    @cached_property
    def _record_of(self) -> dict[tuple[str, tuple[tuple[Key, ...], ...]], RecordIndex]:
        """The record with a digest and alternatives for each input."""
        return {
            (
                self.records[index].digest,
                tuple(
                    tuple(sorted({Key(k.link, k.selector) for k in alts}))
                    for alts in self.records[index].inputs
                ),
            ): index
            for index in record_indexes(self.records)
        }
