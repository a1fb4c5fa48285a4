"""Looking into a cache: what its names hold, as plain data. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from cachefs.concurrency import LOOKUPS, for_each
from cachefs.errors import CacheError, UnreachableError, UsageError
from cachefs.graph import RecordGraph

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefs.layout.base import Layout, Manifest, NamedManifest


class NameSummary(Struct, frozen=True, kw_only=True):
    """A name at a glance.

    Attributes:
        name: the name, or tag.
        modified: seconds since 1970, None where the store has no times.
        manifest_bytes: size of the manifest object.
        layers: how many layers it has.
        blobs: how many different blobs these are.
        bytes: bytes of the blobs, as the manifest states them.
        records: how many records it has.
        results: how many of them have a result.
        fault: why it cannot be read; the figures are then 0.
    """

    name: str
    modified: float | None = None
    manifest_bytes: int = 0
    layers: int = 0
    blobs: int = 0
    bytes: int = 0
    records: int = 0
    results: int = 0
    fault: str | None = None


class LayerDetails(Struct, frozen=True, kw_only=True):
    """A layer. ``parent`` is a layer's index, -1 for none; ``size`` is in bytes."""

    index: int
    blob: str
    parent: int
    size: int
    media_type: str
    diff_id: str
    created_at: str


class RecordDetails(Struct, frozen=True, kw_only=True):
    """A record: the records of each input's alternatives, and the top layers of its results."""

    index: int
    digest: str
    inputs: list[list[int]]
    results: list[int]


class NameDetails(Struct, frozen=True, kw_only=True):
    """All that a name's manifest holds.

    Attributes:
        name: the name, or tag.
        bytes: bytes of the blobs, each counted once.
        depth: layers of the highest stack.
        layers: by index.
        records: by index.
        fault: why it cannot be read; the rest is then empty.
    """

    name: str
    bytes: int = 0
    depth: int = 0
    layers: list[LayerDetails] = []
    records: list[RecordDetails] = []
    fault: str | None = None


async def summarize(layout: Layout, names: Collection[str] = ()) -> list[NameSummary]:
    """A summary of every name, or of these in their order.

    A name that cannot be read, or is not there, has its fault in its summary. Raises StoreError
    where names cannot be listed, UnreachableError where the store stops to answer.
    """
    listed = {name.name: name for name in await layout.names()}
    wanted = list(names or listed)
    found: dict[str, NameSummary] = {}

    async def one(name: str) -> None:
        if name not in listed:
            found[name] = NameSummary(name=name, fault="there is no such name")
            return
        manifest = await _read(layout, name)
        found[name] = _summary(listed[name], manifest)

    await for_each(wanted, one, LOOKUPS)
    return [found[name] for name in wanted]


async def describe_all(layout: Layout, names: Sequence[str]) -> list[NameDetails]:
    """All that these names hold, in their order; what cannot be read has its fault.

    Raises UnreachableError where the store stops to answer, CacheNameError for what is no name.
    """
    found: dict[str, NameDetails] = {}

    async def one(name: str) -> None:
        manifest = await _read(layout, name)
        if isinstance(manifest, CacheError):
            found[name] = NameDetails(name=name, fault=str(manifest))
        else:
            found[name] = describe(manifest)

    await for_each(names, one, LOOKUPS)
    return [found[name] for name in names]


async def _read(layout: Layout, name: str) -> Manifest | CacheError:
    """The manifest, or why it cannot be read. A store that is out of reach is no name's fault."""
    try:
        return await layout.read(name)
    except (UnreachableError, UsageError):
        raise
    except CacheError as error:
        return error


def _summary(name: NamedManifest, manifest: Manifest | CacheError) -> NameSummary:
    if isinstance(manifest, CacheError):
        return NameSummary(
            name=name.name,
            modified=name.modified,
            manifest_bytes=name.size,
            fault=str(manifest),
        )
    graph = RecordGraph(manifest.config)
    sizes = graph.blobs()
    return NameSummary(
        name=name.name,
        modified=name.modified,
        manifest_bytes=name.size,
        layers=len(graph.layers),
        blobs=len(sizes),
        bytes=sum(sizes.values()),
        records=len(graph.records),
        results=sum(record.has_result for record in graph.records),
    )


def describe(manifest: Manifest) -> NameDetails:
    """All that a manifest holds."""
    graph = RecordGraph(manifest.config)
    layers = []
    for index, layer in enumerate(graph.layers):
        facts = layer.annotations
        layers.append(
            LayerDetails(
                index=index,
                blob=layer.blob,
                parent=layer.parent,
                size=layer.size,
                media_type=facts.media_type if facts else "",
                diff_id=facts.diff_id if facts else "",
                created_at=facts.created_at if facts else "",
            )
        )
    records = [
        RecordDetails(
            index=index,
            digest=record.digest,
            inputs=[[link.link for link in alternatives] for alternatives in record.inputs],
            results=[
                *(result.layer for result in record.layers),
                *(chain.layers[-1] for chain in record.chains if chain.layers),
            ],
        )
        for index, record in enumerate(graph.records)
    ]
    return NameDetails(
        name=manifest.name,
        bytes=sum(graph.blobs().values()),
        depth=_depth([layer.parent for layer in graph.layers]),
        layers=layers,
        records=records,
    )


def _depth(parents: Sequence[int]) -> int:
    """Layers of the highest stack."""
    height = [0] * len(parents)
    for start in range(len(parents)):
        walked = []
        index = start
        while index != -1 and not height[index]:
            walked.append(index)
            index = parents[index]
        below = 0 if index == -1 else height[index]
        for step in reversed(walked):
            below += 1
            height[step] = below
    return max(height, default=0)
