"""``cachefs run``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from cachefs.building.running import run_cached
from cachefs.building.steps import StepError
from cachefs.cli.exits import Exit
from cachefs.cli.failing import tell
from cachefs.cli.options import common_options
from cachefs.cli.output import say, size, to_json
from cachefs.cli.policies import cache_options, chosen_policy
from cachefs.cli.signals import forwarded
from cachefs.filesystems.system import system_error

if TYPE_CHECKING:
    from cachefs.building.report import StepReport
    from cachefs.building.running import UserCommand

_CANNOT_EXECUTE = 126
_NOT_FOUND = 127


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
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
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
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
    **how: Any,
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
    policy = chosen_policy(explain=explain, **how)
    action = _action(command, incremental=incremental)
    with forwarded(action):
        try:
            report = run_cached(
                action,
                policy=policy,
                inputs=inputs,
                outputs=outputs,
                variables=variables,
                replay=_say,
                exclude=exclude,
                ignore=ignore,
                report_file=report_file,
            )
        except StepError as error:
            return _failed(error, report_file)
    if report.outcome == "ran" and not inputs:
        say("cachefs: note: without --input, this result is used whatever changes", err=True)
    status = _write(report_file, {**msgspec.structs.asdict(report), "status": 0})
    if policy.dry_run:
        _foretell(report, outputs)
    elif explain or (report.saved >= WORTH_TELLING and sys.stderr.isatty()):
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


WORTH_TELLING: Final = 1.0
"""Seconds that a hit saves from which that is told."""

SHOWN: Final = 10
"""Maximum number of lines that explain a miss; --report has all."""


def _explain(report: StepReport) -> None:
    outcome = {"hit": "hit", "ran": "miss"}.get(report.outcome, report.outcome)
    lines = list(report.why)
    if report.saved >= WORTH_TELLING:
        lines.append(f"saved {report.saved:.1f} s by {report.cache}")
    _print_lines(outcome, lines or [""])
    if report.left_out:
        reasons = ", ".join(f"{number} ({why})" for why, number in report.left_out.items())
        say(f"cachefs: left out of the inputs: {reasons}", err=True)


def _foretell(report: StepReport, outputs: tuple[str, ...]) -> None:
    """Say what a run would do."""
    if report.outcome == "would hit":
        what = f"from {report.cache}"
        if outputs:
            what += f", which would restore {', '.join(outputs)} ({size(report.fetched)})"
        _print_lines(report.outcome, [what])
    else:
        _print_lines(report.outcome, report.why or [""])


def _print_lines(outcome: str, lines: list[str]) -> None:
    more = len(lines) - SHOWN
    if more > 0:
        lines = [*lines[: SHOWN - 1], f"and {more + 1} more differences"]
    for line in lines:
        say(f"cachefs: {outcome}{': ' if line else ''}{line}", err=True)


def _failed(error: StepError, report_file: Path | None) -> int:
    """Report a failure that the command itself cannot report, and return the exit status."""
    if error.exit_code is None:
        missing = isinstance(error.__cause__, FileNotFoundError)
        status = _NOT_FOUND if missing else _CANNOT_EXECUTE
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
