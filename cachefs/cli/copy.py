"""``cachefs copy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

import cachefs
from cachefs.amount import Amount
from cachefs.cli.exits import Exit
from cachefs.cli.failing import error_object, one_line, tell
from cachefs.cli.locations import LocationType
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import amount, blobs_and_bytes, print_json
from cachefs.cli.progress import progress_bar

if TYPE_CHECKING:
    from cachefs.location.options import Location
    from cachefs.transfer.exporter import ExportReport


@click.command("copy")
@click.argument("source", metavar="SRC", type=LocationType("import"))
@click.argument("target", metavar="DST", type=LocationType("export"))
@click.option(
    "--delete", is_flag=True, help="Then remove names that SRC lacks, and delete orphaned blobs."
)
@click.option(
    "--repair", is_flag=True, help="Mend manifests that builders refuse to import, on their way."
)
@json_option
@common_options
def command(
    source: Location, target: Location, *, delete: bool, repair: bool, as_json: bool
) -> Exit:
    """Copy a cache, as it is, from SRC to DST.

    All names of SRC, or those that its name=... (or tag=...) gives, keep their names unless DST
    gives others. Blobs that DST has are not sent; every blob is verified while it is copied.

    If a name cannot be copied, it stays in DST as it was, and the exit status is 1; --delete then
    removes nothing. Blobs are deleted as by "cachefs prune": none younger than 72 hours.
    """
    failure = None
    try:
        with progress_bar("copying") as callback:
            report = cachefs.copy(source, target, delete=delete, repair=repair, callback=callback)
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
