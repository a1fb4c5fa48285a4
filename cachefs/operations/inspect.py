"""Inspecting a cache: the contents of its names, as plain data. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from cachefs.amount import Amount
from cachefs.errors import CacheError
from cachefs.graph import RecordGraph
from cachefs.operations.describe import (
    DescribedResult,
    Room,
    described_layers,
    read_descriptions,
)
from cachefs.transfer.manifests import read_names
from cachefs.wire.walks import fold_stacks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest, NamedManifest


class NameSummary(Struct, frozen=True, kw_only=True):
    """A summary of a name.

    Attributes:
        name: the name, or tag.
        modified: seconds since 1970, None if the store has no times.
        manifest_bytes: size of the manifest object.
        layers: number of layers.
        blobs: number of distinct blobs of these layers.
        bytes: bytes of the blobs, as the manifest states them.
        records: number of records.
        results: number of records that have a result.
        fault: why the manifest cannot be read; the figures are then 0.
        refusal: why builders refuse to import it although it can be read; empty if they do not.
            Records that they refuse are not counted.
        described: what its newest result is, if that was asked for and is known.
        others: how many more of its results are described.
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
    refusal: str = ""
    described: DescribedResult | None = None
    others: int = 0


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
    """Everything in a name's manifest.

    Attributes:
        name: the name, or tag.
        bytes: bytes of the blobs, each counted once.
        depth: number of layers in the longest chain.
        layers: by index.
        records: by index.
        fault: why the manifest cannot be read; the rest is then empty.
        refusal: why builders refuse to import it although it can be read; empty if they do not.
            Records that they refuse are left out.
        described: what its results are, the newest first, as far as that was stored.
    """

    name: str
    bytes: int = 0
    depth: int = 0
    layers: list[LayerDetails] = []
    records: list[RecordDetails] = []
    fault: str | None = None
    refusal: str = ""
    described: list[DescribedResult] = []


class Survey(Struct, frozen=True, kw_only=True):
    """Summaries of names, and the distinct blobs of all that could be read, as they state them."""

    names: list[NameSummary]
    blobs: Amount


async def survey(layout: Layout, names: Collection[str] = (), *, described: bool = False) -> Survey:
    """Summarize every name, or these in their order.

    The summary of a name that does not exist or cannot be read states its fault. Raises StoreError.

    Args:
        layout: the cache.
        names: by default all.
        described: read what the newest result of each name is, which is one more small blob.
    """
    listed = {name.name: name for name in await layout.names()}
    wanted = list(names or listed)
    sizes: dict[Digest, int] = {}
    room = Room()

    async def read(held: Layout, name: str) -> NameSummary:
        manifest = await held.read(name)
        summary = _summary(listed[name], manifest, sizes)
        if not described or not (layers := described_layers(manifest.config)):
            return summary
        newest = await read_descriptions(layout, layers[:1], room)
        return replace(summary, described=next(iter(newest), None), others=len(layers) - 1)

    found = await read_names(layout, [name for name in wanted if name in listed], read)
    summaries = [_faulty_summary(listed.get(n), n, found.get(n)) for n in wanted]
    return Survey(names=summaries, blobs=Amount.of(sizes.values()))


async def summarize(layout: Layout, names: Collection[str] = ()) -> list[NameSummary]:
    """The summaries of :func:`survey`."""
    return (await survey(layout, names)).names


def _faulty_summary(
    listed: NamedManifest | None, name: str, found: NameSummary | CacheError | None
) -> NameSummary:
    """The summary that was found, or for an error one with a fault."""
    if isinstance(found, NameSummary):
        return found
    if listed is None:
        return NameSummary(name=name, fault="there is no such name")
    return NameSummary(
        name=name, modified=listed.modified, manifest_bytes=listed.size, fault=str(found)
    )


async def describe_all(layout: Layout, names: Sequence[str]) -> list[NameDetails]:
    """Describe these names in their order; the details of one that cannot be read state its fault.

    Raises CacheNameError for an invalid name, and StoreError.
    """

    async def read(held: Layout, name: str) -> NameDetails:
        return await describe(held, name)

    found = await read_names(layout, names, read)
    return [_or_fault(name, found[name]) for name in names]


def _or_fault(name: str, found: NameDetails | CacheError) -> NameDetails:
    """The details that were found, or for an error details with a fault."""
    return NameDetails(name=name, fault=str(found)) if isinstance(found, CacheError) else found


def _summary(name: NamedManifest, manifest: Manifest, every: dict[Digest, int]) -> NameSummary:
    """The summary; the sizes of its blobs are added to those of every name."""
    graph = RecordGraph(manifest.config)
    sizes = graph.blobs()
    for digest, size in sizes.items():
        every[digest] = max(size, every.get(digest, 0))
    return NameSummary(
        name=name.name,
        modified=name.modified,
        manifest_bytes=name.size,
        layers=len(graph.layers),
        blobs=len(sizes),
        bytes=sum(sizes.values()),
        records=len(graph.records),
        results=sum(record.has_result for record in graph.records),
        refusal=manifest.refusal,
    )


async def describe(layout: Layout, name: str) -> NameDetails:
    """Everything in a name's manifest, and what its results are. Raises as :meth:`Layout.read`."""
    manifest = await layout.read(name)
    described = await read_descriptions(layout, described_layers(manifest.config))
    return replace(_details(manifest), described=described)


def _details(manifest: Manifest) -> NameDetails:
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
        depth=max(fold_stacks(graph.layers, 0, lambda _, below: below + 1), default=0),
        layers=layers,
        records=records,
        refusal=manifest.refusal,
    )
