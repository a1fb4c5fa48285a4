"""The build: sources and steps are declared, run, restored and exported."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from cachefs.building import keys, leftovers
from cachefs.building.actions import Command, Function
from cachefs.building.engine import UNUSABLE, Engine
from cachefs.building.in_place import is_in_place, put_and_note
from cachefs.building.leftovers import SCRATCH
from cachefs.building.listings import kept_log
from cachefs.building.log import opened as opened_log
from cachefs.building.outputs import Outputs
from cachefs.building.patterns import is_pattern
from cachefs.building.recording import recorded, with_others
from cachefs.building.report import BuildReport
from cachefs.building.restoring import staged
from cachefs.building.scratch import Scratch, compression_for
from cachefs.building.selection import Selection
from cachefs.building.steps import Node, Part, Source, Step, as_part, check_apart, checked_path
from cachefs.cache import Cache
from cachefs.cache import open as open_cache
from cachefs.concurrency import run
from cachefs.errors import (
    CacheError,
    DigestError,
    IntegrityError,
    ManifestError,
    StoreError,
    UsageError,
)
from cachefs.graph import RecordGraph
from cachefs.layers.beneath import Beneath
from cachefs.transfer.exporter import ExportReport
from cachefs.transfer.sources import FirstSource, MappingSource, as_source
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from cachefs.building.actions import Action
    from cachefs.graph import Mode
    from cachefs.location.options import Location

    CacheLike = str | os.PathLike[str] | Location | Cache

logger = logging.getLogger("cachefs")

_MALFORMED: Final = (DigestError, ManifestError)


class Build:
    """Sources and steps whose results are kept in a cache and pulled when they are needed.

    ::

        with cachefs.Build(cache_to="s3://bucket/ci/") as build:
            src = build.source("src", exclude=["*.o"])
            lib = build.step(["make", "-C", "src"], inputs={"src": src}, outputs=["src/libx.a"])
            lib.restore("dist")

    When the block ends without an error, every step that no other step uses is obtained, and the
    build is exported. After an error nothing is exported. Not thread-safe.

    Args:
        cache_from: caches that are read, in this order; by default ``cache_to``.
        cache_to: the cache that the build is exported to; None for no export. ``type=local`` also
            says how new layers are compressed; other caches use zstd.
        jobs: how many steps run at a time; by default the number of processors.
        mode: ``min`` or ``max``, by default that of the location of ``cache_to``.
        keep: how many records with results the names in ``cache_to`` keep, this build's and the
            newest of others; by default this build replaces what the names held.
        ignore_error: make a failed export a warning, as the attribute ``ignore-error`` does.

    Raises UsageError, and LocationError for ``force-compression=true``.

    Attributes:
        report: what was done; complete when the block has ended.
        exports: whether the build is exported at the end of the block; may be set before.
    """

    def __init__(
        self,
        cache_from: CacheLike | Sequence[CacheLike] | None = None,
        cache_to: CacheLike | None = None,
        *,
        jobs: int | None = None,
        mode: Mode | None = None,
        keep: int = 0,
        ignore_error: bool = False,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs is {jobs}; at least 1 step runs at a time")
        given = [] if cache_from is None else cache_from
        if not isinstance(given, list | tuple):
            given = [given]  # type: ignore[list-item]
        self._target = None if cache_to is None else _opened(cache_to)
        self._caches = [_opened(cache) for cache in given]
        if cache_from is None and self._target is not None:
            self._caches = [self._target]
        self._compression = compression_for(None if self._target is None else self._target.location)
        self._jobs = jobs or os.cpu_count() or 1
        self._mode = mode
        self.exports = self._target is not None
        self._keep = keep
        self._ignore_error = ignore_error
        self._steps: list[Step] = []
        self._engine: Engine | None = None
        self._root: Path | None = None
        self._files: dict[Step, Path] = {}
        self._export: ExportReport | None = None

    # --- declaring --------------------------------------------------------------------------------

    def source(
        self,
        origin: str | os.PathLike[str] | bytes,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        ignore: bool = True,
        follow: bool = False,
    ) -> Source:
        """Declare a file, a directory or bytes as an input of steps.

        It is read when a step needs its digest.

        Args:
            origin: a path, or the bytes themselves.
            include: patterns of what to use of a directory, by default all. They are those of
                ``.gitignore``.
            exclude: patterns of what to leave out.
            ignore: leave out directories of version control, ``__pycache__``, and what
                ``.gitignore`` and ``.cachefsignore`` files name.
            follow: take links below a directory for what they lead to.
        """
        if isinstance(origin, bytes):
            return Source(origin)
        if isinstance(include, str) or isinstance(exclude, str):
            raise UsageError("include and exclude must be lists of patterns, not a string")
        selection = Selection(tuple(include), tuple(exclude), ignore, follow=follow)
        return Source(Path(origin).absolute(), selection)

    def step(
        self,
        action: Sequence[str] | Callable[[Path], object],
        *,
        inputs: Mapping[str, Node | Part] | None = None,
        outputs: Sequence[str],
        optional: Sequence[str] = (),
        env: Sequence[str] | Mapping[str, str] = (),
        platform: bool = False,
        version: str = "",
        name: str = "",
    ) -> Step:
        """Declare a command or function whose outputs depend on its inputs and these arguments.

        It runs in its own scratch directory. A command gets the PATH of this process and the
        variables of ``env``, no others; a function is called with the directory.

        Args:
            action: the words of a command, or a function (see :class:`Function` for its key).
            inputs: sources and steps by the path at which they are laid out; ``node / "path"`` is
                a part of one.
            outputs: paths of files, directories or links that the step makes, collected into one
                layer; or glob patterns, which must match something.
            optional: outputs that the step need not make.
            env: names of variables, whose values are those of this process, or a mapping.
            platform: whether the result is valid for this system and machine only.
            version: part of the key; change it when a function's dependencies change.
            name: the step's name in reports; by default the command line or function.

        Raises UsageError.
        """
        done: Action
        if callable(action):
            done = Function(action, version)
        elif isinstance(action, str) or not action:
            raise UsageError("a command must be a list of words, as in ['make', 'all']")
        else:
            done = Command(tuple(map(str, action)))
        return self.add(
            done, inputs or {}, outputs, env, optional=optional, platform=platform, name=name
        )

    def add(
        self,
        action: Action,
        inputs: Mapping[str, Node | Part],
        outputs: Sequence[str],
        env: Sequence[str] | Mapping[str, str | None] = (),
        *,
        optional: Sequence[str] = (),
        platform: bool = False,
        name: str = "",
    ) -> Step:
        """Add a step with any kind of action. Raises UsageError."""
        if any(isinstance(given, str) for given in (outputs, optional, env)):
            raise UsageError("outputs, optional and env must be lists, not a string")
        free = action.working_directory is not None
        parts = {n if free else checked_path(n): as_part(part) for n, part in inputs.items()}
        made = Outputs(map(checked_path, outputs), map(checked_path, optional))
        check_apart((output for output in made if not is_pattern(output)), "output")
        if not free:
            check_apart(parts, "input")
        for part in parts.values():
            if isinstance(part.node, Step) and part.node not in self._steps:
                raise UsageError(f"{part.node} belongs to another build")
        step = Step(
            self,
            action,
            parts,
            made,
            keys.environment(env),
            keys.platform() if platform else "",
            name or action.label,
        )
        self._steps.append(step)
        if self._engine is not None:
            self._engine.add(step)
        return step

    # --- running ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._engine is not None:
            raise UsageError("the build has begun already")
        self._root = Path(tempfile.mkdtemp(prefix=SCRATCH))
        try:
            scratch = Scratch(self._root, *self._compression)
            loaded = [(cache, cache.load()) for cache in self._caches]
            try:
                self._engine = Engine(loaded, scratch, self._jobs, str(Path.cwd()))
            except _MALFORMED:
                self._engine = Engine(_joinable(loaded), scratch, self._jobs, str(Path.cwd()))
            for step in self._steps:
                self._engine.add(step)
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                run(self._begun.obtain_all(self._finals()))
                if self._target is not None and self.exports and not self._given_up(self._target):
                    self._export = self._export_to(self._target)
        finally:
            self._clean()

    def files(self, step: Step) -> dict[str, Path]:
        """A step's outputs on disk: :meth:`Step.files`."""
        if step not in self._files:
            engine = self._begun
            directory = engine.scratch.lasting_directory() / "files"
            run(engine.files(step, directory))
            self._files[step] = directory
        with Beneath.at(self._files[step]) as tree:
            found = step.outputs.found(tree)
        return {output: self._files[step] / output for output in found}

    def restore(self, step: Step, directory: Path) -> None:
        """Put a step's outputs into a directory, made if missing: :meth:`Step.restore`."""
        engine = self._begun
        directory.mkdir(parents=True, exist_ok=True)
        self.obtain(step)
        if not is_in_place(engine.states[step].content, directory, step.outputs):
            with staged(directory, step.outputs) as stages:
                for stage in stages:
                    run(engine.files(step, stage.path / "tree"))
                moves = [stage.move("tree") for stage in stages]
                put_and_note(moves, engine.states[step].content, directory, step.outputs)

    def take_hit(self, step: Step, directory: Path) -> BinaryIO | None:
        """Put the outputs of a hit into a directory, and return its log, opened.

        If they are there already, nothing is fetched but a log that is not known here. Whatever
        goes wrong, nothing is changed and None is returned; then obtaining the step runs it.
        """
        engine = self._begun
        state = engine.states[step]
        while state.outcome == "hit" and (output := state.output) is not None:
            try:
                if is_in_place(state.content, directory, step.outputs):
                    if (log := self._log(step)) is not None:
                        return log
                    continue
                with staged(directory, step.outputs) as stages:
                    pulled = run(engine.pull_hit(step, [stage.path for stage in stages]))
                    if pulled is None:
                        break
                    output = pulled.output
                    log = opened_log(pulled.log)
                    moves = [stage.move(pulled.files) for stage in stages]
                    try:
                        put_and_note(moves, state.content, directory, step.outputs)
                    except BaseException:
                        log.close()
                        raise
                    return log
            except UNUSABLE as error:
                engine.refuse(step, output, error)
        return None

    def _log(self, step: Step) -> BinaryIO | None:
        """The log of a hit; None if it is lost. Raises what makes the result unusable."""
        engine = self._begun
        output = engine.states[step].output
        facts = output and output.layers[-1].annotations
        if facts and (kept := kept_log(facts.diff_id)) is not None:
            return BytesIO(kept)
        with engine.scratch.directory() as directory:
            if run(engine.pull_log(step, directory / "log")):
                return opened_log(directory / "log")
        return None

    def unkept(self, step: Step) -> str:
        """Why the result of a command that succeeded is not kept; empty if it is."""
        return self._begun.states[step].unkept

    def obtain(self, *steps: Step) -> None:
        """Obtain the results of steps: run those that have none in the cache, and pull nothing.

        By default these are the steps that no other step uses. Raises StepError, UsageError,
        OSError.
        """
        run(self._begun.obtain_all(steps or self._finals()))

    def is_stored(self, step: Step) -> bool:
        """Whether ``cache_to`` has the step's result, and it is younger than ``touch_refresh``."""
        output = self._begun.states[step].output
        if output is None or self._target is None:
            return False
        age = (time.time_ns() - timestamps.nanoseconds(output.created_at)) / 1e9
        fresh = 0 <= age < self._target.location.export.touch_refresh
        return fresh and self._begun.has(self._target, step)

    @property
    def report(self) -> BuildReport:
        """What the build has done so far."""
        states = self._engine.states.values() if self._engine else ()
        return BuildReport(steps=[state.report() for state in states], export=self._export)

    # ----------------------------------------------------------------------------------------------

    @property
    def _begun(self) -> Engine:
        """The engine. Raises UsageError before the build has begun and after it has ended."""
        if self._engine is None or self._root is None:
            raise UsageError("results are available only inside 'with Build(...) as build:'")
        return self._engine

    def _finals(self) -> list[Step]:
        used = {part.node for step in self._steps for part in step.inputs.values()}
        return [step for step in self._steps if step not in used]

    def _given_up(self, target: Cache) -> bool:
        """Whether the target did not respond before; a warning has said so then."""
        return self._ignore_error and target.layout.store.filesystem.patience.given_up

    def _export_to(self, target: Cache) -> ExportReport:
        try:
            return self._exported(target)
        except StoreError as error:
            if not self._ignore_error:
                raise
            logger.warning("the export to %s failed and is ignored: %s", target.location, error)
            return ExportReport(names=[], error=str(error))

    def _exported(self, target: Cache) -> ExportReport:
        """Export; a result whose blobs are no longer in any cache is left out, with a warning."""
        engine = self._begun
        lost: set[str] = set()
        while True:
            graph, records = recorded(engine.states, engine.graph)
            finals = [records[step] for step in self._finals() if step in records]
            selected = graph.select(self._mode or target.location.export.mode, finals)
            selected = self._joined(target, selected).without_blobs(lost)
            try:
                return target.export(selected, self._blob_source(selected), mode="max")
            except (IntegrityError, CacheError) as error:
                if error.digest is None or error.digest in lost or error.side == "target":
                    raise
                lost.add(error.digest)
                logger.warning("a result is left out of the export: %s", error)

    def _joined(self, target: Cache, graph: RecordGraph) -> RecordGraph:
        """The graph, joined with the records that the names hold, as far as those are kept."""
        if not self._keep:
            return graph
        stored = target.load().without_blobs(self._begun.damaged)
        try:
            return with_others(graph, stored, self._keep)
        except _MALFORMED as error:
            logger.warning("what %s holds is replaced: %s", target.location, error)
            return graph

    def _blob_source(self, graph: RecordGraph) -> FirstSource:
        paths = {blob: self._begun.scratch.blob(blob) for blob in graph.blobs()}
        made = MappingSource({blob: path for blob, path in paths.items() if path.exists()})
        return FirstSource([made, *(as_source(cache) for cache in self._caches)])

    def _clean(self) -> None:
        if self._root is not None:
            leftovers.remove(self._root)
            self._root = None


def _joinable(loaded: list[tuple[Cache, RecordGraph]]) -> list[tuple[Cache, RecordGraph]]:
    """The caches whose graphs can be joined: only that shows whether all of a layer is valid."""
    joinable = []
    for cache, graph in loaded:
        try:
            RecordGraph.union([graph])
        except _MALFORMED as error:
            logger.warning("what %s holds is not used: %s", cache.location, error)
        else:
            joinable.append((cache, graph))
    return joinable


def _opened(cache: CacheLike) -> Cache:
    return cache if isinstance(cache, Cache) else open_cache(cache)
