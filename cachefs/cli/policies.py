"""The options that say which caches a command uses, and how."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cachefs.cli import quantities
from cachefs.cli.locations import (
    LOCATION,
    own_location,
    project_locations,
    variable_location,
)
from cachefs.cli.output import say
from cachefs.cli.signing import key_option, signed_by_option, signing, trusting
from cachefs.errors import LocationError, UsageError
from cachefs.running.policy import Policy
from cachefs.user_directory import CACHE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefs.location.options import Location
    from cachefs.running.project import NamedStep, Project

_OPTIONS = (
    click.option(
        "--cache",
        multiple=True,
        type=LOCATION,
        metavar="LOCATION",
        help="A cache that is read and written. May be repeated: they are read in this order until "
        "one has the result. Default: $CACHEFS_CACHE, or else what cachefs.toml says, or else one "
        "in your cache directory, unless --cache-to says where to write.",
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
    signed_by_option,
    key_option,
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
    project: Project | None,
    *,
    cache: tuple[Location, ...],
    cache_from: tuple[Location, ...],
    cache_to: tuple[Location, ...],
    signed_by: tuple[str, ...],
    key: str | None,
    ttl: float | None,
    write: bool,
    describe: bool,
    **others: Any,
) -> Policy:
    """The policy that the options give, or else the file of the project, or else the defaults.

    Where an option says which cache is written, only the caches of options are used. Raises
    LocationError, and UsageError for a duration in the file that is none.
    """
    policy = Policy(cache=cache, cache_from=cache_from, cache_to=cache_to)
    if not (cache or cache_to):
        default = _default_caches(project)
        policy = replace(default, cache_from=cache_from or default.cache_from)
    policy = _with_keys(policy, signed_by, key)
    if project is not None:
        settings = project.settings
        write, describe = write and settings.write, describe and settings.describe
        ttl = _seconds(project, settings.ttl) if ttl is None else ttl
    return replace(policy, ttl=ttl, write=write, describe=describe, **others)


def _with_keys(policy: Policy, signed_by: tuple[str, ...], key: str | None) -> Policy:
    """The policy whose caches are read and written with these keys, if any are given."""

    def with_keys(locations: Sequence[str | Location]) -> tuple[Location, ...]:
        found = [LOCATION.convert(one, None, None) for one in locations]
        return tuple(signing(trusting(one, signed_by), key) for one in found)

    return replace(
        policy,
        cache=with_keys(policy.cache),
        cache_from=with_keys(policy.cache_from),
        cache_to=with_keys(policy.cache_to),
    )


def step_policy(policy: Policy, project: Project, step: NamedStep) -> Policy:
    """The policy for a step of the project, unless ``--ttl`` says otherwise."""
    asked = click.get_current_context().params["ttl"]
    ttl = _seconds(project, step.ttl) if asked is None else None
    return policy if ttl is None else replace(policy, ttl=ttl)


def _default_caches(project: Project | None) -> Policy:
    """The caches of the environment, or of the project, or the user's own.

    It is no reason not to run a command if that cannot be used.
    """
    context = click.get_current_context()
    if os.environ.get(CACHE_VARIABLE):
        return Policy(cache=(variable_location(context),))
    if project is not None and any(project.settings.caches):
        both, read, write = (
            project_locations(context, project, texts) for texts in project.settings.caches
        )
        return Policy(cache=both, cache_from=read, cache_to=write)
    try:
        return Policy(cache=(own_location(context),))
    except LocationError:
        raise
    except UsageError as error:
        say(f"cachefs: warning: nothing is cached: {error}", err=True)
        return Policy()


def _seconds(project: Project, text: str) -> float | None:
    try:
        return quantities.duration(
            click.get_current_context(), click.Option(["--ttl"]), text or None
        )
    except click.BadParameter as error:
        raise UsageError(f"{project.file}: ttl {error.message}") from None
