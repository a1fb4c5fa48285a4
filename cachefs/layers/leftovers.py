"""Temporary directories next to outputs, and what killed processes left of them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.layers.beneath import Beneath, split

if TYPE_CHECKING:
    from collections.abc import Iterator

RESTORING: Final = ".cachefs-restore-"
"""The prefix of directories that results are extracted to; what is left of them is worthless."""

BEFORE: Final = ".cachefs-before-"
"""The prefix of directories that hold what lay at outputs before a command that still runs."""

SCRATCH: Final = "cachefs-build-"
"""The prefix of scratch directories, which are among the system's temporary files."""

PREFIXES: Final = (RESTORING, BEFORE, SCRATCH)

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def locked_directory(directory: Path, prefix: str) -> tuple[Path, int]:
    """A new directory, and a descriptor of it, locked for as long as that is open."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = os.open(path, _DIRECTORY)
            with suppress(OSError):  # on disks without locks, nothing is swept
                fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def remove(path: Path) -> None:
    """Remove a directory as far as possible."""
    with suppress(OSError), Beneath.at(path.parent) as parent:
        parent.remove(split(path.name))


@contextmanager
def of_ended_processes(directory: Path, prefix: str) -> Iterator[list[Path]]:
    """The directories with this prefix whose processes have ended, locked meanwhile."""
    found: list[Path] = []
    locks: list[int] = []
    try:
        for path in _named(directory, prefix):
            with suppress(OSError):
                lock = os.open(path, _DIRECTORY)
                locks.append(lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    found.append(path)
        yield found
    finally:
        for lock in locks:
            os.close(lock)


def _named(directory: Path, prefix: str) -> list[Path]:
    with suppress(OSError), os.scandir(directory) as entries:
        return [directory / entry.name for entry in entries if entry.name.startswith(prefix)]
    return []


def sweep(directory: Path, prefix: str = RESTORING) -> None:
    """Remove what killed restores left here, or other processes by another prefix."""
    with of_ended_processes(directory, prefix) as found:
        for path in found:
            remove(path)
