"""What an error of the operating system means and what to do, by ``errno``, never by its text."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.errors import AccessError, CacheError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

A_FILE: Final = "a file is in the way of a directory: give another path"
_REASONS: Final = {
    errno.EACCES: "access is denied: check the owner and the mode of the directory",
    errno.EPERM: "access is denied: check the owner and the mode of the directory",
    errno.EROFS: "the filesystem is read-only: give another path",
    errno.ENOSPC: "the disk is full: free some space, then run it again",
    errno.EDQUOT: "the quota is used up: free some space, then run it again",
    errno.EFBIG: "the file is larger than the filesystem or 'ulimit -f' permits",
    errno.ENOTDIR: A_FILE,
    errno.EEXIST: A_FILE,
    errno.EISDIR: "a directory is in the way of a file: give another path",
    errno.ENAMETOOLONG: "the name is too long for this filesystem: choose a shorter one",
    errno.ELOOP: "symbolic links lead in a circle: remove them, or give another path",
    errno.EBUSY: "it is in use, or something is mounted there: end what uses it, or give another "
    "path",
    errno.ETXTBSY: "it is a program that is running: end it, or give another path",
    errno.EMFILE: "too many files are open: raise the limit with 'ulimit -n'",
    errno.ENFILE: "too many files are open on this machine: close some programs",
    errno.ENOMEM: "there is not enough memory: end some programs, or raise the limit",
    errno.EAGAIN: "the machine has no more processes or threads: raise the limit with 'ulimit -u'",
    errno.EIO: "the disk failed: check it and the system's log",
    errno.ESTALE: "the network filesystem has lost it: mount it again",
    errno.ENOLCK: "the filesystem cannot lock files: mount it with locks, or give another path",
    errno.EXDEV: "it is on another filesystem: give a path on the same one",
}
_DENIED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}


def system_reason(error: OSError) -> str | None:
    """What the error means, and what to do; None if its number is not known here."""
    return _REASONS.get(error.errno or 0)


def system_error(error: OSError, operation: str, path: str | None = None) -> StoreError:
    """Make the error for one of this machine, not of a store: what was done, where, what to do.

    Args:
        error: the system's error.
        operation: what was being done.
        path: where, unless the error knows it.
    """
    named = error.filename if isinstance(error.filename, str | bytes) else None
    where = path if named is None else os.fsdecode(named)
    reason = system_reason(error) or error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        reason, where = _absent(error, where)
    elif error.errno in _SPACE and (where is None or _is_temporary(where)):
        reason += ", or set TMPDIR to a directory on another disk"
    kind = AccessError if error.errno in _DENIED else StoreError
    failure = kind(reason, operation=operation, key=where)
    failure.__cause__ = error
    return failure


def _absent(error: OSError, where: str | None) -> tuple[str, str | None]:
    try:
        os.getcwd()  # noqa: PTH109 - the call that fails
    except OSError:
        return "the working directory does not exist any more: change to another one", None
    if where is None:
        # From the tempfile module, which names the directories that it tried.
        return f"{error.strerror or error}: set TMPDIR to a directory that can be written", None
    return "there is no such file or directory: create it, or give another path", where


def _is_temporary(path: str) -> bool:
    return Path(path).absolute().is_relative_to(tempfile.gettempdir())


@contextmanager
def temporary_files() -> Iterator[None]:
    """Convert errors of temporary files to StoreErrors that state their directory."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        raise system_error(error, "write a temporary file in", _directory()) from error


def _directory() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:
        return None
