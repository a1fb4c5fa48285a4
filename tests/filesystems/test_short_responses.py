"""A response that ends too early is an error, also where nothing else tells that bytes lack."""

from __future__ import annotations

import socket
from typing import Any

import pytest

import cachefs
from tests.servers.silent import behaving

TIMES = b'Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: "x"\r\nConnection: close\r\n'


def gives_too_little(connection: socket.socket) -> None:
    """Break off the first response; give one byte of the rest, as if that were all of it."""
    request = connection.recv(65536).lower()
    if b"\r\nrange:" in request:
        head = b"206 Partial Content\r\nContent-Range: bytes 2-2/40\r\nContent-Length: 1\r\n"
        body = b" "
    else:
        head, body = b"200 OK\r\nContent-Length: 40\r\n", b"{}"
    connection.sendall(b"HTTP/1.1 " + head + TIMES + b"\r\n" + body)
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_manifest_of_which_the_end_is_missing(engine: Any) -> None:
    with behaving(gives_too_little) as port:
        cache = cachefs.open(
            "type=s3,bucket=b,region=r,access_key_id=a,secret_access_key=b,retry_max_attempts=1",
            endpoint_url=f"http://127.0.0.1:{port}",
            use_path_style=True,
            engine=engine,
        )
        with pytest.raises(cachefs.StoreError):
            cache.manifest("app")
