"""What ``cachefs run`` tells about a hit or a run: on standard error, and in a JSON report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from cachefs.cli.exits import Exit
from cachefs.cli.failing import tell
from cachefs.cli.output import say, size, to_json
from cachefs.filesystems.system import system_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cachefs.building.report import StepReport

WORTH_TELLING: Final = 1.0
"""Seconds that a hit saves from which that is told."""

SHOWN: Final = 10
"""Maximum number of lines that explain a miss; --report has all."""


def tell_report(
    report: StepReport, outputs: Sequence[str], *, explains: bool, name: str = ""
) -> None:
    """Say what a dry run found out, or else why it was a hit or a miss, if that is asked for.

    Args:
        report: what was done.
        outputs: the outputs of the step.
        explains: whether it is asked for. Otherwise, a person is told what a hit saved.
        name: that of the step, if it has one.
    """
    prefix = f"cachefs: {name}: " if name else "cachefs: "
    if report.outcome in ("would hit", "would run"):
        _foretell(prefix, report, outputs)
    elif explains or (report.saved >= WORTH_TELLING and sys.stderr.isatty()):
        _explain(prefix, report)


def _explain(prefix: str, report: StepReport) -> None:
    outcome = {"hit": "hit", "ran": "miss"}.get(report.outcome, report.outcome)
    lines = list(report.why)
    if report.saved >= WORTH_TELLING:
        lines.append(f"saved {report.saved:.1f} s by {report.cache}")
    _print_lines(prefix, outcome, lines or [""])
    if report.left_out:
        reasons = ", ".join(f"{number} ({why})" for why, number in report.left_out.items())
        say(f"{prefix}left out of the inputs: {reasons}", err=True)
    if report.links:
        say(
            f"{prefix}{report.links} symbolic links below inputs count as links; what they lead to "
            "does not count without --follow, unless it is an input too",
            err=True,
        )


def _foretell(prefix: str, report: StepReport, outputs: Sequence[str]) -> None:
    """Say what a run would do."""
    if report.outcome == "would hit":
        what = f"from {report.cache}"
        if report.in_place:
            what += "; its outputs are in place"
        elif outputs:
            what += f", which would restore {', '.join(outputs)} ({size(report.fetched)})"
        _print_lines(prefix, report.outcome, [what])
    else:
        _print_lines(prefix, report.outcome, report.why or [""])


def _print_lines(prefix: str, outcome: str, lines: list[str]) -> None:
    more = len(lines) - SHOWN
    if more > 0:
        lines = [*lines[: SHOWN - 1], f"and {more + 1} more differences"]
    for line in lines:
        say(f"{prefix}{outcome}{': ' if line else ''}{line}", err=True)


def write_report(path: Path | None, report: dict[str, Any]) -> int:
    """Write the report, if one is wanted, and return the status: a lost report is an error."""
    if path is None:
        return 0
    try:
        path.write_text(to_json(report) + "\n", encoding="utf-8")
    except OSError as error:
        tell(system_error(error, "write the report", str(path)))
        return Exit.STORE
    return 0
