"""Caching of one command in the user's working directory: what ``cachefs run`` does."""

from __future__ import annotations

import logging
import os
import shlex
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import msgspec

from cachefs.building.build import Build
from cachefs.building.in_place import is_in_place
from cachefs.building.log import frames
from cachefs.building.outputs import Outputs, relative
from cachefs.building.report import StepReport
from cachefs.building.steps import StepError
from cachefs.errors import CacheError, UsageError, reason
from cachefs.keying.patterns import fixed_part, is_pattern
from cachefs.keying.sources import SourceChangedError
from cachefs.location.parsing import parse
from cachefs.masking import mask_words
from cachefs.running.before import Before, recover
from cachefs.running.exclusive import VARIABLE, exclusive
from cachefs.running.explaining import explain
from cachefs.running.foreground import ForegroundProcess
from cachefs.running.inputs import as_sources, changes, declared_variables, left_out, links
from cachefs.running.naming import command_prefix, result_name
from cachefs.running.standard_input import NAME, UNDECLARED, DeclaredInput, watched
from cachefs.running.staying import own_paths, staying
from cachefs.running.tiers import Tiers
from cachefs.user_cache import statistics
from cachefs.user_cache.bounding import keep_bound
from cachefs.user_cache.statistics import Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from cachefs.building.actions import Sink
    from cachefs.building.steps import Source, Step
    from cachefs.cache import Cache
    from cachefs.running.policy import Policy

logger = logging.getLogger("cachefs")


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
        standard_input: what it reads; None for the standard input of this program, whatever that
            is.
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
        self.before = Before(working_directory, Outputs(()), ())
        self.variables: dict[str, str] = {}
        self.succeeded = False
        self.standard_input: DeclaredInput | None = None
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
            status, objection = self._run(self._process)
        except BaseException:
            self.before.put_back()
            raise
        if status == 0:
            self._objection = self.before.settle() or objection
            self.succeeded = True
        else:
            self.before.put_back()
        return status

    def _run(self, process: ForegroundProcess) -> tuple[int, str]:
        if self.standard_input is not None:
            process.standard_input = self.standard_input.descriptor()
            return process.run(), ""
        with watched() as watch:
            process.standard_input = watch.descriptor
            status = process.run()
        return status, UNDECLARED if watch.was_read else ""

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
    policy: Policy,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Sequence[str],
    replay: Sink,
    optional: Sequence[str] = (),
    exclude: Sequence[str] = (),
    ignore: bool = True,
    follow: bool = False,
    stdin: bool = False,
    whole: Collection[str] = (),
    report_file: Path | None = None,
) -> StepReport:
    """Run the command, or restore the outputs of an earlier run and replay its log.

    With ``policy.dry_run``, only say which of both it would be.

    Args:
        action: the command.
        policy: the caches, and how they are used.
        inputs: paths or glob patterns below the working directory.
        outputs: paths or glob patterns below the working directory.
        variables: variables that the result depends on: names, patterns of names such as
            ``CI_*``, or ``NAME=VALUE`` to set one.
        replay: receives the output of a hit, chunk by chunk.
        optional: outputs that the command need not make.
        exclude: patterns of what is not content of inputs, relative to the working directory.
        ignore: whether ignore files count, see :class:`Selection`.
        follow: whether links below inputs count as what they lead to.
        stdin: whether standard input is an input: it is read to its end, before all else.
        whole: inputs for which they do not, because other steps make them.
        report_file: where the caller writes a report, which is not content of inputs either.

    Whatever goes wrong with a cache or a result, the command runs; and whatever goes wrong after it
    has succeeded is a warning. If another run makes the same outputs here, its end is waited for.
    Raises StepError, UsageError and LocationError.
    """
    directory = action.working_directory
    made = Outputs(
        (relative(directory, output) for output in outputs),
        (relative(directory, output) for output in optional),
    )
    locations = [parse(one) if isinstance(one, str) else one for one in policy.locations]
    environment = declared_variables(variables)
    if stdin:
        action.standard_input = DeclaredInput()
    patterns = [output for output in made if is_pattern(output)]
    places = [directory / fixed_part(output) for output in made]
    with nullcontext() if policy.dry_run else exclusive(places):
        if not policy.dry_run:
            recover(directory, made)
        sources = as_sources(
            directory,
            inputs,
            exclude=exclude,
            ignore=ignore,
            whole=whole,
            without=own_paths(directory, made, locations, report_file),
            outputs=patterns,
            follow=follow,
        )
        if action.standard_input is not None:
            sources[NAME] = action.standard_input
        left = made if action.incremental else staying(directory, made, sources, locations)
        action.before = Before(directory, made, left)

        action.variables = {VARIABLE: "1"} if made else {}

        def declared(build: Build) -> Step:
            return build.add(
                action,
                sources,
                made.required,
                environment,
                optional=sorted(made.optional),
                platform=True,
            )

        if policy.dry_run:
            report = _foresee(declared, sources, policy, directory)
        else:
            report = _run_or_take(action, declared, sources, policy, replay)
    read = sources.values()
    return msgspec.structs.replace(report, left_out=left_out(read), links=links(read))


FORCED: Final = "it is forced to run"


def _run_or_take(
    action: UserCommand,
    declared: Callable[[Build], Step],
    sources: Mapping[str, Source],
    policy: Policy,
    replay: Sink,
) -> StepReport:
    """Take the result from a cache, or run the command and store its result."""
    taken = False
    step = declared(Build())
    try:
        tiers = _tiers(step, sources, policy)
        with _build(tiers, policy) as build:
            step = declared(build)
            if (hit := build.find(step)) and (output := build.state(step).output):
                tiers.hold(hit, output)
            if (log := build.take_hit(step, action.working_directory)) is not None:
                taken = True
                with log:
                    for stream, data in frames(log):
                        replay(stream, data)
            why = [] if taken else _why(build, step, tiers, policy)
            build.obtain(step)
            report = build.report.steps[0]
            if taken:
                build.targets = _used(build, step, tiers)
            elif not _is_kept(build, step, sources):
                build.targets = []
            report = msgspec.structs.replace(report, why=why or report.why)
    except _ANY as error:
        return _without_cache(action, step, error, taken=taken)
    _finish(build, tiers, action, report)
    return report


def _finish(build: Build, tiers: Tiers, action: UserCommand, report: StepReport) -> None:
    """Count what was saved, and bound the user's own cache if it has become larger."""
    is_hit = report.outcome == "hit"
    words = shlex.join(mask_words(action.argv))
    statistics.count(
        Saving(
            cache=report.cache,
            command=os.fsencode(words).decode(errors="backslashreplace"),
            hits=int(is_hit),
            misses=int(not is_hit),
            saved=report.saved,
            spent=report.seconds,
            fetched=report.fetched,
        )
    )
    if tiers.own is not None and (export := build.exported(tiers.own)) is not None:
        keep_bound(export.uploaded.bytes)


def _foresee(
    declared: Callable[[Build], Step],
    sources: Mapping[str, Source],
    policy: Policy,
    directory: Path,
) -> StepReport:
    """Whether there is a hit, from which nothing is fetched, or why there is none."""
    tiers = _tiers(declared(Build()), sources, policy)
    with _build(tiers, policy) as build:
        step = declared(build)
        output = build.state(step).output if build.find(step) else None
        if output is None:
            why = _why(build, step, tiers, policy) or build.history(step)
            return StepReport(name=step.name, outcome="would run", why=why)
        facts = output.layers[0].annotations
        return msgspec.structs.replace(
            build.report.steps[0],
            outcome="would hit",
            fetched=output.size,
            in_place=facts is not None and is_in_place(facts.diff_id, directory, step.outputs),
        )


def _tiers(step: Step, sources: Mapping[str, Source], policy: Policy) -> Tiers:
    contents = {name: source.digest for name, source in sources.items()}
    return Tiers(policy, result_name(step, contents))


def _build(tiers: Tiers, policy: Policy) -> Build:
    return Build(
        [] if policy.force else tiers.readable,
        tiers.writable,
        mode="max",
        keep=tiers.keep,
        ignore_error=True,
        describe=policy.describe,
        ttl=policy.ttl,
        one_by_one=True,
        dry_run=policy.dry_run,
    )


def _why(build: Build, step: Step, tiers: Tiers, policy: Policy) -> list[str]:
    """Why the step is no hit, from the caches, if that is asked for; empty if they do not say."""
    if policy.force:
        return [FORCED]
    if (lost := build.state(step).lost) or not (policy.explain or policy.dry_run):
        return lost
    prefix = command_prefix(step)
    places = (
        (cache, name)
        for cache in tiers.readable
        for name in (cache.location.names if tiers.gathers else (prefix,))
    )
    return explain(step, places)


def _used(build: Build, step: Step, tiers: Tiers) -> list[Cache]:
    """Note that a hit was used, and return the caches that are to have its result too."""
    hit, output = build.find(step), build.state(step).output
    if hit is None or output is None:
        return []
    tiers.renew(hit, output)
    return tiers.to_fill(hit) if build.has_fetched(step) else []


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
    why = build.state(step).unkept
    if not why and (changed := changes(sources.values())):
        why = (
            f"inputs changed while the command ran ({changed}); what the command itself writes "
            "there is to be an output, or excluded"
        )
    if why:
        logger.warning("not kept: %s", why)
    return not why
