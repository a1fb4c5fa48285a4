"""Puts outputs in place: each replaces the old one only when it is complete."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX: Final = ".cachefs-restore-"
"""The prefix of the names of temporary directories."""

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_NO_EXCHANGE: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
_RACED: Final = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
_ATTEMPTS: Final = 100


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """A temporary directory next to the outputs, on the same disk, removed at the end.

    Temporary directories that killed processes left here are removed too.
    """
    path, lock = _locked_directory(directory)
    try:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
        _sweep(directory)
    finally:
        os.close(lock)


def _locked_directory(directory: Path) -> tuple[Path, int]:
    """A new directory, locked for as long as this process lives."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # on disks without locks, nothing is swept
                fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def _sweep(directory: Path) -> None:
    """Remove the directories of processes that have ended."""
    for path in directory.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def put_in_place(staged: Path, directory: Path, outputs: Iterable[str]) -> None:
    """Move outputs from a staged tree on the same disk into a directory, one by one.

    Each replaces the old one atomically, so that readers find either one complete, even if this
    process is killed. If the system or disk cannot exchange directories, two renames are used:
    between them a reader finds no output, but never a partial one; after an error the old one is
    put back. Outputs that the staged tree lacks are left alone. Raises UsageError and OSError.
    """
    for output in outputs:
        origin = staged / output
        if os.path.lexists(origin):
            target = directory / output
            _make_parents(directory, output)
            _swap(origin, target, staged)


def _make_parents(directory: Path, output: str) -> None:
    """Make parent directories; none may be a symbolic link, because it could lead anywhere."""
    path = directory
    for part in Path(output).parts[:-1]:
        path /= part
        with suppress(FileExistsError):
            path.mkdir()
        if path.is_symlink() or not path.is_dir():
            raise UsageError(
                f"{path} is not a directory, so the output {output} cannot be put below it"
            )


def _swap(origin: Path, target: Path, staged: Path) -> None:
    """Move the output to the target. What was there ends up in the staged tree."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            _swap_once(origin, target, staged)
        except OSError as error:
            # Another process put the same output in place between the check and the move.
            if error.errno not in _RACED or not left or not os.path.lexists(origin):
                raise
        else:
            return


def _swap_once(origin: Path, target: Path, staged: Path) -> None:
    if not _is_directory(origin) and not _is_directory(target):
        origin.replace(target)
    elif not os.path.lexists(target):
        origin.rename(target)
    elif not _exchange(origin, target):
        _swap_in_two(origin, target, staged)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False if the system cannot."""
    import ctypes  # noqa: PLC0415 - slow to load, and needed only to replace directories

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _swap_in_two(origin: Path, target: Path, staged: Path) -> None:
    old = staged.parent / f"{staged.name}-{secrets.token_hex(4)}"
    target.rename(old)
    try:
        origin.rename(target)
    except BaseException:
        old.rename(target)
        raise


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
