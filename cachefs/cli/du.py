"""``cachefs du``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.locations import chosen, location_argument, names_option, say_empty
from cachefs.cli.metrics import metrics_option, write_usage
from cachefs.cli.options import common_options, json_option
from cachefs.cli.ordering import ordered, sort_option
from cachefs.cli.output import age, blobs_and_bytes, print_json, print_table, say, size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cachefs import AgeClass, Amount, CacheUsage, NameUsage
    from cachefs.location.options import Location

FIGURES: dict[str, Callable[[NameUsage], float]] = {
    "age": lambda usage: usage.modified or 0.0,
    "size": lambda usage: usage.total.bytes,
    "unique": lambda usage: usage.unique.bytes,
}


@click.command("du")
@location_argument
@names_option("List this name only.")
@sort_option(*FIGURES)
@metrics_option
@json_option
@common_options
def command(
    location: Location,
    names: tuple[str, ...],
    order: str | None,
    metrics: Path | None,
    *,
    as_json: bool,
) -> Exit:
    """Show how much the cache at LOCATION uses, by name and in total.

    \b
    total   blobs that the name needs
    unique  blobs no other name needs
    shared  blobs other names need too

    Orphaned blobs are stored, but no name needs them. They include those of a build that is storing
    its cache right now. If a manifest cannot be read, they cannot be determined. The exit status is
    1 if a manifest cannot be read or a blob is missing.

    With --sort, those come first that are the newest or have the most bytes. If names are given,
    only those are listed; the other figures cover the whole cache.
    """  # noqa: D301 - click's mark, not a backslash
    cache = cachefs.open(chosen(location, names))
    usage = cache.usage()
    given = bool(cache.location.names)
    listed = ordered(usage.names, order, lambda one: one.name, FIGURES, given=given)
    usage = replace(usage, names=listed)
    if metrics is not None:
        write_usage(metrics, cache, usage)
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
            say(f"{one.name}: {one.fault}")


def _cells(usage: NameUsage) -> list[str]:
    if usage.fault:
        return ["-"] * 6
    parts = (usage.total, usage.unique, usage.shared)
    return [cell for part in parts for cell in _pair(part)]


def _print_cache(usage: CacheUsage) -> None:
    if usage.fault:
        say(usage.fault)
    click.echo(f"stored      {blobs_and_bytes(usage.stored)}")
    click.echo(f"referenced  {blobs_and_bytes(usage.referenced)}")
    if not usage.listed:
        click.echo("orphaned    unknown: a registry does not list blobs")
    elif usage.uncertain.blobs:
        reason = "orphaned, or needed by an unreadable manifest"
        click.echo(f"uncertain   {blobs_and_bytes(usage.uncertain)}: {reason}")
    else:
        click.echo(f"orphaned    {blobs_and_bytes(usage.orphaned)}")
    click.echo(f"missing     {blobs_and_bytes(usage.missing)}")
    if usage.dedup is not None:
        click.echo(f"dedup       {usage.dedup:.2f}: names need {size(usage.named.bytes)}")


def _print_ages(usage: CacheUsage) -> None:
    if not usage.stored.blobs:
        return
    click.echo()
    starts = [0, *(one.days or 0 for one in usage.ages[:-1])]
    classes = zip(starts, usage.ages, strict=True)
    rows = [(_class(start, one), *_pair(one.amount)) for start, one in classes]
    if usage.undated.blobs:
        rows.append(("unknown", *_pair(usage.undated)))
    print_table(("age of blobs", "bytes", "blobs"), rows, right="bytes|blobs")
    if usage.oldest is not None:
        click.echo()
        click.echo(f"oldest {age(usage.oldest)}, newest {age(usage.newest)}")


def _class(start: int, ages: AgeClass) -> str:
    """The ages in a class, none of which is in another one."""
    if ages.days is None:
        return f"{counted(start, 'day')} or more"
    if not start:
        return f"less than {counted(ages.days, 'day')}"
    return f"{start:,} to {counted(ages.days, 'day')}"


def _pair(part: Amount) -> tuple[str, str]:
    return size(part.bytes), f"{part.blobs:,}"
