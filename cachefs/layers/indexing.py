"""An index of a layer's archive: its members, where their data is, and digests to read parts of it.

Part of an archive cannot be compared with the archive's digest. So the index has a digest of every
block of it: with an index that was made of the right archive, any part that is read later is known
to be right, wherever it comes from.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from cachefs.digest import Digest
from cachefs.errors import IntegrityError, LayerError
from cachefs.layers.compression import check_diff_id, decompressed
from cachefs.layers.limits import DEFAULT_LIMITS, Budget, Counted, Limits
from cachefs.layers.tarformat import Archive, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachefs.layers.compression import Readable

BLOCK: Final = 1 << 20
"""Bytes of an archive that have a digest of their own."""

MOST_NAMES: Final = 256 << 20
"""Bytes of all names and targets of links in one archive: an index is held in memory."""

_DIGEST: Final = hashlib.sha256().digest_size


class LayerIndex(Struct, array_like=True, frozen=True):
    """What an archive holds.

    Attributes:
        members: in the order of the archive, each with the offset of its data.
        size: bytes of the archive.
        digests: the SHA-256 of each block of :data:`BLOCK` bytes, one after the other.
    """

    members: list[tuple[Member, int]]
    size: int
    digests: bytes

    def check(self, number: int, block: bytes) -> None:
        """Raise IntegrityError unless these are the bytes of the block."""
        expected = self.digests[number * _DIGEST : (number + 1) * _DIGEST]
        if hashlib.sha256(block).digest() != expected:
            start = number * BLOCK
            raise IntegrityError(
                f"the bytes from {start} on are not those that the layer had when it was indexed"
            )

    def encoded(self) -> bytes:
        """Bytes for :func:`decoded`."""
        return msgspec.msgpack.encode(self)


_decoder: Final = msgspec.msgpack.Decoder(LayerIndex)


def decoded(data: bytes) -> LayerIndex | None:
    """The index; None if the bytes are of another version."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return None


class _Hashed:
    """Hashes an archive and its blocks while its chunks pass."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._block = hashlib.sha256()
        self._digests = bytearray()

    @property
    def digest(self) -> Digest:
        return Digest.from_hex(self._whole.hexdigest())

    def update(self, chunk: bytes) -> None:
        self._whole.update(chunk)
        rest = memoryview(chunk)
        while rest:
            part = rest[: BLOCK - self.size % BLOCK]
            rest = rest[len(part) :]
            self._block.update(part)
            self.size += len(part)
            if self.size % BLOCK == 0:
                self._end_block()

    def digests(self) -> bytes:
        if self.size % BLOCK:
            self._end_block()
        return bytes(self._digests)

    def _end_block(self) -> None:
        self._digests += self._block.digest()
        self._block = hashlib.sha256()


def index_layer(
    stream: Readable,
    *,
    media_type: str,
    diff_id: Digest,
    keep: Callable[[bytes], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> LayerIndex:
    """Read a layer's blob to its end and index what is in it.

    Args:
        stream: the blob, read from its position.
        media_type: if it is empty, the first bytes decide how the blob is compressed.
        diff_id: the digest of the uncompressed archive, which is checked.
        keep: receives the archive's chunks.
        limits: as for an extraction.

    Raises IntegrityError for damaged bytes, LayerError for an archive that is not valid or exceeds
    a limit, and OSError.
    """
    budget = Budget(limits, "read")
    budget.layer()
    hashed = _Hashed()

    def chunks() -> Iterator[bytes]:
        for chunk in decompressed(Counted(stream, budget), media_type):
            budget.expanded(len(chunk))
            hashed.update(chunk)
            if keep is not None:
                keep(chunk)
            yield chunk

    archive = Archive(chunks())
    try:
        members = _members(archive, budget)
    except LayerError:
        # Damaged bytes may look like an invalid archive. Beyond a limit, nothing more is read.
        if not budget.passed:
            archive.drain()
            check_diff_id(hashed.digest, diff_id)
        raise
    archive.drain()
    check_diff_id(hashed.digest, diff_id)
    return LayerIndex(members, hashed.size, hashed.digests())


def _members(archive: Archive, budget: Budget) -> list[tuple[Member, int]]:
    members = []
    names = 0
    for member in archive.members():
        budget.member(member.name, member.link)
        names += len(member.name) + len(member.link)
        if names > MOST_NAMES:
            raise LayerError(f"the names in the layer have more than {MOST_NAMES} bytes")
        members.append((member, archive.offset))
    return members
