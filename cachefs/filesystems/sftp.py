"""SFTP through fsspec and paramiko."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.files import spooled
from cachefs.filesystems.findings import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


class SFTPFilesystem(Filesystem):
    """An ``fsspec.implementations.sftp.SFTPFileSystem``: temporary files are renamed.

    It makes one call at a time, because paramiko's client loses responses that another thread waits
    for. Bytes are sent and read by paramiko's own methods, because fsspec's wait after each 32 KiB.
    """

    touches = True
    sets_times = True
    has_directories = True

    # A thread instead of a lock: a call runs to its end even if its caller was cancelled.
    _threads_for_calls = 1

    _closed = False
    """Whether the connection was closed, so that the next call makes another."""

    def give_up(self) -> None:
        """Close the connection, which ends the call that waits for a response."""
        self._closed = True
        self.fs.sync_fs.client.close()

    async def _blocking(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await super()._blocking(self._connected, work, *args, **options)

    def _connected(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._closed:
            self.fs.sync_fs._connect()
            self._closed = False
        return work(*args, **options)

    @property
    def _ftp(self) -> Any:
        return self.fs.sync_fs.ftp

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """Whether the server's key is compared with one that is known."""
        del blobs, manifests
        policy = type(self.fs.sync_fs.client._policy).__name__
        if policy not in {"AutoAddPolicy", "WarningPolicy"}:
            return [Finding("transport", "good", "ssh, to a server whose key is known")]
        return [
            Finding(
                "transport",
                "mind",
                "ssh, but any key of the server is accepted: another could take its place",
                "pass host_key_policy in storage_options from Python",
            )
        ]

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """Send the packets without waiting for responses; paramiko checks the size at the end."""
        data = BytesIO(b"".join(chunks))
        async with self._seen_whole(path) as target:
            await self._blocking(lambda: self._ftp.putfo(data, target))

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:  # noqa: ARG002 - SFTP has no parts
        def progressed(*_: int) -> None:
            self.patience.progressed()

        async with spooled(chunks) as local, self._seen_whole(path) as target:
            await self._blocking(lambda: self._ftp.put(local, target, callback=progressed))

    async def _touch(self, stat: Stat) -> None:
        """Set the file's time to now."""
        await self._blocking(lambda: self._ftp.utime(stat.path, None))

    async def set_time(self, path: str, modified: float) -> None:
        """Set the file's time, which SFTP has in whole seconds."""
        await self._blocking(lambda: self._ftp.utime(path, (modified, modified)))

    async def _range(self, path: str, start: int, end: int) -> bytes:
        found: bytes = await self._blocking(self._read, path, start, end)
        return found

    def _read(self, path: str, start: int, end: int) -> bytes:
        with self._ftp.open(path, "rb") as file:
            # Requesting a packet beyond the end would be an error.
            length = min(end, file.stat().st_size) - start
            return b"".join(file.readv([(start, length)])) if length > 0 else b""

    async def _rename(self, source: str, target: str) -> None:
        # The plain rename of SFTP fails if the target exists.
        await self._blocking(lambda: self._ftp.posix_rename(source, target))
