"""The digest index: digests of files, so that unchanged files are not read again.

Each root has one file in the user's cache directory. An entry is valid as long as the size, the
inode and both times of its file are the same. A damaged index counts as empty.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
import xxhash
from msgspec import Struct

from cachefs.user_directory import read_checked, sweep, write_checked

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

_WHOLE_SECOND: Final = 1_000_000_000
_COARSE: Final = 2_000_000_000  # FAT counts in units of two seconds, old NFS in seconds
_FINE: Final = 50_000_000  # kernels update the clock for files every few milliseconds


class Seen(Struct, array_like=True, frozen=True, gc=False):
    """A file as it was when its digest was made. Times are in nanoseconds since 1970."""

    size: int
    mtime: int
    ctime: int
    inode: int
    digest: bytes


_decoder: Final = msgspec.msgpack.Decoder(dict[bytes, Seen])
_encoder: Final = msgspec.msgpack.Encoder()


class DigestIndex:
    """The digests of the files below one root.

    Args:
        root: the directory, or the file.
        include: the patterns of those that are read; each set of patterns has its index.
    """

    def __init__(self, root: Path, include: Sequence[str] = ()) -> None:
        label = "\0".join((str(root), *include))
        self._name = xxhash.xxh3_128_hexdigest(label.encode(errors="surrogateescape"))
        self._seen = self._read()
        self._now: dict[bytes, Seen] = {}

    def _read(self) -> dict[bytes, Seen]:
        data = read_checked("index", self._name)
        try:
            return _decoder.decode(data) if data else {}
        except msgspec.DecodeError:
            return {}

    def get(self, name: bytes, status: os.stat_result) -> Seen | None:
        """The file with its SHA-256, or None if it may have changed."""
        seen = self._seen.get(name)
        if seen is None or seen != as_seen(status, seen.digest):
            return None
        self._now[name] = seen
        return seen

    def remember(self, name: bytes, status: os.stat_result, digest: bytes, read_at: int) -> None:
        """Keep a digest of a file that was read at ``read_at`` (:func:`clock`).

        As in git, the digest of a file that was written in the same clock tick in which it was
        read is not kept: the file could change again without a change of its times.
        """
        latest = max(status.st_mtime_ns, status.st_ctime_ns)
        tick = _FINE if status.st_mtime_ns % _WHOLE_SECOND else _COARSE
        if latest + tick < read_at:
            self._now[name] = as_seen(status, digest)

    def save(self) -> None:
        """Write the entries that were used or added since the index was read, if any differ."""
        if self._now != self._seen:
            sweep("index")
            write_checked(_encoder.encode(self._now), "index", self._name)


def as_seen(status: os.stat_result, digest: bytes) -> Seen:
    """A file's signature, with its digest."""
    return Seen(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest)


def clock() -> int:
    """The time for :meth:`DigestIndex.remember` in nanoseconds, taken before a file is read."""
    return time.time_ns()
