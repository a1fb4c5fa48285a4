"""``cachefs run``."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cachefs.building.running import run_cached
from cachefs.building.steps import StepError
from cachefs.building.user_cache import user_cache
from cachefs.cli.failing import one_line
from cachefs.cli.locations import LOCATION
from cachefs.cli.options import common_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefs.building.running import UserCommand
    from cachefs.location.options import Location

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
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
    "Default: one in your cache directory.",
)
@click.option("--name", help="The name in the cache. Default: one derived from the command.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(),
    metavar="PATH-OR-GLOB",
    help="A file or directory that the result depends on. May be repeated.",
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
    help="An environment variable that the result depends on. May be repeated.",
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
    outputs: tuple[str, ...],
    variables: tuple[str, ...],
    command: tuple[str, ...],
    *,
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
    action = _action(command, incremental=incremental)
    with _signals(action):
        try:
            report = run_cached(
                action,
                caches=caches or (str(user_cache() / "run"),),
                name=name,
                inputs=inputs,
                outputs=outputs,
                variables=variables,
                replay=_say,
            )
        except StepError as error:
            return _failed(error, report_file)
    if report_file is not None:
        _write(report_file, {**msgspec.structs.asdict(report), "status": 0})
    if explain:
        outcome = {"hit": "hit", "ran": "miss"}.get(report.outcome, report.outcome)
        for why in report.why or [""]:
            click.echo(one_line(f"cachefs: {outcome}{': ' if why else ''}{why}"), err=True)
    return 0


def _failed(error: StepError, report_file: Path | None) -> int:
    """Report a failure that the command itself cannot report, and return the exit status."""
    if error.exit_code is None:
        status = _NOT_FOUND
    else:
        status = error.exit_code if error.exit_code > 0 else 128 - error.exit_code
    if error.exit_code is None:
        click.echo(f"cachefs: error: {one_line(str(error))}", err=True)
    if report_file is not None:
        _write(report_file, {"outcome": "failed", "status": status, "message": str(error)})
    return status


def _write(path: Path, report: dict[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _action(words: tuple[str, ...], *, incremental: bool) -> UserCommand:
    from cachefs.building.running import UserCommand

    return UserCommand(words, Path.cwd(), _say, incremental=incremental)


def _say(stream: int, data: bytes) -> None:
    """Write to the stream that the command wrote to, and flush."""
    target = (sys.stdout if stream == 1 else sys.stderr).buffer
    target.write(data)
    target.flush()


@contextmanager
def _signals(action: UserCommand) -> Iterator[None]:
    """Forward signals to the command while it runs; otherwise they end this program as usual."""
    before: dict[int, Any] = {}

    def forward(number: int, _frame: object) -> None:
        if not action.signal(number):
            # An exception, so that unfinished work is cleaned up.
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for number in _FORWARDED:
        known = signal.getsignal(number)
        if known != signal.SIG_IGN:
            before[number] = known
            signal.signal(number, forward)
    try:
        yield
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)
