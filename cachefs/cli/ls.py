"""``cachefs ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import LOCATION, say_empty
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import age, is_terminal, print_json, print_table, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs import NameSummary
    from cachefs.location.options import Location


@click.command("ls")
@click.argument("location", type=LOCATION)
@json_option
@common_options
def command(location: Location, *, as_json: bool) -> Exit:
    """List the names of the cache at LOCATION, or only those given by its name=...

    If a manifest cannot be read, the reason is shown and the exit status is 1.
    """
    cache = cachefs.open(location)
    summaries = cache.summaries()
    if all(summary.modified is None and summary.fault for summary in summaries):
        cache.require_exists()
    if as_json:
        print_json(summaries)
    elif not summaries:
        say_empty(cache)
    else:
        _print(summaries)
    return Exit.FAULTS if any(s.fault for s in summaries) else Exit.DONE


def _print(summaries: Sequence[NameSummary]) -> None:
    columns = ["name", "written", "manifest", "layers", "records", "blobs"]
    rows = [[s.name, *_figures(s)] for s in summaries]
    faults = [s for s in summaries if s.fault]
    if faults and not is_terminal():
        columns.append("fault")
        rows = [[*row, s.fault or ""] for row, s in zip(rows, summaries, strict=True)]
    print_table(columns, rows, right="manifest|layers|records|blobs")
    if faults and is_terminal():
        # A column of sentences would leave no room for the other columns.
        click.echo()
        for summary in faults:
            click.echo(one_line(f"{summary.name}: {summary.fault}"))
    for summary in summaries:
        if summary.refusal:
            refused = f"{summary.name}: builders refuse to import it: {summary.refusal}"
            click.echo(one_line(f"cachefs: warning: {refused}"), err=True)


def _figures(summary: NameSummary) -> list[str]:
    if summary.fault and summary.modified is None:
        return ["-"] * 5
    known = [age(summary.modified), size(summary.manifest_bytes)]
    if summary.fault:
        return [*known, "-", "-", "-"]
    return [*known, f"{summary.layers:,}", f"{summary.records:,}", size(summary.bytes)]
