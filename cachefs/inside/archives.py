"""The archive of one layer: its index, and any part of it, read from where that costs least.

The index is made when it is first needed, by reading the layer once, and is kept on this machine. A
layer that is not compressed is then read by ranges. Of any other, the decompressed archive is kept.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO, Final
from weakref import finalize

from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.errors import IntegrityError, LayerError
from cachefs.layers.indexing import BLOCK, index_layer
from cachefs.layers.limits import DEFAULT_LIMITS
from cachefs.transfer.importer import open_blob
from cachefs.user_cache.archives import (
    NewArchive,
    forget_archive,
    keep_index,
    kept_archive,
    kept_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefs.layers.indexing import LayerIndex
    from cachefs.layers.limits import Limits
    from cachefs.layout.base import Layout
    from cachefs.wire.cacheconfig import Layer

_AT_ONCE: Final = 8
"""Blocks that are read together."""

_HELD: Final = 16
"""Blocks that are held in memory."""


class LayerArchive:
    """The archive in a layer's blob. It may be used from several threads.

    Methods raise NotFoundError, IntegrityError, LayerError and StoreError.
    """

    def __init__(self, layout: Layout, layer: Layer, limits: Limits = DEFAULT_LIMITS) -> None:
        if not layer.diff_id:
            raise LayerError(
                f"the diffID of the layer {layer.blob} is not known, so its files cannot be "
                "checked; 'cachefs copy' to another location adds it"
            )
        self.layer = layer
        self._layout = layout
        self._blob = Digest(layer.blob)
        self._diff_id = Digest(layer.diff_id)
        self._limits = limits
        self._file: BinaryIO | None = None
        self._closing: finalize[..., LayerArchive] | None = None
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._lock = RLock()

    @property
    def is_plain(self) -> bool:
        """Whether the blob is the archive itself, not compressed."""
        return self._blob == self._diff_id

    def open_blob(self) -> BinaryIO:
        """The verified blob, as a file at its start, which the caller closes."""
        return run(open_blob(self._layout, self._blob, self.layer.size or None))

    @cached_property
    def index(self) -> LayerIndex:
        """What the archive holds."""
        with self._lock:
            kept = kept_index(self._diff_id)
            if kept is not None:
                return kept
            index, archive = self._read_blob()
            self._hold_or_close(archive)
            return index

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to before ``end``, all of which the archive must have."""
        at = start
        while at < end:
            number = at // BLOCK
            block = self._block(number, (end - 1) // BLOCK)
            yield block[at - number * BLOCK : end - number * BLOCK]
            at = (number + 1) * BLOCK

    def close(self) -> None:
        """Close the temporary file that the archive may be in."""
        with self._lock:
            if self._closing is not None:
                self._closing()
            self._file = self._closing = None

    def _read_blob(self) -> tuple[LayerIndex, NewArchive | None]:
        """Read the blob; keep the index, and the archive if it is compressed."""
        archive = None if self.is_plain else NewArchive(self._diff_id)
        try:
            with self.open_blob() as blob:
                index = index_layer(
                    blob,
                    media_type=self.layer.media_type,
                    diff_id=self._diff_id,
                    keep=None if archive is None else archive.write,
                    limits=self._limits,
                )
        except BaseException:
            if archive is not None:
                archive.discard()
            raise
        keep_index(self._diff_id, index)
        if archive is not None:
            archive.finish()
        return index, archive

    def _hold_or_close(self, archive: NewArchive | None) -> None:
        """Close what can be opened again, because a result may have many layers."""
        self.close()
        if archive is not None and archive.is_kept:
            archive.file.close()
        elif archive is not None:
            self._file = archive.file
            self._closing = finalize(self, self._file.close)

    def _block(self, number: int, last: int) -> bytes:
        """A block; if it has to be read, those after it that are needed are read with it."""
        with self._lock:
            if number not in self._held:
                end = number + 1
                while end <= min(last, number + _AT_ONCE - 1) and end not in self._held:
                    end += 1
                self._hold(number, end)
            self._held.move_to_end(number)
            return self._held[number]

    def _hold(self, first: int, end: int) -> None:
        try:
            blocks = self._checked(first, end)
        except IntegrityError:  # damaged on its way, or on the disk of this machine
            if not self.is_plain:
                self.close()
                forget_archive(self._diff_id)
            blocks = self._checked(first, end)
        self._held |= dict(enumerate(blocks, first))
        while len(self._held) > _HELD:
            self._held.popitem(last=False)

    def _checked(self, first: int, end: int) -> list[bytes]:
        data = self._stored(first * BLOCK, min(end * BLOCK, self.index.size))
        blocks = [data[at : at + BLOCK] for at in range(0, (end - first) * BLOCK, BLOCK)]
        for number, block in enumerate(blocks, first):
            self.index.check(number, block)
        return blocks

    def _stored(self, start: int, end: int) -> bytes:
        if self.is_plain:
            key = self._layout.blob_key(self._blob)
            return run(self._layout.store.read_range(key, start, end))
        if self._file is not None:
            return _pread(self._file, start, end)
        kept = kept_archive(self._diff_id)
        if kept is not None:
            with kept:
                return _pread(kept, start, end)
        _, archive = self._read_blob()
        try:
            return b"" if archive is None else _pread(archive.file, start, end)
        finally:
            self._hold_or_close(archive)


def _pread(file: BinaryIO, start: int, end: int) -> bytes:
    """Read a part of a file; fewer bytes if it is shorter."""
    parts = []
    while start < end and (part := os.pread(file.fileno(), end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
