"""Running the action of one step in this process, and packing what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.building.processes import ended
from cachefs.building.states import Output
from cachefs.building.steps import failure
from cachefs.building.threads import in_thread
from cachefs.errors import CacheError, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cachefs.building.scratch import Scratch
    from cachefs.building.steps import Step
    from cachefs.wire.cacheconfig import Layer

UNUSABLE: Final = (CacheError, OSError)
"""What may go wrong with a result: damage, limits, and everything that the disk refuses."""


async def execute(
    scratch: Scratch, step: Step, fetched: Mapping[str, Sequence[tuple[Path, Layer]]]
) -> tuple[Output | None, str]:
    """Run the action, and return the result; or None, and why it is not kept.

    Args:
        scratch: the directories of the build.
        step: the step.
        fetched: the results that are inputs, by name, with their blobs on disk.

    Raises StepError, UsageError, UnusableInputError and OSError.
    """
    with scratch.directory() as outside:
        directory = step.action.working_directory
        if directory is None:
            directory = outside / "work"
            await in_thread(scratch.lay_inputs, step, fetched, directory)
        with scratch.log(outside) as log:
            running = step.action.begin(directory, step.definition.environment, log.write)
            try:
                status = await in_thread(running.run, stop=running.stop)
            except OSError as error:
                raise failure(step, f"cannot run: {error.strerror or error}") from error
            tail = log.tail()
        if status != 0:
            raise failure(step, ended(status), status, tail)
        return await _collected(scratch, step, directory, outside, running.objection(), log.error)


async def _collected(
    scratch: Scratch,
    step: Step,
    directory: Path,
    outside: Path,
    objection: str,
    error: OSError | None,
) -> tuple[Output | None, str]:
    """Pack the outputs. For a command in its own place, a failure is no failure of the step."""
    if not objection:
        try:
            if step.action.logs and error is not None:
                raise error
            return Output(*await in_thread(scratch.collect, step, directory, outside)), ""
        except UNUSABLE as failed:
            if step.action.working_directory is None:
                raise
            objection = reason(failed)
    return None, objection
