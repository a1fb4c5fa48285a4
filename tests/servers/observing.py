"""A proxy that stands for every host: it answers requests itself, and records where they went.

With it, a test sees what would be sent to hosts that are not on loopback. It ends TLS too, with
certificates of its own authority, which clients have to trust.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import ipaddress
import re
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.answering import EMPTY_LISTING, Answer, refusal


@dataclasses.dataclass(frozen=True)
class Observed:
    """A request, with the host that it was meant for."""

    method: str
    url: str
    """Scheme, host, port and path; quoted as sent, without the query."""
    query: str
    headers: dict[str, str]
    """With names in lower case."""

    @property
    def region(self) -> str | None:
        """The region that it is signed for; None if it is not signed."""
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", self.headers.get("authorization", ""))
        return scope[1] if scope else None

    @property
    def access_key(self) -> str | None:
        """Whose signature it has; None if it is not signed."""
        found = re.search(r"Credential=([^/]+)/", self.headers.get("authorization", ""))
        return found[1] if found else None


def empty_bucket(request: Observed) -> Answer:
    """The response of a bucket without objects, which accepts all."""
    if "list-type" in request.query:
        return EMPTY_LISTING
    if request.method in ("GET", "HEAD"):
        return refusal(404, "NoSuchKey")
    return Answer(200, b"", {"ETag": '"1"'})


@dataclasses.dataclass
class Observer:
    """The running proxy.

    Attributes:
        url: what clients are given as their proxy.
        authority: a file with the certificate of its authority.
        requests: those that arrived, in their order.
        answer: makes the response to a request.
        certified: the host that certificates are for; by default the one that is asked for.
    """

    url: str
    authority: Path
    requests: list[Observed] = dataclasses.field(default_factory=list)
    answer: Callable[[Observed], Answer] = empty_bucket
    certified: str | None = None


@contextlib.contextmanager
def observing(folder: Path) -> Iterator[Observer]:
    """Run the proxy on a free port; its certificates are written to the folder."""
    authority = _Authority(folder)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.authority = authority
        server.observer = Observer(f"http://127.0.0.1:{server.server_port}", authority.file)
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.observer
        finally:
            server.shutdown()
            thread.join()


class _Authority:
    """Issues certificates for any host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of tests")])
        self._contexts: dict[str, ssl.SSLContext] = {}
        usage = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self._signed(self._name, self._key.public_key(), usage)
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, host: str) -> ssl.SSLContext:
        """The server's side of TLS for this host."""
        with self._lock:
            if host not in self._contexts:
                self._contexts[host] = self._issued(host)
            return self._contexts[host]

    def _issued(self, host: str) -> ssl.SSLContext:
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of tests")])
        names = x509.SubjectAlternativeName([alternative])
        certificate = self._signed(name, key.public_key(), names)
        file = self._folder / f"{len(self._contexts)}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )


class _Server(ThreadingHTTPServer):
    authority: _Authority
    observer: Observer
    daemon_threads = True
    block_on_close = False  # clients keep their connections open

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients may refuse a certificate, or disconnect early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    tunnel = ""
    """What a client that is in a tunnel wrote before the path."""

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0].strip("[]")
        self.send_response(200)
        self.end_headers()
        context = self.server.authority.context(self.server.observer.certified or host)
        secure = context.wrap_socket(self.connection, server_side=True)
        self.connection = secure
        self.rfile = secure.makefile("rb")
        self.wfile = secure.makefile("wb", 0)  # type: ignore[assignment]  # any raw file will do
        self.tunnel = f"https://{self.path.removesuffix(':443')}"
        self.close_connection = False

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # the server closes only the socket below TLS

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url, _, query = f"{self.tunnel}{self.path}".partition("?")
        if not urllib.parse.urlsplit(url).netloc:  # a request to this address itself
            url = f"http://{self.headers['Host']}{url}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Observed(self.command, url, query, headers)
        self.server.observer.requests.append(request)
        status, body, more = self.server.observer.answer(request)
        self.send_response(status)
        for name, text in more.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server looks for them

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above
        """Print nothing."""
