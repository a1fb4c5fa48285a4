"""How much: a number of blobs, and their bytes."""

from __future__ import annotations

from msgspec import Struct


class Amount(Struct, frozen=True):
    """So many blobs with so many bytes."""

    blobs: int = 0
    bytes: int = 0
