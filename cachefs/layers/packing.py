"""Packing a directory into a layer: the same files give the same bytes on any machine.

A layer keeps names, the contents of files, whether their owner may execute them, and the targets of
symbolic links. It does not depend on owners, times, other mode bits, the umask, the order of
directories, hard links (each name becomes a separate file) or holes in sparse files.
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
from cachefs.layers.beneath import Beneath, split
from cachefs.layers.compression import MEDIA_TYPES, READ_SIZE, Compression, Compressor, compressor
from cachefs.layers.limits import DEFAULT_LIMITS, Budget, Limits
from cachefs.layers.overlap import background

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cachefs.layers.beneath import Parts
    from cachefs.layers.overlap import CallQueue

WHITEOUT: Final = b".wh."
"""The prefix of names that stand for a removal in a layer."""


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """The blob's digest and size in bytes, and the digest of the uncompressed archive.

    The ``diff_id`` is the same on any machine. So is the ``digest``, for one version of the
    compression library.
    """

    digest: Digest
    size: int
    diff_id: Digest
    media_type: str


def tree(root: Path, paths: Iterable[str] = (".",)) -> list[str]:
    """The names, relative to ``root`` and with ``/``, of these paths and of everything below them.

    Symbolic links are listed, not followed. Raises UsageError if a path does not exist, leaves the
    root or leads through a link, and OSError if a directory cannot be read.
    """
    names: list[str] = []
    with Beneath.at(root) as beneath:
        for path in paths:
            top = split(_checked(path))
            try:
                kind = beneath.status(top).st_mode
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UsageError(f"{path!r} is not in {root}") from error
            if top:
                names.append(_text(top))
            if stat.S_ISDIR(kind):
                names.extend(_text(found) for found, _ in beneath.below(top))
    return names


def _text(path: Parts) -> str:
    return os.fsdecode(b"/".join(path))


def pack(
    root: Path,
    names: Iterable[str],
    target: BinaryIO,
    *,
    compression: Compression = "zstd",
    level: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> PackedLayer:
    """Write the named files, directories and symbolic links below ``root`` as one layer.

    The layer has exactly these names, given in any order, and their parent directories. It has the
    content of a directory only if that is named too, as by :func:`tree`. The target is written
    sequentially from its current position, by another thread, and is neither flushed nor closed;
    after an error it holds a part of the blob. Memory is bounded.

    Args:
        root: the directory that the names are relative to.
        names: relative names with ``/``, as the operating system gives them.
        target: the blob is written to it.
        compression: see :mod:`cachefs.layers.compression`.
        level: the compression level; None for the compression's default.
        limits: those that the layer will be extracted with.

    Raises:
        LayerError: a limit is exceeded, so that the layer could not be extracted.
        UsageError: a name that does not exist, leaves the root or cannot be in a layer; a socket,
            pipe or device; a file whose size changes in the meantime.
        OSError: a file cannot be read or the target cannot be written.
    """
    budget = Budget(limits, "packed")
    blob = _Blob(target, compressor(compression, level), budget)
    with ExitStack() as stack:
        hashing = stack.enter_context(background("cachefs-diffid"))
        writing = stack.enter_context(background("cachefs-compress"))
        archive = _ArchiveWriter(blob, hashing, writing, budget)
        beneath = stack.enter_context(Beneath.at(root))
        wanted = {_checked(name) for name in names} - {b""}
        parents = _parents(wanted)
        for name in sorted(wanted | parents):
            _add(archive, beneath, name, leads=name in parents)
        diff_id = archive.finish()
    return PackedLayer(blob.digest(), blob.size, diff_id, MEDIA_TYPES[compression])


def _parents(names: Iterable[bytes]) -> set[bytes]:
    """All parent directories of the names."""
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
        raise UsageError(f"{name!r} is not a name inside the directory that is packed")
    return b"/".join(parts)


class _Blob:
    """Compresses chunks into the target, and hashes and counts what is written."""

    def __init__(self, target: BinaryIO, using: Compressor, budget: Budget) -> None:
        self.size = 0
        self._budget = budget
        self._target = target
        self._compressor = using
        self._hash = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self._write(self._compressor.compress(chunk))
        # Whoever extracts has read at least this much of the blob when the chunk is expanded.
        self._budget.expanded(len(chunk), ahead=2 * READ_SIZE)

    def end(self) -> None:
        self._write(self._compressor.flush())

    def digest(self) -> Digest:
        return Digest.from_hex(self._hash.hexdigest())

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        self._budget.compressed(len(data))
        self._hash.update(data)
        self._target.write(data)


class _ArchiveWriter:
    """Collects small writes into chunks, and passes each to the hash and to the compressor."""

    def __init__(self, blob: _Blob, hashing: CallQueue, writing: CallQueue, budget: Budget) -> None:
        self._blob = blob
        self._budget = budget
        self._hashing = hashing
        self._writing = writing
        self._hash = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._size = 0

    def member(
        self, name: bytes, kind: bytes, *, mode: int, size: int = 0, link: bytes = b""
    ) -> None:
        """Write a member's header."""
        self._budget.member(name, link)
        self.write(tarformat.header(name, kind, mode=mode, size=size, link=link))

    def write(self, *parts: bytes) -> None:
        self._gathered += parts
        self._size += sum(map(len, parts))
        if self._size >= READ_SIZE:
            self._pass_on()

    def finish(self) -> Digest:
        self.write(tarformat.END)
        self._pass_on()
        self._writing.call(self._blob.end)
        self._hashing.finish()
        self._writing.finish()
        return Digest.from_hex(self._hash.hexdigest())

    def _pass_on(self) -> None:
        chunk = b"".join(self._gathered)
        self._gathered.clear()
        self._size = 0
        self._hashing.call(self._hash.update, chunk)
        self._writing.call(self._blob.add, chunk)


def _add(archive: _ArchiveWriter, root: Beneath, name: bytes, *, leads: bool) -> None:
    path = split(name)
    if WHITEOUT in name and any(part.startswith(WHITEOUT) for part in path):
        raise UsageError(
            f"{_shown(name)}: names that begin with .wh. stand for removals in a layer"
        )
    try:
        kind = root.status(path).st_mode
        if stat.S_ISDIR(kind):
            archive.member(name + b"/", tarformat.DIRECTORY, mode=0o755)
        elif leads:
            raise UsageError(f"{_shown(name)} is not a directory, but a name leads through it")
        elif stat.S_ISREG(kind):
            _add_file(archive, root, path, name)
        elif stat.S_ISLNK(kind):
            archive.member(name, tarformat.SYMLINK, mode=0o777, link=root.link(path))
        else:
            raise _no_file(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{_shown(name)} does not exist") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _no_file(name) from error
        if isinstance(error, PermissionError):
            raise PermissionError(error.errno, error.strerror, os.fsdecode(name)) from error
        raise


def _add_file(archive: _ArchiveWriter, root: Beneath, path: Parts, name: bytes) -> None:
    descriptor = root.open_file(path)
    try:
        status = os.fstat(descriptor)
        size = status.st_size
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        archive.member(name, tarformat.FILE, mode=mode, size=size)
        _add_data(archive, descriptor, name, size)
        archive.write(tarformat.padding(size))
    finally:
        os.close(descriptor)


def _add_data(archive: _ArchiveWriter, descriptor: int, name: bytes, size: int) -> None:
    left = size
    while True:
        # Reading a byte more than expected detects a file that grew.
        data = os.read(descriptor, min(left, READ_SIZE) + 1)
        left -= len(data)
        if left < 0 or (left and not data):
            raise UsageError(f"the size of {_shown(name)} changed while it was packed")
        archive.write(data)
        if not left:
            return


def _no_file(name: bytes) -> UsageError:
    return UsageError(f"{_shown(name)} is not a file, directory or symbolic link; leave it out")


def _shown(name: bytes) -> str:
    return tarformat.shown(name)
