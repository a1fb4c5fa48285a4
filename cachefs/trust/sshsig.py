"""SSH signatures, as ``ssh-keygen -Y sign`` writes them and ``ssh-keygen -Y verify`` checks them.

The form is OpenSSH's PROTOCOL.sshsig. Only the framing is ours: the signatures themselves are made
and checked by ``cryptography``. What is read has to be exactly what would be written, byte by byte,
so that nobody can make a second file of a signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final, NamedTuple

NAMESPACE: Final = "cachefs"
"""What the signatures are for: one that was made for git or for a log-in is none for a cache."""

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = (1).to_bytes(4, "big")
_HASH: Final = b"sha512"
_HASHES: Final = (b"sha512", b"sha256")
_LINE: Final = 70
_ARMORED: Final = re.compile(
    "-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n"
)


class Signature(NamedTuple):
    """A signature as it is stored.

    Attributes:
        key: the public key that it claims to be of, as SSH encodes it.
        hash: the hash of the message, ``sha512`` or ``sha256``.
        algorithm: the algorithm of the signature, such as ``ssh-ed25519``.
        raw: the signature, as the algorithm encodes it.
    """

    key: bytes
    hash: bytes
    algorithm: bytes
    raw: bytes

    def signed(self, message: bytes) -> bytes:
        """The bytes that are signed for a message."""
        return signed_bytes(message, self.hash)


def signed_bytes(message: bytes, hash_: bytes = _HASH) -> bytes:
    """The bytes that are signed for a message in our namespace."""
    digest = hashlib.new(hash_.decode(), message).digest()
    return _MAGIC + b"".join(map(string, (NAMESPACE.encode(), b"", hash_, digest)))


def encode(key: bytes, algorithm: bytes, raw: bytes, hash_: bytes = _HASH) -> str:
    """The armored text of a signature."""
    inner = string(algorithm) + string(raw)
    fields = (key, NAMESPACE.encode(), b"", hash_, inner)
    blob = _MAGIC + _VERSION + b"".join(map(string, fields))
    text = base64.b64encode(blob).decode()
    lines = [text[i : i + _LINE] for i in range(0, len(text), _LINE)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def decode(text: str) -> Signature:
    """Read an armored signature. Raises ValueError, which says what is wrong."""
    found = _ARMORED.fullmatch(text)
    if found is None:
        raise ValueError("it is no armored SSH signature")
    try:
        blob = base64.b64decode(found[1].replace("\n", ""), validate=True)
    except binascii.Error as error:
        raise ValueError("its text is no base64") from error
    if not blob.startswith(_MAGIC + _VERSION):
        raise ValueError("it is no SSH signature of version 1")
    key, namespace, _, hash_, inner = strings(blob[len(_MAGIC + _VERSION) :], 5)
    if namespace != NAMESPACE.encode():
        raise ValueError("it was made for another purpose than a cache")
    if hash_ not in _HASHES:
        raise ValueError("its hash is neither sha512 nor sha256")
    algorithm, raw = strings(inner, 2)
    if encode(key, algorithm, raw, hash_) != text:
        raise ValueError("it is not encoded as ssh-keygen does")
    return Signature(key, hash_, algorithm, raw)


def string(data: bytes) -> bytes:
    """A string of the SSH protocol: its length, then its bytes."""
    return len(data).to_bytes(4, "big") + data


def strings(data: bytes, count: int) -> list[bytes]:
    """Exactly this many strings of the SSH protocol. Raises ValueError."""
    found = []
    for _ in range(count):
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < max(4, end):
            raise ValueError("it ends too early")
        found.append(data[4:end])
        data = data[end:]
    if data:
        raise ValueError("something follows it")
    return found
