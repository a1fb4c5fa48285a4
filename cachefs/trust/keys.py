"""Public and private keys: Ed25519, ECDSA and RSA, as OpenSSH or in PEM."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from cachefs.errors import UsageError
from cachefs.trust.sshsig import encode, signed_bytes, string, strings

if TYPE_CHECKING:
    from pathlib import Path

    from cachefs.trust.sshsig import Signature

SMALLEST_RSA: Final = 2048
"""Bits of the smallest RSA key that is accepted."""

_ED25519: Final = b"ssh-ed25519"
_RSA: Final = b"ssh-rsa"
_RSA_HASHES: Final = {b"rsa-sha2-512": hashes.SHA512, b"rsa-sha2-256": hashes.SHA256}
_CURVES: Final[dict[bytes, Any]] = {
    b"ecdsa-sha2-nistp256": hashes.SHA256,
    b"ecdsa-sha2-nistp384": hashes.SHA384,
    b"ecdsa-sha2-nistp521": hashes.SHA512,
}

TYPES: Final = tuple(each.decode() for each in (_ED25519, _RSA, *_CURVES))
"""The types of keys that are understood, as a line of OpenSSH begins with them."""


@dataclass(frozen=True)
class PublicKey:
    """A public key, as SSH encodes it."""

    blob: bytes

    @classmethod
    def of_line(cls, type_: str, text: str) -> PublicKey:
        """The key of a line such as ``ssh-ed25519 AAAA...``. Raises ValueError."""
        try:
            blob = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError("the key is no base64") from error
        if type_ not in TYPES:
            raise ValueError(f"a key of type {type_[:40]!r} is not supported: {', '.join(TYPES)}")
        if not blob.startswith(string(type_.encode())):
            raise ValueError(f"the key is not of the type {type_}")
        key = cls(blob)
        key.require_valid()
        return key

    @classmethod
    def of_pem(cls, data: bytes) -> PublicKey:
        """The key of a PEM file, ``-----BEGIN PUBLIC KEY-----``. Raises ValueError."""
        return _public(load_pem_public_key(data))

    @property
    def id(self) -> str:
        """The key's id in a store: 64 hexadecimal digits, the SHA-256 of the key."""
        return hashlib.sha256(self.blob).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The key's id as ``ssh-keygen -l`` shows it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def line(self) -> str:
        """The key as OpenSSH writes it, without a comment."""
        return f"{self.type.decode()} {base64.b64encode(self.blob).decode()}"

    @property
    def type(self) -> bytes:
        """Its type, as the line begins."""
        return self.blob[4 : 4 + int.from_bytes(self.blob[:4], "big")]

    def require_valid(self) -> None:
        """Raise ValueError if it is no key, or one that is too weak."""
        try:
            key = self._key
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"the key is not valid: {error}") from error
        if self.type == _RSA and key.key_size < SMALLEST_RSA:
            raise ValueError(f"an RSA key needs {SMALLEST_RSA} bits, and this has {key.key_size}")

    @cached_property
    def _key(self) -> Any:
        return load_ssh_public_key(self.line.encode())

    def verifies(self, signature: Signature, message: bytes) -> bool:
        """Whether the signature is this key's, and of this message."""
        if signature.key != self.blob:
            return False
        try:
            self._verify(signature, signature.signed(message))
        except (InvalidSignature, ValueError):
            return False
        return True

    def _verify(self, signature: Signature, data: bytes) -> None:
        """Raise InvalidSignature or ValueError unless it is the signature of the data."""
        raw, algorithm = signature.raw, signature.algorithm
        if self.type == _RSA:
            if algorithm not in _RSA_HASHES:
                raise ValueError("RSA signatures need SHA-2")
            self._key.verify(raw, data, padding.PKCS1v15(), _RSA_HASHES[algorithm]())
        elif algorithm != self.type:
            raise ValueError("the signature is not of the key's type")
        elif self.type == _ED25519:
            self._key.verify(raw, data)
        else:
            r, s = (int.from_bytes(part, "big", signed=True) for part in strings(raw, 2))
            if min(r, s) < 0 or _mpint(r) + _mpint(s) != raw:
                raise ValueError("its numbers are not encoded as SSH does")
            self._key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_CURVES[self.type]()))


class PrivateKey:
    """A private key in this process."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.public = _public(key.public_key())

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public.fingerprint}>"

    def sign(self, message: bytes) -> str:
        """An armored SSH signature of the message."""
        algorithm, raw = self._sign(signed_bytes(message))
        return encode(self.public.blob, algorithm, raw)

    def _sign(self, data: bytes) -> tuple[bytes, bytes]:
        type_ = self.public.type
        if type_ == _ED25519:
            return type_, self._key.sign(data)
        if type_ == _RSA:
            return b"rsa-sha2-512", self._key.sign(data, padding.PKCS1v15(), hashes.SHA512())
        numbers = decode_dss_signature(self._key.sign(data, ec.ECDSA(_CURVES[type_]())))
        return type_, b"".join(map(_mpint, numbers))


class EncryptedKeyError(ValueError):
    """The private key needs a passphrase."""


def load_private(data: bytes) -> PrivateKey:
    """Read a private key, of OpenSSH or in PEM.

    Raises EncryptedKeyError if it needs a passphrase, and ValueError if it is no such key.
    """
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, None)
    except TypeError as error:  # what the library raises for a passphrase that is missing
        raise EncryptedKeyError("it is protected by a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if "assword" in str(error):  # and for keys of OpenSSH
            raise EncryptedKeyError("it is protected by a passphrase") from error
        raise ValueError("it is no private key of OpenSSH or in PEM that can be read") from error
    private = PrivateKey(key)
    private.public.require_valid()
    return private


def generate(path: Path, passphrase: str) -> PublicKey:
    """Write a new Ed25519 key as OpenSSH does: ``path`` (0600) and ``path.pub``.

    Raises UsageError if one of the files exists.
    """
    key = Ed25519PrivateKey.generate()
    protection = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection)
    public = _public(key.public_key())
    beside = path.with_name(f"{path.name}.pub")
    if beside.exists():
        raise _exists(beside)
    _create(path, data, 0o600)
    _create(beside, f"{public.line}\n".encode(), 0o644)
    return public


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise _exists(path) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _exists(path: Path) -> UsageError:
    return UsageError(
        "it exists, and a key is never overwritten: choose another path",
        operation="keygen",
        key=str(path),
    )


def _public(key: Any) -> PublicKey:
    """The public key of the library's. Raises ValueError for a type that is not supported."""
    try:
        line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key is of no type that SSH has: {error}") from error
    return PublicKey.of_line(line[0], line[1])


def _mpint(number: int) -> bytes:
    """A number that is not negative, as the SSH protocol has it."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
