"""Standard input of ``cachefs run``: part of the key, or noticed when it is read."""

from __future__ import annotations

import array
import errno
import fcntl
import hashlib
import os
import select
import stat
import tempfile
import termios
import threading
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from cachefs.building.steps import Source
from cachefs.keying.keys import Entry, tree_digest
from cachefs.keying.sources import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME: Final = "/dev/stdin"
"""Its name among the inputs, which are otherwise relative paths."""

UNDECLARED: Final = (
    "the command read its standard input, which is no part of its key; use --stdin to count it"
)

_STDIN: Final = 0
_IN_MEMORY: Final = 1 << 20
_READ_SIZE: Final = 1 << 20
_PIPE_SIZE: Final = 1 << 16
_NONBLOCK: Final = 2  # SPLICE_F_NONBLOCK
_SHORTEST, _LONGEST = 0.001, 0.02  # seconds between looks at a pipe that is not read yet


class DeclaredInput(Source):
    """Standard input, read to its end: an input like a file with these bytes.

    They are in memory, or, if they are many, in a temporary file. A closed one is empty.
    """

    def __init__(self) -> None:
        super().__init__(b"")
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed
        hashed = hashlib.sha256()
        with suppress(IsADirectoryError):
            while data := _read(_READ_SIZE):
                hashed.update(data)
                self._file.write(data)
        entries = {b"": Entry("f", hashed.digest())}
        self._content = Content(tree_digest(entries), entries, {})

    def again(self) -> Content:
        """The content, which does not change."""
        return self._content

    def descriptor(self) -> int:
        """A descriptor of the bytes, at their start."""
        self._file.seek(0)
        return self._file.fileno()

    def close(self) -> None:
        """Give up the bytes."""
        self._file.close()


def _read(size: int) -> bytes:
    try:
        return os.read(_STDIN, size)
    except OSError as error:
        if error.errno == errno.EBADF:
            return b""
        raise


class Watch:
    """Notices whether a command reads something from standard input.

    Attributes:
        descriptor: what the command gets as its standard input; None for that of this program.
        was_read: whether a byte was read; complete at the end.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.was_read = False


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch standard input, if it is a file or pipe, and take nothing from it.

    A file's position shows what was read. A pipe is replaced by another for the command: it gets
    copies of the next bytes, which are taken from the original when the command has read them, so
    that others who share it (``... | while read name; do cachefs run ...``) find all that the
    command did not read. A terminal or device is left alone.
    """
    watch = Watch()
    try:
        kind = os.fstat(_STDIN).st_mode
    except OSError:
        kind = 0
    if stat.S_ISREG(kind):
        before = os.lseek(_STDIN, 0, os.SEEK_CUR)
        yield watch
        watch.was_read = os.lseek(_STDIN, 0, os.SEEK_CUR) != before
    elif stat.S_ISFIFO(kind):
        with _copied(watch):
            yield watch
    else:
        yield watch


@contextmanager
def _copied(watch: Watch) -> Iterator[None]:
    copy, target = os.pipe()
    ended, end = os.pipe()
    relay = _Relay(copy, target, ended)
    if not relay.works:
        for descriptor in (copy, target, ended, end):
            os.close(descriptor)
        yield
        return
    thread = threading.Thread(target=relay.run, name="cachefs-stdin", daemon=True)
    thread.start()
    watch.descriptor = copy
    try:
        yield
    finally:
        os.close(end)
        thread.join()
        watch.was_read = relay.was_read
        watch.descriptor = None
        os.close(copy)
        os.close(ended)


class _Relay:
    """Copies a pipe's bytes to another, and takes them from the first when they have been read.

    The second holds nothing but what the first begins with.
    """

    def __init__(self, copy: int, target: int, ended: int) -> None:
        import ctypes  # noqa: PLC0415 - slow to load, and needed only for pipes

        self.was_read = False
        self._tee: Callable[[int, int, int, int], int] | None
        self._tee = getattr(ctypes.CDLL(None, use_errno=True), "tee", None)
        self._errno = ctypes.get_errno
        self._copy = copy
        self._target = target
        self._ended = ended
        self._unread = 0

    @property
    def works(self) -> bool:
        """Whether the system can copy from a pipe without taking anything from it."""
        return self._tee is not None

    def run(self) -> None:
        """Until the pipe or the command ends."""
        pause = _SHORTEST
        try:
            while not self._wait_for_end(pause if self._unread else 0):
                if self._unread:
                    pause = _SHORTEST if self._take_what_was_read() else min(2 * pause, _LONGEST)
                elif not self._copy_more():
                    break
            self._take_what_was_read()
        finally:
            os.close(self._target)

    def _wait_for_end(self, seconds: float) -> bool:
        return bool(select.select([self._ended], [], [], seconds)[0])

    def _copy_more(self) -> bool:
        """Copy the next bytes when there are some; False at the end of the pipe."""
        copied = self._tee(_STDIN, self._target, _PIPE_SIZE, _NONBLOCK) if self._tee else 0
        if copied < 0 and self._errno() in (errno.EAGAIN, errno.EINTR):
            select.select([_STDIN, self._ended], [], [])
            return True
        self._unread = max(copied, 0)
        return copied > 0

    def _take_what_was_read(self) -> bool:
        """Take from the pipe what the command has read from the copy."""
        left = array.array("i", [0])
        fcntl.ioctl(self._copy, termios.FIONREAD, left)
        taken = self._unread - left[0]
        self._unread = left[0]
        self.was_read = self.was_read or taken > 0
        rest = taken
        while rest > 0:
            rest -= len(os.read(_STDIN, rest)) or rest
        return taken > 0
