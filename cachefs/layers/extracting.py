"""Extracting layers into a directory: complete and verified, or not at all.

Layers come from shared storage and are not trusted. Nothing is written outside the destination;
sizes and counts are bounded; the diffID is checked; devices and pipes are refused; owners, times,
extended attributes and set-user-ID bits are ignored. The destination appears only after success.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cachefs.digest import Digest
from cachefs.errors import LayerError, UsageError
from cachefs.layers import placing, sparse, tarformat
from cachefs.layers.applying import Applier
from cachefs.layers.beneath import remove_directory
from cachefs.layers.compression import check_diff_id, decompressed
from cachefs.layers.limits import DEFAULT_LIMITS, Budget, Counted, Limits
from cachefs.layers.listing import FILE, Listed, kept_mode
from cachefs.layers.overlap import background, prefetched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cachefs.layers.beneath import Parts
    from cachefs.layers.listing import Listing
    from cachefs.layers.overlap import CallQueue
    from cachefs.layers.tarformat import Archive, Member


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer to extract: its blob, read from the stream's position, and its descriptor's facts.

    If the media type is empty, the first bytes decide how the blob is compressed.
    """

    stream: BinaryIO
    media_type: str
    diff_id: Digest


def extract(
    stream: BinaryIO,
    destination: Path,
    *,
    media_type: str,
    diff_id: Digest,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Extract one layer into a new directory: :func:`extract_chain` of a single layer."""
    extract_chain([LayerSource(stream, media_type, diff_id)], destination, limits=limits)


def extract_chain(
    layers: Iterable[LayerSource],
    destination: Path,
    *,
    limits: Limits = DEFAULT_LIMITS,
    listing: Listing | None = None,
) -> None:
    """Extract layers on top of each other, the lowest first, into a new directory.

    The destination must be missing or an empty directory; its parent must exist. Files are written
    to a temporary directory next to it, which is renamed at the end. After an error nothing is
    left; a killed process leaves a directory whose name begins with ``.cachefs-``. Streams are read
    in order, by another thread, and not closed; an iterator of layers may open each stream when it
    is reached. Memory is bounded; each name of an upper layer takes about 100 bytes of it.

    Permissions are those of the archive, except for those that :func:`kept_mode` changes. A
    symbolic link is created as it is, wherever it points: take care when following links in the
    result. A sparse file gets its holes. ``listing`` receives the members, if there is one layer.

    Raises:
        IntegrityError: damaged bytes, or bytes that do not match the diffID.
        LayerError: an archive that would write outside, exceeds a limit, or is not valid.
        UsageError: the destination already exists.
        OSError: writing to the disk or reading a stream fails.
    """
    with _appearing(destination) as descriptor, placing.Root(descriptor) as root:
        budget = Budget(limits, "extracted")
        for index, layer in enumerate(layers):
            budget.layer()
            _extract_layer(layer, root, budget, None if index else listing, upper=index > 0)
            if index and listing is not None:
                listing.whole = False


@contextmanager
def _appearing(destination: Path) -> Iterator[int]:
    """The descriptor of a temporary directory: renamed to the destination, or removed on error."""
    if os.path.lexists(destination) and not _is_empty_directory(destination):
        raise UsageError(f"{destination} already exists; extract to a new or empty directory")
    parent = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".cachefs-{secrets.token_hex(8)}"
    try:
        os.mkdir(name, dir_fd=parent)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            os.rename(name, destination.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            remove_directory(os.fsencode(name), parent)
            raise
    finally:
        os.close(parent)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _extract_layer(
    layer: LayerSource, root: placing.Root, budget: Budget, listing: Listing | None, *, upper: bool
) -> None:
    with ExitStack() as stack:
        chunks = stack.enter_context(
            prefetched(
                decompressed(Counted(layer.stream, budget), layer.media_type), "cachefs-expand"
            )
        )
        hashing = stack.enter_context(background("cachefs-diffid"))
        checked = _Checked(layer.diff_id, hashing)
        listed = None if listing is None else _Listed(listing, hashing)
        archive = tarformat.Archive(checked.chunks(chunks, budget))
        applier = _Extraction(root, budget, listed, archive, upper=upper)
        try:
            for member in archive.members():
                applier.apply(member)
        except LayerError:
            # Damaged bytes may look like an invalid archive: the archive is at fault only if the
            # diffID matches. Beyond a limit, nothing more is read.
            if not budget.passed:
                archive.drain()
                checked.finish()
            raise
        archive.drain()
        checked.finish()
        if listing is not None:
            listing.finish()


class _Listed:
    """Lists the members of a layer while they are extracted."""

    def __init__(self, listing: Listing, hashing: CallQueue) -> None:
        self._listing = listing
        self._hashing = hashing

    def member(self, path: Parts, kind: str, *, mode: int, value: bytes) -> None:
        """List a directory or link."""
        self._listing.add(b"/".join(path), Listed(kind, mode, 0, value))

    def data(
        self, path: Parts, mode: int, size: int, data: Iterator[memoryview]
    ) -> Iterator[memoryview]:
        """The same data of a file, which is listed."""
        return self._listing.file(b"/".join(path), mode, size, data, self._hashing)

    def removal(self) -> None:
        """Note a removal."""
        self._listing.whole = False


class _Checked:
    """Hashes the chunks, and compares the digest with the diffID at the end."""

    def __init__(self, diff_id: Digest, hashing: CallQueue) -> None:
        self._diff_id = diff_id
        self._hashing = hashing
        self._hash = hashlib.sha256()

    def chunks(self, chunks: Iterable[bytes], budget: Budget) -> Iterator[bytes]:
        for chunk in chunks:
            budget.expanded(len(chunk))
            self._hashing.call(self._hash.update, chunk)
            yield chunk

    def finish(self) -> None:
        self._hashing.finish()
        check_diff_id(Digest.from_hex(self._hash.hexdigest()), self._diff_id)


class _Extraction(Applier):
    """Applies the members of an archive to a directory, and lists them."""

    def __init__(
        self,
        root: placing.Root,
        budget: Budget,
        listed: _Listed | None,
        archive: Archive,
        *,
        upper: bool,
    ) -> None:
        super().__init__(root, budget, upper=upper)
        self._files = root
        self._count = budget
        self._listed = listed
        self._archive = archive

    def place_file(self, path: Parts, member: Member) -> None:
        mode, data = kept_mode(member.mode, FILE), self._archive.data(member)
        size = member.size if member.real_size is None else member.real_size
        if self._listed is not None:
            data = self._listed.data(path, mode, size, data)
        if member.real_size is None:
            self._files.file(path, mode, data)
        else:
            self._count.apparent(size)
            self._files.sparse_file(path, mode, size, sparse.placed(data, member.size, size))
            for _ in data:  # what is left of it belongs to the digest of the file
                pass

    def placed(self, path: Parts, kind: str, *, mode: int, value: bytes) -> None:
        if self._listed is not None:
            self._listed.member(path, kind, mode=mode, value=value)

    def removing(self, path: Parts, *, all_below: bool) -> None:
        del path, all_below
        if self._listed is not None:
            self._listed.removal()
