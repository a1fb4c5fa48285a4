"""What running named steps would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.errors import CacheError
from cachefs.running.side_by_side import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachefs.building.report import StepReport
    from cachefs.running.needs import Placed


def foresee(steps: Mapping[str, Placed], ask: Callable[[Placed], StepReport]) -> list[Ended]:
    """What would become of each step.

    A step whose inputs another one would make anew is not known before that has ended: if it makes
    the same again, the step is a hit.

    Args:
        steps: the steps, in an order in which they can run.
        ask: does a dry run of one step.
    """
    ended: list[Ended] = []
    changing: set[str] = set()
    for name, placed in steps.items():
        first = next((needed for needed in placed.needs if needed in changing), "")
        one = Ended(name=name, outcome="not known", because=first) if first else _one(placed, ask)
        ended.append(one)
        if placed.outputs and not (one.report and one.report.in_place):
            changing.add(name)
    return ended


def _one(placed: Placed, ask: Callable[[Placed], StepReport]) -> Ended:
    try:
        report = ask(placed)
    except (CacheError, OSError) as error:
        return Ended(name=placed.name, outcome="failed", error=error)
    hits = report.outcome == "would hit"
    return Ended(name=placed.name, outcome="would hit" if hits else "would run", report=report)
