"""Sparse files: which parts of a file are stored, and how the archive says where they belong.

Every block of 64 KiB that has only zeros and lies at a multiple of 64 KiB is a hole, whether or not
the disk has one there: so the same content gives the same archive. The format is that of pax, GNU
version 1.0, which GNU tar, Python and Go (and so builders) read: the file's data begins with a map,
numbers in decimal, each with a newline: how many parts there are, then the offset and the size of
each.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Final

from cachefs.errors import LayerError
from cachefs.layers.tarformat import padding

if TYPE_CHECKING:
    from collections.abc import Iterator

    Parts = list[tuple[int, int]]
    """Offsets and sizes, in order; between them are holes."""

BLOCK: Final = 64 * 1024

MOST_PARTS: Final = 65_536
"""A file with more parts is stored as a plain file."""

_READ_SIZE: Final = 16 * BLOCK
_ZEROS: Final = bytes(BLOCK)
_MOST_DIGITS: Final = 18


def data_parts(descriptor: int, size: int) -> Parts | None:
    """The parts of a file that are not holes; None if it has no hole. Raises OSError.

    What the disk knows to be a hole is not read.
    """
    parts: Parts = []
    position, stored = 0, 0
    while position < size:
        position = _next_data(descriptor, position, size)
        data = os.pread(descriptor, min(_READ_SIZE, size - position), position)
        if not data:
            break
        for start in range(0, len(data), BLOCK):
            if data.startswith(_ZEROS, start):
                continue
            length = min(BLOCK, len(data) - start)
            stored += length
            if parts and sum(parts[-1]) == position + start:
                parts[-1] = (parts[-1][0], parts[-1][1] + length)
            else:
                parts.append((position + start, length))
        position += len(data) if len(data) % BLOCK == 0 else size
    return None if stored >= size or len(parts) > MOST_PARTS else parts


def _next_data(descriptor: int, position: int, size: int) -> int:
    """Where the next block with data begins, at the earliest; the size if none follows."""
    try:
        found = os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return max(position, size - size % BLOCK)
        return position  # the disk does not know
    return min(max(position, found - found % BLOCK), size)


def written_map(parts: Parts, size: int) -> bytes:
    """The map, padded to whole blocks of the archive."""
    if not parts or sum(parts[-1]) < size:
        parts = [*parts, (size, 0)]
    numbers = [len(parts), *(number for part in parts for number in part)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


def stored_size(parts: Parts, size: int) -> int:
    """Bytes that the file takes in the archive."""
    return len(written_map(parts, size)) + sum(length for _, length in parts)


def hash_stored(descriptor: int, size: int) -> bytes:
    """The SHA-256 of the bytes that the file takes in the archive. Raises OSError."""
    parts = data_parts(descriptor, size)
    hashed = hashlib.sha256()
    if parts is not None:
        hashed.update(written_map(parts, size))
    for offset, length in [(0, size)] if parts is None else parts:
        position, end = offset, offset + length
        while position < end:
            data = os.pread(descriptor, min(_READ_SIZE, end - position), position)
            if not data:
                break
            hashed.update(data)
            position += len(data)
    return hashed.digest()


def placed(data: Iterator[memoryview], stored: int, size: int) -> Iterator[tuple[int, memoryview]]:
    """The chunks of a member's data after its map, each with its offset in the file.

    Args:
        data: the chunks of the member's data.
        stored: how many bytes they have.
        size: the size of the file.

    Raises LayerError if the map is not valid.
    """
    reader = _MapReader(data)
    parts = reader.parts(size)
    if reader.taken + sum(length for _, length in parts) != stored:
        raise _malformed()
    rest = reader.rest()
    chunk = next(rest, memoryview(b""))
    for start, length in parts:
        offset, left = start, length
        while left:
            if not chunk and (chunk := next(rest, chunk)).nbytes == 0:
                raise _malformed()
            now, chunk = chunk[:left], chunk[left:]
            yield offset, now
            offset += len(now)
            left -= len(now)


class _MapReader:
    """Takes numbers from the chunks at the beginning of a member's data.

    Attributes:
        taken: bytes of the map, with its padding.
    """

    def __init__(self, data: Iterator[memoryview]) -> None:
        self.taken = 0
        self._data = data
        self._buffer = bytearray()
        self._position = 0

    def parts(self, size: int) -> Parts:
        count = self._number()
        if count > MOST_PARTS + 1:
            raise LayerError(f"a sparse file has more than {MOST_PARTS} parts; it is not extracted")
        parts: Parts = []
        end = 0
        for _ in range(count):
            offset, length = self._number(), self._number()
            if offset < end or offset + length > size:
                raise _malformed()
            parts.append((offset, length))
            end = offset + length
        self.taken = self._position + len(padding(self._position))
        while len(self._buffer) < self.taken:
            self._read()
        return parts

    def rest(self) -> Iterator[memoryview]:
        if len(self._buffer) > self.taken:
            yield memoryview(bytes(self._buffer[self.taken :]))
        yield from self._data

    def _number(self) -> int:
        while (end := self._buffer.find(b"\n", self._position)) < 0:
            if len(self._buffer) - self._position > _MOST_DIGITS:
                raise _malformed()
            self._read()
        text = bytes(self._buffer[self._position : end])
        self._position = end + 1
        if not text.isdigit() or len(text) > _MOST_DIGITS:
            raise _malformed()
        return int(text)

    def _read(self) -> None:
        chunk = next(self._data, None)
        if chunk is None:
            raise _malformed()
        self._buffer += chunk


def _malformed() -> LayerError:
    return LayerError("the layer is not a tar archive: the map of a sparse file is not valid")
