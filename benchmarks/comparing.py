"""What got slower between two results, beyond the differences between runs of one result."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from benchmarks.results import Case, Results

LIMITS: Final = {"seconds": 1.15, "cpu": 1.15, "mib": 1.2, "requests": 1.05}
"""Ratios of medians from which a difference counts; the ranges must not overlap either."""

LEAST: Final = {"seconds": 0.02, "cpu": 0.02, "mib": 4.0, "requests": 2.0}
"""Smaller differences do not count, whatever their ratio."""

UNITS: Final = {"seconds": "s", "cpu": "s of CPU", "mib": "MiB", "requests": "requests"}


class Comparison(NamedTuple):
    """Lines to print, and which of our cases got slower or take more."""

    lines: list[str]
    slower: list[tuple[str, str, str]]


def compare(before: Results, after: Results) -> Comparison:
    """Compare the common cases. Only ours can be slower; peers show changes of the machine."""
    lines_by: dict[str, list[str]] = {"slower": [], "faster": []}
    slower = []
    old = {case.key: case for case in before.cases}
    both = [(old[case.key], case) for case in after.cases if case.key in old]
    for then, now in both:
        if not now.ours:
            continue
        for measure in LIMITS:
            verdict = _verdict(getattr(then, measure), getattr(now, measure), measure)
            if verdict:
                lines_by[verdict].append(_line(then, now, measure))
            if verdict == "slower":
                slower.append(now.key)
    lines = [f"{verdict}:\n" + "\n".join(found) for verdict, found in lines_by.items() if found]
    return Comparison([*_machine(before, after, both), *lines, _sum(both, slower)], slower)


def _verdict(then: list[float], now: list[float], measure: str) -> str | None:
    if not then or not now:
        return None
    for verdict, less, more in (("slower", then, now), ("faster", now, then)):
        few, many = statistics.median(less), statistics.median(more)
        apart = max(less) < min(more) and many - few >= LEAST[measure]
        if apart and many >= LIMITS[measure] * few:
            return verdict
    return None


def _line(then: Case, now: Case, measure: str) -> str:
    old, new = then.median(measure), now.median(measure)
    ratio = f" ({new / old:.2f} times)" if old else ""
    return f"  {now.title}, {now.tool}: {old:.4g} to {new:.4g} {UNITS[measure]}{ratio}"


def _machine(before: Results, after: Results, both: list[tuple[Case, Case]]) -> list[str]:
    lines = [
        f"{name} differs: {before.machine.get(name)}, now {value}"
        for name, value in after.machine.items()
        if name not in {"load before", "commit"} and before.machine.get(name) != value
    ]
    peers = [now.median() / then.median() for then, now in both if not now.ours]
    if peers:
        lines.append(f"the peers took {statistics.median(peers):.2f} times what they took before")
    return lines


def _sum(both: list[tuple[Case, Case]], slower: list[tuple[str, str, str]]) -> str:
    ours = sum(now.ours for _, now in both)
    if not ours:
        return "the results have no case in common"
    return f"{len(set(slower))} of {ours} cases got slower or take more"
