"""From a directory to a layer: the same files give the same bytes on any machine.

What counts is each name, what the files hold, whether their owner may execute them, and where
symbolic links point. Owners, times, other mode bits, the umask, the order of directories, hard
links (each name becomes a file of its own) and holes in sparse files leave no trace.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from cachefs.digest import Digest
from cachefs.errors import UsageError
from cachefs.layers import tarformat
from cachefs.layers.compression import BUFFER_SIZE, MEDIA_TYPES, Compression, Compressor, compressor
from cachefs.layers.overlap import behind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cachefs.layers.overlap import Behind

WHITEOUT: Final = b".wh."
"""How the names of files begin that stand for a removal in a layer."""

# A pipe must not make opening wait for a writer.
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """What was written: the blob's digest and size in bytes, and the digest of the bare archive.

    The ``diff_id`` is the same on any machine. The ``digest`` is, too, for one version of the
    compression library.
    """

    digest: Digest
    size: int
    diff_id: Digest
    media_type: str


def tree(root: Path, paths: Iterable[str] = (".",)) -> list[str]:
    """The names, relative to ``root`` and with ``/``, of the paths given and of all below them.

    Symbolic links are named, not followed. Raises UsageError when a path is not there or would
    leave the root, OSError when a directory cannot be read.
    """
    names: list[str] = []
    for path in paths:
        name = os.fsdecode(_checked(path))
        if name and not os.path.lexists(root / name):
            raise UsageError(f"{path!r} is not in {root}")
        if name:
            names.append(name)
        if not name or stat.S_ISDIR(os.lstat(root / name).st_mode):
            names.extend(_below(root, name))
    return names


def _below(root: Path, top: str) -> Iterator[str]:
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        with os.scandir(root / directory) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                yield name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)


def pack(
    root: Path,
    names: Iterable[str],
    target: BinaryIO,
    *,
    compression: Compression = "zstd",
    level: int | None = None,
) -> PackedLayer:
    """Write the named files, directories and symbolic links below ``root`` as one layer.

    Exactly these names go in, in any order, with the directories that lead to them: a directory's
    content only when it is named too, as :func:`tree` does. The target is written from where it
    stands, in order, by another thread, and is neither flushed nor closed; after an error it holds
    a part. Memory stays flat.

    Args:
        root: the directory that the names are relative to.
        names: relative names with ``/``, as the operating system gives them.
        target: where the blob goes.
        compression: see :mod:`cachefs.layers.compression`.
        level: the compression level; None is the default of the compression.

    Raises:
        UsageError: a name that is not there, leaves the root or cannot be in a layer; a socket,
            pipe or device; a file that changed its size meanwhile.
        OSError: a file cannot be read or the target cannot be written.
    """
    blob = _Blob(target, compressor(compression, level))
    with ExitStack() as stack:
        hashing = stack.enter_context(behind("cachefs-diffid"))
        writing = stack.enter_context(behind("cachefs-compress"))
        archive = _ArchiveWriter(blob, hashing, writing)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        wanted = {_checked(name) for name in names} - {b""}
        parents = _parents(wanted)
        for name in sorted(wanted | parents):
            _add(archive, descriptor, name, leads=name in parents)
        diff_id = archive.finish()
    return PackedLayer(blob.digest(), blob.size, diff_id, MEDIA_TYPES[compression])


def _parents(names: Iterable[bytes]) -> set[bytes]:
    """All directories that lead to the names."""
    parents: set[bytes] = set()
    for name in names:
        parent = name.rpartition(b"/")[0]
        while parent and parent not in parents:
            parents.add(parent)
            parent = parent.rpartition(b"/")[0]
    return parents


def _checked(name: str) -> bytes:
    """The name as the bytes that go into the archive; empty for the root itself."""
    raw = os.fsencode(name)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise UsageError(f"{name!r} is not a name inside of the directory that is packed")
    return b"/".join(parts)


class _Blob:
    """Compresses chunks into the target, and knows what came out."""

    def __init__(self, target: BinaryIO, using: Compressor) -> None:
        self.size = 0
        self._target = target
        self._compressor = using
        self._hash = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self._write(self._compressor.compress(chunk))

    def end(self) -> None:
        self._write(self._compressor.flush())

    def digest(self) -> Digest:
        return Digest.from_hex(self._hash.hexdigest())

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)
        self._target.write(data)


class _ArchiveWriter:
    """Gathers small writes into chunks, and hands each to the hash and to the compressor."""

    def __init__(self, blob: _Blob, hashing: Behind, writing: Behind) -> None:
        self._blob = blob
        self._hashing = hashing
        self._writing = writing
        self._hash = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._size = 0

    def write(self, *parts: bytes) -> None:
        self._gathered += parts
        self._size += sum(map(len, parts))
        if self._size >= BUFFER_SIZE:
            self._hand_on()

    def finish(self) -> Digest:
        self.write(tarformat.END)
        self._hand_on()
        self._writing.call(self._blob.end)
        self._hashing.finish()
        self._writing.finish()
        return Digest.from_hex(self._hash.hexdigest())

    def _hand_on(self) -> None:
        chunk = b"".join(self._gathered)
        self._gathered.clear()
        self._size = 0
        self._hashing.call(self._hash.update, chunk)
        self._writing.call(self._blob.add, chunk)


def _add(archive: _ArchiveWriter, root: int, name: bytes, *, leads: bool) -> None:
    if WHITEOUT in name and any(part.startswith(WHITEOUT) for part in name.split(b"/")):
        raise UsageError(f"{_shown(name)}: names with .wh. stand for removals in a layer")
    try:
        kind = os.lstat(name, dir_fd=root).st_mode
        if stat.S_ISDIR(kind):
            archive.write(tarformat.header(name + b"/", tarformat.DIRECTORY, mode=0o755))
        elif leads:
            raise UsageError(f"{_shown(name)} is no directory, but a name leads through it")
        elif stat.S_ISREG(kind):
            _add_file(archive, root, name)
        elif stat.S_ISLNK(kind):
            link = os.readlink(name, dir_fd=root)
            archive.write(tarformat.header(name, tarformat.SYMLINK, mode=0o777, link=link))
        else:
            raise _no_file(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{_shown(name)} is not there") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _no_file(name) from error
        raise


def _add_file(archive: _ArchiveWriter, root: int, name: bytes) -> None:
    descriptor = os.open(name, _OPEN, dir_fd=root)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _no_file(name)
        size = status.st_size
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        archive.write(tarformat.header(name, tarformat.FILE, mode=mode, size=size))
        _add_data(archive, descriptor, name, size)
        archive.write(tarformat.padding(size))
    finally:
        os.close(descriptor)


def _add_data(archive: _ArchiveWriter, descriptor: int, name: bytes, size: int) -> None:
    left = size
    while True:
        # Asking for a byte more than there should be notices a file that grew.
        data = os.read(descriptor, min(left, BUFFER_SIZE) + 1)
        left -= len(data)
        if left < 0 or (left and not data):
            raise UsageError(f"{_shown(name)} changed its size while it was packed")
        archive.write(data)
        if not left:
            return


def _no_file(name: bytes) -> UsageError:
    return UsageError(f"{_shown(name)} is no file, directory or symbolic link; leave it out")


def _shown(name: bytes) -> str:
    return tarformat.shown(name)
