"""``cachefs merge``."""

from __future__ import annotations

import click
from msgspec import to_builtins

import cachefs
from cachefs.cli.confirming import confirm, dry_run_option, yes_option
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.options import json_option, verbose_option
from cachefs.cli.output import amount, print_json, print_table, size
from cachefs.cli.progress import progress_bar


@click.command("merge")
@click.argument("locations", metavar="SRC... DST", nargs=-1, required=True)
@click.option("--name", "names", multiple=True, metavar="NAME", help="Merge this name of each SRC.")
@click.option("--into", multiple=True, metavar="NAME", help="What the union is called in DST.")
@dry_run_option
@yes_option
@json_option
@verbose_option
def command(
    locations: tuple[str, ...],
    names: tuple[str, ...],
    into: tuple[str, ...],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> Exit:
    """Merge names, of one cache or of several, into one name of DST.

    With one location, that is SRC and DST:

    \b
      cachefs merge s3://bucket/ci/ --name main --name feature --into both
      cachefs merge s3://eu/ci/ s3://us/ci/ /var/cache/ci --into all

    Of each SRC the names of its name=..., else of --name, else all. A name of DST that would be
    lost, as it is not among what is merged, is asked about first.
    """  # noqa: D301 - click's mark, not a backslash
    sources = [cachefs.open(location) for location in locations[:-1] or locations]
    target = cachefs.open(locations[-1])
    new_names = into or (target.location.names if len(locations) > 1 else ())
    if not new_names:
        raise click.UsageError("say what the union is to be called: give --into NAME")
    chosen = [(source, source.location.names or names) for source in sources]
    plan = cachefs.plan_merge(chosen, target, new_names)
    if plan.over_limit:
        limit = "builders refuse to import a cache config of more than 1 MiB from this layout"
        click.echo(f"cachefs: warning: {limit}: it has {size(plan.manifest_bytes)}", err=True)
    if dry_run:
        _show(plan, as_json=as_json)
        return Exit.DONE
    if plan.replaces:
        if not as_json:
            _show(plan, as_json=False)
        lost = one_line(", ".join(plan.replaces))
        confirm(f"Replace {lost} with the union?", yes=yes)
    with progress_bar("copying") as callback:
        report = cachefs.execute_merge(plan, chosen, target, callback=callback)
    if as_json:
        print_json({"plan": to_builtins(plan), "report": to_builtins(report)})
    else:
        click.echo(
            f"merged {amount(len(plan.sources), 'name')} into {one_line(', '.join(plan.names))}: "
            f"{amount(plan.records, 'record')}, {amount(plan.layers, 'layer')}, "
            f"sent {amount(report.uploaded.blobs, 'blob')} ({size(report.uploaded.bytes)}) "
            f"in {report.seconds:.1f} s"
        )
    return Exit.DONE


def _show(plan: cachefs.MergePlan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    rows = [[s.name, s.place, f"{s.records:,}", f"{s.layers:,}"] for s in plan.sources]
    rows.append(["= " + ", ".join(plan.names), "", f"{plan.records:,}", f"{plan.layers:,}"])
    print_table(["name", "cache", "records", "layers"], rows, right="records|layers")
    click.echo(
        f"{amount(plan.missing.blobs, 'blob')} ({size(plan.missing.bytes)}) to send, "
        f"manifest {size(plan.manifest_bytes)}"
    )
    for name in plan.replaces:
        click.echo(one_line(f"{name} is there, is not merged, and will be replaced"))
