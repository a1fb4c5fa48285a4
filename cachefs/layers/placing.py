"""Writing files inside a directory and never outside it, whatever their names and links say.

Every name is walked from the directory's descriptor, one component at a time, and no symbolic link
is ever followed: a link on the way is an error, whether the archive or another process made it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from cachefs.errors import LayerError
from cachefs.layers.tarformat import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

Parts = tuple[bytes, ...]
"""A name as its components; empty for the root."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES: Final = 32
# Errors that a hostile name or link causes; all others come from the disk.
_HOSTILE: Final = frozenset(
    {
        errno.EEXIST,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
    }
)


def parts(name: bytes) -> Parts:
    """The components of a name in an archive. Raises LayerError if it leaves the root."""
    split = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if name.startswith(b"/") or b".." in split or b"\0" in name:
        raise LayerError(f"{shown(name)} would be written outside the layer's directory")
    return split


class Root:
    """A directory to write to, by its descriptor.

    Anything at the path of a new file or link is removed first; for a new directory, an existing
    one is kept. Missing parents are made. Methods raise LayerError for what only a hostile or
    invalid archive requests, and OSError for errors of the disk.
    """

    def __init__(self, descriptor: int) -> None:
        self._open: dict[Parts, int] = {(): descriptor}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._forget()

    def directory(self, path: Parts, mode: int) -> None:
        """Make a directory, or change the mode of an existing one."""
        with self._refusing(path):
            parent = self._parent(path)
            try:
                os.mkdir(path[-1], 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
                    os.unlink(path[-1], dir_fd=parent)
                    os.mkdir(path[-1], 0o700, dir_fd=parent)
            os.fchmod(self._directory(path), mode)

    def file(self, path: Parts, mode: int, data: Iterable[memoryview]) -> None:
        """Make a new file; an existing one is never written to."""
        with self._refusing(path):
            descriptor = self._create(path)
        try:
            for chunk in data:
                _write(descriptor, chunk)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def symlink(self, path: Parts, link: bytes) -> None:
        """Make a symbolic link, wherever it points. It is never followed here."""
        with self._refusing(path):
            self._clear(path)
            os.symlink(link, path[-1], dir_fd=self._parent(path))

    def hard_link(self, path: Parts, target: Parts) -> None:
        """Give a regular file inside the root a second name."""
        with self._refusing(path):
            if not target or path == target:
                raise LayerError(
                    f"{shown(b'/'.join(path))} is a hard link to itself or to a directory"
                )
            source = self._directory(target[:-1])
            if not stat.S_ISREG(os.lstat(target[-1], dir_fd=source).st_mode):
                raise LayerError(
                    f"{shown(b'/'.join(path))} is a hard link to something that is not a file"
                )
            self._clear(path)
            # Clearing may have removed the target, and closed its directory.
            os.link(
                target[-1],
                path[-1],
                src_dir_fd=self._directory(target[:-1]),
                dst_dir_fd=self._parent(path),
                follow_symlinks=False,
            )

    def remove_except(self, path: Parts, kept: AbstractSet[Parts]) -> None:
        """Remove what is at the path, except what is in ``kept``, which has all parents too."""
        with self._refusing(path):
            try:
                parent = self._directory(path[:-1])
                status = os.lstat(path[-1], dir_fd=parent)
            except (FileNotFoundError, NotADirectoryError):
                return
            if path not in kept:
                self._remove(path, parent, status)
            elif stat.S_ISDIR(status.st_mode):
                self.empty_except(path, kept)

    def empty_except(self, path: Parts, kept: AbstractSet[Parts]) -> None:
        """Empty the directory, except for what is in ``kept``, which has all parents too."""
        with self._refusing(path):
            try:
                directory = self._directory(path)
            except (FileNotFoundError, NotADirectoryError):
                return
            with os.scandir(directory) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
        for name in names:
            self.remove_except((*path, name), kept)

    def _create(self, path: Parts) -> int:
        parent = self._parent(path)
        try:
            return os.open(path[-1], _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(path)
            return os.open(path[-1], _CREATE, 0o600, dir_fd=self._parent(path))

    def _clear(self, path: Parts) -> None:
        parent = self._parent(path)
        try:
            status = os.lstat(path[-1], dir_fd=parent)
        except FileNotFoundError:
            return
        self._remove(path, parent, status)

    def _remove(self, path: Parts, parent: int, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path[-1], dir_fd=parent)
            self._forget(path)
        else:
            os.unlink(path[-1], dir_fd=parent)

    def _parent(self, path: Parts) -> int:
        """The directory that holds the path, made if missing."""
        return self._directory(path[:-1], make=True)

    def _directory(self, path: Parts, *, make: bool = False) -> int:
        """The descriptor of a directory; a few are kept open between calls."""
        known = self._open.get(path)
        if known is not None:
            return known
        depth = len(path) - 1
        while path[:depth] not in self._open:
            depth -= 1
        descriptor = self._open[path[:depth]]
        for index in range(depth, len(path)):
            descriptor = self._step(path[: index + 1], descriptor, make=make)
        return descriptor

    def _step(self, path: Parts, parent: int, *, make: bool) -> int:
        try:
            descriptor = os.open(path[-1], _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(path[-1], 0o755, dir_fd=parent)
            descriptor = os.open(path[-1], _DIRECTORY, dir_fd=parent)
        self._open[path] = descriptor
        return descriptor

    def _forget(self, below: Parts = ()) -> None:
        """Close the descriptors of a directory and all directories below it, except the root's."""
        for path in [path for path in self._open if path and path[: len(below)] == below]:
            os.close(self._open.pop(path))

    @contextmanager
    def _refusing(self, path: Parts) -> Iterator[None]:
        """Turn errors that the archive causes into a LayerError that names the member."""
        if len(self._open) > _OPEN_DIRECTORIES:
            self._forget()
        try:
            yield
        except OSError as error:
            if error.errno not in _HOSTILE:
                raise
            why = os.strerror(error.errno)
            raise LayerError(f"{shown(b'/'.join(path))} cannot be written: {why}") from error


def _write(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]
