"""``cachefs show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.output import amount, json_option, print_json, print_table, size

if TYPE_CHECKING:
    from cachefs.inspecting import NameDetails


@click.command("show")
@click.argument("location")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Show this name only.")
@json_option
def command(location: str, names: tuple[str, ...], *, as_json: bool) -> None:
    """Show the layers and records of the names at LOCATION, by default of all."""
    cache = cachefs.open(location)
    wanted = names or cache.location.names or tuple(name.name for name in cache.names())
    details = [cache.describe(name) for name in wanted]
    if as_json:
        print_json(details)
        return
    if not details:
        click.echo(f"no names at {cache.location}", err=True)
    for index, one in enumerate(details):
        if index:
            click.echo()
        _print(one)


def _print(details: NameDetails) -> None:
    with_result = sum(bool(record.results) for record in details.records)
    click.echo(
        f"{details.name}: {amount(len(details.records), 'record')}, {with_result} with a result; "
        f"{amount(len(details.layers), 'layer')} of {size(details.bytes)}, "
        f"at most {details.depth} on each other"
    )
    click.echo()
    rows = [
        (
            str(layer.index),
            layer.blob,
            "" if layer.parent == -1 else str(layer.parent),
            size(layer.size),
            layer.media_type.rpartition(".")[2],
            layer.created_at[:19].replace("T", " "),
        )
        for layer in details.layers
    ]
    columns = ("layer", "blob", "on", "size", "type", "made (UTC)")
    print_table(columns, rows, right="layer|on|size")
