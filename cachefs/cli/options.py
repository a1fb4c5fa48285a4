"""Options that every command takes."""

from __future__ import annotations

import logging

import click


def _be_verbose(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger("cachefs").setLevel(logging.DEBUG)


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_be_verbose,
    help="Say more on standard error.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
