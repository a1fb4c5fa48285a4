"""The build: sources and steps are declared, run, restored and exported."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from cachefs.building.actions import Command, Function
from cachefs.building.engine import Engine
from cachefs.building.exporting import MALFORMED, Exporter
from cachefs.building.in_place import is_in_place, put_and_note
from cachefs.building.opening import all_opened, compression_of, joinable
from cachefs.building.outputs import Outputs
from cachefs.building.report import BuildReport
from cachefs.building.restoring import staged
from cachefs.building.scratch import Scratch
from cachefs.building.sending import Sender
from cachefs.building.steps import Node, Part, Source, Step, as_part, check_apart, checked_path
from cachefs.building.taking import take_hit
from cachefs.concurrency import run
from cachefs.errors import UsageError
from cachefs.keying import keys
from cachefs.keying.patterns import is_pattern
from cachefs.keying.selection import Selection
from cachefs.layers import leftovers
from cachefs.layers.beneath import Beneath
from cachefs.layers.leftovers import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from cachefs.building.actions import Action
    from cachefs.building.states import State
    from cachefs.cache import Cache
    from cachefs.graph import Mode, RecordGraph
    from cachefs.location.options import Location
    from cachefs.transfer.exporter import ExportReport

    CacheLike = str | os.PathLike[str] | Location | Cache

logger = logging.getLogger("cachefs")


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
        cache_to: the cache that the build is exported to, or several; None for no export. If the
            first is ``type=local``, it also says how new layers are compressed; else that is zstd.
        jobs: how many steps run at a time; by default the number of processors.
        mode: ``min`` or ``max``, by default that of the location of ``cache_to``.
        keep: how many records with results the names in ``cache_to`` keep, this build's and the
            newest of others; by default this build replaces what the names held.
        ignore_error: make a failed export a warning, as the attribute ``ignore-error`` does.
            Otherwise the build is exported to the other caches, and the first error is raised.
        describe: store what each new result is: its command, inputs, variables without their
            values, host, commit and time.
        ttl: seconds after which a result counts no more; None for no limit.
        one_by_one: read no cache at the beginning; :meth:`take_hit` reads them until one has the
            result.
        dry_run: at the end of the block, run nothing and export nothing.
        executor: runs the steps elsewhere: an executor of ``concurrent.futures``, or a Dask Client.
            Workers write results to the first of ``cache_to``, which they must be able to open as
            this process does; credentials are sent to them.

    Raises UsageError, and LocationError for ``force-compression=true``.

    Attributes:
        report: what was done; complete when the block has ended.
        targets: the caches that the build is exported to at the end of the block; may be reduced
            before.
    """

    def __init__(
        self,
        cache_from: CacheLike | Sequence[CacheLike] | None = None,
        cache_to: CacheLike | Sequence[CacheLike] | None = None,
        *,
        jobs: int | None = None,
        mode: Mode | None = None,
        keep: int = 0,
        ignore_error: bool = False,
        describe: bool = False,
        ttl: float | None = None,
        one_by_one: bool = False,
        dry_run: bool = False,
        executor: object = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs is {jobs}; at least 1 step runs at a time")
        self.targets = all_opened(cache_to)
        self._caches = self.targets if cache_from is None else all_opened(cache_from)
        self._unread = [*self._caches]
        self._one_by_one = one_by_one
        self._dry_run = dry_run
        self._compression = compression_of(self.targets)
        self._jobs = jobs
        self._executor = executor
        self._sender: Sender | None = None
        if executor is not None and not self.targets:
            raise UsageError("steps on an executor need cache_to, where workers write results")
        self._mode = mode
        self._keep = keep
        self._ignore_error = ignore_error
        self._describe = describe
        self._ttl = ttl
        self._steps: list[Step] = []
        self._engine: Engine | None = None
        self._root: Path | None = None
        self._lock = -1
        self._files: dict[Step, Path] = {}
        self._exporter: Exporter | None = None

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
        action: Sequence[str] | Callable[..., object],
        *,
        inputs: Mapping[str, Node | Part] | None = None,
        outputs: Sequence[str],
        optional: Sequence[str] = (),
        env: Sequence[str] | Mapping[str, str] = (),
        platform: bool = False,
        version: str = "",
        params: Mapping[str, object] | None = None,
        name: str = "",
    ) -> Step:
        """Declare a command or function whose outputs depend on its inputs and these arguments.

        It runs in its own scratch directory. A command gets the PATH of this process and the
        variables of ``env``, no others; a function is called with the directory, and with
        ``params`` as keyword arguments.

        Args:
            action: the words of a command, or a function, whose code and the simple global
                variables that it reads are part of the key.
            inputs: sources and steps by the path at which they are laid out; ``node / "path"`` is
                a part of one.
            outputs: paths of files, directories or links that the step makes, collected into one
                layer; or glob patterns, which must match something.
            optional: outputs that the step need not make.
            env: names of variables, whose values are those of this process, or a mapping.
            platform: whether the result is valid for this system and machine only.
            version: part of the key; change it when code that a function calls changes.
            params: keyword arguments of a function, part of the key; of the types that
                arguments of :func:`cached` may have.
            name: the step's name in reports; by default the command line or function.

        Raises UsageError.
        """
        done: Action
        if callable(action):
            done = Function(action, version, params or {})
        elif params:
            raise UsageError("params are for functions: a command has its words and env")
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
        temporary = Path(tempfile.gettempdir())
        self._root, self._lock = leftovers.locked_directory(temporary, SCRATCH)
        try:
            scratch = Scratch(self._root, *self._compression)
            if self._executor is not None:
                shared = self.targets[0]
                self._sender = Sender(self._executor, shared, self._caches, scratch, self._jobs)
            self._engine = self._made_engine(scratch)
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
            if kind is None and not self._dry_run:
                self.obtain()
                exporter = self._exporter = Exporter(
                    self._begun,
                    self._caches,
                    mode=self._mode,
                    keep=self._keep,
                    ignore_error=self._ignore_error,
                )
                exporter.export(self.targets, self._finals())
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

    def find(self, step: Step) -> Cache | None:
        """The cache that has the step's result, from which nothing is fetched; None for a miss.

        Caches that are read one by one are read until one has it.
        """
        engine = self._begun
        while True:
            run(engine.look_up_all([step]))
            if (found := engine.cache_of(step)) is not None or not self._unread:
                return found
            self._read_next()

    def take_hit(self, step: Step, directory: Path) -> BinaryIO | None:
        """Put the outputs of a hit into a directory, and return its log, opened.

        If they are there already, nothing is fetched but a log that is not known here. Whatever
        goes wrong, nothing is changed and None is returned; then obtaining the step runs it.
        """
        while self.find(step) is not None:
            if (log := take_hit(self._begun, step, directory)) is not None:
                return log
            if not self._unread:
                break
            self._read_next()
        return None

    def state(self, step: Step) -> State:
        """What is known about a step so far."""
        return self._begun.states[step]

    def obtain(self, *steps: Step) -> None:
        """Obtain the results of steps: run those that have none in the cache, and pull nothing.

        By default these are the steps that no other step uses. Raises StepError, UsageError,
        OSError.
        """
        run(self._begun.obtain_all(steps or self._finals()))

    def distrust(self, blobs: Iterable[str]) -> None:
        """Send these blobs even if a cache has them, because they are damaged there."""
        self._begun.results.damaged.update(blobs)

    def history(self, step: Step) -> list[str]:
        """How the step's key differs from its last run on this machine."""
        return self._begun.explain(step)

    def exported(self, target: Cache) -> ExportReport | None:
        """What the export to a cache did; None if there was none."""
        return self._exporter.reports.get(target) if self._exporter else None

    def has_fetched(self, step: Step) -> bool:
        """Whether all of the step's result is on disk, so that storing it reads no cache."""
        engine = self._begun
        output = self.state(step).output
        return output is not None and all(
            engine.scratch.blob(layer.blob).exists() for layer in output.layers
        )

    @property
    def report(self) -> BuildReport:
        """What the build has done so far."""
        engine = self._engine
        steps = [] if engine is None else [engine.report(step) for step in engine.states]
        exports = [] if self._exporter is None else list(self._exporter.reports.values())
        return BuildReport(steps=steps, exports=exports)

    # ----------------------------------------------------------------------------------------------

    def _made_engine(self, scratch: Scratch) -> Engine:
        """The engine, with all caches read unless they are read one by one."""
        loaded = [] if self._one_by_one else [(cache, cache.load()) for cache in self._unread]
        self._unread = self._unread if self._one_by_one else []

        def made(loaded: Sequence[tuple[Cache, RecordGraph]]) -> Engine:
            root, describes, ttl = str(Path.cwd()), self._describe, self._ttl
            jobs = self._jobs or os.cpu_count() or 1
            return Engine(
                loaded, scratch, jobs, root, describes=describes, ttl=ttl, sender=self._sender
            )

        try:
            return made(loaded)
        except MALFORMED:
            return made(joinable(loaded))

    def _read_next(self) -> None:
        """Read the next cache; one whose graph cannot be joined is not used, with a warning."""
        cache = self._unread.pop(0)
        for _, graph in joinable([(cache, cache.load())]):
            self._begun.read(cache, graph)

    @property
    def _begun(self) -> Engine:
        """The engine. Raises UsageError before the build has begun and after it has ended."""
        if self._engine is None or self._root is None:
            raise UsageError("results are available only inside 'with Build(...) as build:'")
        return self._engine

    def _finals(self) -> list[Step]:
        used = {part.node for step in self._steps for part in step.inputs.values()}
        return [step for step in self._steps if step not in used]

    def _clean(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if self._root is not None:
            leftovers.remove(self._root)
            os.close(self._lock)
            self._root = None
