"""``cachefs ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.output import age, json_option, print_json, print_table, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs import NameSummary


@click.command("ls")
@click.argument("location")
@json_option
def command(location: str, *, as_json: bool) -> Exit:
    """List the names of the cache at LOCATION, or those that its name=... gives."""
    cache = cachefs.open(location)
    summaries = cache.summaries()
    if as_json:
        print_json(summaries)
    elif not summaries:
        click.echo(f"no names at {cache.location}", err=True)
    else:
        _print(summaries)
    return Exit.FAULTS if any(s.fault for s in summaries) else Exit.DONE


def _print(summaries: Sequence[NameSummary]) -> None:
    columns = ["name", "written", "layers", "records", "size"]
    rows = [[s.name, age(s.modified), *_figures(s)] for s in summaries]
    if any(s.fault for s in summaries):
        columns.append("fault")
        rows = [[*row, s.fault or ""] for row, s in zip(rows, summaries, strict=True)]
    print_table(columns, rows, right="layers|records|size")


def _figures(summary: NameSummary) -> tuple[str, str, str]:
    if summary.fault:
        return "", "", ""
    return str(summary.layers), str(summary.records), size(summary.bytes)
