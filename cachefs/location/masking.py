"""Hiding secrets: a wrapper for text, and functions that mask URLs, texts and reprs."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Final

MASK: Final = "***"

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]+")
_PASSWORD: Final = re.compile(r"\A([^/:]*):.*@", re.DOTALL)


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


def mask_url(url: str) -> str:
    """Mask the password of a URL and its query, which may contain a signature.

    If it is unclear where a password ends, more is masked rather than less. The scheme may be
    missing, because errors also show mistyped URLs.
    """
    found = _SCHEME.match(url)
    scheme = found[0] if found else ""
    rest = _PASSWORD.sub(rf"\1:{MASK}@", url[len(scheme) :])
    plain, query, _ = rest.partition("?")
    return f"{scheme}{plain}{query and query + MASK}"


def mask_urls(text: str) -> str:
    """Mask every URL in a text, such as the message of a library."""
    return _URL.sub(lambda found: mask_url(found[0]), text)


class Masked:
    """Gives a dataclass the usual repr, with masked URLs and without ``repr=False`` fields."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (f"{f.name}={_masked(getattr(self, f.name))!r}" for f in fields(self) if f.repr)  # type: ignore[arg-type]  # it is mixed into dataclasses only
        return f"{type(self).__name__}({', '.join(shown)})"


def _masked(value: Any) -> Any:
    return mask_url(value) if isinstance(value, str) and "://" in value else value
