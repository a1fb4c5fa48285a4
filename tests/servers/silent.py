"""Servers that accept connections and then do not do what servers do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

Behaviour = Callable[[socket.socket], None]


def says_nothing(connection: socket.socket) -> None:
    """Read nothing and respond with nothing."""
    connection.recv(1, socket.MSG_PEEK)
    threading.Event().wait(60)


def stalls(connection: socket.socket) -> None:
    """Respond with headers and a part of the body."""
    in_part = b"\r\nrange:" in connection.recv(65536).lower()
    status = b"206 Partial\r\nContent-Range: bytes 0-999999/1000000" if in_part else b"200 OK"
    headers = b"\r\nContent-Length: 1000000\r\n" + _TIMES
    connection.sendall(b"HTTP/1.1 " + status + headers + b"\r\n<x>")
    threading.Event().wait(60)


_TIMES = b'Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: "x"\r\n'


def trickles(body: bytes, seconds: float) -> Behaviour:
    """Respond with the body, a byte at a time, in so many seconds altogether."""

    def behave(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            length = f"Content-Length: {len(body)}\r\n".encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + _TIMES + b"\r\n")
            if request.startswith(b"HEAD"):
                continue
            for position in range(len(body)):
                connection.sendall(body[position : position + 1])
                time.sleep(seconds / len(body))

    return behave


@contextlib.contextmanager
def behaving(behave: Behaviour) -> Iterator[int]:
    """Run a server that treats every connection in this way, and give its port on loopback."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                behave(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # ends the wait for another connection
            accepting.join()
            for connection in connections:
                connection.close()
