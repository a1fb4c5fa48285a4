"""Finds the results of steps, pulls them when they are needed, and runs steps that have none.

A step is *matched* by its keys, without any result. It is *obtained* when a result is known, from a
hit or a run. A hit pulls nothing; results are pulled for a step that runs, or for the caller.
Everything runs in the IO loop; blocking calls run in threads, which end before files are removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from cachefs.building.describing import describe
from cachefs.building.executing import UNUSABLE, execute
from cachefs.building.executors import ExecutorLostError
from cachefs.building.history import History, take_apart
from cachefs.building.remote import RemoteInputError
from cachefs.building.results import Results
from cachefs.building.scratch import UnusableInputError, part_content
from cachefs.building.states import Output, State, input_keys
from cachefs.building.steps import Source, Step, failure
from cachefs.building.threads import in_thread
from cachefs.concurrency import task_group
from cachefs.errors import reason
from cachefs.graph import RecordGraph, output_key
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path

    from cachefs.building.report import StepReport
    from cachefs.building.scratch import Scratch
    from cachefs.building.sending import Sender
    from cachefs.building.steps import Part
    from cachefs.cache import Cache
    from cachefs.graph import Key
    from cachefs.wire.cacheconfig import Layer

    Fetched = Sequence[tuple[Path, Layer]]
    """The layers of a result, each with its blob on disk."""

T = TypeVar("T")

logger = logging.getLogger("cachefs")


class Engine:
    """Matches and runs the steps of one build.

    Args:
        caches: the caches that are read, each with its graph.
        scratch: the directories of the build.
        jobs: how many steps run at a time.
        root: identifies this project in the history of its steps.
        describes: whether results get a layer that says what they are.
        ttl: seconds after which a result counts no more; None for no limit.
        sender: sends steps to an executor; None to run all steps here.

    Attributes:
        results: what the caches have.
    """

    _group: asyncio.TaskGroup
    """Where tasks are started; set at the beginning of each session."""

    def __init__(
        self,
        caches: Sequence[tuple[Cache, RecordGraph]],
        scratch: Scratch,
        jobs: int,
        root: str,
        *,
        describes: bool = False,
        ttl: float | None = None,
        sender: Sender | None = None,
    ) -> None:
        self.results = Results(caches, ttl)
        self.scratch = scratch
        self.states: dict[Step, State] = {}
        self._jobs = asyncio.Semaphore(jobs)
        self._root = root
        self._describes = describes
        self._sender = sender
        self._tasks: dict[tuple[str, object], asyncio.Task[Any]] = {}

    @property
    def graph(self) -> RecordGraph:
        """The records of the caches, and of steps that ran."""
        return self.results.graph

    def add(self, step: Step) -> None:
        """Add a step whose inputs have been added."""
        self.states[step] = State(step)

    def cache_of(self, step: Step) -> Cache | None:
        """The first cache whose graph has all blobs of the result of a hit; None for a miss."""
        state = self.states[step]
        is_hit = state.output is not None and state.outcome == "hit"
        return self.results.cache_of(state.output) if is_hit and state.output else None

    def report(self, step: Step) -> StepReport:
        """What has been done about a step so far."""
        cache = self.cache_of(step)
        return self.states[step].report("" if cache is None else str(cache.location))

    def explain(self, step: Step) -> list[str]:
        """How the step's key differs from its last run on this machine."""
        return self._history(step).explain(self._taken_apart(step))

    def read(self, cache: Cache, graph: RecordGraph) -> None:
        """Read one more cache, while no step has run and no result is in use."""
        self.results.read(cache, graph)
        for state in self.states.values():
            state.records = frozenset()
            state.output = None

    async def look_up_all(self, steps: Iterable[Step]) -> None:
        """Match steps with the results in the caches. Fetches and runs nothing."""
        async with task_group() as group:
            self._begin(group)
            for step in steps:
                self._once("match", step, self._match)

    # --- sessions, one for each call -------------------------------------------------------------

    async def obtain_all(self, steps: Iterable[Step]) -> None:
        """Obtain a result of every step. Raises StepError, UsageError, OSError."""
        async with task_group() as group:
            self._begin(group)
            for step in steps:
                self._once("obtain", step, self._obtain)

    async def files(self, step: Step, directory: Path) -> None:
        """Extract a step's files into a new directory. Raises as :meth:`obtain_all`."""
        async with task_group() as group:
            self._begin(group)
            await self._once("obtain", step, self._obtain)
            while True:
                fetched = await self._fetched(step)
                output = self.states[step].output
                try:
                    await in_thread(self.scratch.extract_files, step.outputs, fetched, directory)
                except UNUSABLE as error:
                    if output is None or self.states[step].outcome != "hit":
                        raise
                    self.refuse(step, output, error)
                else:
                    return

    def refuse(self, step: Step, output: Output, error: Exception) -> None:
        """Use this result no more: another one is picked, or the step runs."""
        state = self.states[step]
        self.results.refuse(output, error)
        if state.output == output:
            state.lost.append(f"its result in the cache cannot be used: {reason(error)}")
            self.pick(step, state)

    def _begin(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks = {}

    def _once(
        self, what: str, node: T, work: Callable[[T], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        """The task of this kind for the node, started once per session."""
        task = self._tasks.get((what, node))
        if task is None:
            task = self._group.create_task(work(node))
            self._tasks[what, node] = task
        return task

    # --- matching ---------------------------------------------------------------------------------

    async def _match(self, step: Step) -> None:
        """Look up the step by the keys of its inputs, without obtaining the inputs' results."""
        state = self.states[step]
        if state.records:
            return
        for part in step.inputs.values():
            if isinstance(part.node, Step):
                self._once("match", part.node, self._match)
            elif isinstance(part.node, Source):
                self._once("read", part.node, self._read)
        for part in step.inputs.values():
            await self._tasks["match" if isinstance(part.node, Step) else "read", part.node]
        self._look_up(step, state)

    async def _read(self, source: Source) -> None:
        await in_thread(lambda: source.content)

    def _look_up(self, step: Step, state: State) -> None:
        keys = self._keys(step)
        if all(keys):
            state.records |= self.graph.find(output_key(step.vertex, 0), keys).records
            self.pick(step, state)

    def pick(self, step: Step, state: State) -> None:
        """Choose the newest result that can be extracted and whose blobs can be fetched."""
        state.output = self.results.newest(state, 1 + step.action.logs)
        if state.output is not None:
            state.outcome = "hit"

    def _keys(self, step: Step) -> list[set[Key]]:
        """All known keys of each input."""
        return [
            input_keys(self.graph, part, self.states, lambda above: self.states[above].records)
            for part in step.inputs.values()
        ]

    # --- obtaining --------------------------------------------------------------------------------

    async def _obtain(self, step: Step) -> None:
        state = self.states[step]
        if state.wanting:
            await self._once("match", step, self._match)
        if state.wanting:
            await self._obtain_inputs(step)
            self._look_up(step, state)
        if state.wanting:
            async with state.fetching:
                if state.wanting:
                    await self._run(step)
        elif state.outcome == "hit":
            await in_thread(self._history(step).keep, self._taken_apart(step))

    async def _obtain_inputs(self, step: Step) -> None:
        parts = [part for part in step.inputs.values() if isinstance(part.node, Step)]
        tasks = [self._once("obtain", part.node, self._obtain) for part in parts]  # type: ignore[arg-type]
        for task in tasks:
            await task
        for part in parts:
            await self._know_part(part)

    async def _know_part(self, part: Part) -> None:
        """Find the content of a part of a result, if its step just ran: that needs no download."""
        if not isinstance(part.node, Step) or not part.path:
            return
        state = self.states[part.node]
        if state.outcome == "ran" and part.path not in state.parts:
            layers = await self._fetched(part.node)
            with self.scratch.directory() as directory:
                tree = directory / "tree"
                await in_thread(self.scratch.extract, part.node.outputs, layers[:1], tree)
                state.parts[part.path] = await in_thread(part_content, tree, part.path)

    async def _fetched(self, step: Step) -> Fetched:
        """The blobs of a step's result on disk. If one cannot be fetched, the step runs."""
        async with self.states[step].fetching:
            fetched = await self.fetched_hit(step)
            if fetched is not None:
                return fetched
            await self._obtain_inputs(step)
            await self._run(step)
        return await self._fetched(step)

    async def _known(self, step: Step) -> Fetched:
        """The layers of a step's result, and where their blobs would be. Without one, it runs."""
        state = self.states[step]
        async with state.fetching:
            if state.output is None:
                await self._obtain_inputs(step)
                await self._run(step)
        layers = state.output.layers if state.output else ()
        return [(self.scratch.blob(layer.blob), layer) for layer in layers]

    async def fetched_hit(self, step: Step) -> Fetched | None:
        """The blobs of a known result on disk; None if there is none that can be fetched."""
        state = self.states[step]
        while state.output is not None:
            layers = state.output.layers
            paths = [await self.fetch(state, layer) for layer in layers]
            if None not in paths:
                return [(path, layer) for path, layer in zip(paths, layers, strict=True) if path]
            self.pick(step, state)
        return None

    async def fetch(self, state: State, layer: Layer) -> Path | None:
        """The blob of a layer on disk; None if no cache has it."""
        path = self.scratch.blob(layer.blob)
        if path.exists():
            return path
        return path if await self.results.fetch(state, layer, path) else None

    # --- running ----------------------------------------------------------------------------------

    async def _run(self, step: Step) -> None:
        """Run the step and keep its result. Its inputs have been obtained."""
        state = self.states[step]
        made = None
        while made is None and not state.unkept:
            away = self._sender is not None and step.action.working_directory is None
            fetched = await self._fetched_inputs(step, away=away)
            try:
                async with nullcontext() if away else self._jobs:
                    made = await self._timed(step, fetched, away=away)
            except UnusableInputError as error:
                self._refuse_input(step, error, fetched)
            except ExecutorLostError as error:
                if self._sender is not None:
                    logger.warning("the executor was lost, so steps run in this process: %s", error)
                self._sender = None
        state.outcome = "ran"
        if made is not None:
            record = self.graph.add(output_key(step.vertex, 0), self._keys(step))
            state.records = frozenset({record})
            state.output = made
            state.packed = made.size

    async def _fetched_inputs(self, step: Step, *, away: bool) -> dict[str, Fetched]:
        """The results that a step uses: on disk, unless the step runs away from here."""
        fetched = self._known if away else self._fetched
        return {
            name: await fetched(part.node)
            for name, part in step.inputs.items()
            if isinstance(part.node, Step) and step.action.working_directory is None
        }

    def _refuse_input(
        self, step: Step, error: UnusableInputError, fetched: Mapping[str, Fetched]
    ) -> None:
        """Use the result of the step that makes an input no more, if it came from a cache."""
        node, cause = step.inputs[error.name].node, error.__cause__
        if not isinstance(node, Step) or not isinstance(cause, Exception):
            raise error
        layers = tuple(layer for _, layer in fetched[error.name])
        output = self.states[node].output
        if self.states[node].outcome != "hit":
            why = f"cannot run: its input {error.name} cannot be laid out: {reason(cause)}"
            raise failure(step, why) from cause
        if output is not None and output.layers == layers:
            self.refuse(node, output, cause)

    async def _timed(
        self, step: Step, fetched: Mapping[str, Fetched], *, away: bool
    ) -> Output | None:
        state = self.states[step]
        started = time.perf_counter()
        parts = self._taken_apart(step)
        state.why = state.lost or await in_thread(self._history(step).explain, parts)
        started_at = timestamps.now()
        execute = self._send if away else self._execute
        made = await execute(step, fetched)
        state.seconds = time.perf_counter() - started
        if made is not None and self._describes:
            made = await in_thread(self._described, step, made, started_at)
        await in_thread(self._history(step).keep, parts)
        return made

    async def _send(self, step: Step, fetched: Mapping[str, Fetched]) -> Output:
        """Run the action on the executor, which stores the result."""
        if self._sender is None:
            raise ExecutorLostError
        layers = {name: one[0][1] for name, one in fetched.items()}
        try:
            parts, damaged = sorted(self._parts_of(step)), self.results.damaged
            made = await self._sender.run(step, layers, parts, damaged)
        except RemoteInputError as error:
            raise UnusableInputError(error.name) from error.error
        self.results.add(self._sender.shared, made.layers)
        self.states[step].parts |= made.parts
        return Output(made.layers, made.created_at)

    def _parts_of(self, step: Step) -> set[str]:
        """The parts of a step's result that other steps are keyed by."""
        parts = (part for one in self.states for part in one.inputs.values())
        return {part.path for part in parts if part.node is step and part.path}

    async def _execute(self, step: Step, fetched: Mapping[str, Fetched]) -> Output | None:
        """Run the action here; None if its outputs are not kept."""
        made, self.states[step].unkept = await execute(self.scratch, step, fetched)
        return made

    def _described(self, step: Step, made: Output, started_at: str) -> Output:
        """The result with a layer on top that says what it is."""
        results = {
            name: self._content(part)
            for name, part in step.inputs.items()
            if isinstance(part.node, Step)
        }
        took = timestamps.nanoseconds(made.created_at) - timestamps.nanoseconds(started_at)
        described = replace(
            describe(step, results), started_at=started_at, seconds=max(0, took) / 1e9
        )
        return made._replace(description=self.scratch.keep_description(described))

    def _content(self, part: Part) -> str:
        """The content of an input that is the result of a step, or a part of it."""
        if not isinstance(part.node, Step):
            return ""
        state = self.states[part.node]
        return state.parts.get(part.path, state.content) + part.selector

    def _history(self, step: Step) -> History:
        return History("\0".join((self._root, step.name, *step.outputs)))

    def _taken_apart(self, step: Step) -> Any:
        inputs: dict[str, str] = {}
        files = {}
        for name, part in step.inputs.items():
            if isinstance(part.node, Source):
                content = part.node.content.part(part.path)
                inputs[name] = content.digest
                files[name] = content.entries
            elif isinstance(part.node, Step):
                inputs[name] = self._content(part)
        return take_apart(step.definition, inputs, files)
