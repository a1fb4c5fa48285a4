"""``cachefs graph``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.options import json_option, verbose_option
from cachefs.cli.output import amount, print_json
from cachefs.drawing import MERMAID_EDGES, draw, edges
from cachefs.graph import RecordGraph

if TYPE_CHECKING:
    from cachefs.drawing import Language


@click.command("graph")
@click.argument("location")
@click.option("--name", metavar="NAME", help="Draw this name; not needed where there is only one.")
@click.option(
    "--format",
    "language",
    type=click.Choice(["mermaid", "dot"]),
    default="mermaid",
    show_default=True,
    help="The language of the drawing.",
)
@json_option
@verbose_option
def command(location: str, name: str | None, language: Language, *, as_json: bool) -> Exit:
    """Draw the records and layers of a name at LOCATION.

    \b
      cachefs graph s3://bucket/ci/ --name main                      Mermaid, as Markdown shows it
      cachefs graph s3://bucket/ci/ --name main --format dot | dot -Tsvg -o main.svg

    Arrows go from records to those that are built on them, with the input's number and the
    selector where there are any, and dashed from a record to the top layer of its result.
    """  # noqa: D301 - click's mark, not a backslash
    cache = cachefs.open(location)
    chosen = name or _only_name(cache)
    graph = RecordGraph(cache.manifest(chosen).config)
    text = draw(graph, language)
    count = len(edges(graph))
    if language == "mermaid" and count > MERMAID_EDGES:
        limit = f"Mermaid draws {MERMAID_EDGES} edges unless its maxEdges says more"
        click.echo(f"cachefs: warning: {limit}: here are {count:,}; or use --format dot", err=True)
    if as_json:
        print_json({"name": chosen, "format": language, "text": text})
    else:
        click.echo(text, nl=False)
    return Exit.DONE


def _only_name(cache: cachefs.Cache) -> str:
    """The name that the location gives, else the only one there is."""
    given = cache.default_names if cache.location.digest else cache.location.names
    names = given or [each.name for each in cache.names()]
    if len(names) != 1:
        there = amount(len(names), "name")
        raise click.UsageError(f"there is {there}: say with --name which one to draw")
    return names[0]
