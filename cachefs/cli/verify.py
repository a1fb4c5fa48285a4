"""``cachefs verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.locations import location_argument, names_option, say_empty
from cachefs.cli.metrics import metrics_option, write_verification
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import blobs_and_bytes, digest, print_json, print_table, say
from cachefs.cli.progress import progress_bar
from cachefs.cli.signing import signed_by_option, trusting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cachefs import Fault, VerifyReport
    from cachefs.location.options import Location


def _share(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """A share given in per cent, as a number from 0 to 1."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not (text.endswith("%") and 0.0 <= share <= 1.0):
        raise click.BadParameter(
            f"{text!r} is not a valid share: write --read-data=5%, or put --read-data last"
        )
    return share


read_data_option = click.option(
    "--read-data",
    callback=_share,
    is_flag=False,
    flag_value="100%",
    default="0%",
    metavar="[=SHARE]",
    help="Read and hash blobs: all of them, or, with =5%, a sample that changes every day.",
)


@click.command("verify")
@location_argument
@names_option("Verify this name only.")
@read_data_option
@click.option(
    "--stored-checksums",
    is_flag=True,
    help="Ask the store for the SHA-256 of blobs, and read those of which it has none.",
)
@signed_by_option
@metrics_option
@json_option
@common_options
def command(
    location: Location,
    names: tuple[str, ...],
    read_data: float,
    signed_by: tuple[str, ...],
    metrics: Path | None,
    *,
    stored_checksums: bool,
    as_json: bool,
) -> Exit:
    """Verify that the manifests of the cache at LOCATION are valid and their blobs exist.

    Verifies the names given with --name, or else by name=..., or else all. Every fault is listed;
    the exit status is 1 if there are any. Nothing is written.

    A manifest that is "refused" is not damaged, but builders refuse to import it: an input has no
    alternatives, a layer has no diffID, or it is too large for an OCI layout.

    A stored checksum is the store's word of what it received, not of what its disks still have.
    With --read-data=5% as well, a sample is read in any case, and the other blobs are asked for.
    """
    cache = cachefs.open(trusting(location, signed_by))
    with progress_bar("reading") as callback:
        report = cache.verify(
            names, read_data=read_data, stored_checksums=stored_checksums, callback=callback
        )
    if metrics is not None:
        write_verification(metrics, cache, report)
    if as_json:
        print_json(report)
    else:
        if not (report.names or report.faults):
            say_empty(cache)
        print_faults(report.faults)
        click.echo(_line(report))
        if read_data and report.blobs.blobs and not report.read.blobs:
            say(f"today's sample of {100 * read_data:.3g} % has none of the blobs: none was read")
    return Exit.FAULTS if report.faults else Exit.DONE


def print_faults(faults: Sequence[Fault]) -> None:
    """Print a table of the faults, if there are any."""
    if not faults:
        return
    rows = [
        (
            fault.kind,
            digest(fault.digest) if fault.digest else fault.key,
            ", ".join(fault.names) or "(none)",
            fault.reason,
        )
        for fault in faults
    ]
    print_table(("fault", "what", "names", "reason"), rows)
    click.echo()


def _line(report: VerifyReport) -> str:
    how = [f"{blobs_and_bytes(report.read)} read"]
    if report.stated.blobs:
        how.append(f"{blobs_and_bytes(report.stated)} by the store's checksums")
    return (
        f"verified {counted(len(report.names), 'name')} with {blobs_and_bytes(report.blobs)}, "
        f"{', '.join(how)}: {counted(len(report.faults), 'fault')}"
    )
