"""Opening regular files, and nothing else: a named pipe or a device may be where one is expected.

Opening a named pipe waits for a writer, and reading a device may never end.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from typing import TYPE_CHECKING, Final

from cachefs.errors import NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

_TO_READ: Final = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    # A file may have become a pipe since it was looked at. Files do not change.
    | getattr(os, "O_NONBLOCK", 0)
)


def open_regular(path: str | Path) -> int:
    """Open a regular file to read it; returns its descriptor. Symbolic links are followed.

    The path is looked at first, and the open file again, in case that the path was replaced in
    between. Raises OSError, and NotFoundError for what is neither a file nor a directory.
    """
    _require_file(os.stat(path))  # noqa: PTH116 - a Path takes longer
    number = os.open(path, _TO_READ)
    try:
        _require_file(os.fstat(number))
    except BaseException:
        os.close(number)
        raise
    return number


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, at most ``limit``. Raises OSError for anything else too."""
    try:
        number = open_regular(path)
    except NotFoundError as error:
        raise OSError(errno.EINVAL, error.reason, str(path)) from error
    with os.fdopen(number, "rb") as file:
        return file.read(limit)


def _require_file(status: os.stat_result) -> None:
    mode = status.st_mode
    if modes.S_ISREG(mode):
        return
    if modes.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for is_kind, kind in _NO_FILES:
        if is_kind(mode):
            raise NotFoundError(f"it is {kind}, which is never read: remove it")
    raise NotFoundError("it is not a regular file: remove it")


_NO_FILES: Final = (
    (modes.S_ISFIFO, "a named pipe"),
    (modes.S_ISSOCK, "a socket"),
    (modes.S_ISCHR, "a device"),
    (modes.S_ISBLK, "a device"),
)
