"""Named steps on the command line: ``cachefs run build test``."""

from __future__ import annotations

import logging
import os
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from cachefs.building.needs import placed
from cachefs.building.project import unknown
from cachefs.building.running import run_cached
from cachefs.building.side_by_side import CURRENT, SideBySide
from cachefs.building.steps import StepError
from cachefs.cli.exits import Exit, status_of, status_of_step
from cachefs.cli.failing import tell
from cachefs.cli.interleaving import Interleaving
from cachefs.cli.locations import project_here
from cachefs.cli.output import amount, print_table, say
from cachefs.cli.policies import step_policy
from cachefs.cli.run_reports import tell_report, write_report
from cachefs.cli.signals import forwarded
from cachefs.errors import CacheError, UsageError
from cachefs.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cachefs.building.actions import Sink
    from cachefs.building.needs import Placed
    from cachefs.building.policy import Policy
    from cachefs.building.project import Project
    from cachefs.building.report import StepReport
    from cachefs.building.running import UserCommand
    from cachefs.building.side_by_side import Ended

logger = logging.getLogger("cachefs")

OF_STEPS: Final = ("jobs", "keep_going")
"""Options for named steps only."""

OF_COMMANDS: Final = ("inputs", "exclude", "ignore", "outputs", "variables", "incremental", "name")
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
        raise click.UsageError(f"{option.opts[0]} {why}", context)


def list_steps(project: Project) -> None:
    """Print the steps of a project, with their commands."""
    rows = [
        (name, ", ".join(step.needs), mask_text(" ".join(step.shown.split())))
        for name, step in project.steps.items()
    ]
    print_table(("step", "needs", "command"), rows)


def run_steps(
    project: Project,
    names: Sequence[str],
    policy: Policy,
    *,
    jobs: int | None,
    keep_going: bool,
    report_file: Path | None,
) -> int:
    """Run steps and what they need, tell what became of them, and return the exit status.

    It is that of the first step that failed, or 128 plus the number of a signal.

    Args:
        project: the project.
        names: the steps.
        policy: the caches, and how they are used; a step's own table may say otherwise.
        jobs: how many run side by side; None for the project's default.
        keep_going: after a step failed, run those that do not need it.
        report_file: where the report is written.
    """
    steps = placed(project, names)
    policies = {one.name: step_policy(policy, project, one.step) for one in steps.values()}
    report_file = None if report_file is None else report_file.absolute()
    _enter(project.directory)
    display = Interleaving(titles=len(steps) > 1)
    running = SideBySide(
        steps,
        project.directory,
        partial(_perform, policies, report_file),
        display,
        jobs=jobs or project.settings.jobs or os.cpu_count() or 1,
        keep_going=keep_going,
    )
    logger.addFilter(_name_step)
    try:
        with forwarded(running, running.note):
            ended = running.run()
    finally:
        logger.removeFilter(_name_step)
        display.finish_line()
    status = 128 + running.stopped_by if running.stopped_by else 0
    if running.failures:
        status = status_of_ended(running.failures[0])
    _tell(ended, steps, explains=policy.explain)
    return status or write_report(report_file, as_report(ended, status))


def _perform(
    policies: Mapping[str, Policy],
    report_file: Path | None,
    placed: Placed,
    command: UserCommand,
    sink: Sink,
) -> StepReport:
    return run_cached(
        command,
        policy=policies[placed.name],
        inputs=placed.inputs,
        outputs=placed.outputs,
        variables=placed.step.variables,
        replay=sink,
        exclude=placed.step.exclude,
        ignore=placed.step.ignore,
        whole=placed.whole,
        report_file=report_file,
    )


def _name_step(record: logging.LogRecord) -> bool:
    """Begin the message of a step with its name."""
    if name := CURRENT.get():
        record.msg, record.args = f"{name}: {record.getMessage()}", ()
    return True


def _enter(directory: Path) -> None:
    """Go to the directory of the file, as if the user had, and close standard input.

    Steps run side by side, and none could tell what of the input is for it.
    """
    os.chdir(directory)
    os.environ["PWD"] = str(directory)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


# --- what became of them ------------------------------------------------------------------------


def _tell(ended: Sequence[Ended], steps: Mapping[str, Placed], *, explains: bool) -> None:
    """Print a line for each step, and one for all, on standard error."""
    for one in ended:
        if one.error is not None and getattr(one.error, "exit_code", None) is None:
            tell(one.error, f"{one.name}: {one.error}")
        if one.outcome == "ran" and not steps[one.name].inputs:
            note = "without inputs, this result is used whatever changes"
            say(f"cachefs: note: {one.name}: {note}", err=True)
        if one.report is not None:
            tell_report(one.report, steps[one.name].outputs, explains=explains, name=one.name)
    for one in ended:
        say(f"cachefs: {one.name}: {_how(one)}", err=True)
    if len(ended) > 1:
        number = Counter(one.outcome for one in ended)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in number.items())
        say(f"cachefs: {amount(len(ended), 'step')}: {counts}", err=True)


def _how(one: Ended) -> str:
    match one.outcome:
        case "not run":
            return f"not run, because it needs {one.because}" if one.because else "not run"
        case "failed":
            return f"failed with status {status_of_ended(one)} after {one.seconds:.1f} s"
        case "hit" | "ran":
            return f"{one.outcome} in {one.seconds:.1f} s"


def status_of_ended(one: Ended) -> int:
    """The exit status for how a step ended."""
    match one.error:
        case None:
            return 0
        case StepError() as error:
            return status_of_step(error)
        case CacheError() as error:
            return status_of(error)
        case OSError():
            return Exit.STORE
    return Exit.FAULTS


def as_report(ended: Sequence[Ended], status: int) -> dict[str, Any]:
    """The JSON report of a run of steps."""
    return {"status": status, "steps": [_entry(one) for one in ended]}


def _entry(one: Ended) -> dict[str, Any]:
    known = {} if one.report is None else msgspec.structs.asdict(one.report)
    message = {} if one.error is None else {"message": mask_text(str(one.error))}
    entry = {"name": one.name, "outcome": one.outcome, "status": status_of_ended(one)}
    return {**known, **entry, "seconds": round(one.seconds, 3), **message}
