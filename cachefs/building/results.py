"""The results that caches have: which one is picked for a step, and fetching its blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.building.states import Output, without_description
from cachefs.digest import Digest
from cachefs.errors import CacheError, IntegrityError, LayerError
from cachefs.graph import RecordGraph
from cachefs.transfer.importer import fetch_blob, missed
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cachefs.building.states import State
    from cachefs.cache import Cache
    from cachefs.wire.cacheconfig import Layer


class Results:
    """The results in several caches.

    Args:
        caches: the caches, each with its graph.
        ttl: seconds after which a result counts no more; None for no limit.

    Attributes:
        graph: the union of their graphs.
        damaged: blobs of results that turned out to be damaged.
        refused: results that are not used.
    """

    def __init__(
        self, caches: Sequence[tuple[Cache, RecordGraph]], ttl: float | None = None
    ) -> None:
        self.graph = RecordGraph.union(graph for _, graph in caches)
        self.damaged: set[str] = set()
        self.refused: set[tuple[tuple[str, str], ...]] = set()
        self._caches = [(cache, set[str](graph.blobs())) for cache, graph in caches]
        self._ttl = ttl
        self._lost: set[str] = set()

    def read(self, cache: Cache, graph: RecordGraph) -> None:
        """Add a cache. Indexes of records are others afterwards."""
        self.graph = RecordGraph.union([self.graph, graph])
        blobs = set[str](graph.blobs())
        self._caches.append((cache, blobs))
        self._lost -= blobs

    def add(self, cache: Cache, layers: Iterable[Layer]) -> None:
        """Note that a cache has these blobs now."""
        self._caches.append((cache, {layer.blob for layer in layers}))

    def cache_of(self, output: Output) -> Cache | None:
        """The first cache whose graph has all blobs of a result, none of which is lost there."""
        blobs = {layer.blob for layer in output.layers}
        return next((cache for cache, known in self._caches if blobs <= known), None)

    def newest(self, state: State, number: int) -> Output | None:
        """The newest result of the records of a step that can be extracted and fetched.

        Args:
            state: the step's; why other results cannot be used is noted there.
            number: how many layers a result has, without the one that describes it.
        """
        for found in self.graph.results(state.records):
            chain = tuple(self.graph.layers[index] for index in found.layers)
            layers, description = without_description(chain)
            if self._is_too_old(found.created_at):
                state.note_lost(f"its result from {found.created_at} is too old")
            elif len(layers) != number or not all(layer.diff_id for layer in layers):
                state.note_lost(
                    "its result in the cache cannot be used: a layer or its diffID is missing"
                )
            elif identity(layers) not in self.refused and self._lost.isdisjoint(
                layer.blob for layer in layers
            ):
                return Output(layers, found.created_at, description)
        return None

    def refuse(self, output: Output, error: Exception) -> None:
        """Pick this result no more."""
        self.refused.add(identity(output.layers))
        if isinstance(error, LayerError | IntegrityError):
            self.damaged.update(layer.blob for layer in output.layers)

    async def fetch(self, state: State, layer: Layer, path: Path) -> bool:
        """Write a blob to a path, from the first cache that has it; False if none can be read."""
        size = layer.size or None
        why = "no cache has it"
        for cache, blobs in self._caches:
            if layer.blob in blobs:
                try:
                    await fetch_blob(cache.layout, Digest(layer.blob), path, size)
                except CacheError as error:
                    if isinstance(error, IntegrityError):
                        self.damaged.add(layer.blob)
                    why = str(missed(layer.blob, error))
                    blobs.remove(layer.blob)
                except OSError as error:
                    why = f"{layer.blob}: {error}"
                else:
                    state.fetched += path.stat().st_size
                    return True
        self._lost.add(layer.blob)
        state.lost.append(f"its result in the cache cannot be read: {why}")
        return False

    def _is_too_old(self, created_at: str) -> bool:
        return self._ttl is not None and timestamps.age(created_at) > self._ttl


def identity(layers: Iterable[Layer]) -> tuple[tuple[str, str], ...]:
    """Tells results apart: their blobs and diffIDs."""
    return tuple(
        (layer.blob, layer.annotations.diff_id if layer.annotations else "") for layer in layers
    )
