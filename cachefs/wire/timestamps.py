"""Times as the format writes them: RFC 3339 text with up to nine decimals, kept as text.

Python's and msgspec's datetimes have six decimals, so they would change the times. Only comparisons
parse the text, to whole nanoseconds.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_FIRST: Final = -62_135_596_800
_LAST: Final = 253_402_300_799

ZERO: Final = "0001-01-01T00:00:00Z"
"""The text Go writes for a time that was never set."""

_LEAP_YEAR: Final = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE: Final = (
    r"(?!0000)(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
_TEXT: Final = (
    rf"{_DATE}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{{1,9}})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_SHAPE: Final = re.compile(_TEXT, re.ASCII)
_MANY: Final = re.compile(f"(?:{_TEXT}\n)*+", re.ASCII)  # possessive: no backtracking


def is_timestamp(text: str) -> bool:
    """Whether the text is an RFC 3339 time."""
    return _SHAPE.fullmatch(text) is not None


def all_timestamps(texts: Collection[str]) -> bool:
    """Whether every text is an RFC 3339 time."""
    lines = "\n".join((*texts, ""))
    # A text that contains a line end would count as two.
    return lines.count("\n") == len(texts) and _MANY.fullmatch(lines) is not None


def nanoseconds(text: str) -> int:
    """Nanoseconds since 1970, negative before. Raises ValueError unless it is an RFC 3339 time."""
    if not is_timestamp(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    whole, dot, rest = text.partition(".")
    decimals = re.match(r"\d*", rest)[0] if dot else ""  # type: ignore[index]  # "\d*" always matches
    zone = rest[len(decimals) :]
    seconds = _seconds(whole + zone)
    return seconds * 1_000_000_000 + int(decimals.ljust(9, "0") or 0)


def age(text: str) -> float:
    """Seconds since an RFC 3339 time by this machine's clock. Raises ValueError as above."""
    return (time.time_ns() - nanoseconds(text)) / 1e9


def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    offset = moment.utcoffset()
    # Subtract by hand: the zero time with an offset has no representation in UTC.
    naive = moment.replace(tzinfo=None) - datetime(1970, 1, 1)  # noqa: DTZ001 - both are naive
    return naive.days * 86_400 + naive.seconds - (int(offset.total_seconds()) if offset else 0)


def in_utc(text: str) -> str:
    """The time in UTC, without fractions of a second.

    With an offset, a time may be in year 0 or 10000 in UTC, which RFC 3339 cannot say. It is then
    returned as it is written. Raises ValueError unless it is an RFC 3339 time.
    """
    seconds = nanoseconds(text) // 1_000_000_000
    return from_nanoseconds(seconds * 1_000_000_000) if _FIRST <= seconds <= _LAST else text


def from_nanoseconds(value: int) -> str:
    """The text Go writes for this moment: UTC, trailing zeros of the decimals left out.

    Raises ValueError unless the moment is in the years 1 to 9999.
    """
    seconds, decimals = divmod(value, 1_000_000_000)
    if not _FIRST <= seconds <= _LAST:
        raise ValueError(f"{value} nanoseconds since 1970 are not in the years 1 to 9999")
    # Not strftime: it writes the year 1 as "1".
    text = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()  # noqa: DTZ001 - in UTC
    return f"{text}.{decimals:09d}".rstrip("0").rstrip(".") + "Z" if decimals else f"{text}Z"


def now() -> str:
    """The current time in nanoseconds, as text."""
    return from_nanoseconds(time.time_ns())
