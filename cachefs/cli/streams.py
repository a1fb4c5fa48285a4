"""Standard streams that never stop the work, whatever is behind them.

A closed stream is opened on ``/dev/null``, so that no other file gets its number. Output waits for
a reader that is slow (a non-blocking pipe, as Node and ssh make them), and is dropped once it
cannot be written: the work goes on to its end, and :func:`fault` says what became of the output.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STREAMS: Final = (0, 1, 2)
_BUFFER: Final = 64 * 1024


class _Output(io.RawIOBase):
    """A descriptor that takes all bytes: it waits for a slow reader, and drops after an error."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.failure: OSError | None = None

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all bytes, or drop them. Never raises OSError."""
        left = memoryview(data).cast("B")
        length = len(left)
        while left and self.failure is None:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:
                select.select([], [self._number], [])
            except OSError as error:
                self.failure = error
        return length


_outputs: dict[int, _Output] = {}


def prepare() -> None:
    """Replace the standard streams by those of this module. Called once, at the beginning."""
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one. Commands inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, never closed
    sys.stdout = _text(1, sys.stdout)
    sys.stderr = _text(2, sys.stderr)


def _text(number: int, before: object) -> io.TextIOWrapper:
    """A text stream that writes what its encoding lacks as escapes."""
    output = _outputs[number] = _Output(number)
    return io.TextIOWrapper(
        io.BufferedWriter(output, _BUFFER),
        encoding=getattr(before, "encoding", None),
        errors="backslashreplace",
        line_buffering=number == 2 or output.isatty(),
    )


def finish() -> str | None:
    """Write what is buffered, and say why the output could not be written, if it could not.

    A reader that does not want more, such as ``| head``, is no reason; nor is standard error, where
    nobody could be told.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # somebody closed it
            stream.flush()
    failure = _outputs[1].failure if _outputs else None
    if failure is None or failure.errno == errno.EPIPE:
        return None
    return f"cannot write to standard output: {failure.strerror}; what was printed is incomplete"
