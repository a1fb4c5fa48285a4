"""Caching of one command in the user's working directory: what ``cachefs run`` does."""

from __future__ import annotations

import fnmatch
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cachefs.building import log
from cachefs.building.build import Build
from cachefs.building.foreground import ForegroundProcess
from cachefs.building.inputs import as_sources, changes, left_out
from cachefs.building.user_cache import user_cache
from cachefs.cache import open as open_cache
from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cachefs.building.actions import Sink
    from cachefs.building.report import StepReport
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
    """

    logs: Final = True

    def __init__(self, argv: Sequence[str], working_directory: Path, output: Sink) -> None:
        self.argv = tuple(argv)
        self.working_directory = working_directory
        self._output = output
        self._process: ForegroundProcess | None = None

    @property
    def key(self) -> tuple[bytes, ...]:
        """The command's words, marked, so that the key differs from one in a scratch directory."""
        return (b"command in place", *map(os.fsencode, self.argv))

    @property
    def label(self) -> str:
        """The command line."""
        return " ".join(self.argv)

    def begin(
        self,
        directory: Path,
        environment: Mapping[str, str | None],
        output: Sink,
    ) -> ForegroundProcess:
        """The command, ready to run, with all variables of this process and the declared ones."""

        def tee(stream: int, data: bytes) -> None:
            output(stream, data)
            self._output(stream, data)

        declared = {name: value for name, value in environment.items() if value is not None}
        self._process = ForegroundProcess(self.argv, directory, os.environ | declared, tee)
        return self._process

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
    replay: Callable[[int, bytes], None],
    exclude: Sequence[str] = (),
    ignore: bool = True,
    report_file: Path | None = None,
) -> StepReport:
    """Run the command, or restore the outputs of an earlier run and replay its log.

    Args:
        action: the command.
        caches: locations that are read, in this order; the first is also written.
        name: the name in the caches; None for the location's, or one made from the command's key.
        inputs: paths or glob patterns below the working directory.
        outputs: paths below the working directory.
        variables: variables that the result depends on: names, patterns of names such as
            ``CI_*``, or ``NAME=VALUE`` to set one.
        replay: receives the output of a hit, chunk by chunk.
        exclude: patterns of what is not content of inputs, relative to the working directory.
        ignore: whether ignore files count, see :class:`Selection`.
        report_file: where the caller writes a report, which is not content of inputs either.

    A cache that cannot be read is a miss, and one that cannot be written causes a warning: a
    command must not fail because its cache does. Raises StepError, UsageError and LocationError.
    """
    directory = action.working_directory
    made = [os.path.relpath(directory / output, directory) for output in outputs]
    sources = as_sources(
        directory,
        inputs,
        exclude=exclude,
        ignore=ignore,
        without=_own(directory, made, caches, report_file),
    )
    environment = _environment(variables)
    step = Build().add(action, sources, made, environment, platform=True)
    opened = [_opened(cache, name, f"run-{step.vertex.hex[:24]}") for cache in caches]
    with Build(
        opened, opened[0] if opened else None, mode="max", keep=KEPT, ignore_error=True
    ) as build:
        step = build.add(action, sources, made, environment, platform=True)
        build.obtain(step)
        report = build.report.steps[0]
        if report.outcome == "hit":
            _replay(build, step, action.working_directory, replay)
            report = build.report.steps[0]
        if report.outcome == "ran" and (changed := changes(sources.values())):
            logger.warning(
                "inputs changed while the command ran (%s), so its result is not kept", changed
            )
            build.exports = False
        elif report.outcome == "hit" and build.is_stored(step):
            build.exports = False
        if report.outcome == "ran" and build.exports and not sources:
            logger.warning(
                "the command has no --input, so its result is used from now on, whatever changes"
            )
    return msgspec.structs.replace(report, left_out=left_out(sources.values()))


def _environment(variables: Iterable[str]) -> dict[str, str | None]:
    """The declared variables with their values. Raises UsageError for a name that none can have."""
    found: dict[str, str | None] = {}
    for text in variables:
        name, assigned, value = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"--env {text!r} does not name a variable")
        if assigned:
            found[name] = value
        elif any(character in name for character in "*?["):
            names = fnmatch.filter(os.environ, name)
            found |= {name: os.environ[name] for name in names if name not in found}
        else:
            found.setdefault(name, os.environ.get(name))
    return found


def _own(
    directory: Path,
    outputs: Iterable[str],
    caches: Iterable[str | Location],
    report_file: Path | None,
) -> dict[Path, str]:
    """Paths that are not content of inputs, even below one, each with what it is."""
    locations = (open_cache(cache).location for cache in caches)
    local = (Path(location.url) for location in locations if location.protocol == "file")
    return (
        dict.fromkeys(local, "a cache")
        | dict.fromkeys(_user_cache(), "files of cachefs")
        | ({} if report_file is None else {directory / report_file: "the report"})
        | {directory / output: "an output" for output in outputs}
    )


def _user_cache() -> list[Path]:
    try:
        return [user_cache()]
    except UsageError:
        return []


def _opened(location: str | Location, name: str | None, default_name: str) -> Cache:
    cache = open_cache(location)
    if name is None and cache.location.names:
        return cache
    return open_cache(cache.location.with_names(name or default_name))


def _replay(
    build: Build, step: Step, directory: Path, replay: Callable[[int, bytes], None]
) -> None:
    """Restore the outputs and replay the log, unless the command had to run after all."""
    with tempfile.TemporaryDirectory(prefix="cachefs-log-") as temporary:
        kept = Path(temporary, "log")
        build.restore(step, directory, log=kept)
        if build.report.steps[0].outcome == "hit":
            with kept.open("rb") as file:
                for stream, data in log.frames(file):
                    replay(stream, data)
