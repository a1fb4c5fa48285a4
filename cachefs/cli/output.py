"""Printing: tables for people, plain columns for pipes, one JSON document for programs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cachefs.cli.failing import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import JustifyMethod
    from rich.table import Table

    from cachefs.amount import Amount

SHORT_DIGEST = len("sha256:") + 12
"""Characters of a digest shown on a terminal: enough to tell blobs apart."""

GAP = 2
"""Spaces between columns."""

NARROWEST = 16
"""Minimum width of the widest column of a table; below it, rows are printed as lines."""


def print_json(value: Any) -> None:
    """Print the value as one JSON document on standard output."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def size(count: int) -> str:
    """A number of bytes in a readable unit: ``1.2 GiB``."""
    import humanize

    return humanize.naturalsize(count, binary=True).replace("Bytes", "B").replace("Byte", "B")


def age(modified: float | None) -> str:
    """How long ago a time was (``3 days ago``), or ``unknown``."""
    if modified is None:
        return "unknown"
    import humanize

    try:
        return humanize.naturaltime(time.time() - modified)
    except OverflowError:  # a file may have any time, also one beyond the year 9999
        return "unknown"


def rate(per_second: float) -> str:
    """A speed: ``12.3 MiB/s``."""
    return f"{size(round(per_second))}/s"


def amount(count: int, noun: str) -> str:
    """A count with its noun: ``1 blob``, ``2 blobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def blobs_and_bytes(part: Amount) -> str:
    """Blobs and their size: ``12 blobs (3.4 MiB)``."""
    return f"{amount(part.blobs, 'blob')} ({size(part.bytes)})"


def is_terminal() -> bool:
    """Whether standard output is a terminal; output to anything else is never shortened."""
    return sys.stdout.isatty()


def digest(text: str) -> str:
    """A digest; on a terminal, its beginning."""
    return text[:SHORT_DIGEST] if is_terminal() else text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print a table that fits the terminal; in a pipe, aligned columns in full.

    Args:
        columns: the headings.
        rows: the texts of the cells.
        right: headings, separated by ``|``, of columns that are aligned to the right.
    """
    safe = [[one_line(cell) for cell in row] for row in rows]
    aligned = [column in right.split("|") for column in columns]
    if is_terminal():
        _print_drawn(columns, safe, aligned)
    else:
        _print_plain(columns, safe, aligned)


def _print_drawn(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
) -> None:
    from rich.cells import cell_len
    from rich.console import Console

    console = Console()
    widths = [max(map(cell_len, texts)) for texts in zip(columns, *rows, strict=True)]
    widest = widths.index(max(widths))
    firm = sum(widths) - widths[widest] + GAP * (len(widths) - 1)
    if firm + min(widths[widest], NARROWEST) <= console.width:
        console.print(_across(columns, rows, right, widest))
        return
    for index, row in enumerate(rows):
        if index:
            console.print()
        console.print(_down(columns, row))


def _across(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], widest: int
) -> Table:
    """A table whose widest column is wrapped to fit."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, (column, is_right) in enumerate(zip(columns, right, strict=True)):
        justify: JustifyMethod = "right" if is_right else "left"
        table.add_column(column, justify=justify, no_wrap=index != widest, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _down(columns: Sequence[str], row: Sequence[str]) -> Table:
    """One row as lines, for terminals that are too narrow for the table."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for column, cell in zip(columns, row, strict=True):
        if cell:
            table.add_row(column, Text(cell))
    return table


def _print_plain(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        line = (" " * GAP).join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        click.echo(line.rstrip())
