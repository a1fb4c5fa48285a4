"""Trying again after another writer was faster: how often, and how long to wait between."""

from __future__ import annotations

import random
from typing import Final

ATTEMPTS: Final = 50
"""How often a write with a condition is tried. All attempts together wait a minute at most."""

_FIRST: Final = 0.02
_LONGEST: Final = 1.25


def pause(attempt: int) -> float:
    """Seconds to wait after this attempt, counted from 0: random, so that writers fall out of step.

    They are at most doubled each time, and never more than :data:`_LONGEST`.
    """
    return random.uniform(0, min(_LONGEST, _FIRST * 2 ** min(attempt, 10)))  # noqa: S311 - no secret
