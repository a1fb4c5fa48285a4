"""Runs of all cases in rounds, so that a machine that slows down slows all of them."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks import results
from benchmarks.processes import run
from tests.servers.proxy import recording_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.cases import Case
    from benchmarks.stage import Stage


def measure(
    cases: Sequence[Case],
    stage: Stage,
    runs: int,
    most: float = 20.0,
    requests: bool = True,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[list[results.Case], dict[str, str]]:
    """Count each case's requests, then time the cases, round after round.

    Args:
        cases: those of one work beside each other.
        stage: what they stand on.
        runs: rounds; in each, another contender of a work begins.
        most: seconds after which a case is not run again.
        requests: whether to count them.
        tell: told what is being done.

    Returns:
        The cases' results, and why some have none: one that fails does not end the others.
    """
    found = {case: _result(case) for case in cases}
    failed: dict[str, str] = {}

    def attempt(case: Case, work: Callable[[results.Case, Case, Stage], None]) -> None:
        try:
            work(found[case], case, stage)
        except RuntimeError as error:
            failed[f"{case.work}, {case.name}"] = str(error)
            found.pop(case, None)

    if requests:
        tell("counting requests")
        counted = [case for case in cases if case.requests]
        # Side by side, for they are not timed. Two, so that clients do not wait for a slow proxy.
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda case: attempt(case, _count), counted))
    for turn in range(runs):
        for case in _rotated(list(found), turn):
            if sum(found[case].seconds) < most:
                tell(f"round {turn + 1} of {runs}: {case.work}, {case.name}")
                attempt(case, _time)
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


def _count(result: results.Case, case: Case, stage: Stage) -> None:
    with recording_proxy(stage.server) as proxy, case.prepare(stage, proxy.server) as arguments:
        run(case.contender, case.operation, arguments, stage.folder, proxy.clear)
        result.requests = len(proxy.requests)


def _time(result: results.Case, case: Case, stage: Stage) -> None:
    """What others left to be written to the disk is not this one's: it is written before."""
    for _ in range(case.each_round):
        with case.prepare(stage, stage.server) as arguments:
            load = os.getloadavg()[0]
            figures = run(case.contender, case.operation, arguments, stage.folder, os.sync)
        result.load.append(load)
        result.seconds.append(figures.seconds)
        result.cpu.append(figures.cpu)
        result.mib.append(figures.mib)
