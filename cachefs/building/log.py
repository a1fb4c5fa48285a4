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
_CHUNK: Final = 64 * 1024


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
    """The output in order, in chunks of at most 64 KiB, each with its stream.

    A frame may claim to have 4 GiB, so it is not read at once. Raises IntegrityError if the file is
    damaged; the chunks before the damage were yielded.
    """
    while head := file.read(_FRAME.size):
        stream, left = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, 0)
        if stream not in (1, 2):
            raise _damaged()
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                raise _damaged()
            left -= len(data)
            yield stream, data


def _damaged() -> IntegrityError:
    return IntegrityError("the log of the command is damaged")
