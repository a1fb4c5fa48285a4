"""Checks of keys and of manifest names, which every store must keep as they are; their order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import CacheNameError
from cachefs.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    Names = str | Iterable[str]

MAX_COMPONENT: Final = 255
"""The maximum number of bytes between two slashes, on local disks and some S3 servers."""

_FAULTS: Final = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"\A\Z", "is empty"),
        (r"[\x00-\x1f\x7f-\x9f]", "has a control character"),
        (r"[\ud800-\udfff]", "has a character that UTF-8 cannot hold"),
        (r"\\", "has a backslash, which some stores treat as a slash"),
        (r"::", "has '::', which chains filesystems in fsspec"),
        (
            r"\?versionId=",
            "has '?versionId=', which s3fs takes for a version and drops from the key",
        ),
        (r"\A/", "begins with '/', which stores treat differently"),
        (r"//|/\Z", "has an empty component, which some stores drop"),
        (r"(?:\A|/)\.\.?(?:/|\Z)", "has a component '.' or '..', which may lead out of the cache"),
    )
)


_NUMBER: Final = re.compile(r"([0-9]+)")


def natural_order(name: str) -> tuple[Any, ...]:
    """A key that orders names: ``pr-9`` before ``pr-10``, and capital letters among the others."""
    parts: list[Any] = list(_NUMBER.split(name.casefold()))
    # Python converts no more than some thousand digits to a number.
    parts[1::2] = [(len(digits.lstrip("0")), digits.lstrip("0")) for digits in parts[1::2]]
    return parts, name


def in_order(names: Iterable[str]) -> list[str]:
    """The names in natural order."""
    return sorted(names, key=natural_order)


def as_names(names: Names) -> tuple[str, ...]:
    """One name or several as a tuple, each once. Raises CacheNameError."""
    several = (names,) if isinstance(names, str) else dict.fromkeys(names)
    return tuple(check_name(name) for name in several)


def key_fault(key: str) -> str | None:
    """Why some stores would change this key, relative to the cache's root; None if none would."""
    for pattern, reason in _FAULTS:
        if pattern.search(key):
            return reason
    if any(len(component.encode()) > MAX_COMPONENT for component in key.split("/")):
        return f"has more than {MAX_COMPONENT} bytes between two slashes"
    return None


def check_name(name: str) -> str:
    """Check a manifest name and return it. It may contain ``/``, spaces and other printable text.

    Raises CacheNameError for a name that would leave the cache or that some stores would change.
    """
    if not isinstance(name, str):
        raise CacheNameError(f"a name is text, not {type(name).__name__}")
    if (reason := key_fault(name)) is not None:
        raise CacheNameError(f"the name {mask_text(name)[:80]!r} {reason}")
    return name
