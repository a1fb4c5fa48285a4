"""An SFTP server for a directory: ``python -m tests.servers.sftp FOLDER`` prints its port."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncssh

USER = "builder"
PASSWORD = "of-no-use-elsewhere"


@contextlib.contextmanager
def sftp(folder: Path) -> Iterator[int]:
    """Run a server of the folder and give its port on loopback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.sftp", str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline()
        if not port:
            raise RuntimeError("the SFTP server ended before it listened")
        yield int(port)
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


class _OneUser(asyncssh.SSHServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


async def _serve(folder: str) -> None:
    def serve(connection: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(connection, chroot=folder.encode())

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=_OneUser,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=serve,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
