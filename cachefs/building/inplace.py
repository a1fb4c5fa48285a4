"""One command that runs where the user stands, cached: what ``cachefs run`` does."""

from __future__ import annotations

import glob
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.building import log
from cachefs.building.build import Build
from cachefs.building.processes import Process
from cachefs.building.restoring import ASIDE
from cachefs.building.steps import Source
from cachefs.cache import open as open_cache
from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cachefs.building.actions import Sink
    from cachefs.building.report import StepReport
    from cachefs.building.steps import Step
    from cachefs.cache import Cache
    from cachefs.location.options import Location

logger = logging.getLogger("cachefs")

KEPT: Final = 100
"""Results that a name keeps, the newest, for as many states of the inputs."""


class InPlace:
    """A command in the user's own directory and environment, whose output is a part of its result.

    Args:
        argv: its words.
        place: where it runs, and what inputs and outputs are relative to.
        output: gets every chunk of output as it comes.
    """

    logs: Final = True

    def __init__(self, argv: Sequence[str], place: Path, output: Sink) -> None:
        self.argv = tuple(argv)
        self.place = place
        self._output = output
        self._process: Process | None = None

    @property
    def key(self) -> tuple[bytes, ...]:
        """The command's words. It is not the same as one in a scratch directory."""
        return (b"command in place", *map(os.fsencode, self.argv))

    @property
    def label(self) -> str:
        """The command line."""
        return " ".join(self.argv)

    def begin(
        self,
        directory: Path,
        environment: Mapping[str, str | None],  # noqa: ARG002 - it has all of this process's
        output: Sink,
    ) -> Process:
        """The command, ready to run."""

        def tee(stream: int, data: bytes) -> None:
            output(stream, data)
            self._output(stream, data)

        self._process = Process(self.argv, directory, os.environ, tee, stdin=None)
        return self._process

    def signal(self, number: int) -> bool:
        """Send it a signal; False while it does not run."""
        return self._process is not None and self._process.signal(number)


def run_in_place(
    action: InPlace,
    *,
    caches: Sequence[str | Location],
    name: str | None,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Sequence[str],
    replay: Callable[[int, bytes], None],
) -> StepReport:
    """Run the command, or put what it made before in place and replay what it said.

    Args:
        action: the command.
        caches: locations that are read, the first first; the first is written.
        name: the name in the caches; None: the location's, or one that is the command's own.
        inputs: paths or glob patterns below the command's directory.
        outputs: paths below the command's directory.
        variables: names of variables that matter.
        replay: gets the output of a hit, chunk by chunk.

    A cache that cannot be read is a miss, and one that cannot be written a warning: a command must
    not fail because its cache does. Raises StepError and UsageError.
    """
    vertex = _step(Build(), action, inputs, outputs, variables).vertex
    opened = [_opened(place, name, f"run-{vertex.hex[:24]}") for place in caches]
    with Build(opened, opened[0], mode="max", keep=KEPT, ignore_error=True) as build:
        step = _step(build, action, inputs, outputs, variables)
        build.obtain(step)
        report = build.report.steps[0]
        if report.outcome == "hit":
            _replay(build, step, action.place, replay)
        if report.outcome == "ran" and _changed(step):
            logger.warning("inputs changed while the command ran, so its result is not kept")
            build.exports = False
        elif report.outcome == "hit" and build.is_stored(step):
            build.exports = False
    return report


def _opened(place: str | Location, name: str | None, own_name: str) -> Cache:
    cache = open_cache(place)
    if name is None and cache.location.names:
        return cache
    return open_cache(cache.location.with_names(name or own_name))


def _replay(build: Build, step: Step, place: Path, replay: Callable[[int, bytes], None]) -> None:
    """Put the outputs in place and say what the command said, unless it had to run after all."""
    with tempfile.TemporaryDirectory(prefix="cachefs-log-") as folder:
        said = Path(folder, "log")
        build.restore(step, place, log=said)
        if build.report.steps[0].outcome == "hit":
            with said.open("rb") as file:
                for stream, data in log.frames(file):
                    replay(stream, data)


def _changed(step: Step) -> bool:
    """Whether an input is another than the one in the key: then nobody knows what was read."""
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
    action: InPlace,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Sequence[str],
) -> Step:
    made = [os.path.relpath(action.place / output, action.place) for output in outputs]
    sources = {}
    for path in _expanded(action.place, inputs):
        # What the command, or a restore, makes below an input is not what it depends on.
        below = [glob.escape(os.path.relpath(output, path)) for output in made]
        below.append(os.path.relpath(f"{ASIDE}*", path))
        exclude = ["/" + name for name in below if not name.startswith("..")]
        sources[path] = build.source(action.place / path, exclude=exclude)
    return build.add(action, sources, made, variables, platform=True)


def _expanded(place: Path, inputs: Sequence[str]) -> list[str]:
    """The paths that are meant, relative to the place. Raises UsageError where there are none."""
    paths: set[str] = set()
    for text in inputs:
        if os.path.lexists(place / text):
            found = [text]
        else:
            found = glob.glob(text, root_dir=place, recursive=True)  # noqa: PTH207 - Path.glob takes no "../"
        if not found:
            raise UsageError(f"the input {text!r} is not there, and no file matches it")
        paths.update(os.path.relpath(place / path, place) for path in found)
    return sorted(paths)
