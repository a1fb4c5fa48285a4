"""``cachefs show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import location_argument, named, names_option, say_empty
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import (
    command_line,
    digest,
    is_terminal,
    print_json,
    print_table,
    say,
    size,
)
from cachefs.concurrency import run
from cachefs.operations import inspect
from cachefs.wire import description, timestamps

if TYPE_CHECKING:
    from cachefs import Cache, LayerDetails, NameDetails, RecordDetails
    from cachefs.location.options import Location
    from cachefs.operations.describe import DescribedResult

DESCRIBED = 5
"""How many results of a name are described in text; --json has all."""


@click.command("show")
@location_argument
@names_option("Show this name only.")
@json_option
@common_options
def command(location: Location, names: tuple[str, ...], *, as_json: bool) -> Exit:
    """Show the layers and records of the names at LOCATION, by default of all names.

    A layer is on the one below it. A record's inputs are the records that it is built on, where
    "1|2" is either of two; its result is a chain of layers, of which the top one is shown. What
    the results are, such as the command and the commit, is told if it was stored with them.

    If there are several names and one cannot be read, the reason is shown instead and the exit
    status is 1.
    """
    cache = cachefs.open(location)
    by_digest = cache.default_names if cache.location.digest else ()
    details = _details(cache, names or cache.location.names or by_digest)
    if all(one.fault for one in details):
        cache.require_exists()
    if as_json:
        print_json(details)
    elif not details:
        say_empty(cache)
    else:
        for index, one in enumerate(details):
            if index:
                click.echo()
            _print(one)
    return Exit.FAULTS if any(one.fault for one in details) else Exit.DONE


def _details(cache: Cache, names: tuple[str, ...]) -> list[NameDetails]:
    wanted = list(dict.fromkeys(names))
    wanted = wanted or [name.name for name in cache.names()]
    if len(wanted) != 1:
        return run(inspect.describe_all(cache.layout, wanted))
    with named(cache, wanted[0]):
        return [cache.describe(wanted[0])]


def _print(details: NameDetails) -> None:
    name = one_line(details.name)
    if details.fault:
        click.echo(f"{name}: {one_line(details.fault)}")
        return
    with_result = sum(bool(record.results) for record in details.records)
    click.echo(
        f"{name}: {counted(len(details.records), 'record')}, {with_result:,} with a result; "
        f"{counted(len(details.layers), 'layer')}, at most {details.depth:,} in a chain; "
        f"{size(details.bytes)} of blobs"
    )
    if details.refusal:
        click.echo(one_line(f"builders refuse to import it: {details.refusal}"))
    for one in details.described[:DESCRIBED]:
        _print_described(one)
    if (more := len(details.described) - DESCRIBED) > 0:
        click.echo(f"and {counted(more, 'other result')}; --json tells all")
    if details.layers:
        click.echo()
        columns = ("layer", "on", "blob", "size", "type", "made (UTC)")
        print_table(columns, [_row(layer) for layer in details.layers], right="layer|on|size")
    if details.records:
        click.echo()
        rows = [_record_row(record) for record in details.records]
        print_table(("record", "digest", "inputs", "result"), rows, right="record")


def _print_described(one: DescribedResult) -> None:
    """What a result is, line by line."""
    what = one.description
    click.echo()
    say(f"made by: {command_line(what.command)}")
    of_commit = f" at commit {what.commit[:12]}" if what.commit else ""
    say(f"  {_moment(one.created_at)} UTC on {what.host}{of_commit}, in {what.seconds:.1f} s")
    parts = {
        "inputs": [f"{name} ({digest(content)})" for name, content in what.inputs.items()],
        "outputs": what.outputs,
        "variables": [
            name if check is not None else f"{name} (not set)"
            for name, check in what.variables.items()
        ],
        "platform": [what.platform] if what.platform else [],
    }
    for part, items in parts.items():
        if items:
            say(f"  {part}: {', '.join(items)}")


def _record_row(record: RecordDetails) -> tuple[str, ...]:
    return (
        str(record.index),
        digest(record.digest),
        ", ".join("|".join(map(str, alternatives)) for alternatives in record.inputs),
        ", ".join(f"layer {top}" for top in record.results),
    )


def _row(layer: LayerDetails) -> tuple[str, ...]:
    return (
        str(layer.index),
        "" if layer.parent == -1 else str(layer.parent),
        digest(layer.blob),
        size(layer.size) if layer.size else "unknown",
        _kind(layer.media_type),
        _moment(layer.created_at),
    )


def _kind(media_type: str) -> str:
    """A layer's media type; on a terminal only its end, such as ``tar+gzip``."""
    if is_terminal() and media_type == description.MEDIA_TYPE:
        return "description"
    before, tar, after = media_type.rpartition("tar")
    return tar + after if is_terminal() and before else media_type


def _moment(created_at: str) -> str:
    """The time in UTC without fractions of a second; empty if it was never set."""
    if created_at in {"", timestamps.ZERO}:
        return ""
    return timestamps.in_utc(created_at).replace("T", " ").removesuffix("Z")
