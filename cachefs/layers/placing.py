"""Writing the members of an archive inside a directory, whatever their names and links say."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Self

from cachefs.errors import LayerError
from cachefs.layers.beneath import Beneath, Parts
from cachefs.layers.tarformat import shown

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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
    one is kept. Missing parents are made; a link on the way is an error. Methods raise LayerError
    for what only a hostile or invalid archive requests, and OSError for errors of the disk.
    """

    def __init__(self, descriptor: int) -> None:
        self._tree = Beneath(descriptor)

    @property
    def parents_made(self) -> int:
        """Directories that were made because they were missing above others."""
        return self._tree.made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._tree.forget()

    def directory(self, path: Parts, mode: int) -> None:
        """Make a directory, or change the mode of an existing one."""
        with _refusing(path):
            parent = self._parent(path)
            try:
                os.mkdir(path[-1], 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
                    os.unlink(path[-1], dir_fd=parent)
                    os.mkdir(path[-1], 0o700, dir_fd=parent)
            descriptor = self._tree.directory(path)
            # A directory below one of a shared group belongs to that group too, for all that is
            # made in it later.
            inherited = os.fstat(descriptor).st_mode & stat.S_ISGID
            os.fchmod(descriptor, mode | inherited)

    def file(self, path: Parts, mode: int, data: Iterable[memoryview]) -> None:
        """Make a new file; an existing one is never written to."""
        with self._new_file(path, mode) as descriptor:
            for chunk in data:
                _write(descriptor, chunk)

    def sparse_file(
        self, path: Parts, mode: int, size: int, data: Iterable[tuple[int, memoryview]]
    ) -> None:
        """Make a new file of this size with data at offsets, and holes elsewhere."""
        with self._new_file(path, mode) as descriptor:
            for offset, chunk in data:
                os.lseek(descriptor, offset, os.SEEK_SET)
                _write(descriptor, chunk)
            with _refusing(path):
                os.ftruncate(descriptor, size)

    @contextmanager
    def _new_file(self, path: Parts, mode: int) -> Iterator[int]:
        with _refusing(path):
            descriptor = self._create(path)
        try:
            yield descriptor
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def symlink(self, path: Parts, link: bytes) -> None:
        """Make a symbolic link, wherever it points. It is never followed here."""
        with _refusing(path):
            self._clear(path)
            os.symlink(link, path[-1], dir_fd=self._parent(path))

    def hard_link(self, path: Parts, target: Parts) -> None:
        """Give a regular file inside the root a second name."""
        with _refusing(path):
            if not target or path == target:
                raise LayerError(
                    f"{shown(b'/'.join(path))} is a hard link to itself or to a directory"
                )
            if not stat.S_ISREG(self._tree.status(target).st_mode):
                raise LayerError(
                    f"{shown(b'/'.join(path))} is a hard link to something that is not a file"
                )
            self._clear(path)
            self._parent(path)
            self._tree.hard_link(target, self._tree, path)

    def remove(self, path: Parts) -> None:
        """Remove what is at the path, if there is something."""
        with _refusing(path):
            if self._tree.exists(path):
                self._tree.remove(path)

    def empty_except(self, path: Parts, kept: Container[Parts]) -> None:
        """Empty the directory, except for what is in ``kept``, which has all parents too."""
        with ExitStack() as stack:
            with _refusing(path):
                if not self._tree.is_directory(path):
                    return
                entries = stack.enter_context(self._tree.scan(path))
            # Names are not collected: there may be millions.
            for entry in entries:
                found = (*path, os.fsencode(entry.name))
                if found in kept:
                    self.empty_except(found, kept)
                else:
                    self.remove(found)

    def _create(self, path: Parts) -> int:
        parent = self._parent(path)
        try:
            return os.open(path[-1], _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(path)
            return os.open(path[-1], _CREATE, 0o600, dir_fd=self._parent(path))

    def _clear(self, path: Parts) -> None:
        self._parent(path)
        if self._tree.exists(path):
            self._tree.remove(path)

    def _parent(self, path: Parts) -> int:
        """The directory that holds the path, made if missing."""
        return self._tree.directory(path[:-1], make=True)


@contextmanager
def _refusing(path: Parts) -> Iterator[None]:
    """Turn errors that the archive causes into a LayerError that names the member."""
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
