"""``cachefs ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.locations import chosen, location_argument, names_option, say_empty
from cachefs.cli.options import common_options, json_option
from cachefs.cli.ordering import ordered, sort_option
from cachefs.cli.output import (
    age,
    blobs_and_bytes,
    command_line,
    is_terminal,
    print_json,
    print_table,
    say,
    size,
)
from cachefs.concurrency import run
from cachefs.operations import inspect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefs import Amount, NameSummary
    from cachefs.location.options import Location

WIDEST_COMMAND = 50
"""Maximum width of a command on a terminal, in characters."""

FIGURES: dict[str, Callable[[NameSummary], float]] = {
    "age": lambda summary: summary.modified or 0.0,
    "size": lambda summary: summary.bytes,
}


@click.command("ls")
@location_argument
@names_option("List this name only.")
@sort_option(*FIGURES)
@click.option(
    "--details/--no-details",
    default=None,
    help="Whether to tell which command made the newest result of each name. That is one more "
    "small object to read for each name. Default: only of a cache on a local disk.",
)
@json_option
@common_options
def command(
    location: Location,
    names: tuple[str, ...],
    order: str | None,
    *,
    details: bool | None,
    as_json: bool,
) -> Exit:
    """List the names of the cache at LOCATION, and their total.

    With --sort=age the newest come first, with --sort=size those with the most bytes of blobs. The
    total counts a blob that several names need once.

    If a manifest cannot be read, the reason is shown and the exit status is 1.
    """
    cache = cachefs.open(chosen(location, names))
    described = location.protocol == "file" if details is None else details
    found = run(inspect.survey(cache.layout, cache.location.names, described=described))
    if all(summary.modified is None and summary.fault for summary in found.names):
        cache.require_exists()
    given = bool(cache.location.names)
    summaries = ordered(found.names, order, lambda one: one.name, FIGURES, given=given)
    if as_json:
        print_json(summaries)
    elif not summaries:
        say_empty(cache)
    else:
        _print(summaries)
        _print_total(summaries, found.blobs)
    return Exit.FAULTS if any(s.fault for s in summaries) else Exit.DONE


def _print(summaries: Sequence[NameSummary]) -> None:
    columns = ["name", "written", "manifest", "layers", "records", "blobs"]
    rows = [[s.name, *_figures(s)] for s in summaries]
    faults = [s for s in summaries if s.fault]
    if faults and not is_terminal():
        columns.append("fault")
        rows = [[*row, s.fault or ""] for row, s in zip(rows, summaries, strict=True)]
    if any(summary.described for summary in summaries):
        columns.append("made by")
        rows = [[*row, _maker(s)] for row, s in zip(rows, summaries, strict=True)]
    print_table(columns, rows, right="manifest|layers|records|blobs")
    if faults and is_terminal():
        # A column of sentences would leave no room for the other columns.
        click.echo()
        for summary in faults:
            say(f"{summary.name}: {summary.fault}")
    for summary in summaries:
        if summary.refusal:
            refused = f"{summary.name}: builders refuse to import it: {summary.refusal}"
            say(f"cachefs: warning: {refused}", err=True)


def _maker(summary: NameSummary) -> str:
    """The command that made the newest result, shortened on a terminal."""
    if summary.described is None:
        return ""
    text = command_line(summary.described.description.command)
    if is_terminal() and len(text) > WIDEST_COMMAND:
        text = f"{text[: WIDEST_COMMAND - 3]}..."
    return f"{text} and {counted(summary.others, 'other')}" if summary.others else text


def _print_total(summaries: Sequence[NameSummary], blobs: Amount) -> None:
    manifests = size(sum(summary.manifest_bytes for summary in summaries))
    unread = sum(summary.fault is not None for summary in summaries)
    but = f", {unread:,} of which cannot be read" if unread else ""
    click.echo()
    say(
        f"total: {counted(len(summaries), 'name')}{but}; {blobs_and_bytes(blobs)}; "
        f"{manifests} of manifests"
    )


def _figures(summary: NameSummary) -> list[str]:
    if summary.fault and summary.modified is None:
        return ["-"] * 5
    known = [age(summary.modified), size(summary.manifest_bytes)]
    if summary.fault:
        return [*known, "-", "-", "-"]
    return [*known, f"{summary.layers:,}", f"{summary.records:,}", size(summary.bytes)]
