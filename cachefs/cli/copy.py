"""``cachefs copy``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

import cachefs
from cachefs.amount import Amount, counted
from cachefs.cli.confirming import Confirmation, confirmation_options
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line, tell
from cachefs.cli.locations import (
    LOCATION_TEXT,
    chosen,
    names_option,
    two_locations,
)
from cachefs.cli.options import common_options, trust_store_option
from cachefs.cli.output import blobs_and_bytes, say, sent
from cachefs.cli.progress import progress_bar
from cachefs.cli.prune import print_removals
from cachefs.cli.signing import key_option, signed_by_option, signing, trusting

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefs import CopyError, CopyPlan
    from cachefs.transfer.exporter import ExportReport
    from cachefs.transfer.publishing import OnConflict


@click.command("copy")
@click.argument("locations", metavar="[SRC] DST", nargs=-1, type=LOCATION_TEXT)
@names_option("Copy this name only.")
@click.option(
    "--delete", is_flag=True, help="Then remove names that SRC lacks, and delete orphaned blobs."
)
@click.option(
    "--merge", is_flag=True, help="Join a name with what DST holds under it, and lose nothing."
)
@click.option(
    "--repair", is_flag=True, help="Mend manifests that builders refuse to import, on their way."
)
@click.option(
    "--ignore-missing",
    is_flag=True,
    help="Succeed if SRC, or a name that it gives, does not exist, as before a first build.",
)
@signed_by_option
@key_option
@trust_store_option
@confirmation_options
@common_options
def command(
    locations: tuple[str, ...],
    names: tuple[str, ...],
    signed_by: tuple[str, ...],
    key: str | None,
    *,
    delete: bool,
    merge: bool,
    repair: bool,
    ignore_missing: bool,
    trust_store: bool,
    confirmation: Confirmation,
) -> Exit:
    """Copy a cache, as it is, from SRC, by default $CACHEFS_CACHE, to DST.

    All names of SRC, or those given with --name or by its name=... (or tag=...), keep their names
    unless DST gives others. Blobs that DST has are not sent; every blob is verified while it is
    copied. Between S3 locations of one server, the server copies larger blobs itself if it states
    their SHA-256; with --trust-store, S3, Azure and Google copy within a server or account anyway.

    A name that DST has is replaced. With --merge, it keeps what it holds besides: writers of one
    name at the same time, such as the jobs of a matrix, lose nothing.

    With --signed-by, names of SRC that none of these keys signed are left out. With --key, names
    are signed in DST: a signature counts only in the cache that it was made for.

    If a name cannot be copied, it stays in DST as it was, and the exit status is 1; --delete then
    removes nothing. --delete asks before it removes names or deletes blobs. Blobs are deleted as by
    "cachefs prune": none younger than 72 hours.
    """
    source, target = two_locations(locations)
    source = trusting(chosen(source, names), signed_by)
    target = signing(target, key)
    failures: list[CopyError] = []
    on_conflict: OnConflict = "merge" if merge else "replace"

    def reported(work: Callable[..., ExportReport]) -> ExportReport:
        try:
            with progress_bar("copying") as callback:
                return work(callback=callback)
        except cachefs.CopyError as error:
            failures.append(error)
            tell(error)
            return replace(error.report, error=str(error))

    if not (delete or confirmation.dry_run):
        copy = partial(
            cachefs.copy,
            source,
            target,
            repair=repair,
            ignore_missing=ignore_missing,
            on_conflict=on_conflict,
            trust_store=trust_store,
        )
        confirmation.report(reported(copy), _print_report, *failures)
        return Exit.FAULTS if failures else Exit.DONE
    plan = cachefs.plan_copy(
        source,
        target,
        delete=delete,
        repair=repair,
        ignore_missing=ignore_missing,
        on_conflict=on_conflict,
        trust_store=trust_store,
    )
    confirmation.execute(
        plan,
        None if plan.is_empty else lambda plan: reported(plan.execute),
        show=_print_plan,
        tell=_print_report,
        question=None if plan.prune is None or plan.prune.is_empty else "Copy, and delete these?",
    )
    return Exit.FAULTS if failures or plan.unreadable else Exit.DONE


def _print_plan(plan: CopyPlan) -> None:
    for reason in plan.unreadable.values():
        say(f"not to be copied: {reason}", err=True)
    parts = [
        f"{verb} {blobs_and_bytes(part)}"
        for verb, part in (("send", plan.upload), ("touch", plan.touch), ("keep", plan.keep))
    ]
    names = one_line(", ".join(new for each in plan.names.values() for new in each)) or "none"
    click.echo(f"copy {counted(len(plan.names), 'name')}: {names}; {', '.join(parts)}")
    if plan.prune is not None:
        click.echo()
        print_removals(plan.prune)


def _print_report(report: ExportReport) -> None:
    click.echo(_line(report))


def _line(report: ExportReport) -> str:
    parts = [sent(report)] + [
        f"{verb} {blobs_and_bytes(part)}"
        for verb, part in (
            ("touched", report.touched),
            ("kept", report.kept),
            ("deleted", report.deleted),
        )
        if part != Amount()
    ]
    names = f"{counted(len(report.names), 'name')}: {one_line(', '.join(report.names)) or 'none'}"
    if report.unchanged:
        names += f" ({len(report.unchanged):,} unchanged)"
    if report.removed:
        names += f"; removed {counted(len(report.removed), 'name')}: "
        names += one_line(", ".join(report.removed))
    return f"copied {names}; {', '.join(parts)} in {report.seconds:.1f} s"
