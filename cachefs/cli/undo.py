"""``cachefs prune --undo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.output import age, blobs_and_bytes, say
from cachefs.operations.undo import UndoPlan

if TYPE_CHECKING:
    from cachefs import Cache, UndoReport
    from cachefs.cli.confirming import Confirmation

_ALLOWED: Final = {"location", "undo", "dry_run", "yes", "as_json"}
"""The values of the command that have a meaning with ``--undo``."""


def require_alone(option: str) -> None:
    """Raise click.UsageError if the command line has options that say what to remove."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.expose_value  # else it is one of every command, such as --engine
        and parameter.name not in _ALLOWED
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{option} removes nothing: leave out {', '.join(given)}")


def undo_prune(cache: Cache, confirmation: Confirmation) -> Exit:
    """Show what comes back, and bring it back. Nothing can be lost, so nobody is asked."""
    plan = cache.plan_undo_prune()
    report = confirmation.execute(
        plan, UndoPlan.execute, show=_print_plan, tell=_print_report, question=None
    )
    done = plan if report is None else report
    return Exit.FAULTS if done.left or done.lost else Exit.DONE


def _print_plan(plan: UndoPlan) -> None:
    how = "ended" if plan.ended else "began and did not end"
    click.echo(f"the last prune {how} {age(plan.pruned)}")
    click.echo(f"bring back {counted(len(plan.names), 'name')} and {blobs_and_bytes(plan.returns)}")
    for name in plan.names:
        click.echo(f"  {one_line(name)}")
    if plan.present:
        click.echo(
            f"{counted(len(plan.present), 'name')} stay as they are, because they are there again: "
            f"{one_line(', '.join(plan.present))}"
        )
    if plan.lost:
        say(f"{counted(len(plan.lost), 'blob')} cannot come back", err=True)
    _print_left(plan.left)


def _print_report(report: UndoReport) -> None:
    click.echo(
        f"brought back {counted(len(report.names), 'name')} and {blobs_and_bytes(report.blobs)} "
        f"in {report.seconds:.1f} s"
    )
    if report.lost:
        say(f"{counted(len(report.lost), 'blob')} did not come back", err=True)
    _print_left(report.left)


def _print_left(left: dict[str, str]) -> None:
    for name, reason in left.items():
        say(f"{one_line(name)} does not come back: {reason}", err=True)
