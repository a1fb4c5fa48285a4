"""SFTP through fsspec and paramiko."""

from __future__ import annotations

import asyncio

from cachefs.filesystems.base import Filesystem, Stat


class SFTPFilesystem(Filesystem):
    """An ``fsspec.implementations.sftp.SFTPFileSystem``: written aside and renamed."""

    touches = True

    async def touch(self, stat: Stat) -> None:
        """Set the file's time to now."""
        await asyncio.to_thread(self.fs.sync_fs.ftp.utime, stat.path, None)

    async def _rename(self, source: str, target: str) -> None:
        # The plain rename of SFTP refuses a target that is there.
        await asyncio.to_thread(self.fs.sync_fs.ftp.posix_rename, source, target)
