"""``cachefs extract``."""

from __future__ import annotations

from pathlib import Path

import click

from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.inside import described, inside_options, selected, split_location
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import digest, print_json, say


@click.command("extract")
@click.argument("words", metavar="[LOCATION] DIRECTORY", nargs=-1, required=True)
@inside_options
@json_option
@common_options
def command(
    words: tuple[str, ...],
    name: str,
    result: str,
    layer: str,
    signed_by: tuple[str, ...],
    *,
    as_json: bool,
) -> Exit:
    """Extract a result in the cache at LOCATION, or one layer, to a new or empty DIRECTORY.

    \b
      cachefs extract s3://builds/ci/ ./rootfs --name main

    The directory appears complete and verified, or not at all. Nothing is written outside of it,
    whatever the layers say; owners, times and set-user-ID bits are not restored, and devices are
    refused. Links in it may lead anywhere: take care when following them. Without LOCATION, the
    default cache is read.
    """  # noqa: D301 - click's mark, not a backslash
    if len(words) > 2:
        raise click.UsageError("give one location and one directory")
    cache, (directory,) = split_location(words, signed_by)
    found, contents = selected(cache, name, result, layer)
    contents.extract(Path(directory))
    if as_json:
        print_json(described(found) | {"directory": directory})
        return Exit.DONE
    what = "layer" if found.alone else f"result of {counted(len(found.layers), 'layer')}"
    say(f"extracted {found.name}, {what} {digest(found.result)}, to {directory}")
    return Exit.DONE
