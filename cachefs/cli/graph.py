"""``cachefs graph``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.locations import NAME, location_argument, named
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import print_json, say
from cachefs.errors import NotFoundError
from cachefs.graph import RecordGraph
from cachefs.operations.draw import MERMAID_EDGES, draw, edges

if TYPE_CHECKING:
    from cachefs.location.options import Location
    from cachefs.operations.draw import Language


@click.command("graph")
@location_argument
@click.option(
    "--name", metavar="NAME", type=NAME, help="Draw this name; not needed if there is only one."
)
@click.option(
    "--format",
    "language",
    type=click.Choice(["mermaid", "dot"]),
    default="mermaid",
    show_default=True,
    help="The language of the drawing.",
)
@json_option
@common_options
def command(location: Location, name: str | None, language: Language, *, as_json: bool) -> Exit:
    """Draw the records and layers of a name at LOCATION.

    \b
      cachefs graph s3://eu/ci/ --name main > main.mmd
      cachefs graph s3://eu/ci/ --name main --format dot | dot -Tsvg > main.svg

    Solid arrows lead from a record to those that are built on it, labelled with the number of the
    input and the selector, if any. Dashed arrows lead from a record to the top layer of its result.
    """  # noqa: D301 - click's mark, not a backslash
    cache = cachefs.open(location)
    chosen = name or _only_name(cache)
    with named(cache, chosen):
        graph = RecordGraph(cache.manifest(chosen).config)
    text = draw(graph, language)
    count = len(edges(graph))
    if language == "mermaid" and count > MERMAID_EDGES:
        limit = f"Mermaid draws at most {MERMAID_EDGES} edges unless its maxEdges is raised"
        say(f"cachefs: warning: {limit}: this graph has {count:,}; or use --format dot", err=True)
    if as_json:
        print_json({"name": chosen, "format": language, "text": text})
    else:
        click.echo(text, nl=False)
    return Exit.DONE


def _only_name(cache: cachefs.Cache) -> str:
    """The name given by the location, or else the only one in the cache."""
    given = cache.default_names if cache.location.digest else cache.location.names
    names = given or [each.name for each in cache.names()]
    if not names:
        cache.require_exists()
        raise NotFoundError("there are no names to draw", key=str(cache.location))
    if len(names) > 1:
        raise click.UsageError(f"there are {len(names):,} names: choose one with --name")
    return names[0]
