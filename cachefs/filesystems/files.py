"""Local files: complete writes, and streams spooled for filesystems that only send files."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from cachefs.filesystems.system import temporary_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import IO

WRITTEN: Final = 256 * 1024
"""Bytes per write.

Linux stores longer writes in larger pages, of up to 2 MiB. A virtual machine returns such pages to
its host when they are free, and getting them again takes ten times the CPU time of the write.
"""


def write_all(file: IO[bytes], chunks: Iterable[bytes]) -> None:
    """Write all bytes. A nearly full disk takes fewer at a time, which only the count shows."""
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest[:WRITTEN]) :]


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Write the chunks to a temporary file and yield its path. It is deleted at the end."""
    with temporary_files():
        temporary = tempfile.NamedTemporaryFile(prefix="cachefs-")  # noqa: SIM115 - closed below
    with temporary as file:
        async for chunk in chunks:
            with temporary_files():
                await asyncio.to_thread(write_all, file, [chunk])
        with temporary_files():
            await asyncio.to_thread(file.flush)
        yield file.name
