"""Printing: tables for people, plain columns for pipes, one JSON document for programs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def print_json(value: Any) -> None:
    """The value as one JSON document on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def size(count: int) -> str:
    """Bytes as people read them: ``1.2 GiB``."""
    import humanize

    return humanize.naturalsize(count, binary=True).replace("Bytes", "B").replace("Byte", "B")


def age(modified: float | None) -> str:
    """How long ago a time was."""
    if modified is None:
        return "unknown"
    import humanize

    return humanize.naturaltime(time.time() - modified)


def amount(count: int, noun: str) -> str:
    """A count with its noun: ``1 blob``, ``2 blobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """A table; in a pipe, aligned columns that nothing is cut from.

    Args:
        columns: the headings.
        rows: their texts.
        right: headings, separated by ``|``, of columns that are aligned to the right.
    """
    if not sys.stdout.isatty():
        _print_plain(columns, rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        is_right = column in right.split("|")
        table.add_column(column, justify="right" if is_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
