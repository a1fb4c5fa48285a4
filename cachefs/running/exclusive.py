"""One run at a time at each output: two would move each other's outputs away."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import xxhash

from cachefs.errors import UsageError
from cachefs.user_directory import user_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

logger = logging.getLogger("cachefs")

VARIABLE: Final = "CACHEFS_RUNNING"
"""Set for a command whose outputs are locked. A run that it starts does not wait for any other:
what that one waits for in turn could be this command."""

_PAUSE: Final = 0.05
_QUIET: Final = 20
"""How many pauses are made before it is told that there is something to wait for."""


_held: set[Path] = set()
"""What this process has locked. Locks belong to a process: none is taken twice, and closing the
lock file anywhere would release all."""


@contextmanager
def exclusive(outputs: Iterable[Path]) -> Iterator[None]:
    """Wait until no other run of this user is at work at one of these paths, above or below it.

    Inside such a block, another one for some of its paths waits for nothing. Without a usable lock
    file, there is nothing to wait for.
    """
    real = {Path(os.path.realpath(path.parent), path.name) for path in outputs}
    descriptor = -1 if VARIABLE in os.environ or real <= _held else _lock_file()
    if descriptor < 0:
        yield
        return
    try:
        _wait(descriptor, _wanted(real))
        _held.update(real)
        yield
    finally:
        _held.difference_update(real)
        os.close(descriptor)  # and all locks with it


def _wanted(real: Iterable[Path]) -> dict[int, int]:
    """The locks by their places in the lock file: exclusive ones for outputs, shared ones above."""
    shared = {_place(above): fcntl.LOCK_SH for path in real for above in path.parents}
    return shared | {_place(path): fcntl.LOCK_EX for path in real}


def _place(path: Path) -> int:
    """A byte of the lock file for each path: no file has to be made, and later removed, for it."""
    return xxhash.xxh3_64_intdigest(os.fsencode(path)) >> 2


def _lock_file() -> int:
    try:
        return os.open(user_cache() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, UsageError):
        return -1


def _wait(descriptor: int, wanted: Mapping[int, int]) -> None:
    """Lock everything. Nothing is held while waiting, so that no two runs wait for each other."""
    pauses = 0
    while not _try_all(descriptor, wanted):
        if pauses == _QUIET:
            logger.warning("waiting for another cachefs run that makes the same outputs here")
        pauses += 1
        time.sleep(_PAUSE)


def _try_all(descriptor: int, wanted: Mapping[int, int]) -> bool:
    """Lock everything or nothing; True too if the disk has no locks."""
    for place, kind in wanted.items():
        try:
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            for locked in wanted:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, locked)
            return False
        except OSError:
            return True
    return True
