"""Before a command changes a cache: the plan is shown, then confirmed on a terminal or by --yes."""

from __future__ import annotations

import sys

import click

dry_run_option = click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")

yes_option = click.option("-y", "--yes", is_flag=True, help="Do it without asking.")


def confirm(question: str, *, yes: bool) -> None:
    """Come back when the plan that was shown is to be carried out.

    Asks on the terminal, on standard error, unless ``yes``. Raises click.Abort when the answer is
    no, and click.UsageError where there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            "there is no terminal to ask on: give --yes to do it, or --dry-run to see the plan"
        )
    click.confirm(question, abort=True, err=True)
