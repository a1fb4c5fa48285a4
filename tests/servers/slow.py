"""A line that is slow: a proxy that forwards only so many bytes per second."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator

from tests.servers.s3 import S3Server

_PIECE = 16 * 1024


@contextlib.contextmanager
def slow_proxy(upstream: S3Server, bytes_per_second: int) -> Iterator[S3Server]:
    """Forward connections to the server, and what clients send at this speed.

    It takes bytes only as fast as it forwards them, so the rest waits in the client's kernel.
    """
    there = urllib.parse.urlsplit(upstream.endpoint_url)
    assert there.hostname is not None
    address = (there.hostname, there.port or 80)

    def forward(source: socket.socket, target: socket.socket, pause: float) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                target.sendall(piece)
                time.sleep(pause * len(piece))
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Before it listens, because connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        opened: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection(address)
                    opened.extend((client, server))
                    for way in ((client, server, 1 / bytes_per_second), (server, client, 0.0)):
                        threading.Thread(target=forward, args=way, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            port = listener.getsockname()[1]
            yield dataclasses.replace(upstream, endpoint_url=f"http://127.0.0.1:{port}")
        finally:
            for each in opened:
                each.close()
