"""``cachefs promote``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.amount import counted_names
from cachefs.cli import quantities
from cachefs.cli.confirming import Confirmation, confirmation_options
from cachefs.cli.exits import Exit
from cachefs.cli.locations import LOCATION_TEXT, chosen, names_option, two_locations
from cachefs.cli.options import common_options
from cachefs.cli.output import blobs_and_bytes, say
from cachefs.cli.progress import progress_bar
from cachefs.cli.signing import key_option, signed_by_option, signing, trusting

if TYPE_CHECKING:
    from cachefs import PromotePlan, PromoteReport


@click.command("promote")
@click.argument("locations", metavar="[SRC] DST", nargs=-1, type=LOCATION_TEXT)
@names_option("Promote this name only.")
@signed_by_option
@key_option
@click.option(
    "--max-size",
    callback=quantities.size,
    metavar="SIZE",
    help="Refuse names whose blobs are larger together, such as 20GiB.",
)
@click.option(
    "--max-layers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse names with more layers than this on top of each other.",
)
@confirmation_options
@common_options
def command(
    locations: tuple[str, ...],
    names: tuple[str, ...],
    signed_by: tuple[str, ...],
    key: str | None,
    max_size: int | None,
    max_layers: int | None,
    *,
    confirmation: Confirmation,
) -> Exit:
    """Bring names from SRC, which many may write to, to DST, which few may.

    A name is promoted if one of the keys of --signed-by signed it, and if each of its blobs, read
    by this machine, has its digest and is a layer that an extraction would accept. Blobs that DST
    has already are read there. The name is published only if nobody has written it meanwhile, and
    it is signed with the key of --key.

    A name that is refused stays in DST as it was, and the others are promoted; the exit status is
    then 1.
    """
    source, target = two_locations(locations)
    plan = cachefs.plan_promote(
        trusting(chosen(source, names), signed_by),
        signing(target, key),
        max_size=max_size,
        max_layers=max_layers,
    )

    def execute(plan: PromotePlan) -> PromoteReport:
        with progress_bar("promoting") as callback:
            return plan.execute(callback=callback)

    report = confirmation.execute(
        plan,
        None if plan.is_empty else execute,
        show=lambda plan: _print_plan(plan, alone=confirmation.dry_run or plan.is_empty),
        tell=_print_report,
        question=None,
    )
    done = plan if report is None else report
    return Exit.FAULTS if done.refused else Exit.DONE


def _print_plan(plan: PromotePlan, *, alone: bool) -> None:
    if not alone:  # the report says more
        return
    _print_refused(plan.refused)
    if not plan.names:
        click.echo("there is nothing to promote")
        return
    new_names = [new for each in plan.names.values() for new in each]
    click.echo(
        f"promote {counted_names(new_names)}; examine {blobs_and_bytes(plan.examine)}, send "
        f"{blobs_and_bytes(plan.upload)}"
    )


def _print_report(report: PromoteReport) -> None:
    _print_refused(report.refused)
    unchanged = f" ({len(report.unchanged):,} unchanged)" if report.unchanged else ""
    click.echo(
        f"promoted {counted_names(report.names)}{unchanged}; examined "
        f"{blobs_and_bytes(report.examined)}, sent {blobs_and_bytes(report.uploaded)} in "
        f"{report.seconds:.1f} s"
    )


def _print_refused(refused: dict[str, str]) -> None:
    for name, reason in refused.items():
        say(f"not promoted: {name}: {reason}", err=True)
