"""``cachefs repair``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli.confirming import Confirmation, confirmation_options
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import LOCATION, location_argument, names_option
from cachefs.cli.options import common_options
from cachefs.cli.output import blobs_and_bytes, digest, print_table, size
from cachefs.cli.progress import progress_bar
from cachefs.cli.verify import print_faults, read_data_option

if TYPE_CHECKING:
    from cachefs import RepairPlan, RepairReport
    from cachefs.location.options import Location


@click.command("repair")
@location_argument
@click.option(
    "--from",
    "replicas",
    multiple=True,
    type=LOCATION,
    metavar="LOCATION",
    help="Fetch what is missing or damaged from this cache. May be repeated.",
)
@click.option(
    "--remove-unreadable",
    is_flag=True,
    help="Remove names whose manifests cannot be read, neither here nor in a replica.",
)
@names_option("Repair this name only.")
@read_data_option
@confirmation_options
@common_options
def command(
    location: Location,
    replicas: tuple[Location, ...],
    names: tuple[str, ...],
    read_data: float,
    *,
    remove_unreadable: bool,
    confirmation: Confirmation,
) -> Exit:
    """Verify the cache at LOCATION and repair it: all names, or those given.

    Blobs come from the caches given with --from. If none of them has a blob, the results that need
    it become misses, so that builders make them again; the rest stays usable. What builders refuse
    to import is mended. The exit status is 1 if anything stays faulty.
    """
    cache = cachefs.open(location)
    sources = [cachefs.open(replica) for replica in replicas]
    with progress_bar("reading") as callback:
        plan = cache.plan_repair(
            sources,
            names,
            read_data=read_data,
            remove_unreadable=remove_unreadable,
            callback=callback,
        )

    def execute(plan: RepairPlan) -> RepairReport:
        with progress_bar("fetching") as callback:
            return plan.execute(callback=callback)

    report = confirmation.execute(
        plan,
        None if plan.is_empty else execute,
        show=_print_plan,
        tell=_print_report,
        question="Repair?",
    )
    left = plan.faults if report is None else report.left
    return Exit.FAULTS if left else Exit.DONE


def _print_plan(plan: RepairPlan) -> None:
    print_faults(plan.faults)
    rows = [("fetch", digest(item.digest), size(item.bytes)) for item in plan.fetch]
    for item in plan.publish:
        verb = "rewrite" if item.replica is None else "restore"
        effects = [counted(item.misses, "result") + " lost"] if item.misses else []
        effects += [counted(len(item.sizes), "size") + " corrected"] if item.sizes else []
        effects += [counted(len(item.diff_ids), "diffID") + " added"] if item.diff_ids else []
        effects += [item.left_out] if item.left_out else []
        rows.append((verb, item.name, ", ".join(effects)))
    rows += [("remove", name, "its manifest cannot be read") for name in plan.remove]
    rows += [("delete", digest(item), "damaged, and no replica has it") for item in plan.delete]
    if rows:
        print_table(("repair", "what", "effect"), rows)
    elif plan.faults:
        click.echo("none of these can be repaired")
    else:
        click.echo("there are no faults")


def _print_report(report: RepairReport) -> None:
    done = [
        f"fetched {blobs_and_bytes(report.fetched)}",
        *(
            f"{verb} {counted(len(changed), noun)}"
            for verb, changed, noun in (
                ("rewrote", report.rewritten, "name"),
                ("restored", report.restored, "name"),
                ("removed", report.removed, "name"),
                ("deleted", report.deleted, "damaged blob"),
            )
            if changed
        ),
    ]
    click.echo(", ".join(done))
    for what, reason in report.left.items():
        click.echo(one_line(f"left as it is: {what}: {reason}"), err=True)
