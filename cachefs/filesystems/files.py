"""Files on disk: bytes written in full, and streams spooled for those who send files only."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import IO

WRITTEN: Final = 256 * 1024
"""Bytes that are written at a time.

Linux lays a longer write into larger pages, up to 2 MiB, and of such a virtual machine gives those
that are free back to its host: getting them anew takes ten times the CPU that writing takes.
"""


def write_all(file: IO[bytes], chunks: Iterable[bytes]) -> None:
    """Write all. A disk that is nearly full takes a part, and says so by its count alone."""
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest[:WRITTEN]) :]


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The path of a file that holds all the chunks; gone when the context ends."""
    with tempfile.NamedTemporaryFile(prefix="cachefs-") as file:
        async for chunk in chunks:
            await asyncio.to_thread(write_all, file, [chunk])
        await asyncio.to_thread(file.flush)
        yield file.name
