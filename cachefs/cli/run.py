"""``cachefs run``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click
import msgspec

from cachefs.building.steps import StepError
from cachefs.cli.exits import Exit, status_of_step
from cachefs.cli.failing import tell
from cachefs.cli.hints import check_repeated, one_word
from cachefs.cli.options import common_options
from cachefs.cli.output import say, write
from cachefs.cli.policies import cache_options, chosen_policy
from cachefs.cli.run_reports import tell_report, write_report
from cachefs.cli.signals import forwarded
from cachefs.cli.words import PROJECT, RunCommand, WordType, list_steps, named_steps
from cachefs.running.command import UserCommand, run_cached


@click.command(
    "run",
    cls=RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@cache_options
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(),
    metavar="PATH-OR-GLOB",
    help="A file or directory that the result depends on. May be repeated.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="What of the inputs does not count: a pattern as in .gitignore. May be repeated.",
)
@click.option(
    "--ignore/--no-ignore",
    default=True,
    help="Whether .gitignore and .cachefsignore files, directories of version control and "
    "__pycache__ have an effect on inputs. Default: they do.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Count what symbolic links below inputs lead to, instead of the links.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(),
    metavar="PATH-OR-GLOB",
    help="A file or directory that the command makes, or a pattern that matches at least one. May "
    "be repeated.",
)
@click.option(
    "--optional-output",
    "optional",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help="An output that the command need not make. May be repeated.",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="VAR",
    help="An environment variable that the result depends on: NAME, a pattern such as 'CI_*', or "
    "NAME=VALUE to set it for the command. May be repeated.",
)
@click.option(
    "--stdin",
    is_flag=True,
    help="Count standard input as an input: it is read to its end before the command begins.",
)
@click.option(
    "--incremental",
    is_flag=True,
    help="Leave what lies at the outputs in place, for commands that build on it.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many steps of a file run side by side. Default: the number of processors.",
)
@click.option(
    "--keep-going",
    "-k",
    is_flag=True,
    help="After a step failed, run those that do not need it too.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Print on standard error whether it was a hit and what it saved, or why it was a miss: "
    "what differs from the nearest result in the caches.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a JSON report to this file; standard output belongs to the command.",
)
@common_options
@click.argument("command", nargs=-1, type=WordType(), metavar="[STEP... | -- COMMAND...]")
def command(
    inputs: tuple[str, ...],
    exclude: tuple[str, ...],
    outputs: tuple[str, ...],
    optional: tuple[str, ...],
    variables: tuple[str, ...],
    command: tuple[str, ...],
    *,
    ignore: bool,
    follow: bool,
    stdin: bool,
    incremental: bool,
    jobs: int | None,
    keep_going: bool,
    explain: bool,
    report_file: Path | None,
    **how: Any,
) -> int:
    """Run COMMAND, or restore its outputs if it ran before with the same inputs.

    \b
      cachefs run --input src --output dist -- make dist
      cachefs run build test

    In a project with a cachefs.toml, each STEP of that file, and what it needs, is run so; without
    any, the steps are listed.

    A hit restores the outputs byte for byte and replays what the command printed. Only a run that
    ends with status 0 is stored. While the command runs, what lay at its outputs is moved aside; it
    comes back if the command fails or does not make it again. The exit status is that of the
    command, or 128 plus the number of the signal that ended it. The report of a hit or a run has
    the members of StepReport in Python; that of a failure is {"outcome": "failed", "status",
    "message"}.
    """  # noqa: D301 - click's mark, not a backslash
    context = click.get_current_context()
    policy = chosen_policy(context.meta[PROJECT], explain=explain, **how)
    if (project := named_steps(context, command)) is not None:
        if not command:
            list_steps(project)
            return Exit.DONE
        from cachefs.cli.steps import run_steps  # what a command does without is not loaded

        return run_steps(
            project, command, policy, jobs=jobs, keep_going=keep_going, report_file=report_file
        )
    if not command:
        raise click.UsageError("Missing argument 'COMMAND...'")
    if inputs:
        _check_expanded(command)
    check_repeated(inputs=inputs, outputs=outputs, exclude=exclude, variables=variables)
    action = UserCommand(command, Path.cwd(), write, incremental=incremental)
    with forwarded(action):
        try:
            report = run_cached(
                action,
                policy=policy,
                inputs=inputs,
                outputs=outputs,
                variables=variables,
                replay=write,
                optional=optional,
                exclude=exclude,
                ignore=ignore,
                follow=follow,
                stdin=stdin,
                report_file=report_file,
            )
        except StepError as error:
            return _failed(error, command, report_file)
    if report.outcome == "ran" and not inputs and not stdin:
        say("cachefs: note: without --input, this result is used whatever changes", err=True)
    status = write_report(report_file, {**msgspec.structs.asdict(report), "status": 0})
    tell_report(report, outputs, explains=explain)
    return status


def _check_expanded(command: tuple[str, ...]) -> None:
    """Raise UsageError if the command seems to begin with the rest of a pattern's files."""
    first = command[0]
    options = command[: command.index("--")] if "--" in command else ()
    ours = any(word.partition("=")[0] in {"--input", "--output", "--cache"} for word in options)
    is_data = shutil.which(first) is None and not first.startswith(("./", "../", "/"))
    if os.path.lexists(first) and (ours or is_data):
        raise click.UsageError(
            f"the command would be {first}, which is a file; if the shell replaced a pattern by "
            "the names of files, quote it: --input '*.c'"
        )


def _failed(error: StepError, command: tuple[str, ...], report_file: Path | None) -> int:
    """Report a failure that the command itself cannot report, and return the exit status."""
    status = status_of_step(error)
    if isinstance(error.__cause__, FileNotFoundError):
        error.reason += one_word(command)
    if error.exit_code is None:
        tell(error)
    write_report(report_file, {"outcome": "failed", "status": status, "message": str(error)})
    return status
