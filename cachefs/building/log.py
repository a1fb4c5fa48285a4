"""The log: a command's output, kept chunk by chunk so that it can be replayed.

A file of frames: one byte for the stream (1 or 2), four for the length (big endian), then the
bytes.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from cachefs.errors import IntegrityError
from cachefs.layers.beneath import Beneath, NotRegularError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME: Final = ".cachefs-log"
"""The name of the file, which is the only one in its layer."""

_FRAME: Final = struct.Struct(">BI")
_TAIL: Final = 4000
_READ_SIZE: Final = 64 * 1024


class LogWriter:
    """Appends a command's output, and keeps its end for messages.

    Attributes:
        error: what made it incomplete, such as a full disk. That must not stop the command.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file
        self._tail = bytearray()

    def write(self, stream: int, data: bytes) -> None:
        """Append a chunk of output."""
        if self.error is None:
            try:
                self._file.write(_FRAME.pack(stream, len(data)) + data)
            except OSError as error:
                self.error = error
        self._tail += data
        del self._tail[:-_TAIL]

    def close(self) -> None:
        """Write what is buffered."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error

    def tail(self) -> str:
        """The last lines."""
        return self._tail.decode(errors="replace").strip()


def opened(directory: Path) -> BinaryIO:
    """The log in a directory that its layer was extracted to, at its start, and checked.

    Raises IntegrityError, also if it is not a file, and OSError.
    """
    with Beneath.at(directory) as beneath:
        try:
            file = os.fdopen(beneath.open_file((os.fsencode(NAME),)), "rb")
        except (FileNotFoundError, NotRegularError) as error:
            raise IntegrityError("the log of the command is missing") from error
    try:
        for _ in frames(file):
            pass
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


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
            data = file.read(min(left, _READ_SIZE))
            if not data:
                raise _damaged()
            left -= len(data)
            yield stream, data


def _damaged() -> IntegrityError:
    return IntegrityError("the log of the command is damaged")
