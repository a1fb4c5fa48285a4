"""Running the cases of each work in rounds, so that a machine that slows down affects all."""

from __future__ import annotations

import contextlib
import os
import random
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks import line, results
from benchmarks.processes import run
from benchmarks.stage import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.cases import Arguments, Case
    from benchmarks.stage import Stage


def measure(
    cases: Sequence[Case],
    stage: Stage,
    runs: int,
    most: float = 40.0,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[list[results.Case], dict[str, str]]:
    """Run the cases, one work after another, each in rounds.

    Args:
        cases: what to run; cases of the same work take turns.
        stage: the server and the data that they use.
        runs: rounds that count. Work that moves bytes starts with one more round.
        most: total seconds after which a case is not run again.
        tell: called with what is being done.

    Returns:
        The results of the cases, and the reasons why some have none: others continue when a case
        fails.
    """
    found = {case: _result(case) for case in cases}
    failed: dict[Case, str] = {}
    for case, number in _schedule(cases, runs):
        if case in failed or sum(found[case].seconds) >= most:
            continue
        about = f"round {number} of {runs}" if number else "warming up"
        tell(f"{case.work}, {case.name}: {about}")
        try:
            for _ in range(case.each_round):
                _run(case, stage, found[case] if number else _result(case))
        except RuntimeError as error:
            failed[case] = str(error)
    whole = [result for case, result in found.items() if case not in failed]
    return whole, {f"{case.work}, {case.name}": why for case, why in failed.items()}


def _schedule(cases: Sequence[Case], runs: int) -> Iterator[tuple[Case, int]]:
    """Each case with the number of its round; round 0 does not count.

    The order differs in each round, so that no case always runs after the same one.
    """
    works: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        works[case.group, case.work].append(case)
    for same in works.values():
        # The first run has to acquire memory that the system has reclaimed in the meantime.
        first = 0 if same[0].bytes else 1
        for number in range(first, runs + 1):
            drawn = random.Random(number).sample(same, len(same))
            yield from ((case, number) for case in drawn)


def _result(case: Case) -> results.Case:
    return results.Case(
        group=case.group,
        work=case.work,
        tool=case.name,
        ours=case.contender.ours,
        bound=case.contender.bound,
        parallelism=case.parallelism,
        bytes=case.bytes,
        point=case.point,
        milliseconds=case.line.milliseconds if case.line else 0.0,
    )


def _run(case: Case, stage: Stage, result: results.Case) -> None:
    load = os.getloadavg()[0]
    with case.prepare(stage) as prepared, _connected(case, stage, prepared) as (arguments, there):
        buckets = [arguments[name].bucket for name in ("place", "to") if name in arguments]
        before = Served(0, 0.0)
        on_line: line.Done | None = None

        def ready() -> None:
            nonlocal before, on_line
            os.sync()  # writes left over from earlier runs are not part of this one
            before = stage.served(buckets)
            on_line = there and there.done()

        figures = run(case.contender, case.operation, arguments, stage.folder, ready)
        if there is not None and on_line is not None:
            done = there.done()
            result.line_cpu.append(done.cpu - on_line.cpu)
            result.late.append(done.late)
        if buckets:
            after = stage.served(buckets)
            result.requests.append(after.requests - before.requests)
            result.server.append(after.cpu - before.cpu)
    result.load.append(load)
    result.seconds.append(figures.seconds)
    result.cpu.append(figures.cpu)
    result.mib.append(figures.mib)


@contextlib.contextmanager
def _connected(
    case: Case, stage: Stage, arguments: Arguments
) -> Iterator[tuple[Arguments, line.RunningLine | None]]:
    """The arguments with the near end of the case's line as endpoint, and the line if any."""
    if case.line is None:
        yield arguments, None
        return
    server = urlsplit(stage.server.endpoint_url)
    with line.running(server.hostname or "", server.port or 80, case.line) as there:
        place = arguments["place"]._replace(endpoint=f"http://127.0.0.1:{there.port}")
        yield {**arguments, "place": place, "parallelism": None}, there
