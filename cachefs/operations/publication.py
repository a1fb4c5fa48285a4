"""A manifest that repair or a copy publishes again, corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from cachefs.digest import Digest
from cachefs.graph import RecordGraph
from cachefs.transfer.diff_ids import completed
from cachefs.wire import codec

if TYPE_CHECKING:
    from cachefs.layout.base import Manifest


class Publication(Struct, frozen=True, kw_only=True):
    """A manifest that is published again.

    Attributes:
        name: its name.
        original: the digest of the manifest that it is made from.
        replica: the index of the replica that the manifest comes from; None for the cache itself.
        lost: blobs that no cache has; every result that needs one becomes a miss.
        misses: number of these results.
        sizes: the true size in bytes of each blob for which the manifest states a wrong one.
        left_out: why builders refuse records, which are left out; empty if they refuse none.
        diff_ids: the diffID of each blob whose layers have none.
        obstacle: a damaged part of the manifest that has to be deleted first, because its size is
            right and a writer would keep it.
    """

    name: str
    original: str
    replica: int | None = None
    lost: list[str] = []
    misses: int = 0
    sizes: dict[str, int] = {}
    left_out: str = ""
    diff_ids: dict[str, str] = {}
    obstacle: str | None = None

    @property
    def corrects(self) -> bool:
        """Whether the manifest is to be changed."""
        return bool(self.lost or self.sizes or self.left_out or self.diff_ids)


def results_of(graph: RecordGraph) -> int:
    """The number of results."""
    return sum(len(record.layers) + len(record.chains) for record in graph.records)


def content_of(manifest: Manifest) -> str:
    """A digest that changes when the manifest does."""
    return str(Digest.of(manifest.raw or codec.encode(manifest.config)))


def means_the_same(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests have the same cache config."""
    return codec.encode(one.config) == codec.encode(other.config)


def without_refused(manifest: Manifest) -> Manifest:
    """The manifest in which nothing is left of the records that builders refuse."""
    if not manifest.left_out:
        return manifest
    return manifest.changed(RecordGraph(manifest.config).filtered().to_config())


def mended(manifest: Manifest, publication: Publication) -> Manifest:
    """The manifest as the publication says, without lost blobs; unchanged if that is all right."""
    if not publication.corrects:
        return manifest
    graph = RecordGraph(without_refused(manifest).config).without_blobs(publication.lost)
    for layer in graph.layers:
        size = publication.sizes.get(layer.blob)
        if size is not None and layer.annotations is not None and layer.annotations.size:
            layer.annotations = replace(layer.annotations, size=size)
    diff_ids = {Digest(blob): diff_id for blob, diff_id in publication.diff_ids.items()}
    return completed(manifest.changed(graph.to_config()), diff_ids)
