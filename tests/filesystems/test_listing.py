"""Listings that ignore where to start, go round in circles, or cannot be had."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.errors import AccessError, StoreError, UnreachableError
from cachefs.filesystems.listing import EMPTY_PAGES, Advance, walk
from cachefs.transfer.lookup import list_blobs
from tests.servers.s3 import S3Server
from tests.servers.silent import behaving

KEYS = [f"blobs/sha256:{number * 0x9E3779B97F4A7C15 % 2**256:064x}" for number in range(1, 2501)]


class Bucket:
    """A server that pages by tokens and takes no notice of start-after, as some gateways do."""

    def __init__(self, following: Callable[[int], str] = str) -> None:
        self.requests = 0
        self._keys = sorted(KEYS)
        self._following = following

    def respond(self, query: dict[str, str]) -> bytes:
        self.requests += 1
        found = [key for key in self._keys if key.startswith(query.get("prefix", ""))]
        start = int(query.get("continuation-token", "0"))
        end = start + int(query.get("max-keys", "1000"))
        items = "".join(
            f"<Contents><Key>{key}</Key><Size>2</Size><ETag>x</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in found[start:end]
        )
        more = ""
        if end < len(found):
            more = f"<NextContinuationToken>{self._following(end)}</NextContinuationToken>"
        flag = "true" if more else "false"
        return (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
            f"<IsTruncated>{flag}</IsTruncated>{more}{items}</ListBucketResult>"
        ).encode()


def serving(bucket: Bucket) -> Iterator[S3Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = urllib.parse.urlsplit(self.path).query
            body = bucket.respond(dict(urllib.parse.parse_qsl(query)))
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield S3Server(f"http://127.0.0.1:{server.server_port}", "a-key-id", "a-secret")
        server.shutdown()
        thread.join()


@pytest.fixture
def ignoring() -> Iterator[tuple[Bucket, S3Server]]:
    bucket = Bucket()
    for server in serving(bucket):
        yield bucket, server


@pytest.fixture
def circling() -> Iterator[tuple[Bucket, S3Server]]:
    bucket = Bucket(lambda _: "1000")
    for server in serving(bucket):
        yield bucket, server


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_server_that_takes_no_notice_of_start_after(
    engine: str, ignoring: tuple[Bucket, S3Server]
) -> None:
    bucket, server = ignoring
    layout = cachefs.open(server.attributes("b", engine=engine)).layout
    assert [stat.path for stat in run(layout.store.list("blobs/"))] == sorted(KEYS)
    assert bucket.requests == 3
    middle = sorted(KEYS)[1500]
    assert [s.path for s in run(layout.store.page("blobs/", middle, 1000)).objects][:2] == (
        sorted(KEYS)[1501:1503]
    )
    assert len(run(list_blobs(layout))) == len(KEYS)


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_listing_that_goes_round_in_a_circle_is_an_error(
    engine: str, circling: tuple[Bucket, S3Server]
) -> None:
    bucket, server = circling
    layout = cachefs.open(server.attributes("b", engine=engine)).layout
    with pytest.raises(StoreError, match="listing does not end"):
        run(layout.store.list("blobs/"))
    with pytest.raises(StoreError, match="listing does not end"):
        run(list_blobs(layout))
    assert bucket.requests <= 100


def test_it_is_noticed_in_any_circle() -> None:
    for start in range(5):
        for length in range(1, 5):
            advance = Advance()
            line = [f"once {number}" for number in range(start)]
            for item in line:
                advance.see(item)
            circle = [f"in the circle {number % length}" for number in range(100)]
            with pytest.raises(StoreError, match="again and again"):
                _see_all(advance, circle)


def _see_all(advance: Advance, paths: list[str]) -> None:
    for path in paths:
        advance.see(path)


def test_tokens_and_empty_pages_have_to_lead_somewhere() -> None:
    with pytest.raises(StoreError, match="same page"):
        Advance().turn(None, 1000)
    advance = Advance()
    for number in range(EMPTY_PAGES - 1):
        advance.turn(f"token {number}", 0)
    with pytest.raises(StoreError, match="empty"):
        advance.turn("another token", 0)


def test_folders_in_folders_without_end() -> None:
    async def ls(path: str) -> list[dict[str, str]]:
        return [{"name": f"{path}/x", "type": "directory"}]

    with pytest.raises(StoreError, match="levels deep"):
        run(walk(ls, "root"))


def test_an_http_server_that_cannot_be_reached_is_an_error() -> None:
    with behaving(lambda connection: connection.close()) as port:
        pass
    cache = cachefs.open(f"http://127.0.0.1:{port}/cache/")
    with pytest.raises(UnreachableError, match="nothing listens there"):
        cache.names()
    with pytest.raises(UnreachableError):
        run(cache.layout.find("app"))
    with pytest.raises(UnreachableError):
        cache.manifest("app")


def _http(status: str) -> Callable[..., None]:
    def behave(connection: object) -> None:
        assert hasattr(connection, "recv")
        while connection.recv(65536):
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())  # type: ignore[attr-defined]

    return behave


@pytest.mark.parametrize(
    ("status", "kind"), [("403 Forbidden", AccessError), ("500 Error", StoreError)]
)
def test_an_http_server_that_refuses_is_an_error(status: str, kind: type[StoreError]) -> None:
    with behaving(_http(status)) as port:
        cache = cachefs.open(f"http://127.0.0.1:{port}/cache/")
        with pytest.raises(kind):
            cache.names()
        with pytest.raises(kind):
            cache.manifest("app")


def test_an_http_server_without_the_folder_has_no_names() -> None:
    with behaving(_http("404 Not Found")) as port:
        assert cachefs.open(f"http://127.0.0.1:{port}/cache/").names() == []
