"""What ``cachefs run`` tells about a hit or a run: on standard error, and in a JSON report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachefs.cli.exits import Exit
from cachefs.cli.failing import tell
from cachefs.cli.output import say, to_json
from cachefs.filesystems.system import system_error

if TYPE_CHECKING:
    from pathlib import Path

    from cachefs.building.report import StepReport


def explain_report(report: StepReport, name: str = "") -> None:
    """Say whether it was a hit, or why not, and what of the inputs did not count.

    Args:
        report: what was done.
        name: that of the step, if it has one.
    """
    prefix = f"cachefs: {name}: " if name else "cachefs: "
    outcome = {"hit": "hit", "ran": "miss"}.get(report.outcome, report.outcome)
    for why in report.why or [""]:
        say(f"{prefix}{outcome}{': ' if why else ''}{why}", err=True)
    if report.left_out:
        reasons = ", ".join(f"{number} ({why})" for why, number in report.left_out.items())
        say(f"{prefix}left out of the inputs: {reasons}", err=True)


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
