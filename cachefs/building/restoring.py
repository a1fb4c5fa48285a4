"""Puts outputs in place: all of them when they are complete, or none."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from cachefs.building import leftovers
from cachefs.errors import UsageError
from cachefs.layers.beneath import Beneath, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cachefs.layers.beneath import Parts

_RACED: Final = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
_ATTEMPTS: Final = 100


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """A temporary directory next to the outputs, on the same disk, removed at the end.

    Temporary directories that killed processes left here are removed too.
    """
    path, lock = leftovers.locked_directory(directory, leftovers.RESTORING)
    try:
        try:
            yield path
        finally:
            leftovers.remove(path)
        leftovers.sweep(directory)
    finally:
        os.close(lock)


def put_in_place(
    staged: Path, directory: Path, outputs: Iterable[str], *, over_links: bool = False
) -> None:
    """Move outputs from a staged tree on the same disk into a directory: all, or none.

    Each replaces the old one atomically, so that readers find either one complete, even if this
    process is killed. If the system or disk cannot exchange directories, two renames are used:
    between them a reader finds no output, but never a partial one. After an error everything is as
    it was. Outputs that the staged tree lacks are left alone, and no link is followed in either
    tree. A link to a directory is not replaced by a directory, unless ``over_links`` is true:
    users make such links to keep outputs elsewhere. Raises UsageError and OSError.
    """
    with Beneath.at(staged) as new, Beneath.at(directory) as place, ExitStack() as undo:
        for output in outputs:
            path = split(output)
            if new.exists(path):
                _make_parents(place, path, output, undo)
                if not over_links and new.is_directory(path) and leads_to_directory(place, path):
                    raise UsageError(f"{output} is a symbolic link to a directory here")
                _swap(new, place, path, undo)
        undo.pop_all()


def _make_parents(place: Beneath, path: Parts, output: str, undo: ExitStack) -> None:
    """Make parent directories; none may be a symbolic link, because it could lead anywhere."""
    for depth in range(1, len(path)):
        if not place.exists(path[:depth]):
            undo.callback(_remove_empty, place, path[:depth])
        try:
            place.directory(path[:depth], make=True)
        except NotADirectoryError as error:
            above = os.fsdecode(b"/".join(path[:depth]))
            raise UsageError(
                f"{above} is not a directory, so the output {output} cannot be put below it"
            ) from error


def _remove_empty(place: Beneath, path: Parts) -> None:
    with suppress(OSError):
        os.rmdir(path[-1], dir_fd=place.directory(path[:-1]))
    place.forget(path)


def _swap(new: Beneath, place: Beneath, path: Parts, undo: ExitStack) -> None:
    """Move the output to its place. What was there ends up in the staged tree."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            _swap_once(new, place, path, undo)
        except OSError as error:
            # Another process put the same output in place between the check and the move.
            if error.errno not in _RACED or not left or not new.exists(path):
                raise
        else:
            return


def _swap_once(new: Beneath, place: Beneath, path: Parts, undo: ExitStack) -> None:
    if not place.exists(path):
        new.rename(path, place, path)
        undo.callback(place.rename, path, new, path)
        return
    if new.exchange(path, place, path):
        undo.callback(new.exchange, path, place, path)
        return
    old = (b"old-%s" % secrets.token_hex(8).encode(),)
    _keep_old(new, place, path, old)
    try:
        new.rename(path, place, path)
    except BaseException:
        new.rename(old, place, path)
        raise
    undo.callback(new.rename, old, place, path)
    undo.callback(place.rename, path, new, path)


def _keep_old(new: Beneath, place: Beneath, path: Parts, old: Parts) -> None:
    """Give what is at the place a name in the staged tree; a file stays in its place too."""
    if not new.is_directory(path) and not place.is_directory(path):
        with suppress(OSError):
            place.hard_link(path, new, old)
            return
    place.rename(path, new, old)


def leads_to_directory(place: Beneath, path: Parts) -> bool:
    """Whether a symbolic link to a directory is at the path."""
    with suppress(OSError):
        if stat.S_ISLNK(place.status(path).st_mode):
            parent = place.directory(path[:-1])
            return stat.S_ISDIR(os.stat(path[-1], dir_fd=parent).st_mode)
    return False
