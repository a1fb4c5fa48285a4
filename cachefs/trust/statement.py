"""What is signed: a statement about one name, and how it is stored with its signature.

A signed statement is a line of JSON and an SSH signature of that line, its line break included. So
``head -n 1`` and ``tail -n +2`` give what ``ssh-keygen -Y verify`` wants.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct

from cachefs.digest import Digest
from cachefs.errors import DigestError
from cachefs.trust import sshsig

if TYPE_CHECKING:
    from cachefs.trust.sshsig import Signature

LARGEST: Final = 16 * 1024
"""Bytes of the largest signed statement that is read."""

KIND: Final = "cachefs-name/1"

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_EXACT_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class Statement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """That a name of a cache holds a manifest.

    The fields are in the order of the alphabet, in which they are written.

    Attributes:
        cache: the cache, as the signer sees it.
        expires: when it stops to be true, as RFC 3339 text in UTC; empty for never.
        kind: the version of this form.
        manifest: the digest of the manifest.
        name: the name.
        signed: when it was signed.
    """

    cache: str
    expires: str = ""
    kind: str
    manifest: str
    name: str
    signed: str

    @property
    def signed_at(self) -> float:
        """When it was signed, in seconds since 1970."""
        return _seconds(self.signed)

    @property
    def expires_at(self) -> float | None:
        """When it expires, in seconds since 1970; None for never."""
        return _seconds(self.expires) if self.expires else None

    def encode(self) -> bytes:
        """The line that is signed."""
        return msgspec.json.encode(self) + b"\n"


class Signed(NamedTuple):
    """A statement as it was read, with the signature that it claims to have."""

    statement: Statement
    line: bytes
    signature: Signature

    @property
    def key_id(self) -> str:
        """The id of the key, as :attr:`cachefs.trust.keys.PublicKey.id`."""
        return hashlib.sha256(self.signature.key).hexdigest()


def state(
    *, cache: str, name: str, manifest: str, signed: float, expires: float | None
) -> Statement:
    """Make a statement; times are in seconds since 1970."""
    return Statement(
        kind=KIND,
        cache=cache,
        name=name,
        manifest=manifest,
        signed=_text(signed),
        expires="" if expires is None else _text(expires),
    )


def decode(data: bytes) -> Signed:
    """Read a signed statement. The signature is not checked. Raises ValueError."""
    line, separator, armored = data.partition(b"\n")
    line += separator
    try:
        statement = msgspec.json.decode(line, type=Statement)
        text = armored.decode("ascii")
        Digest(statement.manifest)
        times = (statement.signed_at, statement.expires_at)
    except (msgspec.DecodeError, UnicodeDecodeError, DigestError) as error:
        raise ValueError("it is no signed statement") from error
    del times
    if statement.kind != KIND or statement.encode() != line:
        raise ValueError("it is not a statement of the form that is understood here")
    return Signed(statement, line, sshsig.decode(text))


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def _seconds(text: str) -> float:
    if not _EXACT_TIME.fullmatch(text):
        raise ValueError("a time is not of the form 2030-01-31T23:59:59Z")
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp()
