"""Caching of one command in the user's working directory: what ``cachefs run`` does."""

from __future__ import annotations

import glob
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.building.before import Before, recover
from cachefs.building.build import Build
from cachefs.building.leftovers import PREFIXES
from cachefs.building.log import frames
from cachefs.building.processes import Process
from cachefs.building.reasons import reason
from cachefs.building.report import StepReport
from cachefs.building.sources import SourceChangedError
from cachefs.building.steps import Source, StepError
from cachefs.building.user_cache import user_cache
from cachefs.cache import open as open_cache
from cachefs.errors import CacheError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachefs.building.actions import Sink
    from cachefs.building.steps import Step
    from cachefs.cache import Cache
    from cachefs.location.options import Location

logger = logging.getLogger("cachefs")

KEPT: Final = 100
"""How many results a name keeps: the newest, one for each state of the inputs."""


class UserCommand:
    """A command in the user's working directory and environment, whose output is kept too.

    Args:
        argv: its words.
        working_directory: where it runs; inputs and outputs are relative to it.
        output: receives every chunk of output as it arrives.
        incremental: whether it builds on what lies at its outputs, which is otherwise moved aside.

    Attributes:
        before: what lies at the outputs when it begins.
        succeeded: whether it has ended with status 0.
    """

    logs: Final = True

    def __init__(
        self,
        argv: Sequence[str],
        working_directory: Path,
        output: Sink,
        *,
        incremental: bool = False,
    ) -> None:
        self.argv = tuple(argv)
        self.working_directory = working_directory
        self.incremental = incremental
        self.before = Before(working_directory, (), ())
        self.succeeded = False
        self._output = output
        self._process: Process | None = None
        self._objection = ""

    @property
    def key(self) -> tuple[bytes, ...]:
        """The command's words, marked, so that the key differs from one in a scratch directory."""
        mark = b"incremental command in place" if self.incremental else b"command in place"
        return (mark, *map(os.fsencode, self.argv))

    @property
    def label(self) -> str:
        """The command line."""
        return " ".join(self.argv)

    def begin(
        self,
        directory: Path,
        environment: Mapping[str, str | None],  # noqa: ARG002 - it has all of this process's
        output: Sink,
    ) -> UserCommand:
        """The command, ready to run."""

        def tee(stream: int, data: bytes) -> None:
            output(stream, data)
            self._output(stream, data)

        self._process = Process(self.argv, directory, os.environ, tee, stdin=None)
        return self

    def run(self) -> int:
        """Run to the end, with what lay at the outputs moved aside, and return the status.

        If it fails, everything is put back. Raises OSError if it cannot be started.
        """
        if self._process is None:
            raise UsageError("the command has not begun")
        self.before.set_aside()
        try:
            status = self._process.run()
        except BaseException:
            self.before.put_back()
            raise
        if status == 0:
            self._objection = self.before.settle()
            self.succeeded = True
        else:
            self.before.put_back()
        return status

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()

    def objection(self) -> str:
        """After a success, why the outputs cannot be kept; empty if they can."""
        return self._objection

    def signal(self, number: int) -> bool:
        """Send the command a signal; False if it is not running."""
        return self._process is not None and self._process.signal(number)


def run_cached(
    action: UserCommand,
    *,
    caches: Sequence[str | Location],
    name: str | None,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Sequence[str],
    replay: Sink,
) -> StepReport:
    """Run the command, or restore the outputs of an earlier run and replay its log.

    Args:
        action: the command.
        caches: locations that are read, in this order; the first is also written.
        name: the name in the caches; None for the location's, or one made from the command's key.
        inputs: paths or glob patterns below the working directory.
        outputs: paths below the working directory.
        variables: names of variables that the result depends on.
        replay: receives the output of a hit, chunk by chunk.

    Whatever goes wrong with a cache or a result, the command runs; and whatever goes wrong after it
    has succeeded is a warning. Raises StepError, UsageError and LocationError.
    """
    directory = action.working_directory
    recover(directory)
    declared = _step(Build(), action, inputs, outputs, variables)
    default_name = f"run-{declared.vertex.hex[:24]}"
    taken = False
    try:
        opened = [_opened(cache, name, default_name) for cache in caches]
        action.before = Before(directory, declared.outputs, _staying(action, declared, opened))
        with Build(opened, opened[0], mode="max", keep=KEPT, ignore_error=True) as build:
            step = _step(build, action, inputs, outputs, variables)
            build.obtain(step)
            if (log := build.take_hit(step, directory)) is not None:
                taken = True
                with log:
                    for stream, data in frames(log):
                        replay(stream, data)
            build.obtain(step)
            build.exports = not _unkept(build, step) if not taken else not build.is_stored(step)
            report = build.report.steps[0]
    except _ANY as error:
        return _without_cache(action, error, taken=taken)
    return report


_ANY: Final = (CacheError, OSError, RuntimeError)
"""What a cache and its result may raise. RuntimeError: no thread can be started."""


def _without_cache(action: UserCommand, error: Exception, *, taken: bool) -> StepReport:
    """Go on after an error: run the command, unless it has run, or failed, or was asked wrongly."""
    mistake = isinstance(error, UsageError) and not isinstance(error, SourceChangedError)
    if taken or isinstance(error, StepError) or (mistake and not action.succeeded):
        raise error
    logger.warning("not kept: %s", reason(error))
    if not action.succeeded:
        status = action.begin(action.working_directory, {}, lambda _stream, _data: None).run()
        if status != 0:
            why = f"step {action.label!r} failed with status {status}"
            raise StepError(why, step=action.label, argv=action.argv, exit_code=status)
    return StepReport(name=action.label, outcome="ran", why=[reason(error)])


def _unkept(build: Build, step: Step) -> bool:
    """Whether the result of a command that has just succeeded is not kept; the reason is told."""
    why = build.unkept(step)
    if not why and _changed(step):
        why = "inputs changed while the command ran"
    if why:
        logger.warning("not kept: %s", why)
    return bool(why)


def _staying(action: UserCommand, step: Step, caches: Sequence[Cache]) -> list[str]:
    """The outputs that are left in place.

    All of an incremental command; and those with something in them that the command or this program
    needs while it runs: inputs, caches, temporary files, this program itself.
    """
    if action.incremental:
        return list(step.outputs)
    directory = action.working_directory
    needed = [user_cache(), Path(tempfile.gettempdir()), Path(sys.prefix), directory]
    needed += [Path(cache.location.url) for cache in caches if cache.location.protocol == "file"]
    needed += [directory / name for name in step.inputs]
    real = [Path(os.path.realpath(path)) for path in needed]
    return [
        output
        for output in step.outputs
        if any(path.is_relative_to(os.path.realpath(directory / output)) for path in real)
    ]


def _opened(location: str | Location, name: str | None, default_name: str) -> Cache:
    cache = open_cache(location)
    if name is None and cache.location.names:
        return cache
    return open_cache(cache.location.with_names(name or default_name))


def _changed(step: Step) -> bool:
    """Whether an input is no longer the one in the key: the command may have read either state."""
    try:
        return any(
            part.node.again().digest != part.node.digest
            for part in step.inputs.values()
            if isinstance(part.node, Source)
        )
    except UsageError:
        return True


def _step(
    build: Build,
    action: UserCommand,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Sequence[str],
) -> Step:
    directory = action.working_directory
    made = [os.path.relpath(directory / output, directory) for output in outputs]
    sources = {}
    for path in _expanded(directory, inputs):
        # Outputs of the command, and temporary directories of a restore, are not inputs.
        below = [glob.escape(os.path.relpath(output, path)) for output in made]
        below += [os.path.relpath(f"{prefix}*", path) for prefix in PREFIXES]
        exclude = ["/" + name for name in below if not name.startswith("..")]
        sources[path] = build.source(directory / path, exclude=exclude)
    return build.add(action, sources, made, variables, platform=True)


def _expanded(directory: Path, inputs: Sequence[str]) -> list[str]:
    """The matching paths, relative to the directory. Raises UsageError if an input has none."""
    paths: set[str] = set()
    for text in inputs:
        if os.path.lexists(directory / text):
            found = [text]
        else:
            found = glob.glob(text, root_dir=directory, recursive=True)  # noqa: PTH207 - Path.glob takes no "../"
        if not found:
            raise UsageError(f"the input {text!r} does not exist, and no file matches it")
        paths.update(os.path.relpath(directory / path, directory) for path in found)
    return sorted(paths)
