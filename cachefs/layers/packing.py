"""Packing a directory into a layer: the same files give the same bytes on any machine.

A layer keeps names, the contents of files, permissions, the targets of symbolic links, and which of
its names are hard links to one file. It does not depend on owners, times, set-user-ID, set-group-ID
and sticky bits, the order of directories, hard links to what is not in the layer, or where the disk
has holes: what is a hole depends on the content alone (:mod:`cachefs.layers.sparse`).
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
from cachefs.layers import sparse, tarformat
from cachefs.layers.beneath import Beneath, split
from cachefs.layers.compression import MEDIA_TYPES, READ_SIZE, Compression, Compressor, compressor
from cachefs.layers.limits import DEFAULT_LIMITS, Budget, Limits
from cachefs.layers.listing import DIRECTORY, FILE, HARD_LINK, SYMLINK, Listed, kept_mode
from cachefs.layers.overlap import background

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cachefs.layers.beneath import Parts
    from cachefs.layers.listing import Listing
    from cachefs.layers.overlap import CallQueue

WHITEOUT: Final = b".wh."
"""The prefix of names that stand for a removal in a layer."""

_LISTED: Final = {
    tarformat.DIRECTORY: DIRECTORY,
    tarformat.SYMLINK: SYMLINK,
    tarformat.HARD_LINK: HARD_LINK,
}


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """The blob's digest and size in bytes, and the digest of the uncompressed archive.

    The ``diff_id`` is the same on any machine. So is the ``digest``, for one version of the
    compression library. ``special`` are the files whose set-user-ID and set-group-ID bits are not
    kept.
    """

    digest: Digest
    size: int
    diff_id: Digest
    media_type: str
    special: tuple[str, ...] = ()


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
    listing: Listing | None = None,
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
        listing: receives the members of the layer.

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
        archive = _ArchiveWriter(blob, hashing, writing, budget, listing)
        packer = _Packer(archive, stack.enter_context(Beneath.at(root)))
        wanted = {_checked(name) for name in names} - {b""}
        parents = _parents(wanted)
        for name in sorted(wanted | parents):
            packer.add(name, wanted=name in wanted, leads=name in parents)
        diff_id = archive.finish()
    special = tuple(map(os.fsdecode, packer.special))
    return PackedLayer(blob.digest(), blob.size, diff_id, MEDIA_TYPES[compression], special)


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

    def __init__(
        self,
        blob: _Blob,
        hashing: CallQueue,
        writing: CallQueue,
        budget: Budget,
        listing: Listing | None,
    ) -> None:
        self._blob = blob
        self._budget = budget
        self._hashing = hashing
        self._writing = writing
        self._listing = listing
        self._hash = hashlib.sha256()
        self._gathered: list[bytes | memoryview] = []
        self._size = 0

    def member(self, name: bytes, kind: bytes, *, mode: int, link: bytes = b"") -> None:
        """Write a directory or link."""
        self._budget.member(name, link)
        self.write(tarformat.header(name, kind, mode=mode, link=link))
        if self._listing is not None:
            listed_mode = mode if kind == tarformat.DIRECTORY else 0
            member = Listed(_LISTED[kind], listed_mode, 0, link)
            self._listing.add(name.rstrip(b"/"), member)

    def file(
        self, name: bytes, mode: int, size: int, stored: int | None, data: Iterator[memoryview]
    ) -> None:
        """Write a file; a sparse one has ``stored`` bytes of data."""
        self._budget.member(name, b"")
        real_size = None if stored is None else size
        self._budget.apparent(real_size or 0)
        stored = size if stored is None else stored
        self.write(
            tarformat.header(name, tarformat.FILE, mode=mode, size=stored, real_size=real_size)
        )
        if self._listing is not None:
            data = self._listing.file(name, mode, size, data, self._hashing)
        for chunk in data:
            self.write(chunk)
        self.write(tarformat.padding(stored))

    def write(self, *parts: bytes | memoryview) -> None:
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
        if self._listing is not None:
            self._listing.finish()
        return Digest.from_hex(self._hash.hexdigest())

    def _pass_on(self) -> None:
        chunk = b"".join(self._gathered)
        self._gathered.clear()
        self._size = 0
        self._hashing.call(self._hash.update, chunk)
        self._writing.call(self._blob.add, chunk)


class _Packer:
    """Adds what is at names below a directory to an archive.

    Attributes:
        special: files whose set-user-ID and set-group-ID bits are not kept.
    """

    def __init__(self, archive: _ArchiveWriter, root: Beneath) -> None:
        self.special: list[bytes] = []
        self._archive = archive
        self._root = root
        self._linked: dict[tuple[int, int], bytes] = {}

    def add(self, name: bytes, *, wanted: bool, leads: bool) -> None:
        """Add a name. One that only leads to others has the same mode on any machine."""
        path = split(name)
        if WHITEOUT in name and any(part.startswith(WHITEOUT) for part in path):
            raise UsageError(
                f"{_shown(name)}: names that begin with .wh. stand for removals in a layer"
            )
        try:
            kind = self._root.status(path).st_mode
            if stat.S_ISDIR(kind):
                mode = kept_mode(kind, DIRECTORY) if wanted else 0o755
                self._archive.member(name + b"/", tarformat.DIRECTORY, mode=mode)
            elif leads:
                raise UsageError(f"{_shown(name)} is not a directory, but a name leads through it")
            elif stat.S_ISREG(kind):
                self._add_file(path, name)
            elif stat.S_ISLNK(kind):
                link = self._root.link(path)
                self._archive.member(name, tarformat.SYMLINK, mode=0o777, link=link)
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

    def _add_file(self, path: Parts, name: bytes) -> None:
        descriptor = self._root.open_file(path)
        try:
            status = os.fstat(descriptor)
            mode = kept_mode(status.st_mode, FILE)
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                self.special.append(name)
            if status.st_nlink > 1:
                first = self._linked.setdefault((status.st_dev, status.st_ino), name)
                if first != name:
                    self._archive.member(name, tarformat.HARD_LINK, mode=mode, link=first)
                    return
            size = status.st_size
            parts = sparse.data_parts(descriptor, size) if size >= sparse.BLOCK else None
            stored = None if parts is None else sparse.stored_size(parts, size)
            self._archive.file(name, mode, size, stored, _data(descriptor, name, size, parts))
        finally:
            os.close(descriptor)


def _data(
    descriptor: int, name: bytes, size: int, parts: sparse.Parts | None
) -> Iterator[memoryview]:
    """The data of a file as it is stored. Raises UsageError if its size changes meanwhile."""
    if parts is not None:
        yield memoryview(sparse.written_map(parts, size))
    for offset, length in [(0, size)] if parts is None else parts:
        position, end = offset, offset + length
        while position < end:
            data = os.pread(descriptor, min(end - position, READ_SIZE), position)
            if not data:
                raise _changed(name)
            position += len(data)
            yield memoryview(data)
    if os.fstat(descriptor).st_size != size:
        raise _changed(name)


def _changed(name: bytes) -> UsageError:
    return UsageError(f"the size of {_shown(name)} changed while it was packed")


def _no_file(name: bytes) -> UsageError:
    return UsageError(f"{_shown(name)} is not a file, directory or symbolic link; leave it out")


def _shown(name: bytes) -> str:
    return tarformat.shown(name)
