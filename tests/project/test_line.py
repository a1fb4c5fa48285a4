"""The benchmark's line delivers all bytes, in order, and not earlier than a line would."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.line import Line, running


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it receives, and hangs up after its client."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def exchanged(port: int, data: bytes) -> bytes:
    """Send data, say that this was all, and read until the other side hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        threading.Thread(target=_send, args=(connection, data), daemon=True).start()
        return b"".join(iter(lambda: connection.recv(65536), b""))


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the other side may hang up before
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def test_a_new_connection_and_its_first_request_take_two_round_trips(echo: int) -> None:
    with running("127.0.0.1", echo, Line(100)) as line:
        began = time.monotonic()
        assert exchanged(line.port, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.2
        done = line.done()
        assert (done.connections, done.moved) == (1, 10)
        assert done.late < 10


def test_bytes_wait_for_one_another_and_arrive_in_order(echo: int) -> None:
    data = os.urandom(6 * 1024 * 1024)  # more than may be on the line at a time
    with running("127.0.0.1", echo, Line(2, 80)) as line:
        began = time.monotonic()
        assert exchanged(line.port, data) == data
        assert time.monotonic() - began >= len(data) * 8 / 80e6


def test_a_server_that_is_not_there_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with running("127.0.0.1", port, Line(1)) as line:
        assert exchanged(line.port, b"") == b""
