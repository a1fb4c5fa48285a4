"""How layers are compressed, and their media types.

Compressed bytes are the same for the same version of the compression library, on any machine;
another version may compress the same archive differently. The diffID, which is the digest of the
uncompressed bytes, does not depend on the library.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, TYPE_CHECKING, Final, Literal, Protocol, cast

import zstandard

from cachefs.errors import IntegrityError, LayerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefs.digest import Digest

Compression = Literal["zstd", "gzip", "uncompressed"]

MEDIA_TYPES: Final[dict[Compression, str]] = {
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "uncompressed": "application/vnd.oci.image.layer.v1.tar",
}
"""The media types of packed layers."""

READ_SIZE: Final = 1024 * 1024
"""Bytes read, compressed or expanded at a time."""

_LEVELS: Final[dict[Compression, range]] = {
    "zstd": range(23),
    "gzip": range(10),
    "uncompressed": range(0),
}
_DEFAULT_LEVELS: Final[dict[Compression, int]] = {"zstd": 3, "gzip": 6, "uncompressed": 0}
_SUFFIXES: Final[tuple[tuple[str, Compression], ...]] = (
    (".tar+zstd", "zstd"),
    (".tar.zstd", "zstd"),
    (".tar+gzip", "gzip"),
    (".tar.gzip", "gzip"),
    (".tar", "uncompressed"),
)
_UNKNOWN: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})

# No name, no time, operating system "unknown": zlib's own header depends on the platform.
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

ZSTD_WINDOW: Final = 1 << 27
"""The largest window of a zstd stream, in bytes: what every decoder accepts by default."""

# zlib copies what it has not read at the end of each member, and a member may have 20 bytes.
_INFLATED: Final = 32 * 1024


class Compressor(Protocol):
    """Compresses the chunks of an archive into the bytes of a blob."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress a chunk; returns the bytes that are ready, perhaps none."""

    def flush(self) -> bytes:
        """End the stream; returns the remaining bytes."""


class Readable(Protocol):
    """A stream that a blob is read from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most ``size``; none at the end."""


class _Gzip:
    def __init__(self, level: int) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._ready = _GZIP_HEADER
        self._crc = 0
        self._size = 0

    def compress(self, data: bytes, /) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        ready, self._ready = self._ready + self._deflate.compress(data), b""
        return ready

    def flush(self) -> bytes:
        trailer = struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF)
        return self._ready + self._deflate.flush() + trailer


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression, level: int | None = None) -> Compressor:
    """A compressor whose settings depend only on its arguments.

    Levels are 0 to 22 for zstd (3 if None; 0 is the fastest, 1, as for builders) and 0 to 9 for
    gzip (6 if None). Raises UsageError.
    """
    if compression not in MEDIA_TYPES:
        raise UsageError(f"compression {compression!r} is not one of {', '.join(MEDIA_TYPES)}")
    if level is not None and level not in _LEVELS[compression]:
        raise UsageError(f"{compression} has no level {level}")
    if level is None:
        level = _DEFAULT_LEVELS[compression]
    if compression == "zstd":
        # One thread: more are faster for large layers and slower for small ones. Parallel steps
        # already use the cores, and the bytes depend only on the library.
        # The library takes 0 as its default level; builders take it as the fastest.
        return zstandard.ZstdCompressor(level=max(level, 1)).compressobj()
    return _Gzip(level) if compression == "gzip" else _Plain()


def check_diff_id(found: Digest, diff_id: Digest) -> None:
    """Raise IntegrityError unless this is the digest of the archive that a layer has."""
    if found != diff_id:
        raise IntegrityError(
            f"the layer's bytes are damaged: uncompressed, their digest is {found}", digest=diff_id
        )


def decompressed(stream: Readable, media_type: str) -> Iterator[bytes]:
    """The archive inside a layer's blob, in chunks of at most :data:`READ_SIZE` bytes.

    The media type may be OCI's or Docker's; if it is empty or generic, the first bytes decide.
    Memory is bounded, however far the blob expands. A blob that ends too early is not always
    detected here: the caller calls :func:`check_diff_id`. Raises LayerError if the media type is
    not a layer's, and IntegrityError if the bytes are damaged.
    """
    head = stream.read(READ_SIZE)
    compression = _compression(media_type, head)
    chunks = _chained(head, stream)
    if compression == "uncompressed":
        return chunks
    return _from_gzip(chunks) if compression == "gzip" else _from_zstd(chunks)


def _compression(media_type: str, head: bytes) -> Compression:
    if (named := named_compression(media_type)) is not None:
        return named
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    return "zstd" if head.startswith(_ZSTD_MAGIC) else "uncompressed"


def named_compression(media_type: str) -> Compression | None:
    """How a layer with this media type is compressed; None if that does not say it.

    Raises LayerError if it is not the media type of a layer.
    """
    if media_type in _UNKNOWN:
        return None
    for suffix, compression in _SUFFIXES:
        if media_type.endswith(suffix):
            return compression
    raise LayerError(f"{media_type!r} is not the media type of a layer")


def _chained(head: bytes, stream: Readable) -> Iterator[bytes]:
    while head:
        yield head
        head = stream.read(READ_SIZE)


def _from_gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The data of all members of a gzip stream, which may hold a byte each, in larger chunks."""
    small = bytearray()
    for data in _inflated(chunks):
        if not small and len(data) >= _INFLATED:
            yield data
            continue
        small += data
        if len(small) >= _INFLATED:
            yield bytes(small)
            small.clear()
    if small:
        yield bytes(small)


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        for cut in _cut(chunks, _INFLATED):
            rest = cut
            while rest:
                if inflate.eof:
                    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
                if data := inflate.decompress(rest, READ_SIZE):
                    yield data
                rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        # Data that did not fit into the last chunk is still inside the decompressor.
        while data := inflate.decompress(b"", READ_SIZE):
            yield data
    except zlib.error as error:
        raise IntegrityError(f"the gzip stream is damaged: {error}") from error


def _cut(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


def _from_zstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The data of all frames of a zstd stream."""
    expand = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    source = cast("IO[bytes]", _Readable(chunks))
    try:
        with expand.stream_reader(source, read_size=READ_SIZE, read_across_frames=True) as reader:
            while data := reader.read(READ_SIZE):
                yield data
    except zstandard.ZstdError as error:
        raise IntegrityError(f"the zstd stream is damaged: {error}") from error


class _Readable:
    """Chunks as a stream with the one method that zstandard calls."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, _size: int = -1) -> bytes:
        return next(self._chunks, b"")
