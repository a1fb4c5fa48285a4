"""``cachefs run``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cachefs.building.running import run_cached
from cachefs.building.steps import StepError
from cachefs.cli.exits import Exit
from cachefs.cli.failing import tell
from cachefs.cli.hints import check_repeated, one_word
from cachefs.cli.locations import LOCATION, default_location
from cachefs.cli.options import common_options
from cachefs.cli.output import say, to_json
from cachefs.cli.signals import forwarded
from cachefs.errors import LocationError, UsageError
from cachefs.filesystems.system import system_error

if TYPE_CHECKING:
    from cachefs.building.report import StepReport
    from cachefs.building.running import UserCommand
    from cachefs.location.options import Location

_CANNOT_EXECUTE = 126
_NOT_FOUND = 127


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
)
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=LOCATION,
    metavar="LOCATION",
    help="A cache to look in; the first one is also written. May be repeated. "
    "Default: $CACHEFS_CACHE, or else one in your cache directory.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="The name in the cache. Default: one derived from the command.",
)
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
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help="A file or directory that the command writes. May be repeated.",
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
    "--incremental",
    is_flag=True,
    help="Leave what lies at the outputs in place, for commands that build on it.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Print on standard error whether it was a hit, or why it was a miss.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a JSON report to this file; standard output belongs to the command.",
)
@common_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    caches: tuple[Location, ...],
    name: str | None,
    inputs: tuple[str, ...],
    exclude: tuple[str, ...],
    outputs: tuple[str, ...],
    variables: tuple[str, ...],
    command: tuple[str, ...],
    *,
    ignore: bool,
    incremental: bool,
    explain: bool,
    report_file: Path | None,
) -> int:
    """Run COMMAND, or restore its outputs if it ran before with the same inputs.

    \b
      cachefs run --input src --output dist -- make dist

    A hit restores the outputs byte for byte and replays what the command printed. Only a run that
    ends with status 0 is stored. While the command runs, what lay at its outputs is moved aside; it
    comes back if the command fails or does not make it again. The exit status is that of the
    command, or 128 plus the number of the signal that ended it. The report of a hit or a run has
    the members of StepReport in Python; that of a failure is {"outcome": "failed", "status",
    "message"}.
    """  # noqa: D301 - click's mark, not a backslash
    if inputs:
        _check_expanded(command)
    check_repeated(inputs=inputs, outputs=outputs, exclude=exclude, variables=variables)
    action = _action(command, incremental=incremental)
    with forwarded(action):
        try:
            report = run_cached(
                action,
                caches=caches or _default_caches(),
                name=name,
                inputs=inputs,
                outputs=outputs,
                variables=variables,
                replay=_say,
                exclude=exclude,
                ignore=ignore,
                report_file=report_file,
            )
        except StepError as error:
            return _failed(error, command, report_file)
    if report.outcome == "ran" and not inputs:
        say("cachefs: note: without --input, this result is used whatever changes", err=True)
    status = _write(report_file, {**msgspec.structs.asdict(report), "status": 0})
    if explain:
        _explain(report)
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


def _default_caches() -> tuple[Location, ...]:
    """The default cache, unless it cannot be used: that is no reason not to run a command."""
    try:
        return (default_location(click.get_current_context()),)
    except LocationError:
        raise
    except UsageError as error:
        say(f"cachefs: warning: nothing is cached: {error}", err=True)
        return ()


def _explain(report: StepReport) -> None:
    outcome = {"hit": "hit", "ran": "miss"}.get(report.outcome, report.outcome)
    for why in report.why or [""]:
        say(f"cachefs: {outcome}{': ' if why else ''}{why}", err=True)
    if report.left_out:
        reasons = ", ".join(f"{number} ({why})" for why, number in report.left_out.items())
        say(f"cachefs: left out of the inputs: {reasons}", err=True)


def _failed(error: StepError, command: tuple[str, ...], report_file: Path | None) -> int:
    """Report a failure that the command itself cannot report, and return the exit status."""
    if error.exit_code is None:
        missing = isinstance(error.__cause__, FileNotFoundError)
        status = _NOT_FOUND if missing else _CANNOT_EXECUTE
        error.reason += one_word(command) if missing else ""
    else:
        status = error.exit_code if error.exit_code > 0 else 128 - error.exit_code
    if error.exit_code is None:
        tell(error)
    _write(report_file, {"outcome": "failed", "status": status, "message": str(error)})
    return status


def _write(path: Path | None, report: dict[str, Any]) -> int:
    """Write the report, if one is wanted, and return the status: a lost report is an error."""
    if path is None:
        return 0
    try:
        path.write_text(to_json(report) + "\n", encoding="utf-8")
    except OSError as error:
        tell(system_error(error, "write the report", str(path)))
        return Exit.STORE
    return 0


def _action(words: tuple[str, ...], *, incremental: bool) -> UserCommand:
    from cachefs.building.running import UserCommand

    return UserCommand(words, Path.cwd(), _say, incremental=incremental)


def _say(stream: int, data: bytes) -> None:
    """Write to the stream that the command wrote to, and flush."""
    target = (sys.stdout if stream == 1 else sys.stderr).buffer
    target.write(data)
    target.flush()
