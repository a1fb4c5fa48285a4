"""Amounts: a number of blobs and their total size; and how a number is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable


class Amount(Struct, frozen=True):
    """A number of blobs, and their bytes together."""

    blobs: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Amount:
        """The amount of blobs that have these sizes in bytes."""
        listed = list(sizes)
        return cls(len(listed), sum(listed))

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.blobs + other.blobs, self.bytes + other.bytes)

    def __sub__(self, other: Amount) -> Amount:
        """The difference; never below zero."""
        return Amount(max(0, self.blobs - other.blobs), max(0, self.bytes - other.bytes))


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 blob``, ``2,000 blobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
