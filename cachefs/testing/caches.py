"""Random caches, each from a seed: graphs with the bytes of their blobs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple, Unpack

from cachefs.cache import Cache
from cachefs.cache import open as open_cache
from cachefs.digest import Digest
from cachefs.errors import UsageError
from cachefs.graph import Key, RecordGraph, output_key
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import NO_PARENT

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

    from cachefs.location.keywords import LocationKeywords
    from cachefs.location.options import Location
    from cachefs.wire.cacheconfig import LayerIndex, RecordIndex

PLATFORMS: Final = ("linux/amd64", "linux/arm64")

_EPOCH: Final = 1_767_225_600
"""2026-01-01 in seconds since 1970: records and layers are dated from then on."""

_PATHS: Final = ("/app", "/usr/local/bin", "/out", "/etc/ssl/certs")


class Generated(NamedTuple):
    """A graph, and the bytes of every blob of its layers, by digest."""

    graph: RecordGraph
    blobs: dict[str, bytes]


def random_graph(
    seed: int | str,
    *,
    records: int = 20,
    layers: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
    blob_size: int = 2048,
    shared: int | str = 0,
) -> Generated:
    """A graph as an export with ``mode=max`` would store it, with its blobs.

    Args:
        seed: determines everything except the base images.
        records: the number of records.
        layers: the maximum number of layers, at least 1. By default nearly every record has one.
            There are never more layers than records.
        platforms: the platforms to build for, such as ``linux/amd64``.
        blob_size: the maximum number of bytes of a blob. Blobs are random bytes, not archives.
        shared: the seed of the base images: graphs with the same ``shared`` have the same ones.

    Raises UsageError for numbers below 1 and for no platforms.
    """
    if records < 1 or blob_size < 1 or not platforms or (layers is not None and layers < 1):
        raise UsageError(
            "records, layers, blob_size and the number of platforms must be at least 1"
        )
    growth = _Growth(seed, blob_size, records if layers is None else layers)
    bases = _bases(shared, platforms)
    while len(growth.graph) < records:
        growth.step(bases)
    return Generated(growth.graph, growth.blobs)


def write_random_cache(
    location: str | os.PathLike[str] | Location | Cache,
    *,
    names: Sequence[str] = ("main", "pr-1", "pr-2"),
    seed: int | str = 0,
    records: int = 20,
    blob_size: int = 2048,
    **attributes: Unpack[LocationKeywords],
) -> dict[str, Generated]:
    """Export a random graph under each name, and return the graphs by name.

    All names share base images, as the branches of a project do. ``attributes`` are those of
    :func:`cachefs.open`. Raises StoreError.
    """
    cache = location if isinstance(location, Cache) else open_cache(location, **attributes)
    written = {}
    for name in names:
        generated = random_graph(
            f"{seed}/{name}", records=records, blob_size=blob_size, shared=str(seed)
        )
        cache.export(generated.graph, generated.blobs, names=[name], mode="max")
        written[name] = generated
    return written


def graphs(*, max_records: int = 30) -> SearchStrategy[Generated]:
    """A Hypothesis strategy of random graphs that shrinks to small ones. Needs Hypothesis."""
    from hypothesis import strategies  # noqa: PLC0415 - an optional dependency

    return strategies.builds(
        random_graph,
        seed=strategies.integers(0, 2**32 - 1),
        records=strategies.integers(1, max_records),
        blob_size=strategies.integers(1, 4096),
        shared=strategies.integers(0, 3),
    )


class _Base(NamedTuple):
    """A base image: its record's digest, and the bytes of its layers from the bottom up."""

    digest: str
    blobs: list[bytes]


def _bases(shared: int | str, platforms: Sequence[str]) -> list[_Base]:
    chance = random.Random(f"bases/{shared}")  # noqa: S311 - tests need the same bytes every time
    return [
        _Base(
            output_key(str(Digest.of(f"image/{shared}/{image}/{platform}".encode())), 0),
            [chance.randbytes(chance.randint(1, 4096)) for _ in range(chance.randint(1, 3))],
        )
        for platform in platforms
        for image in range(2)
    ]


class _Growth:
    """Builds a graph: each step adds a record on top of earlier ones."""

    def __init__(self, seed: int | str, blob_size: int, layers: int) -> None:
        self.graph = RecordGraph()
        self.blobs: dict[str, bytes] = {}
        self._chance = random.Random(f"graph/{seed}")  # noqa: S311 - tests need the same bytes every time
        self._seed = seed
        self._blob_size = blob_size
        self._most_layers = layers
        self._steps: list[RecordIndex] = []
        self._clock = 0

    def step(self, bases: Sequence[_Base]) -> None:
        """Add a record: a base image, or a step on one earlier step or on two."""
        kind = self._chance.random()
        if not self._steps or kind < 0.15:
            self._start(self._chance.choice(bases))
        elif kind < 0.75 or len(self._steps) < 3:
            self._run()
        else:
            self._copy_from()

    def _start(self, base: _Base) -> None:
        record = self.graph.add(base.digest)
        if record in self._steps:
            self._run()
            return
        parent = NO_PARENT
        for data in base.blobs:
            parent = self._layer(data, parent)
        self._finish(record, parent)

    def _run(self) -> None:
        """Add a step on one earlier step; sometimes a second step satisfies its input as well."""
        under = self._recent()
        alternatives = [Key(under)]
        if self._chance.random() < 0.2:
            alternatives.append(Key(self._chance.choice(self._steps)))
        record = self.graph.add(self._digest("run"), [alternatives])
        self._finish(record, self._on_top(self._top(under)))

    def _copy_from(self) -> None:
        """Add a ``COPY --from``: onto one step, a path of another, which the selector names."""
        under, other = self._recent(), self._chance.choice(self._steps)
        part = Key(other, str(Digest.of(self._chance.choice(_PATHS).encode())))
        record = self.graph.add(self._digest("copy"), [[Key(under)], [part, Key(other)]])
        self._finish(record, self._on_top(self._top(under)))

    def _finish(self, record: RecordIndex, layer: LayerIndex) -> None:
        if layer != NO_PARENT:
            self.graph.add_result(record, layer, self._now())
        self._steps.append(record)

    def _recent(self) -> RecordIndex:
        """Choose an earlier step; the most recent ones are the most likely."""
        back = min(int(self._chance.expovariate(0.7)), len(self._steps) - 1)
        return self._steps[-1 - back]

    def _top(self, record: RecordIndex) -> LayerIndex:
        results = self.graph.records[record].layers
        return results[-1].layer if results else NO_PARENT

    def _on_top(self, parent: LayerIndex) -> LayerIndex:
        """Add a layer; one step in ten changes no files and has none."""
        if self._chance.random() < 0.1:
            return parent
        size = max(1, min(self._blob_size, int(self._chance.lognormvariate(5.5, 1.5))))
        return self._layer(self._chance.randbytes(size), parent)

    def _layer(self, data: bytes, parent: LayerIndex) -> LayerIndex:
        """Add a layer with these bytes on the parent, or return the parent if there are enough."""
        if len(self.graph.layers) >= self._most_layers:
            return parent
        blob = Digest.of(data)
        self.blobs[str(blob)] = data
        diff_id = Digest.of(b"diff" + data)
        return self.graph.add_layer(
            blob, parent=parent, diff_id=diff_id, size=len(data), created_at=self._now()
        )

    def _digest(self, kind: str) -> Digest:
        vertex = Digest.of(f"{self._seed}/{kind}/{len(self.graph)}".encode())
        return output_key(str(vertex), 0)

    def _now(self) -> str:
        self._clock += self._chance.randint(1, 90_000_000_000)
        return timestamps.from_nanoseconds(_EPOCH * 1_000_000_000 + self._clock)
