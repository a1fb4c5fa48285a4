"""Amounts: a number of blobs and their total size; and how numbers and names are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Amount(Struct, frozen=True):
    """A number of blobs, and their bytes together."""

    blobs: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Amount:
        """The amount of blobs that have these sizes in bytes."""
        known = list(sizes)
        return cls(len(known), sum(known))

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.blobs + other.blobs, self.bytes + other.bytes)

    def __str__(self) -> str:
        return f"{counted(self.blobs, 'blob')} ({counted(self.bytes, 'byte')})"

    def __sub__(self, other: Amount) -> Amount:
        """The difference; never below zero."""
        return Amount(max(0, self.blobs - other.blobs), max(0, self.bytes - other.bytes))


def counted_names(names: Sequence[str], most: int = 5) -> str:
    """Names in a sentence, the first few of many: ``2 names: main, dev``; ``no name``."""
    if not names:
        return "no name"
    more = len(names) - most
    shown = ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
    return f"{counted(len(names), 'name')}: {shown}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 blob``, ``2,000 blobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
