"""The one read path: manifests to a graph, and blobs that are verified before they are used.

Anything that cannot be read is a :class:`Miss` with its reason, never an exception in the middle of
a build: the step just runs again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar, cast

from cachefs.concurrency import closing
from cachefs.digest import Digest
from cachefs.errors import CacheError, IntegrityError, NotFoundError, UsageError
from cachefs.filesystems.base import CHUNK_SIZE, TEMPORARY
from cachefs.filesystems.failures import mapped
from cachefs.filesystems.files import write_all
from cachefs.filesystems.system import temporary_files
from cachefs.store import verified
from cachefs.transfer.manifests import read_manifests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from cachefs.layout.base import Layout, Manifest
    from cachefs.wire.cacheconfig import Layer

T = TypeVar("T")

logger = logging.getLogger("cachefs")


@dataclass(frozen=True, slots=True)
class Miss:
    """The reason why something could not be read from the cache. False in a condition.

    Attributes:
        what: the name or digest that was requested.
        reason: one line.
        absent: True if it just does not exist, False if it is damaged or the store failed.
    """

    what: str
    reason: str
    absent: bool = False

    def __bool__(self) -> Literal[False]:
        return False

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


class CachedResult:
    """A result that the cache has, fetched only when it is pulled.

    Attributes:
        layers: its layers, from the bottom up.
        created_at: when it was made, as RFC 3339 text.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        created_at: str,
        fetch: Callable[[str, Path, int | None], Path | Miss],
    ) -> None:
        self.layers = layers
        self.created_at = created_at
        self._fetch = fetch

    def __repr__(self) -> str:
        return f"<CachedResult of {len(self.layers)} layers from {self.created_at}>"

    def pull(self, directory: str | os.PathLike[str]) -> list[Path] | Miss:
        """Fetch the layers' blobs into a directory, each as a file named by its 64 hex digits.

        The directory is made if missing. Layers are fetched from the bottom up; the first that
        cannot be read is returned as a miss. Blocks until it is done.
        """
        Path(directory).mkdir(parents=True, exist_ok=True)
        paths = []
        for layer in self.layers:
            size = layer.size or None
            fetched = self._fetch(layer.blob, Path(directory, Digest(layer.blob).hex), size)
            if isinstance(fetched, Miss):
                return fetched
            paths.append(fetched)
        return paths


async def load_manifests(layout: Layout, names: Sequence[str]) -> list[Manifest | Miss]:
    """Each name's manifest, or why it cannot be read. Raises UsageError for an invalid name."""
    found = await read_manifests(layout, names, store_errors=True)
    for manifest in found.values():
        if not isinstance(manifest, CacheError) and manifest.left_out:
            logger.warning("builders refuse %s: %s", manifest.name, manifest.left_out)
    return [
        missed(name, each) if isinstance(each, CacheError) else each for name, each in found.items()
    ]


def missed(what: str, error: CacheError) -> Miss:
    """The miss for an error that reading raised."""
    return Miss(what, str(error), absent=isinstance(error, NotFoundError))


async def read_blob(layout: Layout, digest: Digest, size: int | None = None) -> bytes:
    """A blob's bytes, all in memory. Raises NotFoundError, IntegrityError and StoreError."""
    return await _twice(lambda: _collect(layout, digest, size))


async def _collect(layout: Layout, digest: Digest, size: int | None) -> bytes:
    async with closing(verified(_chunks(layout, digest, size), digest, size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def fetch_blob(layout: Layout, digest: Digest, path: Path, size: int | None = None) -> None:
    """Write a blob to a file, which appears complete and verified or not at all.

    Raises NotFoundError, IntegrityError and StoreError, and UsageError for a path that cannot be a
    file; then the path is left as it was.
    """
    if path.is_dir() or not path.parent.is_dir():
        where = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UsageError(where, operation="write", key=str(path))
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")

    async def write() -> None:
        with mapped("write", str(path)):
            with temporary.open("wb", 0) as file:
                await _copy(layout, digest, size, file)
            temporary.replace(path)

    try:
        await _twice(write)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


async def open_blob(layout: Layout, digest: Digest, size: int | None = None) -> BinaryIO:
    """The verified blob as a file at its start: in memory up to 8 MiB, else an unnamed file.

    Raises NotFoundError, IntegrityError and StoreError.
    """

    async def spool() -> BinaryIO:
        file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=CHUNK_SIZE))  # noqa: SIM115 - the caller closes it
        try:
            with temporary_files():
                await _copy(layout, digest, size, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    return await _twice(spool)


async def check_blob(layout: Layout, digest: Digest, size: int | None = None) -> None:
    """Read a blob to its end and discard it.

    Raises NotFoundError, IntegrityError (after a second fetch) and StoreError.
    """

    async def read() -> None:
        async for _ in verified(_chunks(layout, digest, size), digest, size):
            pass

    await _twice(read)


async def _copy(layout: Layout, digest: Digest, size: int | None, file: BinaryIO) -> None:
    async with closing(verified(_chunks(layout, digest, size), digest, size)) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(write_all, file, [chunk])


def _chunks(layout: Layout, digest: Digest, size: int | None) -> AsyncIterator[bytes]:
    return layout.store.chunks(layout.blob_key(digest), size)


async def _twice(work: Callable[[], Awaitable[T]]) -> T:
    """Fetch a damaged blob once more: it may be damaged by the network, not in the store."""
    try:
        return await work()
    except IntegrityError:
        return await work()
