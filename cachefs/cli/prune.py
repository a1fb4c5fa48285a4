"""``cachefs prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli import quantities
from cachefs.cli.confirming import Confirmation, confirmation_options
from cachefs.cli.exits import Exit
from cachefs.cli.locations import LOCATION
from cachefs.cli.options import common_options
from cachefs.cli.output import age, amount, print_table, size

if TYPE_CHECKING:
    from cachefs import Amount, PrunePlan, PruneReport
    from cachefs.location.options import Location


@click.command("prune")
@click.argument("location", type=LOCATION)
@click.option(
    "--older-than", callback=quantities.duration, metavar="AGE", help="Names older than 30d go."
)
@click.option(
    "--keep-last",
    callback=quantities.keep_last,
    multiple=True,
    metavar="[PATTERN=]N",
    help="Of the names (that match) the newest N stay, the others go.",
)
@click.option("--keep", multiple=True, metavar="PATTERN", help="Names that match stay.")
@click.option(
    "--max-size",
    callback=quantities.size,
    metavar="SIZE",
    help="The names written longest ago go until 10GiB.",
)
@click.option("--broken", is_flag=True, help="Names with blobs that are missing go.")
@click.option(
    "--also",
    multiple=True,
    type=LOCATION,
    metavar="LOCATION",
    help="Other manifests over the same blobs, to be honoured.",
)
@click.option(
    "--grace",
    callback=quantities.duration,
    metavar="AGE",
    help="Blobs younger than this stay (default: 72h). Less is safe only while nobody writes.",
)
@confirmation_options
@common_options
def command(
    location: Location,
    older_than: float | None,
    keep_last: dict[str, int],
    keep: tuple[str, ...],
    max_size: int | None,
    also: tuple[Location, ...],
    grace: float | None,
    *,
    broken: bool,
    confirmation: Confirmation,
) -> Exit:
    """Make the cache at LOCATION smaller: blobs that no name needs go.

    Names go only as the options say; where --older-than and --keep-last are both given, those that
    are older and not among the last. All manifests over the same blobs must be known: give the
    others with --also. What cannot be read stops it before anything is deleted.
    """
    cache = cachefs.open(location)
    others = [cachefs.open(other) for other in also]
    policy = cachefs.PrunePolicy(
        older_than=older_than,
        keep_last=keep_last,
        keep=keep,
        max_size=max_size,
        broken=broken,
    )
    plan = cache.plan_prune(policy, also=others, grace=grace)

    def execute(plan: PrunePlan) -> PruneReport:
        return cache.prune(plan, also=others)

    confirmation.execute(
        plan,
        None if plan.is_empty else execute,
        show=_print_plan,
        tell=_print_report,
        question="Delete these?",
    )
    stays = any(broken.name not in {n.name.name for n in plan.names} for broken in plan.broken)
    return Exit.FAULTS if stays else Exit.DONE


def _print_plan(plan: PrunePlan) -> None:
    if plan.names:
        rows = [
            (
                name.name.name,
                name.reason,
                "unknown" if name.age is None else age(plan.reference_time - name.age),
                size(name.frees),
                size(name.later),
            )
            for name in plan.names
        ]
        columns = ("name that goes", "reason", "written", "frees", "later")
        print_table(columns, rows, right="frees|later")
        click.echo()
    for broken in plan.broken:
        click.echo(f"{broken.name} lacks {amount(len(broken.missing), 'blob')}", err=True)
    lines = [
        ("delete", plan.deletes),
        ("leave for the grace", plan.waiting),
        ("keep", plan.kept),
    ]
    click.echo("; ".join(f"{verb} {_sized(part)}" for verb, part in lines))
    if plan.leftovers:
        click.echo(f"clear away {amount(len(plan.leftovers), 'write')} that never ended")
    if plan.fits is False:
        click.echo("what has to stay is more than --max-size", err=True)


def _sized(part: Amount) -> str:
    return f"{amount(part.blobs, 'blob')} ({size(part.bytes)})"


def _print_report(report: PruneReport) -> None:
    spared = ""
    if report.spared.blobs or report.spared_names:
        spared = (
            f"; {amount(len(report.spared_names), 'name')} and {_sized(report.spared)} "
            "were written or used meanwhile, and stay"
        )
    click.echo(
        f"deleted {amount(len(report.names), 'name')} and {_sized(report.deleted)} "
        f"in {report.seconds:.1f} s{spared}"
    )
