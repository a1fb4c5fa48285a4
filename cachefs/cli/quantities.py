"""Parsing quantities given as options: durations, sizes, and counts by pattern.

Each function is the callback of an option, for text or None, or for several texts.
"""

from __future__ import annotations

import re
from typing import Final

import click

from cachefs.errors import LocationError
from cachefs.location.kinds import parse_duration

_DAYS: Final = {"d": 86_400.0, "w": 7 * 86_400.0}
_LONG: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)([dw])")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*(?:([KMGTP])(I)?)?(B)?", re.IGNORECASE)


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
    """Bytes, given as ``500MB``, ``10GiB`` or ``5T``; only ``kB``, ``MB`` and so on are decimal."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is not a valid size: write for example 500MB or 10GiB")
    number, unit, binary, with_b = found.groups()
    base = 1000 if with_b and not binary else 1024
    return int(float(number) * base ** ("KMGTP".index(unit.upper()) + 1 if unit else 0))


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
