"""Locations and names as arguments: parsing, defaults, completion, help when nothing is found."""

from __future__ import annotations

import os
from collections import ChainMap
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

import cachefs
from cachefs.cli.failing import pattern_hint
from cachefs.cli.hints import repeat, several
from cachefs.cli.options import chosen_engine
from cachefs.cli.output import say
from cachefs.cli.signing import trusting_by_default
from cachefs.errors import AccessError, CacheError, LocationError, NotFoundError
from cachefs.location.options import Location
from cachefs.location.parsing import parse
from cachefs.running.project import find_project
from cachefs.similar import most_similar
from cachefs.user_directory import CACHE_VARIABLE, own_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cachefs import Cache
    from cachefs.location.attributes import Role
    from cachefs.location.keys import Names
    from cachefs.running.project import Project

MANY: Final = 5
"""Maximum number of names that an error lists."""

PAIR: Final = 2
"""SRC and DST."""

_DEFAULT: Final = "cachefs.default"


class LocationType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A location given as a path, a URL or attributes; completed as a directory.

    The engine comes from the location's attribute, or else from ``--engine``, or else from the
    environment.
    """

    name = "location"

    def __init__(self, role: Role | None = None) -> None:
        self.role = role

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Location:
        """Parse the location. Raises LocationError."""
        del param
        if isinstance(value, Location):
            return value
        engine = chosen_engine(ctx)
        environ = ChainMap({"CACHEFS_ENGINE": engine} if engine else {}, os.environ)
        return parse(value, role=self.role, environ=environ)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell complete directories; URLs and attributes are not completed."""
        del ctx, param
        return [CompletionItem(incomplete, type="dir")]


class LocationText(LocationType):
    """The text of a location that is parsed later, when its role is known."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text unchanged."""
        del param, ctx
        return value


class NameType(click.ParamType):  # type: ignore[type-arg]  # as above
    """A name in the cache whose location comes earlier on the command line."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text unchanged; the library checks it."""
        del param, ctx
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete names of local caches only: a network would be too slow."""
        del param
        # While an option lacks its value, click leaves the arguments unparsed in ctx.args.
        many = (*(ctx.params.get("locations") or ()), *ctx.args)
        typed = [one for one in (ctx.params.get("location"), *many) if one]
        found: set[str] = set()
        for one in typed or [None]:
            with suppress(CacheError):
                location = (
                    default_location(ctx) if one is None else LOCATION.convert(one, None, ctx)
                )
                if location.protocol == "file":
                    found.update(name.name for name in cachefs.open(location).names())
        return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


LOCATION: Final = LocationType()
LOCATION_TEXT: Final = LocationText()
NAME: Final = NameType()


def default_location(context: click.Context, role: Role | None = None) -> Location:
    """Where the default cache is.

    ``$CACHEFS_CACHE``, or else the first cache in the project's file, or else where ``cachefs run``
    keeps results. Raises LocationError, and UsageError if the file is not valid.
    """
    context.meta[_DEFAULT] = ""
    for origin, location in _given_locations(context, role):
        context.meta[_DEFAULT] = origin
        return location
    return own_location(context, role)


def own_location(context: click.Context, role: Role | None = None) -> Location:
    """The cache in the user's cache directory. Raises UsageError if it cannot be used."""
    return LocationType(role).convert(own_cache(), None, context).unsigned()


def default_hint(context: click.Context) -> str:
    """What to add to an error about a cache that is not there, if it is the default one."""
    origin: str | None = context.meta.get(_DEFAULT)
    if origin is None:
        return ""
    if origin:
        return f"; no location was given, so {origin} is meant"
    return (
        "; no location was given, so the default cache of 'cachefs run' is meant: name another as "
        f"an argument, or set ${CACHE_VARIABLE}"
    )


def other_location(
    context: click.Context, given: str, missing: str, role: Role | None = None
) -> Location:
    """The default cache in place of one of two locations, only if somebody said where it is.

    Where two are expected, one alone may be a mistake, so nothing else is guessed.
    """
    for _, location in _given_locations(context, role):
        return location
    raise click.UsageError(
        f"there is one location, which is {given}: give {missing} before it, or set "
        f"${CACHE_VARIABLE} to where {missing} is"
    )


def _given_locations(context: click.Context, role: Role | None) -> Iterator[tuple[str, Location]]:
    """The default caches that the environment or the project's file names, and which of both."""
    if os.environ.get(CACHE_VARIABLE):
        yield f"${CACHE_VARIABLE}", variable_location(context, role)
    elif (project := project_here()) is not None:
        texts = [text for texts in project.settings.caches for text in texts]
        for location in project_locations(context, project, texts, role):
            yield f"that of {project.file}", location


def variable_location(context: click.Context, role: Role | None = None) -> Location:
    """The location in the environment variable. Raises LocationError."""
    with _said_by(f"${CACHE_VARIABLE}"):
        return LocationType(role).convert(os.environ[CACHE_VARIABLE], None, context)


def project_locations(
    context: click.Context, project: Project, texts: Iterable[str], role: Role | None = None
) -> tuple[Location, ...]:
    """Locations that a project's file has. Paths are relative to it. Raises LocationError."""
    with _said_by(str(project.file)), chdir(project.directory):
        found = [LocationType(role).convert(text, None, context) for text in texts]
        return tuple(trusting_by_default(one, project.settings.signed_by) for one in found)


def project_here() -> Project | None:
    """The project of the working directory. Raises UsageError if its file is not valid."""
    try:
        return find_project(Path.cwd())
    except FileNotFoundError:  # somebody removed the directory
        return None


def two_locations(typed: tuple[str, ...]) -> tuple[Location, Location]:
    """SRC and DST. Each is parsed for its role, which is known only once both are."""
    context = click.get_current_context()
    if not 1 <= len(typed) <= PAIR:
        hint = pattern_hint()
        raise click.UsageError(f"give SRC and DST: two locations, not {len(typed)}{hint}")
    target = LocationType("export").convert(typed[-1], None, context)
    if len(typed) == 1:
        return other_location(context, "DST", "SRC", "import"), target
    return LocationType("import").convert(typed[0], None, context), target


@contextmanager
def _said_by(who: str) -> Iterator[None]:
    """If a location is not valid, say in the error where it is from."""
    try:
        yield
    except LocationError as error:
        error.reason = f"{who}: {error.reason}"
        raise


def location_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument LOCATION; without it, the default cache is meant."""

    def located(
        context: click.Context, _parameter: click.Parameter, value: Location | None
    ) -> Location:
        return default_location(context) if value is None else value

    return click.argument("location", type=LOCATION, required=False, callback=located)(command)


def names_option(about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--name``, which may be repeated, as the keyword ``names``."""
    return click.option(
        "--name",
        "names",
        multiple=True,
        metavar="NAME",
        type=NAME,
        help=f"{about} May be repeated.",
    )


def chosen(location: Location, names: Names) -> Location:
    """The location with these names, if any are given. Raises CacheNameError."""
    return location.with_names(names) if names else location


def say_empty(cache: Cache) -> None:
    """Say on standard error that the cache has no names. Raises NoCacheError if there is none."""
    cache.require_exists()
    say(f"no names at {cache.location}: the cache is empty", err=True)


@contextmanager
def named(cache: Cache, name: str) -> Iterator[None]:
    """If the body does not find the name, add the existing names to the error.

    This lists the names, which also finds out whether the bucket itself is missing.
    """
    try:
        yield
    except NotFoundError as error:
        if cache.location.digest:
            raise  # that names a manifest, and no name is missing
        with suppress(AccessError):
            there = [each.name for each in cache.names()]
            if not there:
                cache.require_exists()
            if name not in there:  # else it is listed, and its manifest is lost
                error.reason = _missing(name, there)
        raise


def _missing(name: str, there: list[str]) -> str:
    what = f"there is no name {name}"
    if parts := several(name, there.__contains__):
        return f"{what}: {repeat('--name', parts)}"
    if near := most_similar(name, there):
        return f"{what}: did you mean {near}?"
    if len(there) > MANY:
        return f"{what}; 'cachefs ls' lists those that are there"
    return f"{what}; there are: {', '.join(there)}" if there else f"{what}, nor any other"
