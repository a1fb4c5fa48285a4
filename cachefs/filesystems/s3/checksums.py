"""What lets an S3 server refuse bytes that were damaged on their way, and a client notice it.

Every server that checks signatures knows the SHA-256 of a signed body, and the key of a blob says
it. Some servers refuse requests with the newer ``x-amz-checksum-`` headers, so these are sent only
to Amazon, and over plain HTTP, where there is no TLS to notice damage. ``Content-MD5`` is as old as
S3 itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cachefs.digest import Digest
from cachefs.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DAMAGED: Final = (
    "the bytes were damaged on their way, twice: try again, and use https or check the network"
)

REFUSED: Final = frozenset({"BadDigest", "XAmzContentSHA256Mismatch"})
"""The codes by which a server refuses bytes that are not those that were announced."""

_MD5: Final = re.compile(r'"?([0-9a-f]{32})"?')


def digest_in(path: str) -> Digest | None:
    """The digest that the path of a blob ends with, as in all layouts; None for other paths."""
    try:
        return Digest.from_hex(re.split("[/:]", path)[-1])
    except DigestError:
        return None


def is_plain(endpoint: str) -> bool:
    """Whether requests to this endpoint have no TLS."""
    return endpoint.startswith("http://")


def is_amazon(endpoint: str) -> bool:
    """Whether the endpoint is Amazon's own."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def server_of(endpoint: str) -> str:
    """What identifies the server behind an endpoint. All regions of Amazon are one server."""
    url = urlsplit(endpoint)
    if is_amazon(endpoint):
        return "amazonaws.com.cn" if (url.hostname or "").endswith(".cn") else "amazonaws.com"
    return f"{url.scheme}://{url.netloc}"


def sha256_header(digest: Digest) -> str:
    """The value of ``x-amz-checksum-sha256``."""
    return base64.b64encode(bytes.fromhex(digest.hex)).decode()


def stated_digest(headers: Mapping[str, str]) -> Digest | None:
    """The digest of a whole object that the headers of a response, in lower case, state.

    The checksum of an object that was uploaded in parts is one of their checksums.
    """
    text = headers.get("x-amz-checksum-sha256", "")
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    try:
        return Digest.from_hex(base64.b64decode(text, validate=True).hex())
    except (ValueError, DigestError):
        return None


def content_md5(chunks: Iterable[bytes]) -> str:
    """The value of ``Content-MD5``."""
    found = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        found.update(chunk)
    return base64.b64encode(found.digest()).decode()


def differs(data: bytes, headers: Mapping[str, str]) -> bool:
    """Whether the headers of a response, in lower case, say that the object has other bytes.

    An ETag is the MD5 of the bytes, unless they were uploaded in parts or encrypted with a key of
    a key service or of the customer.
    """
    checksum = headers.get("x-amz-checksum-sha256", "-")
    if "-" not in checksum:
        return checksum != sha256_header(Digest.of(data))
    encrypted = {name: value for name, value in headers.items() if "-encryption" in name}
    etag = _MD5.fullmatch(headers.get("etag", ""))
    if etag is None or set(encrypted.values()) - {"AES256"}:
        return False
    return etag[1] != hashlib.md5(data, usedforsecurity=False).hexdigest()
