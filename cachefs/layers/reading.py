"""Reading one small file of a layer into memory, without a directory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

from cachefs.digest import Digest
from cachefs.errors import LayerError
from cachefs.layers import tarformat
from cachefs.layers.compression import check_diff_id, decompressed
from cachefs.layers.limits import DEFAULT_LIMITS, Budget, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_file(
    stream: BinaryIO,
    name: str,
    *,
    media_type: str,
    diff_id: Digest,
    limits: Limits = DEFAULT_LIMITS,
) -> bytes:
    """The content of the only file of a layer.

    Args:
        stream: the layer's blob, read from its position.
        name: the file.
        media_type: the blob's; if it is empty, the first bytes decide how it is compressed.
        diff_id: the digest of the uncompressed archive, which is checked.
        limits: as for an extraction.

    Raises IntegrityError for damaged bytes, LayerError if the archive is not valid, exceeds a limit
    or holds anything else, and OSError.
    """
    budget = Budget(limits, "read")
    budget.layer()
    hashed = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        for chunk in decompressed(stream, media_type):
            budget.expanded(len(chunk))
            hashed.update(chunk)
            yield chunk

    archive = tarformat.Archive(chunks())
    content: bytes | None = None
    try:
        for member in archive.members():
            budget.member(member.name, member.link)
            if member.kind != tarformat.FILE or member.name != name.encode() or content is not None:
                raise LayerError(f"the layer holds more than the file {name!r}")
            content = b"".join(map(bytes, archive.data(member)))
    finally:
        archive.drain()
        found = Digest.from_hex(hashed.hexdigest())
    check_diff_id(found, diff_id)
    if content is None:
        raise LayerError(f"the layer has no file {name!r}")
    return content
