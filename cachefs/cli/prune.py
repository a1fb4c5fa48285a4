"""``cachefs prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli import quantities
from cachefs.cli.confirming import Confirmation, confirmation_options
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import LOCATION, location_argument
from cachefs.cli.metrics import metrics_option, write_prune
from cachefs.cli.options import common_options
from cachefs.cli.output import age, blobs_and_bytes, print_table, say, size
from cachefs.cli.undo import require_alone, undo_prune
from cachefs.operations.prune import PrunePlan

if TYPE_CHECKING:
    from pathlib import Path

    from cachefs import PruneReport
    from cachefs.location.options import Location

SHOWN: Final = 20
"""Maximum number of names that stay which a plan lists; --json has all."""


@click.command("prune")
@location_argument
@click.option(
    "--older-than",
    callback=quantities.duration,
    metavar="AGE",
    help="Remove names older than this, such as 30d.",
)
@click.option(
    "--unused-for",
    callback=quantities.duration,
    metavar="AGE",
    help="Remove names that were neither written nor used by 'cachefs run' for this long.",
)
@click.option(
    "--keep-last",
    callback=quantities.keep_last,
    multiple=True,
    metavar="[PATTERN=]N",
    help="Keep the newest N names (that match PATTERN) and remove the others.",
)
@click.option("--keep", multiple=True, metavar="PATTERN", help="Never remove names that match.")
@click.option(
    "--max-size",
    callback=quantities.size,
    metavar="SIZE",
    help="Remove the oldest names until the cache fits, such as 10GiB.",
)
@click.option("--missing-blobs", is_flag=True, help="Remove names that need missing blobs.")
@click.option(
    "--also",
    multiple=True,
    type=LOCATION,
    metavar="LOCATION",
    help="Other manifests over the same blobs: what their names need is kept.",
)
@click.option(
    "--grace",
    callback=quantities.duration,
    metavar="AGE",
    help="Grace period: keep blobs younger than this (default: 72h). Less is safe only while "
    "nothing writes.",
)
@click.option(
    "--backup-to",
    type=LOCATION,
    metavar="LOCATION",
    help="Copy names to this cache before they are removed.",
)
@click.option(
    "--blobs",
    is_flag=True,
    help="With --backup-to, copy also the blobs that no other name needs.",
)
@click.option(
    "--undo",
    is_flag=True,
    help="Take back the last prune instead, in a bucket that keeps versions.",
)
@metrics_option
@confirmation_options
@common_options
def command(
    location: Location,
    older_than: float | None,
    unused_for: float | None,
    keep_last: dict[str, int],
    keep: tuple[str, ...],
    max_size: int | None,
    also: tuple[Location, ...],
    grace: float | None,
    backup_to: Location | None,
    metrics: Path | None,
    *,
    blobs: bool,
    missing_blobs: bool,
    undo: bool,
    confirmation: Confirmation,
) -> Exit:
    """Make the cache at LOCATION smaller: delete blobs that no name needs.

    Names are removed only as the options say; with --keep-last and --older-than or --unused-for,
    those names that are older or unused and not among the newest N. 'cachefs run' renews the time
    of a name that it uses, at most once a day. --older-than looks at that time alone; --unused-for
    adds the day, so that no name goes that was used since. All manifests over the same blobs must
    be known: give the others with --also. If anything cannot be read, nothing is deleted.

    Where a bucket keeps versions, --undo brings back what the last prune of this cache removed and
    deleted, as long as the bucket keeps it; once more, what the one before did. Elsewhere, copy
    names to another cache first with --backup-to, and copy them back from there.
    """
    cache = cachefs.open(location)
    if undo:
        require_alone("--undo")
        return undo_prune(cache, confirmation)
    if blobs and backup_to is None:
        raise click.UsageError("--blobs needs --backup-to, which says where they are copied")
    others = [cachefs.open(other) for other in also]
    policy = cachefs.PrunePolicy(
        older_than=older_than,
        unused_for=unused_for,
        keep_last=keep_last,
        keep=keep,
        max_size=max_size,
        missing_blobs=missing_blobs,
    )
    plan = cache.plan_prune(
        policy,
        also=others,
        grace=grace,
        backup_to=None if backup_to is None else cachefs.open(backup_to),
        backup_blobs=blobs,
    )
    report = confirmation.execute(
        plan,
        None if plan.is_empty else PrunePlan.execute,
        show=_print_plan,
        tell=_print_report,
        question="Delete these?",
    )
    if metrics is not None and not confirmation.dry_run:
        write_prune(metrics, cache, plan, report)
    removed = {removal.manifest.name for removal in plan.remove}
    stays = any(one.name not in removed for one in plan.missing_blobs)
    return Exit.FAULTS if stays else Exit.DONE


def _print_plan(plan: PrunePlan) -> None:
    print_removals(plan)
    if plan.backup is not None:
        click.echo(
            f"before that, copy {counted(len(plan.backup.names), 'name')} and "
            f"{blobs_and_bytes(plan.backup.copies)} to {plan.backup.to}"
        )
    click.echo(_staying([name.name for name in plan.staying[0]]))
    for one in plan.missing_blobs:
        say(f"{one.name} lacks {counted(len(one.blobs), 'blob')}", err=True)
    if plan.fits is False:
        click.echo("what has to stay is larger than --max-size", err=True)


def print_removals(plan: PrunePlan) -> None:
    """Print which names and blobs go."""
    if plan.remove:
        rows = [
            (
                removal.manifest.name,
                removal.reason,
                "unknown" if removal.age is None else age(plan.reference_time - removal.age),
                size(removal.frees),
                size(removal.later),
            )
            for removal in plan.remove
        ]
        columns = ("remove", "reason", "written", "frees", "later")
        print_table(columns, rows, right="frees|later")
        click.echo()
    click.echo(
        f"delete {blobs_and_bytes(plan.frees)}; keep {blobs_and_bytes(plan.kept)}; orphaned, but "
        f"within the grace period: {blobs_and_bytes(plan.waiting)}"
    )
    if plan.leftovers:
        click.echo(f"delete the leftovers of {counted(len(plan.leftovers), 'interrupted write')}")
    if plan.signatures:
        click.echo(f"delete {counted(len(plan.signatures), 'signature')} that no name needs")
    if plan.versioned:
        click.echo(
            "the bucket keeps earlier versions of what is deleted: no space is freed until a "
            "lifecycle rule with NoncurrentVersionExpiration deletes them, and until then 'cachefs "
            "prune --undo' brings it back",
            err=True,
        )


def _staying(names: list[str]) -> str:
    """The names that stay; of many, the first ones."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    shown = one_line(", ".join(names[:SHOWN])) or "none"
    return f"{counted(len(names), 'name')} will stay: {shown}{more}"


def _print_report(report: PruneReport) -> None:
    spared = ""
    if report.spared.blobs or report.spared_names:
        spared = (
            f"; {counted(len(report.spared_names), 'name')} and {blobs_and_bytes(report.spared)} "
            "were written or used in the meantime, and stay"
        )
    removed = counted(len(report.removed), "name")
    deleted = blobs_and_bytes(report.deleted)
    click.echo(f"removed {removed} and deleted {deleted} in {report.seconds:.1f} s{spared}")
