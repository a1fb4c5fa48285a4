"""What was found out about layers, kept on this machine: their indexes, and their archives.

An index lets a layer be listed without being read again, and an archive that was decompressed lets
any part of it be read. Archives take at most a quarter of what the user's cache directory may have;
those that were not used for longest are removed. Nothing here is trusted more than a cache is:
an index is checked by a checksum, and what is read of an archive by the digests in the index.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from cachefs.errors import UsageError
from cachefs.filesystems.system import temporary_files
from cachefs.layers.indexing import decoded
from cachefs.user_cache.bounding import limit
from cachefs.user_directory import DAY, read_checked, sweep, user_cache, write_checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefs.digest import Digest
    from cachefs.layers.indexing import LayerIndex

_FOLDER: Final = "layers"
_ARCHIVE: Final = ".tar"
_SHARE: Final = 4
"""Archives take at most one part in so many of the user's cache directory."""


def kept_index(diff_id: Digest) -> LayerIndex | None:
    """The index of a layer; None if it is not known here."""
    data = read_checked(_FOLDER, diff_id.hex)
    return None if data is None else decoded(data)


def keep_index(diff_id: Digest, index: LayerIndex) -> None:
    """Keep the index of a layer."""
    sweep(_FOLDER)
    write_checked(index.encoded(), _FOLDER, diff_id.hex)


def kept_archive(diff_id: Digest) -> BinaryIO | None:
    """A layer's archive; None if it is not here. What is read of it has to be checked."""
    with suppress(OSError, UsageError):
        path = _path(diff_id)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb")
        if os.fstat(descriptor).st_mtime < time.time() - DAY / 24:
            os.utime(descriptor)  # in use
        return file
    return None


def forget_archive(diff_id: Digest) -> None:
    """Remove an archive that turned out to be damaged."""
    with suppress(OSError, UsageError):
        _path(diff_id).unlink()


class NewArchive:
    """An archive that is being written: to be kept if there is room for it, and usable either way.

    It is in the user's cache directory, or if that is not possible or it is too large for that,
    among the system's temporary files, without a name. :meth:`write` raises StoreError if there is
    no room.

    Attributes:
        file: the archive, which the caller closes.
        is_kept: whether :func:`kept_archive` may find it.
    """

    def __init__(self, diff_id: Digest) -> None:
        self.is_kept = False
        self._diff_id = diff_id
        self._path: Path | None = None
        self._size = 0
        self._most = _most()
        with suppress(OSError, UsageError):
            path = _path(diff_id).with_name(f".{secrets.token_hex(8)}{_ARCHIVE}")
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.file: BinaryIO = os.fdopen(descriptor, "w+b", 0)
            self._path = path
            return
        with temporary_files():
            self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it

    def write(self, chunk: bytes) -> None:
        """Append to the archive."""
        with temporary_files():
            self._size += len(chunk)
            if self._size > self._most:
                self._give_up_name()
            view = memoryview(chunk)
            while view:
                view = view[self.file.write(view) :]

    def finish(self) -> None:
        """Keep it if there is room, now that it is known to be complete and right."""
        if self._path is not None:
            with suppress(OSError, UsageError):
                self._path.replace(_path(self._diff_id))
                self.is_kept = True
                _make_room(self._most)

    def discard(self) -> None:
        """Remove it."""
        self._give_up_name()
        self.file.close()

    def _give_up_name(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


def _path(diff_id: Digest) -> Path:
    return user_cache() / _FOLDER / f"{diff_id.hex}{_ARCHIVE}"


def _most() -> int:
    most = limit()
    return 1 << 62 if most is None else most // _SHARE


def _make_room(most: int) -> None:
    """Remove the archives that were not used for longest, beyond this many bytes of all."""
    found = sorted(_archives(), reverse=True)
    total = 0
    for _, size, path in found:
        total += size
        if total > most:
            path.unlink(missing_ok=True)


def _archives() -> Iterator[tuple[float, int, Path]]:
    """The time, size and path of each archive, also of what killed processes left."""
    for entry in os.scandir(user_cache() / _FOLDER):
        if entry.name.endswith(_ARCHIVE):
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield status.st_mtime, status.st_size, Path(entry.path)
