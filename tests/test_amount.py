"""Amounts: counted from sizes, added, and never below zero."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachefs import Amount

SIZES = st.lists(st.integers(0, 2**40))


@given(SIZES, SIZES)
def test_amounts_are_added_as_their_blobs_are(first: list[int], second: list[int]) -> None:
    assert Amount.of(first) + Amount.of(second) == Amount.of([*first, *second])
    assert Amount.of([*first, *second]) - Amount.of(second) == Amount.of(first)


def test_a_difference_is_never_below_zero() -> None:
    assert Amount(1, 5) - Amount(2, 7) == Amount()
    assert sum([Amount(1, 2), Amount(3, 4)], Amount()) == Amount(4, 6)
