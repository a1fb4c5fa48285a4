"""Puts outputs in place: all of them when they are complete, or none."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.building.outputs import Place, by_filesystem, matches
from cachefs.errors import UsageError
from cachefs.layers import leftovers
from cachefs.layers.beneath import Beneath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cachefs.layers.beneath import Parts

_RACED: Final = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
_ATTEMPTS: Final = 100


class Move(NamedTuple):
    """Outputs that are moved from a staged tree into a directory on the same filesystem.

    Attributes:
        staged: the staged tree.
        directory: where they belong.
        outputs: their paths, or patterns for them.
    """

    staged: Path
    directory: Path
    outputs: Sequence[str]


class Stage(NamedTuple):
    """A temporary directory for results, on the filesystem of the outputs of a place."""

    directory: Path
    place: Place
    path: Path

    def move(self, name: str) -> Move:
        """How the outputs of this place get from a tree in the temporary directory to it."""
        top = self.place.top
        within = [placed.within for placed in self.place.outputs]
        return Move(self.path / name / top, self.directory / top, within)


@contextmanager
def staged(directory: Path, outputs: Iterable[str]) -> Iterator[list[Stage]]:
    """A temporary directory on each filesystem of the outputs, at least one; removed at the end.

    Temporary directories that killed processes left there are removed too.
    """
    places = by_filesystem(directory, outputs) or [Place("", [])]
    with ExitStack() as stack:
        yield [
            Stage(directory, place, stack.enter_context(staging(directory / place.top)))
            for place in places
        ]


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """A temporary directory next to outputs, on the same disk: one of :func:`staged`."""
    path, lock = leftovers.locked_directory(directory, leftovers.RESTORING)
    try:
        try:
            yield path
        finally:
            leftovers.remove(path)
        leftovers.sweep(directory)
    finally:
        os.close(lock)


def put_in_place(moves: Iterable[Move], *, back: bool = False) -> None:
    """Move outputs from staged trees to where they belong: all, or none.

    Each replaces the old one atomically, so that readers find either one complete, even if this
    process is killed. If the system or disk cannot exchange directories, two renames are used:
    between them a reader finds no output, but never a partial one. What is at outputs of which the
    staged tree has none, or matches their patterns, is removed. After an error everything is as it
    was. No link is followed in any tree. A link to a directory is not replaced by a directory:
    users make such links to keep outputs elsewhere. Raises UsageError and OSError.

    Args:
        moves: what to move. What was there ends up in the staged trees.
        back: put back what was moved from there: also over links, and outputs of which the staged
            tree has none are left alone. If this process is killed, it can be done again, because
            nothing from there gets the name of an output in the staged tree.
    """
    with ExitStack() as trees, ExitStack() as undo:
        for move in moves:
            new = trees.enter_context(Beneath.at(move.staged))
            place = trees.enter_context(Beneath.at(move.directory))
            for output in move.outputs:
                paths = matches(new, output)
                if paths or not back:
                    for path in matches(place, output):
                        if back or path not in paths:
                            _take_away(new, place, path, undo)
                for path in paths:
                    _put(new, place, path, undo, over_links=back)
        undo.pop_all()


def _put(new: Beneath, place: Beneath, path: Parts, undo: ExitStack, *, over_links: bool) -> None:
    shown = os.fsdecode(b"/".join(path))
    _make_parents(place, path, shown, undo)
    if not over_links and new.is_directory(path) and leads_to_directory(place, path):
        raise UsageError(f"{shown} is a symbolic link to a directory here")
    _swap(new, place, path, undo)


def _take_away(new: Beneath, place: Beneath, path: Parts, undo: ExitStack) -> None:
    """Move what is at the place to an unused name in the staged tree."""
    old = _unused()
    place.rename(path, new, old)
    undo.callback(new.rename, old, place, path)


def _unused() -> Parts:
    return (b"%s%s" % (os.fsencode(leftovers.RESTORING), secrets.token_hex(8).encode()),)


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
    old = _unused()
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
