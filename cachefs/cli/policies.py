"""The options that say which caches a command uses, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cachefs.building.policy import Policy
from cachefs.cli import quantities
from cachefs.cli.locations import LOCATION, default_location
from cachefs.cli.output import say
from cachefs.errors import LocationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefs.location.options import Location

_OPTIONS = (
    click.option(
        "--cache",
        multiple=True,
        type=LOCATION,
        metavar="LOCATION",
        help="A cache that is read and written. May be repeated: they are read in this order until "
        "one has the result. Default: $CACHEFS_CACHE, or else one in your cache directory, unless "
        "--cache-to says where to write.",
    ),
    click.option(
        "--cache-from",
        multiple=True,
        type=LOCATION,
        metavar="LOCATION",
        help="A cache that is only read, after those of --cache. May be repeated.",
    ),
    click.option(
        "--cache-to",
        multiple=True,
        type=LOCATION,
        metavar="LOCATION",
        help="A cache that is only written. May be repeated.",
    ),
    click.option(
        "--name",
        metavar="NAME",
        help="The name in the caches. Default: one for each result, derived from the command and "
        "its inputs.",
    ),
    click.option(
        "--force",
        is_flag=True,
        help="Run the command although a cache may have its result, and store the new one.",
    ),
    click.option(
        "--no-write",
        "write",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Write to no cache.",
    ),
    click.option(
        "--ttl",
        callback=quantities.duration,
        metavar="AGE",
        help="Use no result that is older than this, such as 7d.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Only say on standard error whether it would be a hit, or why not. Run, restore and "
        "write nothing.",
    ),
    click.option(
        "--no-describe",
        "describe",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Do not store what the result is: the command, names of files and variables, the host "
        "and the commit.",
    ),
)


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; :func:`chosen_policy` takes their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_policy(
    *, cache: tuple[Location, ...], cache_to: tuple[Location, ...], **others: Any
) -> Policy:
    """The policy that the options give, with the default cache if none says where to write."""
    if not (cache or cache_to):
        cache = _default_caches()
    return Policy(cache=cache, cache_to=cache_to, **others)


def _default_caches() -> tuple[Location, ...]:
    """The default cache, unless it cannot be used: that is no reason not to run a command."""
    try:
        return (default_location(click.get_current_context()),)
    except LocationError:
        raise
    except UsageError as error:
        say(f"cachefs: warning: nothing is cached: {error}", err=True)
        return ()
