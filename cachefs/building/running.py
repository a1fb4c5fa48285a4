"""Caching of one command in the user's working directory: what ``cachefs run`` does."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cachefs.building.before import Before, recover
from cachefs.building.build import Build
from cachefs.building.exclusive import VARIABLE, exclusive
from cachefs.building.foreground import ForegroundProcess
from cachefs.building.inputs import as_sources, changes, declared_variables, left_out
from cachefs.building.keys import inputs_digest
from cachefs.building.log import frames
from cachefs.building.reasons import reason
from cachefs.building.report import StepReport
from cachefs.building.sources import SourceChangedError
from cachefs.building.steps import StepError
from cachefs.building.user_cache import user_cache
from cachefs.cache import open as open_cache
from cachefs.errors import CacheError, StoreError, UsageError
from cachefs.location.parsing import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cachefs.building.actions import Sink
    from cachefs.building.steps import Source, Step
    from cachefs.cache import Cache
    from cachefs.location.options import Location

logger = logging.getLogger("cachefs")

KEPT: Final = 100
"""How many results a name that was given keeps: the newest, one for each state of the inputs."""

PATIENCE: Final = 10.0
"""Seconds that a cache may go without progress, unless its location says otherwise: a command that
is to become faster by a cache must not wait for long if there is none."""


class UserCommand:
    """A command in the user's working directory and environment, whose output is kept too.

    Args:
        argv: its words.
        working_directory: where it runs; inputs and outputs are relative to it.
        output: receives every chunk of output as it arrives.
        incremental: whether it builds on what lies at its outputs, which is otherwise moved aside.

    Attributes:
        before: what lies at the outputs when it begins.
        variables: variables that it gets besides, and that its result does not depend on.
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
        self.variables: dict[str, str] = {}
        self.succeeded = False
        self._output = output
        self._process: ForegroundProcess | None = None
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
        environment: Mapping[str, str | None],
        output: Sink,
    ) -> UserCommand:
        """The command, ready to run, with all variables of this process and the declared ones."""

        def tee(stream: int, data: bytes) -> None:
            output(stream, data)
            self._output(stream, data)

        declared = {name: value for name, value in environment.items() if value is not None}
        variables = os.environ | self.variables | declared
        self._process = ForegroundProcess(self.argv, directory, variables, tee)
        return self

    def run(self) -> int:
        """Run to the end, with what lay at the outputs moved aside, and return the status.

        If it fails, everything is put back. Raises OSError if it cannot be started.
        """
        if self._process is None:
            raise UsageError("the command has not begun")
        try:
            self.before.set_aside()
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

    def is_running(self) -> bool:
        """Whether the command runs now."""
        return self._process is not None and self._process.is_running()

    def resize(self) -> None:
        """Tell the command that the size of the terminal changed."""
        if self._process is not None:
            self._process.resize()


def run_cached(
    action: UserCommand,
    *,
    caches: Sequence[str | Location],
    name: str | None,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Sequence[str],
    replay: Sink,
    exclude: Sequence[str] = (),
    ignore: bool = True,
    report_file: Path | None = None,
) -> StepReport:
    """Run the command, or restore the outputs of an earlier run and replay its log.

    Args:
        action: the command.
        caches: locations that are read, in this order; the first is also written.
        name: the name in the caches; None for the location's, or one of the result's own.
        inputs: paths or glob patterns below the working directory.
        outputs: paths below the working directory.
        variables: variables that the result depends on: names, patterns of names such as
            ``CI_*``, or ``NAME=VALUE`` to set one.
        replay: receives the output of a hit, chunk by chunk.
        exclude: patterns of what is not content of inputs, relative to the working directory.
        ignore: whether ignore files count, see :class:`Selection`.
        report_file: where the caller writes a report, which is not content of inputs either.

    Whatever goes wrong with a cache or a result, the command runs; and whatever goes wrong after it
    has succeeded is a warning. If another run makes the same outputs here, its end is waited for.
    Raises StepError, UsageError and LocationError.
    """
    directory = action.working_directory
    made = [os.path.relpath(directory / output, directory) for output in outputs]
    locations = [parse(cache) if isinstance(cache, str) else cache for cache in caches]
    environment = declared_variables(variables)
    with exclusive(directory / output for output in made):
        recover(directory)
        sources = as_sources(
            directory,
            inputs,
            exclude=exclude,
            ignore=ignore,
            without=_own(directory, made, locations, report_file),
        )
        action.before = Before(directory, made, _staying(action, made, sources, locations))

        action.variables = {VARIABLE: "1"} if made else {}

        def declared(build: Build) -> Step:
            return build.add(action, sources, made, environment, platform=True)

        report = _run_or_take(action, declared, sources, locations, name, replay)
    return msgspec.structs.replace(report, left_out=left_out(sources.values()))


def _run_or_take(
    action: UserCommand,
    declared: Callable[[Build], Step],
    sources: Mapping[str, Source],
    locations: Sequence[Location],
    name: str | None,
    replay: Sink,
) -> StepReport:
    """Take the result from a cache, or run the command and store its result."""
    taken = False
    step = declared(Build())
    try:
        own_name = _result_name(step, sources)
        opened = [_opened(location, name, own_name) for location in locations]
        reachable = [cache for cache in opened if cache is not None]
        target = opened[0] if opened else None
        # A name of a result's own is replaced as a whole, so concurrent runs lose nothing.
        keep = KEPT if name is not None or (locations and locations[0].names) else 0
        with Build(reachable, target, mode="max", keep=keep, ignore_error=True) as build:
            step = declared(build)
            build.obtain(step)
            if (log := build.take_hit(step, action.working_directory)) is not None:
                taken = True
                with log:
                    for stream, data in frames(log):
                        replay(stream, data)
            build.obtain(step)
            build.exports = not build.is_stored(step) if taken else _is_kept(build, step, sources)
            return build.report.steps[0]
    except _ANY as error:
        return _without_cache(action, step, error, taken=taken)


def _result_name(step: Step, sources: Mapping[str, Source]) -> str:
    """The name of one result: of the command, and of the contents of its inputs."""
    contents = inputs_digest({name: source.digest for name, source in sources.items()})
    return f"run-{step.vertex.hex[:24]}-{contents.hex[:16]}"


def _own(
    directory: Path,
    outputs: Iterable[str],
    locations: Iterable[Location],
    report_file: Path | None,
) -> dict[Path, str]:
    """Paths that are not content of inputs, even below one, each with what it is."""
    return (
        dict.fromkeys(_local(locations), "a cache")
        | dict.fromkeys(_user_cache(), "files of cachefs")
        | ({} if report_file is None else {directory / report_file: "the report"})
        | {directory / output: "an output" for output in outputs}
    )


def _local(locations: Iterable[Location]) -> list[Path]:
    return [Path(location.url) for location in locations if location.protocol == "file"]


def _user_cache() -> list[Path]:
    try:
        return [user_cache()]
    except UsageError:
        return []


_ANY: Final = (CacheError, OSError, RuntimeError)
"""What a cache and its result may raise. RuntimeError: no thread can be started."""


def _without_cache(action: UserCommand, step: Step, error: Exception, *, taken: bool) -> StepReport:
    """Go on after an error: run the command, unless it has run, or failed, or was asked wrongly."""
    mistake = isinstance(error, UsageError) and not isinstance(error, SourceChangedError)
    if taken or isinstance(error, StepError) or (mistake and not action.succeeded):
        raise error
    logger.warning("not kept: %s", reason(error))
    if not action.succeeded:
        environment = step.definition.environment
        running = action.begin(action.working_directory, environment, lambda _stream, _data: None)
        status = running.run()
        if status != 0:
            why = f"command {action.label!r} failed with status {status}"
            raise StepError(why, step=action.label, argv=action.argv, exit_code=status)
    return StepReport(name=action.label, outcome="ran", why=[reason(error)])


def _is_kept(build: Build, step: Step, sources: Mapping[str, Source]) -> bool:
    """Whether the result of a command that has just succeeded is kept. What to know is told."""
    why = build.unkept(step)
    if not why and (changed := changes(sources.values())):
        why = f"inputs changed while the command ran ({changed})"
    if why:
        logger.warning("not kept: %s", why)
    return not why


def _staying(
    action: UserCommand,
    outputs: Sequence[str],
    inputs: Iterable[str],
    locations: Iterable[Location],
) -> Sequence[str]:
    """The outputs that are left in place.

    All of an incremental command; and those with something in them that the command or this program
    needs while it runs: inputs, caches, temporary files, this program itself.
    """
    if action.incremental:
        return outputs
    directory = action.working_directory
    needed = [*_user_cache(), Path(tempfile.gettempdir()), Path(sys.prefix), directory]
    needed += [*_local(locations), *(directory / name for name in inputs)]
    real = [Path(os.path.realpath(path)) for path in needed]
    return [
        output
        for output in outputs
        if any(path.is_relative_to(os.path.realpath(directory / output)) for path in real)
    ]


def _opened(location: Location, name: str | None, default_name: str) -> Cache | None:
    """The cache; None, with a warning, if its filesystem connects immediately and fails."""
    if location.protocol != "file":
        location = replace(location, patience=location.patience or PATIENCE)
    if name is not None or not location.names:
        location = location.with_names(name or default_name)
    try:
        cache = open_cache(location)
    except StoreError as error:
        logger.warning("this cache is not used: %s", error)
        return None
    cache.layout.store.filesystem.patience.once = True
    return cache
