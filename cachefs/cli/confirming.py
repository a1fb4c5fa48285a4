"""What every command does that changes a cache: show the plan, ask, execute it, tell of it."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cachefs.cli.exits import Exit
from cachefs.cli.options import json_option
from cachefs.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

P = TypeVar("P")
R = TypeVar("R")


class Confirmation:
    """How far a command goes, as its options say.

    Args:
        dry_run: only show the plan.
        yes: do not ask.
        as_json: print one document of plan and report, and nothing for people.
    """

    def __init__(self, *, dry_run: bool, yes: bool, as_json: bool) -> None:
        self._dry_run = dry_run
        self._yes = yes
        self._as_json = as_json

    def carry_out(
        self,
        plan: P,
        execute: Callable[[P], R] | None,
        *,
        show: Callable[[P], None],
        tell: Callable[[R], None],
        question: str | None,
    ) -> R | None:
        """Show the plan, execute it when that is wanted, and tell what was done.

        Args:
            plan: what is to be done.
            execute: does it; None where there is nothing to do.
            show: prints the plan for people.
            tell: prints the report for people.
            question: what is asked first; None where nothing can be lost.

        Returns the report, None where nothing was done. Ends the command when the answer is no.
        Raises click.UsageError where there is no terminal to ask on.
        """
        if not self._as_json:
            show(plan)
        report = None
        if execute is not None and not self._dry_run:
            if question is not None:
                self._ask(question)
            report = execute(plan)
            if not self._as_json:
                tell(report)
        if self._as_json:
            print_json({"plan": plan, "report": report})
        return report

    def _ask(self, question: str) -> None:
        """Ask on the terminal, on standard error, unless the answer was given."""
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError(
                "there is no terminal to ask on: give --yes to do it, or --dry-run to see the plan"
            )
        try:
            agreed = click.confirm(question, err=True)
        except click.Abort:
            click.echo(err=True)  # what follows is not to stand behind the question
            raise
        if not agreed:
            click.echo("cachefs: nothing was changed", err=True)
            raise click.exceptions.Exit(Exit.INTERRUPTED)


def confirmation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--dry-run``, ``--yes`` and ``--json``, as the command's keyword ``confirmation``."""

    @functools.wraps(command)
    def confirmed(*, dry_run: bool, yes: bool, as_json: bool, **others: Any) -> Any:
        confirmation = Confirmation(dry_run=dry_run, yes=yes, as_json=as_json)
        return command(confirmation=confirmation, **others)

    dry_run = click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
    yes = click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
    return dry_run(yes(json_option(confirmed)))
