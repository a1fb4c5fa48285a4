"""``cachefs merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.confirming import Confirmation, confirmation_options
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import LOCATION, NAME, default_location, names_option
from cachefs.cli.options import common_options, trust_store_option
from cachefs.cli.output import blobs_and_bytes, print_table, sent, size
from cachefs.cli.progress import progress_bar
from cachefs.cli.signing import key_option, signed_by_option, signing, trusting

if TYPE_CHECKING:
    from cachefs import ExportReport, MergePlan
    from cachefs.location.options import Location


@click.command("merge")
@click.argument("locations", metavar="[SRC...] [DST]", nargs=-1, type=LOCATION)
@names_option("Merge this name of each SRC.")
@click.option("--into", multiple=True, metavar="NAME", type=NAME, help="Name of the union in DST.")
@click.option(
    "--replace",
    "replaces",
    is_flag=True,
    help="Replace what NAME holds, instead of joining it with the others.",
)
@signed_by_option
@key_option
@trust_store_option
@confirmation_options
@common_options
def command(
    locations: tuple[Location, ...],
    names: tuple[str, ...],
    into: tuple[str, ...],
    signed_by: tuple[str, ...],
    key: str | None,
    *,
    replaces: bool,
    trust_store: bool,
    confirmation: Confirmation,
) -> Exit:
    """Merge names, of one cache or of several, into one name of DST.

    If there is only one location, or none, it or the default cache is both SRC and DST:

    \b
      cachefs merge s3://bucket/ci/ --name main --name feature --into both
      cachefs merge s3://eu/ci/ s3://us/ci/ /var/cache/ci --into all

    From each SRC, the names that its name=... gives are merged, or else those of --name, or else
    all. A name that DST has keeps what it holds besides, also what others write to it at the same
    time. With --replace it holds nothing but the union; that asks before it replaces a name that is
    not among those merged.
    """  # noqa: D301 - click's mark, not a backslash
    locations = locations or (default_location(click.get_current_context()),)
    locations = tuple(trusting(location, signed_by) for location in locations)
    sources = [cachefs.open(location) for location in locations[:-1] or locations]
    target = cachefs.open(signing(locations[-1], key))
    new_names = into or (target.location.names if len(locations) > 1 else ())
    if not new_names:
        raise click.UsageError("the union needs a name: give --into NAME")
    chosen = [one if one.location.names else one.with_names(names) for one in sources]
    plan = cachefs.plan_merge(
        chosen,
        target,
        new_names,
        on_conflict="replace" if replaces else "merge",
        trust_store=trust_store,
    )
    if plan.over_limit:
        limit = "builders refuse to import a cache config of more than 1 MiB from this layout"
        click.echo(f"cachefs: warning: {limit}: it has {size(plan.manifest_bytes)}", err=True)

    def execute(plan: MergePlan) -> ExportReport:
        with progress_bar("copying") as callback:
            return plan.execute(callback=callback)

    lost = one_line(", ".join(plan.replaces))
    confirmation.execute(
        plan,
        execute,
        show=_print_plan,
        tell=_print_report,
        question=f"Replace {lost} with the union?" if lost else None,
    )
    return Exit.DONE


def _print_plan(plan: MergePlan) -> None:
    rows = [[s.name, s.root, f"{s.records:,}", f"{s.layers:,}"] for s in plan.sources]
    rows.append(["= " + ", ".join(plan.names), "", f"{plan.records:,}", f"{plan.layers:,}"])
    print_table(["name", "cache", "records", "layers"], rows, right="records|layers")
    click.echo()
    for source in plan.sources:
        if source.refusal:
            click.echo(
                one_line(f"builders refuse {source.name}, which is mended: {source.refusal}")
            )
    click.echo(f"{blobs_and_bytes(plan.upload)} to send, manifest {size(plan.manifest_bytes)}")
    for name in plan.joins:
        click.echo(one_line(f"{name} exists, and keeps what it holds besides"))
    for name in plan.replaces:
        click.echo(one_line(f"{name} exists, is not among those merged, and will be replaced"))


def _print_report(report: ExportReport) -> None:
    click.echo(
        f"merged into {one_line(', '.join(report.names))}: {sent(report)} in {report.seconds:.1f} s"
    )
