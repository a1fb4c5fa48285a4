"""Reaching into a directory that others filled, without ever leaving it.

Whoever made a tree (an archive, a command, another user) also chose its symbolic links. So every
path below it is walked from the directory's descriptor, one component at a time, and no link on the
way is followed: for all methods here, such a path does not exist.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import OrderedDict
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

Parts = tuple[bytes, ...]
"""A path as its components; empty for the directory itself."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe must not wait for a writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_DIRECTORIES: Final = 16
# Names that are read before they are removed: a directory may have millions.
_REMOVED: Final = 10_000

_RENAME_EXCHANGE: Final = 2
_NO_EXCHANGE: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def split(path: str | bytes | os.PathLike[str]) -> Parts:
    """The components of a relative path without ``..``, as :func:`os.fsencode` gives them."""
    return tuple(part for part in os.fsencode(path).split(b"/") if part not in (b"", b"."))


class NotRegularError(OSError):
    """A file was expected, and there is a directory, link, pipe, socket or device."""


class Beneath:
    """A directory, by its descriptor.

    Methods raise OSError: FileNotFoundError or NotADirectoryError if a path does not exist or leads
    through a link. At most a few directories are kept open between calls. Not thread-safe: each
    thread uses its own, which may share the descriptor.

    Args:
        descriptor: of the directory; closed by whoever opened it, after this object.

    Attributes:
        made: directories that :meth:`directory` made.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        self.made = 0
        self._open: OrderedDict[Parts, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.forget()

    @classmethod
    @contextmanager
    def at(cls, path: Path) -> Iterator[Self]:
        """The directory at a path that the caller trusts: links in it are followed."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with cls(descriptor) as root:
                yield root
        finally:
            os.close(descriptor)

    # --- looking ----------------------------------------------------------------------------------

    def status(self, path: Parts) -> os.stat_result:
        """The status of what is at the path; of the link itself, if that is one."""
        if not path:
            return os.fstat(self.descriptor)
        return self._status(path[-1], self.directory(path[:-1]))

    def exists(self, path: Parts) -> bool:
        """Whether something is at the path, even a link."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self.status(path)
            return True
        return False

    def is_directory(self, path: Parts) -> bool:
        """Whether a directory is at the path, not a link to one."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return stat.S_ISDIR(self.status(path).st_mode)
        return False

    def entries(self, path: Parts) -> list[os.DirEntry[str]]:
        """What is in a directory. Their status can be asked for until the next call."""
        return _scanned(self.directory(path))

    def scan(self, path: Parts) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """What is in a directory, one at a time. What was returned may be removed meanwhile."""
        return os.scandir(self.directory(path))

    def below(self, path: Parts) -> Iterator[tuple[Parts, os.stat_result]]:
        """All that is below a directory, parents first, with its status."""
        waiting = [path]
        while waiting:
            above = waiting.pop()
            for entry in self.entries(above):
                found = (*above, os.fsencode(entry.name))
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(found)
                yield found, status

    def link(self, path: Parts) -> bytes:
        """The target of a link, which is not followed."""
        return os.readlink(path[-1], dir_fd=self.directory(path[:-1]))

    def open_file(self, path: Parts) -> int:
        """A new descriptor of a regular file, to read it. Never waits, as opening a pipe would."""
        try:
            descriptor = self._open_at(path[-1], _FILE, self.directory(path[:-1]))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise NotRegularError(*error.args) from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotRegularError(errno.ENXIO, "not a regular file", os.fsdecode(path[-1]))
        return descriptor

    def directory(self, path: Parts, *, make: bool = False) -> int:
        """The descriptor of a directory, valid until the next call; missing ones may be made."""
        if not path:
            return self.descriptor
        depth = len(path)
        while depth and path[:depth] not in self._open:
            depth -= 1
        descriptor = self._open[path[:depth]] if depth else self.descriptor
        for index in range(depth, len(path)):
            descriptor = self._step(path[: index + 1], descriptor, make=make)
        return descriptor

    def forget(self, below: Parts = ()) -> None:
        """Close the descriptors of a directory and all directories below it."""
        for path in [path for path in self._open if path[: len(below)] == below]:
            os.close(self._open.pop(path))

    def _step(self, path: Parts, parent: int, *, make: bool) -> int:
        try:
            descriptor = self._open_directory(path[-1], parent)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(path[-1], 0o755, dir_fd=parent)
                self.made += 1
            descriptor = self._open_directory(path[-1], parent)
        self._open[path] = descriptor
        # The oldest is never the parent of the next: that was opened just now.
        while len(self._open) > _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def _status(self, name: bytes, parent: int) -> os.stat_result:
        return os.lstat(name, dir_fd=parent)

    def _open_at(self, name: bytes, flags: int, parent: int) -> int:
        return os.open(name, flags, dir_fd=parent)

    def _open_directory(self, name: bytes, parent: int) -> int:
        return _open_directory(name, parent)

    # --- changing ---------------------------------------------------------------------------------

    def rename(self, path: Parts, target: Beneath, new: Parts) -> None:
        """Move what is at the path to a path below this or another directory."""
        with self._pair(path, target, new) as (source, other):
            os.rename(path[-1], new[-1], src_dir_fd=source, dst_dir_fd=other)
        self.forget(path)
        target.forget(new)

    def hard_link(self, path: Parts, target: Beneath, new: Parts) -> None:
        """Give a file a second name; a link is not followed."""
        with self._pair(path, target, new) as (source, other):
            os.link(path[-1], new[-1], src_dir_fd=source, dst_dir_fd=other, follow_symlinks=False)

    def exchange(self, path: Parts, target: Beneath, new: Parts) -> bool:
        """Exchange what is at two paths atomically; False if the system or disk cannot."""
        with self._pair(path, target, new) as (source, other):
            done = _exchanged(path[-1], source, new[-1], other)
        self.forget(path)
        target.forget(new)
        return done

    @contextmanager
    def _pair(self, path: Parts, target: Beneath, new: Parts) -> Iterator[tuple[int, int]]:
        """The directories of two paths, both open at the same time."""
        source = os.dup(self.directory(path[:-1]))
        try:
            yield source, target.directory(new[:-1])
        finally:
            os.close(source)

    def remove(self, path: Parts) -> None:
        """Remove what is at the path, with everything below it."""
        parent = self.directory(path[:-1])
        if stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
            remove_directory(path[-1], parent)
            self.forget(path)
        else:
            os.unlink(path[-1], dir_fd=parent)


class Following(Beneath):
    """A directory whose links are followed when it is read, wherever they lead.

    Only for directories of the user, who asked for it. What is at a link that leads nowhere is the
    link itself.
    """

    def _status(self, name: bytes, parent: int) -> os.stat_result:
        return followed(name, parent)

    def _open_at(self, name: bytes, flags: int, parent: int) -> int:
        return os.open(name, flags & ~os.O_NOFOLLOW, dir_fd=parent)

    def _open_directory(self, name: bytes, parent: int) -> int:
        return self._open_at(name, _DIRECTORY, parent)


def followed(name: str | bytes, parent: int) -> os.stat_result:
    """The status of what a name leads to; of the link itself, if that leads nowhere."""
    try:
        return os.stat(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EACCES):
            return os.lstat(name, dir_fd=parent)
        raise


def remove_directory(name: bytes, parent: int) -> None:
    """Remove a directory and everything below it, however deep, and whatever its modes say.

    Directories below it are first moved up into it, so that two descriptors are enough. Raises
    OSError if something cannot be removed.
    """
    top = _open_own(name, parent)
    try:
        while entries := _scanned(top, _REMOVED):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_level(os.fsencode(entry.name), top)
                else:
                    os.unlink(entry.name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _remove_level(name: bytes, top: int) -> None:
    descriptor = _open_own(name, top)
    try:
        while entries := _scanned(descriptor, _REMOVED):
            for entry in entries:
                _remove_or_move(entry, descriptor, top)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=top)


def _remove_or_move(entry: os.DirEntry[str], parent: int, top: int) -> None:
    """Remove a file; move a directory to the top, for the next round."""
    if entry.is_dir(follow_symlinks=False):
        os.close(_open_own(os.fsencode(entry.name), parent))
        unused = secrets.token_hex(16)
        os.rename(entry.name, unused, src_dir_fd=parent, dst_dir_fd=top)
    else:
        os.unlink(entry.name, dir_fd=parent)


def _open_own(name: bytes, parent: int) -> int:
    """A directory whose owner may from now on read and change it."""
    try:
        descriptor = _open_directory(name, parent)
    except PermissionError:
        _allow(name, parent)
        descriptor = _open_directory(name, parent)
    if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(PermissionError):
            os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor


def _allow(name: bytes, parent: int) -> None:
    """Change the mode of a directory that cannot be opened, and of nothing else."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent, follow_symlinks=False)
        return
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)  # noqa: PTH101 - a descriptor, not a path
    finally:
        os.close(handle)


def _open_directory(name: bytes, parent: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:  # some systems say so of a link, Linux says ENOTDIR
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        raise


def _scanned(directory: int, most: int | None = None) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        return list(islice(found, most))


def _exchanged(one: bytes, above: int, other: bytes, above_other: int) -> bool:
    import ctypes  # noqa: PLC0415 - slow to load, and needed only to replace outputs

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(above, one, above_other, other, _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), os.fsdecode(other))
