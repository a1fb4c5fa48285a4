"""The words after ``cachefs run``: names of a project's steps, or a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from cachefs.cli.locations import project_here
from cachefs.cli.output import print_table
from cachefs.errors import CacheError, UsageError
from cachefs.masking import mask_text
from cachefs.running.project import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.running.project import Project

OF_STEPS: Final = ("jobs", "keep_going")
"""Options for named steps only."""

OF_COMMANDS: Final = (
    *("inputs", "exclude", "ignore", "follow", "stdin", "outputs", "optional", "variables"),
    *("incremental", "name"),
)
"""Options for a command only: for a step, its table in the file says them."""


class WordType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A word of a command, or the name of a step, which is completed."""

    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names of the project's steps, or else files."""
        del ctx, param
        try:
            project = project_here()
        except (CacheError, OSError):
            project = None
        found = [name for name in project.steps if name.startswith(incomplete)] if project else []
        return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")]


class RunCommand(click.Command):
    """Tells the names of steps from the words of a command.

    Options may follow names, but not the first word of a command.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words, as click does. Raises UsageError if the file is not valid."""
        typed = list(args)
        rest = super().parse_args(ctx, list(args))
        words = ctx.params["command"]
        before = len(typed) - len(words) - 1
        marked = ctx.meta[_MARKED] = before >= 0 and typed[before] == "--"
        project = ctx.meta[PROJECT] = project_here()
        if words and not marked and project is not None and words[0] in project.steps:
            ctx.allow_interspersed_args = True
            rest = super().parse_args(ctx, args)
        return rest


_MARKED: Final = "cachefs.marked"
"""Whether ``--`` precedes the words, which are a command then, whatever steps there are."""

PROJECT: Final = "cachefs.project"
"""The project of the working directory; None if there is none."""


def named_steps(context: click.Context, words: Sequence[str]) -> Project | None:
    """The project if these words name steps of it; None if they are a command.

    Without words, the project if it has steps. Raises UsageError if the words are neither, and for
    options that do not fit.
    """
    if context.meta[_MARKED]:
        _refuse(context, OF_STEPS, "is for the steps of a file")
        return None
    project: Project | None = context.meta[PROJECT]
    if project is None or not project.steps:
        _refuse(context, OF_STEPS, "is for the steps of a file, and there is no cachefs.toml here")
        return None
    missing = [word for word in words if word not in project.steps]
    given = _given(context, OF_COMMANDS)
    if missing and given:
        return None
    if missing:
        command = f"cachefs run -- {' '.join(words)}"
        raise UsageError(
            f"{unknown(missing[0], project.steps)} (in {project.file}); a command is given after "
            f"--, as in {mask_text(command)}"
        )
    if words:
        _refuse(context, OF_COMMANDS, f"is for a command; {project.file} says it for a step")
    return project


def _given(context: click.Context, names: Sequence[str]) -> list[str]:
    return [
        name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]


def _refuse(context: click.Context, names: Sequence[str], why: str) -> None:
    for name in _given(context, names):
        option = next(one for one in context.command.params if one.name == name)
        spelled = option.opts if context.params[name] else option.secondary_opts
        raise click.UsageError(f"{spelled[0]} {why}", context)


def list_steps(project: Project) -> None:
    """Print the steps of a project, with their commands."""
    rows = [
        (name, ", ".join(step.needs), mask_text(" ".join(step.shown.split())))
        for name, step in project.steps.items()
    ]
    print_table(("step", "needs", "command"), rows)
