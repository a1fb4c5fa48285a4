"""What results are: the descriptions that are stored with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.digest import Digest
from cachefs.errors import CacheError
from cachefs.graph import RecordGraph
from cachefs.transfer.importer import read_blob
from cachefs.wire import description, timestamps
from cachefs.wire.cacheconfig import record_indexes
from cachefs.wire.description import Description  # noqa: TC001 - msgspec reads the type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachefs.layout.base import Layout
    from cachefs.wire.cacheconfig import CacheConfig, Layer


class DescribedResult(Struct, frozen=True, kw_only=True):
    """A result with what it is, as whoever stored it says.

    Attributes:
        created_at: when it was made, as RFC 3339 text.
        description: what it is.
    """

    created_at: str
    description: Description


MOST_BYTES: Final = 32 * 1024 * 1024
"""How long the descriptions are together that a command reads at most. In memory they take up to
twenty times as much, and anyone who may write to a cache may write any number of them."""


class Room:
    """What is left of :data:`MOST_BYTES`."""

    def __init__(self) -> None:
        self._left = MOST_BYTES

    def takes(self, layer: Layer) -> bool:
        """Whether the description in this layer still fits; if so, its room is taken."""
        fits = layer.size <= min(description.MAX_BYTES, self._left)
        self._left -= layer.size if fits else 0
        return fits


def described_layers(config: CacheConfig) -> list[tuple[str, Layer]]:
    """The layers of a manifest that describe a result, each with its time, the newest first."""
    graph = RecordGraph(config)
    found = []
    for result in graph.ordered(record_indexes(config.records)):
        top = graph.top(result)
        facts = top.annotations if top else None
        if top and facts and facts.media_type == description.MEDIA_TYPE:
            found.append((result.created_at, top))
    return found


async def read_descriptions(
    layout: Layout, layers: Iterable[tuple[str, Layer]], room: Room | None = None
) -> list[DescribedResult]:
    """Read descriptions. Those that are missing, damaged or too long are left out.

    So are the last ones if all together are longer than there is ``room`` for.
    """
    room = room or Room()
    wanted = [item for item in layers if room.takes(item[1])]
    found: dict[int, DescribedResult] = {}

    async def read(item: tuple[int, tuple[str, Layer]]) -> None:
        position, (created_at, layer) = item
        try:
            raw = await read_blob(layout, Digest(layer.blob), layer.size)
            found[position] = DescribedResult(
                created_at=created_at, description=description.decode(raw)
            )
        except CacheError:
            pass  # it is not essential

    await for_each(list(enumerate(wanted)), read, LOOKUP_PARALLELISM)
    return [found[position] for position in sorted(found)]


async def newest_described(layout: Layout, prefix: str, most: int) -> list[DescribedResult]:
    """What the newest results are of all names that begin with a prefix, the newest first.

    Args:
        layout: the cache.
        prefix: how the names begin; it may be a whole name.
        most: how many names and results are read at most.

    Names and descriptions that cannot be read are left out. Raises StoreError.
    """
    names = await layout.names(prefix)
    newest = sorted(names, key=lambda name: name.modified or 0.0, reverse=True)[:most]
    layers: list[tuple[str, Layer]] = []
    for name in newest:
        try:
            layers += described_layers((await layout.read(name.name)).config)
        except CacheError:
            continue
    layers.sort(key=lambda item: timestamps.nanoseconds(item[0]), reverse=True)
    return await read_descriptions(layout, layers[:most])
