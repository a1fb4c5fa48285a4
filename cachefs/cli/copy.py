"""``cachefs copy``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from msgspec import to_builtins

import cachefs
from cachefs.amount import Amount
from cachefs.cli.exits import Exit
from cachefs.cli.failing import error_object, one_line, pattern_hint, tell
from cachefs.cli.locations import (
    LOCATION_TEXT,
    LocationType,
    chosen,
    names_option,
    other_location,
)
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import amount, blobs_and_bytes, print_json
from cachefs.cli.progress import progress_bar

if TYPE_CHECKING:
    from cachefs.location.options import Location
    from cachefs.transfer.exporter import ExportReport

PAIR: Final = 2
"""SRC and DST."""


@click.command("copy")
@click.argument("locations", metavar="[SRC] DST", nargs=-1, type=LOCATION_TEXT)
@names_option("Copy this name only.")
@click.option(
    "--delete", is_flag=True, help="Then remove names that SRC lacks, and delete orphaned blobs."
)
@json_option
@common_options
def command(
    locations: tuple[str, ...], names: tuple[str, ...], *, delete: bool, as_json: bool
) -> Exit:
    """Copy a cache, as it is, from SRC, by default $CACHEFS_CACHE, to DST.

    All names of SRC, or those given with --name or by its name=... (or tag=...), keep their names
    unless DST gives others. Blobs that DST has are not sent; every blob is verified while it is
    copied.

    If a name cannot be copied, it stays in DST as it was, and the exit status is 1; --delete then
    removes nothing. Blobs are deleted as by "cachefs prune": none younger than 72 hours.
    """
    source, target = _sides(locations)
    failure = None
    try:
        with progress_bar("copying") as callback:
            report = cachefs.copy(chosen(source, names), target, delete=delete, callback=callback)
    except cachefs.CopyError as error:
        report = error.report
        failure = error
        tell(error)
    if as_json:
        document = to_builtins(report)
        print_json(document | {"error": error_object(failure)} if failure else document)
    else:
        click.echo(_line(report))
    return Exit.FAULTS if failure else Exit.DONE


def _sides(typed: tuple[str, ...]) -> tuple[Location, Location]:
    """SRC and DST. Each is parsed for its role, which is known only once both are."""
    context = click.get_current_context()
    if not 1 <= len(typed) <= PAIR:
        hint = pattern_hint()
        raise click.UsageError(f"give SRC and DST: two locations, not {len(typed)}{hint}")
    target = LocationType("export").convert(typed[-1], None, context)
    if len(typed) == 1:
        return other_location(context, "DST", "SRC", "import"), target
    return LocationType("import").convert(typed[0], None, context), target


def _line(report: ExportReport) -> str:
    parts = [
        f"{verb} {blobs_and_bytes(part)}"
        for verb, part in (
            ("sent", report.uploaded),
            ("touched", report.touched),
            ("kept", report.kept),
            ("deleted", report.deleted),
        )
        if part != Amount() or verb == "sent"
    ]
    names = f"{amount(len(report.names), 'name')}: {one_line(', '.join(report.names)) or 'none'}"
    if report.removed:
        names += f"; removed {amount(len(report.removed), 'name')}: "
        names += one_line(", ".join(report.removed))
    return f"copied {names}; {', '.join(parts)} in {report.seconds:.1f} s"
