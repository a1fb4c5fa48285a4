"""A source whose layers are examined while they are read: what is refused never becomes visible."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cachefs.concurrency import closing
from cachefs.digest import Digest
from cachefs.errors import LayerError
from cachefs.layers.compression import named_compression
from cachefs.layers.examining import examine
from cachefs.store import verified
from cachefs.transfer.piping import Pipe
from cachefs.wire import description

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cachefs.layers.limits import Limits
    from cachefs.transfer.sources import BlobSource
    from cachefs.wire.cacheconfig import Layer


class ExaminedSource:
    """Blobs of another source, verified, and examined as the layers that manifests say they are.

    It reads each blob by itself and has no stores of its own, so every byte passes through here.

    Args:
        source: where the blobs come from.
        layers: the layers, by which a blob is examined; a blob without one is only verified.
        limits: as for an extraction.
    """

    def __init__(self, source: BlobSource, layers: Iterable[Layer], limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._facts: dict[Digest, set[tuple[str, str]]] = {}
        for layer in layers:
            if layer.media_type != description.MEDIA_TYPE:
                facts = self._facts.setdefault(Digest(layer.blob), set())
                facts.add((layer.media_type, layer.diff_id or ""))

    def chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """The blob as the other source returns it."""
        return self._source.chunks(digest, size)

    async def verified_chunks(self, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
        """The same, ending in IntegrityError or LayerError unless it is sound."""
        checked = verified(self._source.chunks(digest, size), digest, size)
        facts = self._facts.get(digest)
        passing = checked if facts is None else self._examined(checked, digest, facts)
        async with closing(passing) as chunks:
            async for chunk in chunks:
                yield chunk

    def _examined(
        self, chunks: AsyncIterator[bytes], digest: Digest, facts: set[tuple[str, str]]
    ) -> AsyncIterator[bytes]:
        media_type, diff_id = _agreed(facts, digest)
        work = partial(examine, media_type=media_type, diff_id=Digest(diff_id), limits=self._limits)
        return Pipe(work, "cachefs-examine").passing(chunks)

    async def check(self, digest: Digest, size: int | None) -> None:
        """Read the blob to its end and discard it. Raises the same errors, and StoreError."""
        async with closing(self.verified_chunks(digest, size)) as chunks:
            async for _ in chunks:
                pass


def _agreed(facts: set[tuple[str, str]], digest: Digest) -> tuple[str, str]:
    """One media type and the diffID; OCI's and Docker's media types mean the same.

    Raises LayerError if one is not a layer's, or if manifests contradict each other.
    """
    named = {media_type: named_compression(media_type) for media_type, _ in facts}
    says = {compression for compression in named.values() if compression is not None}
    diff_ids = {diff_id for _, diff_id in facts}
    if len(says) > 1 or len(diff_ids) > 1:
        raise LayerError(
            "manifests say different things of this layer: its media type or diffID cannot be "
            "right in all of them",
            digest=digest,
        )
    telling = [media_type for media_type, compression in named.items() if compression is not None]
    return min(telling, default=""), diff_ids.pop()
