"""The log: a command's output, kept chunk by chunk so that it can be replayed.

A file of frames: one byte for the stream (1 or 2), four for the length (big endian), then the
bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from cachefs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = ".cachefs-log"
"""The name of the file, which is the only one in its layer."""

_FRAME: Final = struct.Struct(">BI")
_TAIL: Final = 4000


class LogWriter:
    """Appends a command's output, and keeps its end for messages."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tail = bytearray()

    def write(self, stream: int, data: bytes) -> None:
        """Append a chunk of output."""
        self._file.write(_FRAME.pack(stream, len(data)) + data)
        self._tail += data
        del self._tail[:-_TAIL]

    def tail(self) -> str:
        """The last lines."""
        return self._tail.decode(errors="replace").strip()


def frames(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The chunks in order, each with its stream. Raises IntegrityError."""
    while head := file.read(_FRAME.size):
        stream, length = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, 0)
        data = file.read(length)
        if stream not in (1, 2) or len(data) != length:
            raise IntegrityError("the log of the command is damaged")
        yield stream, data
