"""Running named steps: ``cachefs run build test``, and what is told of it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cachefs.amount import counted
from cachefs.building.steps import StepError
from cachefs.cli.exits import Exit, status_of, status_of_step
from cachefs.cli.failing import tell
from cachefs.cli.interleaving import Interleaving
from cachefs.cli.output import say, write
from cachefs.cli.policies import step_policy
from cachefs.cli.run_reports import tell_report, write_report
from cachefs.cli.signals import forwarded
from cachefs.errors import CacheError
from cachefs.masking import mask_text
from cachefs.running.command import UserCommand, run_cached
from cachefs.running.foreseeing import foresee
from cachefs.running.needs import placed
from cachefs.running.side_by_side import CURRENT, SideBySide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachefs.building.actions import Sink
    from cachefs.building.report import StepReport
    from cachefs.running.needs import Placed
    from cachefs.running.policy import Policy
    from cachefs.running.project import Project
    from cachefs.running.side_by_side import Ended

logger = logging.getLogger("cachefs")


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
    if policy.dry_run:
        ended = foresee(steps, partial(_ask, policies, report_file))
        _tell(ended, steps, explains=policy.explain)
        status = next((status_of_ended(one) for one in ended if one.error is not None), 0)
        return status or write_report(report_file, as_report(ended, status))
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


def _ask(policies: Mapping[str, Policy], report_file: Path | None, placed: Placed) -> StepReport:
    """What one step would do."""
    command = UserCommand(placed.step.argv, Path.cwd(), write, incremental=placed.step.incremental)
    return _perform(policies, report_file, placed, command, write)


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
        inputs=placed.inputs_in(command.working_directory),
        outputs=[output for output in placed.outputs if output not in placed.optional],
        optional=placed.optional,
        variables=placed.step.variables,
        replay=sink,
        exclude=placed.step.exclude,
        ignore=placed.step.ignore,
        follow=placed.step.follow,
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
        if how := _how(one):
            say(f"cachefs: {one.name}: {how}", err=True)
    if len(ended) > 1:
        number = Counter(one.outcome for one in ended)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in number.items())
        say(f"cachefs: {counted(len(ended), 'step')}: {counts}", err=True)


def _how(one: Ended) -> str:
    """What became of a step; empty if its report said it."""
    match one.outcome:
        case "not run":
            return f"not run, because it needs {one.because}" if one.because else "not run"
        case "failed":
            return f"failed with status {status_of_ended(one)} after {one.seconds:.1f} s"
        case "hit" | "ran":
            return f"{one.outcome} in {one.seconds:.1f} s"
        case "not known":
            return f"not known before {one.because} has ended"
    return ""


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
