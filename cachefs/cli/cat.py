"""``cachefs cat``."""

from __future__ import annotations

import click

from cachefs.cli.exits import Exit
from cachefs.cli.inside import inside_options, selected, split_location
from cachefs.cli.options import common_options
from cachefs.cli.output import write


@click.command("cat")
@click.argument("words", metavar="[LOCATION] PATH", nargs=-1, required=True)
@inside_options
@common_options
def command(
    words: tuple[str, ...], name: str, result: str, layer: str, signed_by: tuple[str, ...]
) -> Exit:
    """Print a file of a result in the cache at LOCATION, or of one layer.

    \b
      cachefs cat s3://builds/ci/ etc/os-release --name main
      cachefs cat s3://builds/ci/ usr/bin/tool --name main > tool

    Links are followed inside the result only. Every byte is verified before it is printed. Without
    LOCATION, the default cache is read.
    """  # noqa: D301 - click's mark, not a backslash
    if len(words) > 2:
        raise click.UsageError("give one location and one path")
    cache, (path,) = split_location(words, signed_by)
    _, contents = selected(cache, name, result, layer)
    for chunk in contents.chunks(path):
        write(1, chunk)
    return Exit.DONE
