"""A proxy in front of an S3 server that records requests and can inject faults."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.servers.s3 import S3Server

_BLOCK = 64 * 1024
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as it came in; the body is forwarded but not kept."""

    method: str
    path: str
    """Unquoted, with the bucket: ``/bucket/key``."""
    query: str
    """As sent, without the question mark."""
    headers: dict[str, str]
    """With names in lower case."""

    @property
    def parameters(self) -> dict[str, str]:
        """The query, decoded."""
        return dict(urllib.parse.parse_qsl(self.query, keep_blank_values=True))


Predicate = Callable[[Request], bool]


@dataclasses.dataclass
class _Fault:
    times: int
    when: Predicate
    status: int | None
    code: str
    body: bytes | None
    cut_after: int | None
    delay: float
    flip: str
    lose: bool
    silent: bool
    act: Callable[[], object] | None


class RecordingProxy:
    """Records each request and forwards it, unless a fault was injected for it.

    The ``Host`` header is forwarded unchanged, so signatures made for the proxy are valid there.

    Attributes:
        server: what clients use in place of the real server.
        drops: names of headers, in lower case, that do not reach the real server.
    """

    def __init__(self, upstream: S3Server, endpoint_url: str) -> None:
        self.server = dataclasses.replace(upstream, endpoint_url=endpoint_url)
        self.drops: frozenset[str] = frozenset()
        self._upstream = urllib.parse.urlsplit(upstream.endpoint_url).netloc
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._faults: list[_Fault] = []
        self._active = 0
        self._most_at_once = 0
        self._ended = threading.Event()
        self._ended_depth = 0
        self._depth = 0

    @property
    def requests(self) -> list[Request]:
        """All requests since the start or the last :meth:`clear`, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def most_at_once(self) -> int:
        """The most concurrent requests since the last :meth:`clear`."""
        with self._lock:
            return self._most_at_once

    @property
    def depth(self) -> int:
        """The longest chain of requests that each began after the one before it had ended.

        With a delay for every request, those that are sent side by side count as one.
        """
        with self._lock:
            return self._depth

    def count(self, method: str | None = None, when: Predicate | None = None) -> int:
        """How many requests had this method and match the predicate."""
        return sum(
            (method is None or each.method == method) and (when is None or when(each))
            for each in self.requests
        )

    def clear(self) -> None:
        """Forget the requests; faults stay."""
        with self._lock:
            self._requests.clear()
            self._most_at_once = self._active
            self._depth = self._ended_depth = 0

    def inject(
        self,
        *,
        times: int = 1,
        when: Predicate = lambda _: True,
        status: int | None = None,
        code: str = "InternalError",
        body: bytes | None = None,
        cut_after: int | None = None,
        delay: float = 0.0,
        flip: Literal["", "request", "response"] = "",
        lose: bool = False,
        silent: bool = False,
        act: Callable[[], object] | None = None,
    ) -> None:
        """Inject a fault into the next requests that match; earlier faults come first.

        Args:
            times: how many requests, 0 for none.
            when: which requests.
            status: answer with this status and an S3 error body; nothing reaches the server.
            code: the S3 error code of that body, such as ``SlowDown``.
            body: another body to answer with.
            cut_after: forward the answer, but close the connection after so many bytes of its body.
            delay: seconds to wait before the request is handled.
            flip: flip a bit of the body of the request or of the response on its way.
            lose: let the server handle the request, and close the connection without a response.
            silent: read nothing more and never respond; the connection stays open.
            act: called before the request is handled.
        """
        fault = _Fault(times, when, status, code, body, cut_after, delay, flip, lose, silent, act)
        with self._lock:
            self._faults.append(fault)

    def _begin(self, request: Request) -> tuple[_Fault | None, int]:
        """The request's fault, and its place in the longest chain of requests that ends here."""
        with self._lock:
            depth = self._ended_depth + 1
            self._depth = max(self._depth, depth)
            self._requests.append(request)
            self._active += 1
            self._most_at_once = max(self._most_at_once, self._active)
            for fault in self._faults:
                if fault.times > 0 and fault.when(request):
                    fault.times -= 1
                    return fault, depth
        return None, depth

    def _end(self, depth: int) -> None:
        with self._lock:
            self._active -= 1
            self._ended_depth = max(self._ended_depth, depth)


@contextlib.contextmanager
def recording_proxy(upstream: S3Server) -> Iterator[RecordingProxy]:
    """Run a proxy for this server on a free port."""
    listener = _Listener(("127.0.0.1", 0), _Handler)
    listener.proxy = RecordingProxy(upstream, f"http://127.0.0.1:{listener.server_port}")
    # A short poll, because ending waits for it.
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield listener.proxy
    finally:
        listener.proxy._ended.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


class _Listener(ThreadingHTTPServer):
    proxy: RecordingProxy
    daemon_threads = True
    block_on_close = False  # clients keep their connections open
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients of these tests may disconnect at any time."""


def _flip(block: bytes) -> bytes:
    middle = len(block) // 2
    return block[:middle] + bytes([block[middle] ^ 1]) + block[middle + 1 :]


def _flipped(blocks: Iterator[bytes], flips: bool) -> Iterator[bytes]:
    for block in blocks:
        yield _flip(block) if flips else block
        flips = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def _answer(self) -> None:
        proxy = self.server.proxy
        target = urllib.parse.urlsplit(self.path)
        fault, self._depth = proxy._begin(
            Request(
                method=self.command,
                path=urllib.parse.unquote(target.path),
                query=target.query,
                headers={name.lower(): value for name, value in self.headers.items()},
            )
        )
        self._under_way = True
        try:
            if fault is not None:
                time.sleep(fault.delay)
            if fault is not None and fault.act is not None:
                fault.act()
            if fault is not None and fault.silent:
                self.close_connection = True
                proxy._ended.wait()
            elif fault is not None and fault.status is not None:
                self._refuse(fault.status, fault.code, fault.body)
            else:
                self._flip = "" if fault is None else fault.flip
                self._lose = fault is not None and fault.lose
                self._forward(proxy._upstream, None if fault is None else fault.cut_after)
        finally:
            self._end()

    def _end(self) -> None:
        """Record the end before the last bytes are sent, as the next request may follow at once."""
        if self._under_way:
            self._under_way = False
            self.server.proxy._end(self._depth)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _body(self) -> Iterator[bytes]:
        """The request's body in blocks, with a chunked transfer undone."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            block = self.rfile.read(min(left, _BLOCK))
            if not block:
                raise ConnectionError("the client hung up within its request")
            left -= len(block)
            yield block

    def _refuse(self, status: int, code: str, body: bytes | None) -> None:
        for _ in self._body():
            pass
        error = f"<Error><Code>{code}</Code><Message>injected by a test</Message></Error>"
        text = error.encode() if body is None else body
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _forward(self, upstream: str, cut_after: int | None) -> None:
        with contextlib.closing(http.client.HTTPConnection(upstream, timeout=120)) as connection:
            self._send_on(connection)
            answer = connection.getresponse()
            if self._lose:
                self._hang_up()
                return
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            bodiless = self.command == "HEAD" or answer.status in (204, 304)
            if answer.getheader("Content-Length") is None and not bodiless:
                # Only closing marks the end.
                self.send_header("Connection", "close")
                self.close_connection = True
            if bodiless or answer.length == 0:
                self._end()
            self.end_headers()
            self._send_back(answer, cut_after)

    def _send_on(self, connection: http.client.HTTPConnection) -> None:
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        chunked = "Content-Length" not in self.headers and "Transfer-Encoding" in self.headers
        for name, value in self.headers.items():
            # "Expect" was answered here already.
            if name.lower() not in _HOP_BY_HOP | {"expect"} | self.server.proxy.drops:
                connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for block in _flipped(self._body(), self._flip == "request"):
            connection.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
        if chunked:
            connection.send(b"0\r\n\r\n")

    def _send_back(self, answer: http.client.HTTPResponse, cut_after: int | None) -> None:
        left = cut_after
        flips = self._flip == "response"
        while block := answer.read(_BLOCK if left is None else min(left, _BLOCK)):
            if flips:
                block, flips = _flip(block), False
            if left is not None:
                left -= len(block)
            if answer.length == 0:
                self._end()
            self.wfile.write(block)
        if cut_after is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""
