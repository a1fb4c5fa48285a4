"""How it went when a store was asked to copy an object itself, so that no bytes travel."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Copied(Enum):
    """What became of a copy on the server."""

    CHECKED = "the store stated the digest of the bytes that it copied"
    TRUSTED = "it was copied, and the store stated no digest"
    OTHER_BYTES = "the store stated another digest, so nothing is there"
    NOT_THIS = "this object cannot be copied; others may be"
    NEVER = "the store copies nothing from there, or states no digest"


SLOWEST: Final = 10 * 1024 * 1024
"""Bytes that a store copies in a second at least. Meanwhile it may be silent."""


def silence(size: int) -> float:
    """Seconds that a store may be silent while it copies so many bytes."""
    return size / SLOWEST
