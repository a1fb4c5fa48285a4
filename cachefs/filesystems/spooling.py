"""A stream laid down in a temporary file, for filesystems that only send files."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cachefs.filesystems.writing import write_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def spooled(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The path of a file that holds all the pieces; gone when the context ends."""
    with tempfile.NamedTemporaryFile(prefix="cachefs-") as file:
        async for piece in pieces:
            await asyncio.to_thread(write_all, file, [piece])
        await asyncio.to_thread(file.flush)
        yield file.name
