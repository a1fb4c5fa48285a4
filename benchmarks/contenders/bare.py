"""An upper bound for any client: only the requests, with everything else done beforehand.

``sockets`` sends requests that were signed beforehand, from the files by the kernel. ``obstore`` is
that library's own ``put`` in threads. Neither does look-ups, hashes or writes a manifest.
"""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from obstore.store import S3Store

from benchmarks.contenders import Place
from benchmarks.workloads import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Work = Callable[[], object]

PART: Final = 8 * MIB


class Request(NamedTuple):
    """A PUT: its head, and where its body is. The ETag of the response is stored in ``etags``."""

    head: bytes
    file: Path
    start: int
    size: int
    etags: list[str]
    part: int


def upload(place: list[str], folder: str, parallelism: int, library: str) -> Work:
    """Put each file, even if it is already stored."""
    files = sorted(Path(folder).iterdir())
    if library == "obstore":
        return _by_obstore(Place(*place), files, parallelism)
    return _by_sockets(Place(*place), files, parallelism)


def native_store(there: Place) -> S3Store:
    """The bucket through obstore, without fsspec."""
    return S3Store(
        there.bucket,
        endpoint=there.endpoint,
        access_key_id=there.key,
        secret_access_key=there.secret,
        region=there.region,
        client_options={"allow_http": True},
        unsigned_payload=True,
    )


def _by_obstore(there: Place, files: list[Path], parallelism: int) -> Work:
    store = native_store(there)
    store.list().collect()  # connects
    blobs = [(file, file.read_bytes() if file.stat().st_size <= PART else file) for file in files]

    def put(blob: tuple[Path, bytes | Path]) -> None:
        file, content = blob
        whole = isinstance(content, bytes)
        store.put(f"blobs/{file.name}", content, use_multipart=not whole, max_concurrency=4)

    return lambda: _each(blobs, [put] * parallelism)


def _by_sockets(there: Place, files: list[Path], parallelism: int) -> Work:
    session = botocore.session.Session()
    session.set_credentials(there.key, there.secret)
    client = session.create_client(
        "s3",
        region_name=there.region,
        endpoint_url=there.endpoint,
        config=Config(s3={"addressing_style": "path"}),
    )
    signer = S3SigV4Auth(session.get_credentials(), "s3", there.region)
    blobs = [_Blob(there, file, client) for file in files]
    requests = [request for blob in blobs for request in blob.requests(signer)]
    address = urlsplit(there.endpoint)
    connections = [
        socket.create_connection((address.hostname, address.port)) for _ in range(parallelism)
    ]

    def work() -> None:
        _each(requests, [_sender(connection) for connection in connections])
        for blob in blobs:
            blob.complete()

    return work


class _Blob:
    """The upload of a file; a multipart upload is already created."""

    def __init__(self, there: Place, file: Path, client: Any) -> None:
        self._there = there
        self._file = file
        self._client = client
        self._size = file.stat().st_size
        self._about = {"Bucket": there.bucket, "Key": f"blobs/{file.name}"}
        self._etags = [""] * -(-self._size // PART)
        self._in_parts = self._size > PART
        if self._in_parts:
            begun = client.create_multipart_upload(**self._about)
            self._about["UploadId"] = begun["UploadId"]

    def requests(self, signer: Any) -> Iterator[Request]:
        for index in range(len(self._etags)):
            start = index * PART
            size = min(PART, self._size - start)
            target = quote(self._about["Key"])
            if self._in_parts:
                target += f"?partNumber={index + 1}&uploadId={self._about['UploadId']}"
            head = _signed(self._there, target, size, signer)
            yield Request(head, self._file, start, size, self._etags, index)

    def complete(self) -> None:
        if self._in_parts:
            parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(self._etags, 1)]
            self._client.complete_multipart_upload(**self._about, MultipartUpload={"Parts": parts})


def _signed(there: Place, target: str, size: int, signer: Any) -> bytes:
    """The head of a PUT."""
    url = urlsplit(f"{there.endpoint}/{there.bucket}/{target}")
    headers = {
        "Host": url.netloc,
        "Content-Length": str(size),
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
    }
    request = AWSRequest("PUT", url.geturl(), headers=headers)
    signer.add_auth(request)
    lines = [f"PUT {url.path}{'?' if url.query else ''}{url.query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _sender(connection: socket.socket) -> Callable[[Request], None]:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(request: Request) -> None:
        connection.sendall(request.head, socket.MSG_MORE)
        number = os.open(request.file, os.O_RDONLY)
        try:
            sent = 0
            while sent < request.size:
                left = request.size - sent
                sent += os.sendfile(connection.fileno(), number, request.start + sent, left)
        finally:
            os.close(number)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(4096) or b"closed\r\n\r\n"
        status, *lines = answer.decode().splitlines()
        if " 200 " not in status:
            raise RuntimeError(answer)
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        request.etags[request.part] = headers["etag"]

    return send


def _each(items: Iterable[Any], works: Sequence[Callable[[Any], None]]) -> None:
    """Handle each item once, with one thread for each callable."""
    waiting = iter(list(items))

    def run(work: Callable[[Any], None]) -> None:
        for item in waiting:
            work(item)

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(run, works))
