"""The steps of every command that changes a cache: show the plan, ask, execute it, report."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import to_builtins

from cachefs.cli.exits import Exit
from cachefs.cli.failing import error_object
from cachefs.cli.options import json_option
from cachefs.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

P = TypeVar("P")
R = TypeVar("R")


class Confirmation:
    """How far a command may go, according to its options.

    Args:
        dry_run: only show the plan.
        yes: do not ask.
        as_json: print the plan and the report as one JSON document, and nothing else.
    """

    def __init__(self, *, dry_run: bool, yes: bool, as_json: bool) -> None:
        self.dry_run = dry_run
        self._yes = yes
        self._as_json = as_json

    def execute(
        self,
        plan: P,
        work: Callable[[P], R] | None,
        *,
        show: Callable[[P], None],
        tell: Callable[[R], None],
        question: str | None,
    ) -> R | None:
        """Show the plan, execute it if the options and the user allow it, and print the report.

        Args:
            plan: what is to be done.
            work: executes the plan; None if there is nothing to do.
            show: prints the plan.
            tell: prints the report.
            question: asked before executing; None if nothing can be lost.

        Returns:
            The report, or None if nothing was done. If the user declines, the command ends.

        Raises:
            click.UsageError: a question must be asked and there is no terminal.
        """
        if not self._as_json:
            show(plan)
        report = None
        if work is not None and not self.dry_run:
            if question is not None:
                self._ask(question)
            report = work(plan)
            if not self._as_json:
                tell(report)
        if self._as_json:
            print_json({"plan": plan, "report": report})
        return report

    def report(self, report: R, tell: Callable[[R], None], error: Exception | None = None) -> None:
        """Print the report of what was done without a plan; in JSON, with the error if any."""
        if self._as_json:
            document = to_builtins(report)
            print_json(document | {"error": error_object(error)} if error else document)
        else:
            tell(report)

    def _ask(self, question: str) -> None:
        """Ask on the terminal, on standard error, unless --yes was given."""
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError(
                "there is no terminal to ask on: give --yes to proceed or --dry-run to see the plan"
            )
        try:
            agreed = click.confirm(question, err=True)
        except click.Abort:
            click.echo(err=True)  # so that what follows begins on a new line
            raise
        if not agreed:
            click.echo("cachefs: nothing was changed", err=True)
            raise click.exceptions.Exit(Exit.INTERRUPTED)


def confirmation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--dry-run``, ``--yes`` and ``--json``, passed on as the keyword ``confirmation``."""

    @functools.wraps(command)
    def confirmed(*, dry_run: bool, yes: bool, as_json: bool, **others: Any) -> Any:
        confirmation = Confirmation(dry_run=dry_run, yes=yes, as_json=as_json)
        return command(confirmation=confirmation, **others)

    dry_run = click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
    yes = click.option("-y", "--yes", is_flag=True, help="Proceed without asking.")
    return dry_run(yes(json_option(confirmed)))
