"""Hiding secrets: a wrapper for text, and a repr that masks URLs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cachefs.masking import MASK, mask_text, mask_url


class Secret:
    """Text that is shown as ``***``, is compared by value and can be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text, for the library that signs with it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, (self._value,))


class Masked:
    """Gives a dataclass the usual repr, with secrets masked and without ``repr=False`` fields."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (f"{f.name}={_masked(getattr(self, f.name))!r}" for f in fields(self) if f.repr)  # type: ignore[arg-type]  # it is mixed into dataclasses only
        return f"{type(self).__name__}({', '.join(shown)})"


def _masked(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_masked, value))
    if not isinstance(value, str):
        return value
    return mask_url(value) if "://" in value else mask_text(value)
