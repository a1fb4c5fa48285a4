"""Parsing quantities given as options: durations, sizes, and counts by pattern.

Each function is the callback of an option, for text or None, or for several texts.
"""

from __future__ import annotations

import re
from typing import Final

import click

from cachefs.errors import LocationError
from cachefs.location.kinds import parse_duration, parse_size

_DAYS: Final = {"d": 86_400.0, "w": 7 * 86_400.0}
_LONG: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)([dw])")


def duration(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> float | None:
    """Seconds, given as ``90m``, ``36h``, ``30d``, ``2w`` or a sum such as ``1d12h``."""
    if text is None:
        return None
    long = sum(float(number) * _DAYS[unit] for number, unit in _LONG.findall(text))
    rest = _LONG.sub("", text)
    if long and not rest:
        return long
    try:
        seconds = long + parse_duration(rest)
    except LocationError:
        seconds = -1.0
    if seconds < 0:
        raise click.BadParameter(f"{text!r} is not a valid duration: write for example 30d or 36h")
    return seconds


def size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Bytes, as :func:`parse_size` takes them."""
    if text is None:
        return None
    try:
        return parse_size(text)
    except LocationError as error:
        raise click.BadParameter(error.reason) from None


def keep_last(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, int]:
    """How many names to keep by pattern: ``5`` for all names, ``main*=5`` for some."""
    counts: dict[str, int] = {}
    for text in texts:
        pattern, _, count = text.rpartition("=")
        if not count.isdecimal():
            raise click.BadParameter(f"{text!r} is not a valid count: write 5, or 'main*=5'")
        counts[pattern or "*"] = int(count)
    return counts
