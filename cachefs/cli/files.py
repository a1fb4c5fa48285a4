"""``cachefs files``."""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING, Final

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.failing import escaped, one_line
from cachefs.cli.inside import described, inside_options, selected
from cachefs.cli.locations import location_argument, named
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import digest, print_json, print_table, say, size
from cachefs.cli.signing import trusting
from cachefs.inside import results
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from cachefs import Cache, Entry, ResultDetails, Whiteout
    from cachefs.inside.results import Selected
    from cachefs.location.options import Location

_KINDS: Final = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}


@click.command("files")
@location_argument
@inside_options
@click.option("--results", "list_results", is_flag=True, help="List the results of the name.")
@json_option
@common_options
def command(
    location: Location,
    name: str,
    result: str,
    layer: str,
    signed_by: tuple[str, ...],
    *,
    list_results: bool,
    as_json: bool,
) -> Exit:
    """List the files of a result in the cache at LOCATION, or of one layer.

    \b
      cachefs files s3://builds/ci/ --name main
      cachefs files s3://builds/ci/ --name main --results
      cachefs files s3://builds/ci/ --name main --result newest
      cachefs files s3://builds/ci/ --name main --layer sha256:4f53cda18c2b

    A result is a chain of layers: the files are those that an extraction of it has, with what upper
    layers remove of lower ones removed. A layer alone also tells what it removes: paths, or with
    "/*" all that is in a directory.
    """  # noqa: D301 - click's mark, not a backslash
    cache = cachefs.open(trusting(location, signed_by))
    if list_results:
        if result or layer:
            raise click.UsageError("--results lists all results: leave --result and --layer out")
        _list_results(cache, name, as_json=as_json)
        return Exit.DONE
    found, contents = selected(cache, name, result, layer)
    entries = list(contents.entries())
    whiteouts = contents.whiteouts if found.alone else []
    if as_json:
        document = described(found) | {"entries": entries}
        print_json(document | ({"whiteouts": whiteouts} if found.alone else {}))
    else:
        _print(found, entries, whiteouts)
    return Exit.DONE


def _print(found: Selected, entries: list[Entry], whiteouts: list[Whiteout]) -> None:
    files = [entry for entry in entries if entry.kind == "file"]
    what = "layer" if found.alone else f"result of {counted(len(found.layers), 'layer')}"
    total = size(sum(entry.size for entry in files))
    say(f"{found.name}, {what} {digest(found.result)}: {counted(len(files), 'file')}, {total}")
    rows = [_row(entry) for entry in entries]
    rows += [("removed", "", f"{escaped(one.path)}{'/*' * one.all_below}") for one in whiteouts]
    if rows:
        click.echo()
        print_table(("mode", "size", "path"), rows, right="size")


def _row(entry: Entry) -> tuple[str, str, str]:
    arrow = f" -> {escaped(entry.target)}" if entry.kind == "link" else ""
    return (
        stat.filemode(_KINDS[entry.kind] | entry.mode),
        size(entry.size) if entry.kind == "file" else "",
        f"{escaped(entry.path)}{'/' * (entry.kind == 'directory')}{arrow}",
    )


def _list_results(cache: Cache, name: str, *, as_json: bool) -> None:
    meant = results.meant_name(cache, name)
    with named(cache, meant):
        found = results.results(cache, meant)
    if as_json:
        print_json({"name": meant, "results": found})
        return
    say(f"{meant}: {counted(len(found), 'result')}")
    if found:
        click.echo()
        columns = ("result", "final", "layers", "size", "made (UTC)", "record", "command")
        print_table(columns, [_result_row(one) for one in found], right="layers|size")


def _result_row(one: ResultDetails) -> tuple[str, ...]:
    return (
        digest(one.layer),
        "yes" if one.final else "",
        f"{one.layers:,}",
        size(one.bytes),
        timestamps.in_utc(one.created_at).replace("T", " ").removesuffix("Z"),
        digest(one.record),
        one_line(shlex.join(one.command)),
    )
