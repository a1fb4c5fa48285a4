"""SFTP through fsspec and paramiko."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from cachefs.filesystems.base import Filesystem, Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsspec import AbstractFileSystem


class SFTPFilesystem(Filesystem):
    """An ``fsspec.implementations.sftp.SFTPFileSystem``: temporary files are renamed.

    It makes one call at a time, because paramiko's client loses responses that another thread waits
    for. Bytes are sent and read by paramiko's own methods, because fsspec's wait after each 32 KiB.
    """

    touches = True
    sets_times = True
    has_directories = True

    def __init__(self, fs: AbstractFileSystem, parallelism: int = 4) -> None:
        super().__init__(fs, parallelism)
        self._ftp: Any = fs.ftp
        # A thread instead of a lock: a call runs to its end even if its caller was cancelled.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cachefs-sftp")
        for name in ("find", "info", "ls", "makedirs", "put_file", "rm_file"):
            setattr(self.fs, f"_{name}", partial(self._alone, getattr(fs, name)))

    async def _alone(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(call, *args, **options))

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """Send the packets without waiting for responses; paramiko checks the size at the end."""
        async with self._seen_whole(path) as target:
            await self._alone(self._ftp.putfo, BytesIO(b"".join(chunks)), target)

    async def _touch(self, stat: Stat) -> None:
        """Set the file's time to now."""
        await self._alone(self._ftp.utime, stat.path, None)

    async def set_time(self, path: str, modified: float) -> None:
        """Set the file's time, which SFTP has in whole seconds."""
        await self._alone(self._ftp.utime, path, (modified, modified))

    async def _range(self, path: str, start: int, end: int) -> bytes:
        found: bytes = await self._alone(self._read, path, start, end)
        return found

    def _read(self, path: str, start: int, end: int) -> bytes:
        with self._ftp.open(path, "rb") as file:
            # Requesting a packet beyond the end would be an error.
            length = min(end, file.stat().st_size) - start
            return b"".join(file.readv([(start, length)])) if length > 0 else b""

    async def _rename(self, source: str, target: str) -> None:
        # The plain rename of SFTP fails if the target exists.
        await self._alone(self._ftp.posix_rename, source, target)
