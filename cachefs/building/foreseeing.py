"""What running named steps would do, without doing it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cachefs.building.side_by_side import Ended
from cachefs.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cachefs.building.needs import Placed
    from cachefs.building.report import StepReport


def foresee(
    steps: Mapping[str, Placed], directory: Path, ask: Callable[[Placed], StepReport]
) -> list[Ended]:
    """What would become of each step.

    A step whose inputs another one would make anew is not known before that has ended: if it makes
    the same again, the step is a hit.

    Args:
        steps: the steps, in an order in which they can run.
        directory: the directory of the file.
        ask: does a dry run of one step.
    """
    ended: list[Ended] = []
    changing: set[str] = set()
    for name, placed in steps.items():
        first = next((needed for needed in placed.needs if needed in changing), "")
        one = Ended(name=name, outcome="not known", because=first) if first else _one(placed, ask)
        ended.append(one)
        if placed.outputs and not _stays(one, placed, directory):
            changing.add(name)
    return ended


def _one(placed: Placed, ask: Callable[[Placed], StepReport]) -> Ended:
    try:
        report = ask(placed)
    except (CacheError, OSError) as error:
        return Ended(name=placed.name, outcome="failed", error=error)
    hits = report.outcome == "would hit"
    return Ended(name=placed.name, outcome="would hit" if hits else "would run", report=report)


def _stays(ended: Ended, placed: Placed, directory: Path) -> bool:
    """Whether the outputs are there and would stay as they are."""
    there = all(os.path.lexists(directory / output) for output in placed.outputs)
    return ended.outcome == "would hit" and there
