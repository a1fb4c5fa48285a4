"""Examining a layer without a directory: what an extraction would refuse is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.layers.indexing import index_layer
from cachefs.layers.limits import DEFAULT_LIMITS, Limits
from cachefs.layers.tree import merged

if TYPE_CHECKING:
    from cachefs.digest import Digest
    from cachefs.layers.compression import Readable


def examine(
    stream: Readable, *, media_type: str, diff_id: Digest, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Read a layer to its end, and build the tree that it would become, in memory.

    Args:
        stream: the blob, read from its position.
        media_type: if it is empty, the first bytes decide how the blob is compressed.
        diff_id: the digest of the uncompressed archive, which is checked.
        limits: as for an extraction.

    Raises IntegrityError for damaged bytes, LayerError for what an extraction refuses, and OSError.
    """
    merged([index_layer(stream, media_type=media_type, diff_id=diff_id, limits=limits)], limits)
