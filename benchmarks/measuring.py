"""Runs of all cases in rounds, so that a machine that slows down slows all of them."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks import results
from benchmarks.processes import run
from benchmarks.stage import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.cases import Case
    from benchmarks.stage import Stage


def measure(
    cases: Sequence[Case],
    stage: Stage,
    runs: int,
    most: float = 20.0,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[list[results.Case], dict[str, str]]:
    """Run the cases, round after round.

    Args:
        cases: those of one work beside each other.
        stage: what they stand on.
        runs: rounds; in each, another contender of a work begins.
        most: seconds after which a case is not run again.
        tell: told what is being done.

    Returns:
        The cases' results, and why some have none: one that fails does not end the others.
    """
    found = {case: _result(case) for case in cases}
    failed: dict[str, str] = {}
    work = ""
    for turn in range(runs):
        for case in _rotated(list(found), turn):
            if sum(found[case].seconds) >= most:
                continue
            if case.bytes and case.work != work:
                # Whoever comes first pays for memory that the system has given back meanwhile.
                tell(f"round {turn + 1} of {runs}: {case.work}, warming up")
                with suppress(RuntimeError):  # the counted runs tell
                    _run(case, stage, _result(case))
            work = case.work
            tell(f"round {turn + 1} of {runs}: {case.work}, {case.name}")
            try:
                for _ in range(case.each_round):
                    _run(case, stage, found[case])
            except RuntimeError as error:
                failed[f"{case.work}, {case.name}"] = str(error)
                del found[case]
    return list(found.values()), failed


def _result(case: Case) -> results.Case:
    return results.Case(
        group=case.group,
        work=case.work,
        tool=case.name,
        ours=case.contender.ours,
        parallelism=case.parallelism,
        bytes=case.bytes,
        point=case.point,
    )


def _rotated(cases: Sequence[Case], turn: int) -> Iterator[Case]:
    """Work after work, each time beginning with another contender."""
    works: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        works[case.group, case.work].append(case)
    for same in works.values():
        first = turn % len(same)
        yield from same[first:] + same[:first]


def _run(case: Case, stage: Stage, result: results.Case) -> None:
    load = os.getloadavg()[0]
    with case.prepare(stage) as arguments:
        buckets = [arguments[name].bucket for name in ("place", "to") if name in arguments]
        before = Served(0, 0.0)

        def ready() -> None:
            nonlocal before
            os.sync()  # what others left to be written to the disk is not this one's
            before = stage.served(buckets)

        figures = run(case.contender, case.operation, arguments, stage.folder, ready)
        if buckets:
            after = stage.served(buckets)
            result.requests.append(after.requests - before.requests)
            result.server.append(after.cpu - before.cpu)
    result.load.append(load)
    result.seconds.append(figures.seconds)
    result.cpu.append(figures.cpu)
    result.mib.append(figures.mib)
