"""``cachefs du``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import LOCATION, say_empty
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import age, amount, print_json, print_table, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs import AgeClass, Amount, CacheUsage, NameUsage
    from cachefs.location.options import Location


@click.command("du")
@click.argument("location", type=LOCATION)
@json_option
@common_options
def command(location: Location, *, as_json: bool) -> Exit:
    """Tell what the cache at LOCATION uses, by name and in all.

    \b
    total   blobs that the name needs
    unique  those that no other name needs
    shared  those that others need too

    Orphaned blobs are stored and no name needs them; those of a build that is storing its cache
    right now are among them. Where a manifest cannot be read it is not certain which these are. The
    exit status is 1 when a manifest cannot be read or a blob is missing.

    With name=... in LOCATION only those names are listed; the other figures are of the whole cache.
    """  # noqa: D301 - click's mark, not a backslash
    cache = cachefs.open(location)
    usage = cache.usage()
    if as_json:
        print_json(usage)
    else:
        if not (usage.names or usage.fault):
            say_empty(cache)
        _print_names(usage.names)
        _print_cache(usage)
        _print_ages(usage)
    faulty = usage.fault or usage.missing.blobs or any(one.fault for one in usage.names)
    return Exit.FAULTS if faulty or usage.uncertain.blobs else Exit.DONE


def _print_names(names: Sequence[NameUsage]) -> None:
    if not names:
        return
    columns = ("name", "total", "blobs", "unique", "blobs", "shared", "blobs")
    rows = [(one.name, *_cells(one)) for one in names]
    print_table(columns, rows, right="total|blobs|unique|shared")
    click.echo()
    for one in names:
        if one.fault:
            click.echo(one_line(f"{one.name}: {one.fault}"))


def _cells(usage: NameUsage) -> list[str]:
    if usage.fault:
        return ["-"] * 6
    parts = (usage.total, usage.unique, usage.shared)
    return [cell for part in parts for cell in (size(part.bytes), f"{part.blobs:,}")]


def _print_cache(usage: CacheUsage) -> None:
    if usage.fault:
        click.echo(one_line(usage.fault))
    click.echo(f"stored      {_amount(usage.stored)}")
    click.echo(f"referenced  {_amount(usage.referenced)}")
    if usage.uncertain.blobs:
        click.echo(
            f"uncertain   {_amount(usage.uncertain)}: orphaned, or needed by what cannot be read"
        )
    else:
        click.echo(f"orphaned    {_amount(usage.orphaned)}")
    click.echo(f"missing     {_amount(usage.missing)}")
    if usage.dedup is not None:
        click.echo(f"dedup       {usage.dedup:.2f}: names need {size(usage.named.bytes)}")


def _print_ages(usage: CacheUsage) -> None:
    if not usage.stored.blobs:
        return
    click.echo()
    rows = [(_class(one), *_both(one.amount)) for one in usage.ages]
    if usage.undated.blobs:
        rows.append(("unknown", *_both(usage.undated)))
    print_table(("age of blobs", "bytes", "blobs"), rows, right="bytes|blobs")
    if usage.oldest is not None:
        click.echo()
        click.echo(f"oldest {age(usage.oldest)}, newest {age(usage.newest)}")


def _class(ages: AgeClass) -> str:
    if ages.days is None:
        return "older"
    return f"less than {amount(ages.days, 'day')}"


def _both(part: Amount) -> tuple[str, str]:
    return size(part.bytes), f"{part.blobs:,}"


def _amount(part: Amount) -> str:
    return f"{size(part.bytes)} in {amount(part.blobs, 'blob')}"
