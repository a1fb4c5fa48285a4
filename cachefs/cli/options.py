"""Options of every command."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINES: Final = ("s3fs", "obstore")
"""The values of the attribute ``engine``; repeated here so that --help imports less."""

_ENGINE: Final = "cachefs.engine"


def chosen_engine(context: click.Context | None) -> str | None:
    """The value of ``--engine``, given before or after the command, or None if not given."""
    return context.meta.get(_ENGINE) if context is not None else None


def _choose(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_ENGINE] = value


def _be_verbose(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger("cachefs").setLevel(logging.DEBUG)


_engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    is_eager=True,  # parsing locations depends on it
    expose_value=False,
    callback=_choose,
    metavar="ENGINE",
    help="The library for S3, s3fs or obstore, if the location does not set engine=...",
)

_verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_be_verbose,
    help="Print more on standard error.",
)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that may be given before and after the command name."""
    return _engine_option(_verbose_option(command))


trust_store_option = click.option(
    "--trust-store",
    is_flag=True,
    help="Let the store copy blobs itself, also if it does not state their SHA-256.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
