"""The one read path: manifests to a graph, and blobs that are verified before anyone sees them.

What cannot be read is a :class:`Miss` with its reason, never an exception in the middle of
somebody's build: the step runs again, and that is all.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar, cast

from cachefs.concurrency import closing
from cachefs.errors import CacheError, IntegrityError, NotFoundError, UsageError
from cachefs.filesystems.base import CHUNK_SIZE, TEMPORARY
from cachefs.filesystems.failures import mapped
from cachefs.filesystems.files import write_all
from cachefs.store import verified

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Miss:
    """Why something is not to be had from the cache. False in a condition.

    Attributes:
        what: the name or digest that was asked for.
        reason: one line.
        absent: True where it simply is not there, False where it is damaged or out of reach.
    """

    what: str
    reason: str
    absent: bool = False

    def __bool__(self) -> Literal[False]:
        return False

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


async def read_manifests(layout: Layout, names: Sequence[str]) -> list[Manifest | Miss]:
    """Each name's manifest, or why there is none. Raises UsageError for a name that is none."""

    async def one(name: str) -> Manifest | Miss:
        try:
            return await layout.read(name)
        except UsageError:
            raise
        except CacheError as error:
            return missed(name, error)

    return list(await asyncio.gather(*(one(name) for name in names)))


def missed(what: str, error: CacheError) -> Miss:
    """The miss that an error while reading amounts to."""
    return Miss(what, str(error), absent=isinstance(error, NotFoundError))


async def read_blob(layout: Layout, digest: Digest, size: int | None = None) -> bytes:
    """A blob's bytes, all in memory. Raises NotFoundError, IntegrityError, StoreError."""
    return await _twice(lambda: _collect(layout, digest, size))


async def _collect(layout: Layout, digest: Digest, size: int | None) -> bytes:
    async with closing(verified(_chunks(layout, digest, size), digest, size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def fetch_blob(layout: Layout, digest: Digest, path: Path, size: int | None = None) -> None:
    """Write a blob to a file: it appears, whole and verified, or not at all.

    Raises NotFoundError, IntegrityError and StoreError, and UsageError for a path that no file can
    be written to; what was at the path then stays.
    """
    if path.is_dir() or not path.parent.is_dir():
        where = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(where, operation="write", key=str(path))
    aside = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")

    async def write() -> None:
        with mapped("write", str(path)):
            with aside.open("wb", 0) as file:
                await _copy(layout, digest, size, file)
            aside.replace(path)

    try:
        await _twice(write)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


async def open_blob(layout: Layout, digest: Digest, size: int | None = None) -> BinaryIO:
    """A file at its start with the verified blob, in memory up to 8 MiB, else on disk, unnamed.

    Raises NotFoundError, IntegrityError and StoreError.
    """

    async def spool() -> BinaryIO:
        file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=CHUNK_SIZE))  # noqa: SIM115 - the caller closes it
        try:
            await _copy(layout, digest, size, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    return await _twice(spool)


async def check_blob(layout: Layout, digest: Digest, size: int | None = None) -> None:
    """Read a blob to its end and keep nothing of it.

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
    """A blob that comes damaged is fetched once more: the wire may be at fault, not the store."""
    try:
        return await work()
    except IntegrityError:
        return await work()
