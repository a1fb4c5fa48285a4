"""The default policy of ``cachefs run``: that of the project's file, with the default caches."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from cachefs.building.policy import Policy
from cachefs.cli.locations import VARIABLE, own_location, project_locations, variable_location
from cachefs.cli.output import say
from cachefs.cli.quantities import duration
from cachefs.errors import UsageError

if TYPE_CHECKING:
    from cachefs.building.project import NamedStep, Project


def default_policy(context: click.Context, project: Project | None, *, caches: bool) -> Policy:
    """The policy where no option says otherwise.

    Args:
        context: that of the command.
        project: the project of the working directory, if there is one.
        caches: whether default caches are wanted. They are those of ``$CACHEFS_CACHE``, or else
            of the project, or else the user's own.

    Raises LocationError and UsageError.
    """
    policy = Policy()
    if project is not None:
        settings = project.settings
        policy = Policy(
            write=settings.write,
            ttl=_seconds(project, settings.ttl),
            describe=settings.describe,
        )
    if not caches:
        return policy
    if os.environ.get(VARIABLE):
        return replace(policy, cache=(variable_location(context),))
    if project is not None and any(project.settings.caches):
        both, read, write = (
            project_locations(context, project, texts) for texts in project.settings.caches
        )
        return replace(policy, cache=both, cache_from=read, cache_to=write)
    try:
        return replace(policy, cache=(own_location(context),))
    except UsageError as error:  # no reason not to run a command
        say(f"cachefs: warning: nothing is cached: {error}", err=True)
        return policy


def step_policy(policy: Policy, project: Project, step: NamedStep) -> Policy:
    """The policy for a step of the project."""
    ttl = _seconds(project, step.ttl)
    return policy if ttl is None else replace(policy, ttl=ttl)


def _seconds(project: Project, text: str) -> float | None:
    try:
        return duration(click.get_current_context(), click.Option(["--ttl"]), text or None)
    except click.BadParameter as error:
        raise UsageError(f"{project.file}: ttl {error.message}") from None
