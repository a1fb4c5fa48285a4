"""Digests: validated text, and hashing and verifying bytes, files and streams."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Self

from cachefs.amount import counted
from cachefs.errors import DigestError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SHAPE: Final = re.compile(r"sha256:[0-9a-f]{64}")
_BEGINNING: Final = b"sha256:"
_LENGTH: Final = 71
_HEXADECIMAL: Final = b"0123456789abcdef"


class Digest(str):
    """The text ``sha256:`` and 64 lower-case hexadecimal digits, and nothing else.

    Builders use no other algorithm. A digest becomes a key in the store, so its form is checked
    before any request is made. Raises DigestError.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text."""
        if isinstance(text, cls):
            return text
        if _SHAPE.fullmatch(text) is None:
            raise DigestError(
                f"{text[:80]!r} is not 'sha256:' and 64 lower-case hexadecimal digits"
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of bytes in memory."""
        return cls.from_hex(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The digest of a file, read in chunks. Raises OSError."""
        with path.open("rb") as file:
            return cls.from_hex(hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def from_hex(cls, hexadecimal: str) -> Self:
        """The SHA-256 digest with these 64 hexadecimal digits."""
        return cls(f"sha256:{hexadecimal}")

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits."""
        return self[7:]


def is_digest(text: str) -> bool:
    """Whether the text is a digest."""
    return _SHAPE.fullmatch(text) is not None


def all_digests(texts: Sequence[str]) -> bool:
    """Whether every text is a digest. Checks all of them at once: a manifest has many."""
    if any(length != _LENGTH for length in set(map(len, texts))):
        return False
    every = "".join(texts).encode(errors="replace")
    begins = all(
        every[index::_LENGTH] == bytes([byte]) * len(texts) for index, byte in enumerate(_BEGINNING)
    )
    # Without hexadecimal digits, only the prefixes may be left.
    left = _BEGINNING.translate(None, _HEXADECIMAL) * len(texts)
    return begins and every.translate(None, _HEXADECIMAL) == left


class Verifier:
    """Checks a stream against its digest and, if known, its size in bytes.

    Pass every chunk to :meth:`update` and call :meth:`finish` at the end; the bytes are verified
    only then. A stream that is longer than the size is refused as soon as possible.
    """

    def __init__(self, digest: Digest, size: int | None = None) -> None:
        self.digest = digest
        self.size = size
        self.received = 0
        self._hash = hashlib.sha256()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next chunk. Raises IntegrityError if there are more bytes than the size."""
        self.received += len(data)
        if self.size is not None and self.received > self.size:
            raise self._bad(f"has more than the {counted(self.size, 'byte')} expected")
        self._hash.update(data)

    def finish(self) -> None:
        """End the stream. Raises IntegrityError if the size or the digest does not match."""
        if self.size is not None and self.received != self.size:
            raise self._bad(
                f"has {counted(self.received, 'byte')}, not the {self.size:,} that were expected"
            )
        found = self._hash.hexdigest()
        if found != self.digest.hex:
            raise self._bad(f"is damaged: its bytes have the digest sha256:{found}")

    def _bad(self, reason: str) -> IntegrityError:
        return IntegrityError(f"blob {self.digest} {reason}", digest=self.digest)


def verify(data: bytes, digest: Digest, size: int | None = None) -> None:
    """Check bytes in memory. Raises IntegrityError."""
    verifier = Verifier(digest, size)
    verifier.update(data)
    verifier.finish()
