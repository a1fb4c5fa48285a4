"""A lock on a file, among the processes of all machines that the disk has locks for."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from filelock import FileLock

_POLL: Final = 0.02
"""Seconds between two attempts to acquire a lock."""


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock. Its file is made, with its directory, and stays."""
    from filelock import FileLock  # noqa: PLC0415 - slow to load, and not needed to read

    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    lock = FileLock(path)
    while not _acquired(lock):  # noqa: ASYNC110 - another process may hold it
        await asyncio.sleep(_POLL)
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    """Try once. Waiting in a thread could leave none for the task that holds the lock."""
    from filelock import Timeout  # noqa: PLC0415

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
