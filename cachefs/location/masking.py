"""Secrets that do not show: a wrapper for text, and masks for URLs and reprs."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Final

MASK: Final = "***"

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]+")
_PASSWORD: Final = re.compile(r"\A([^/:]*):.*@", re.DOTALL)


class Secret:
    """Text that shows as ``***``, is equal by value and can be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the library that signs with it and for nobody else."""
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


def mask_url(url: str) -> str:
    """The URL without its password and its query, which may hold a signature.

    Where it is unclear where a password ends, more is masked rather than less. The scheme may be
    missing, because URLs that were typed wrong are shown too.
    """
    found = _SCHEME.match(url)
    scheme = found[0] if found else ""
    rest = _PASSWORD.sub(rf"\1:{MASK}@", url[len(scheme) :])
    plain, query, _ = rest.partition("?")
    return f"{scheme}{plain}{query and query + MASK}"


def mask_urls(text: str) -> str:
    """Text of somebody else's with every URL in it masked."""
    return _URL.sub(lambda found: mask_url(found[0]), text)


class Masked:
    """A dataclass's usual repr with masked URLs, without the fields that say ``repr=False``."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (f"{f.name}={_masked(getattr(self, f.name))!r}" for f in fields(self) if f.repr)  # type: ignore[arg-type]  # it is mixed into dataclasses only
        return f"{type(self).__name__}({', '.join(shown)})"


def _masked(value: Any) -> Any:
    return mask_url(value) if isinstance(value, str) and "://" in value else value
