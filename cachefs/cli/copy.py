"""``cachefs copy``."""

from __future__ import annotations

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.output import amount, json_option, print_json, size
from cachefs.cli.progress import progress_bar
from cachefs.exporter import Amount, ExportReport


@click.command("copy")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@json_option
def command(source: str, target: str, *, as_json: bool) -> Exit:
    """Copy a cache, as it is, from SRC to DST.

    All names of SRC, or those that its name=... (or tag=...) gives, keep their names unless DST
    gives others. What is there is not sent; every blob is verified on its way.
    """
    status = Exit.DONE
    with progress_bar("copying") as callback:
        try:
            report = cachefs.copy(source, target, callback=callback)
        except cachefs.CopyError as error:
            report = error.report
            status = Exit.FAULTS
            click.echo(f"cachefs: error: {error}", err=True)
    if as_json:
        print_json(report)
    else:
        click.echo(_line(report))
    return status


def _line(report: ExportReport) -> str:
    parts = [
        f"{verb} {amount(part.blobs, 'blob')} ({size(part.bytes)})"
        for verb, part in (
            ("sent", report.uploaded),
            ("touched", report.touched),
            ("kept", report.kept),
        )
        if part != Amount() or verb == "sent"
    ]
    names = f"{amount(len(report.names), 'name')}: {', '.join(report.names) or 'none'}"
    return f"copied {names}; {', '.join(parts)} in {report.seconds:.1f} s"
