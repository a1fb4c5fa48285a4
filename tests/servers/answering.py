"""A server that responds to S3 requests as a test says, with responses that others never give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

from tests.servers.s3 import S3Server

_FORM = 4096
"""Bytes of a body that is passed on."""


class Answer(NamedTuple):
    """A status, headers, and a body that a HEAD does not get.

    With a header Transfer-Encoding the length is not stated, and the body is to be encoded so.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


def refusal(status: int, code: str, inside: str = "", **headers: str) -> Answer:
    """An S3 error; ``inside`` goes into its body, ``headers`` have ``_`` for ``-``."""
    body = f"<Error><Code>{code}</Code><Message>It says {code}.</Message>{inside}</Error>"
    return Answer(
        status, body.encode(), {name.replace("_", "-"): text for name, text in headers.items()}
    )


EMPTY_LISTING = Answer(
    200,
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>b</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>",
    {"x-amz-bucket-region": "eu-central-1"},
)


@contextlib.contextmanager
def answering(answer: Callable[[Message], Answer]) -> Iterator[S3Server]:
    """Run a server on a free port.

    ``answer`` gets the headers of a request, with its path as ``x-asked``, its method as
    ``x-method`` and a short body as ``x-body``.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.headers["x-asked"] = self.path
            self.headers["x-method"] = self.command
            if len(body) < _FORM:
                self.headers["x-body"] = body.decode("latin-1")
            status, body, headers = answer(self.headers)
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Type", "application/xml")
            if "Transfer-Encoding" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server looks for them

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above
            """Print nothing."""

    with _Quiet(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield S3Server(f"http://127.0.0.1:{server.server_port}", "a-key-id", "a-real-secret")
        finally:
            server.shutdown()
            thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about clients that disconnect early."""
