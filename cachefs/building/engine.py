"""Finds the results of steps, pulls them when they are needed, and runs steps that have none.

A step is *matched* by its keys, without any result. It is *obtained* when a result is known, from a
hit or a run. A hit pulls nothing; results are pulled for a step that runs, or for the caller.
Everything runs in the IO loop; blocking calls run in threads, which end before files are removed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from cachefs.building.history import History, take_apart
from cachefs.building.scratch import part_content
from cachefs.building.states import Output, State, input_keys
from cachefs.building.steps import Source, Step, StepError
from cachefs.concurrency import task_group
from cachefs.digest import Digest
from cachefs.errors import CacheError
from cachefs.graph import RecordGraph, output_key
from cachefs.transfer.importer import fetch_blob, missed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from pathlib import Path

    from cachefs.building.scratch import Scratch
    from cachefs.building.steps import Part
    from cachefs.cache import Cache
    from cachefs.graph import Key
    from cachefs.wire.cacheconfig import Layer

T = TypeVar("T")


class Engine:
    """Matches and runs the steps of one build.

    Args:
        caches: the caches that are read, each with its graph.
        scratch: the directories of the build.
        jobs: how many steps run at a time.
        root: identifies this project in the history of its steps.
    """

    _group: asyncio.TaskGroup
    """Where tasks are started; set at the beginning of each session."""

    def __init__(
        self, caches: Sequence[tuple[Cache, RecordGraph]], scratch: Scratch, jobs: int, root: str
    ) -> None:
        self.graph = RecordGraph.union(graph for _, graph in caches)
        self.scratch = scratch
        self.states: dict[Step, State] = {}
        self._caches = [(cache, graph.blobs()) for cache, graph in caches]
        self._jobs = asyncio.Semaphore(jobs)
        self._root = root
        self._lost: set[str] = set()
        self._tasks: dict[tuple[str, object], asyncio.Task[Any]] = {}

    def add(self, step: Step) -> None:
        """Add a step whose inputs have been added."""
        self.states[step] = State(step)

    def has(self, cache: Cache, step: Step) -> bool:
        """Whether this cache's graph has all blobs of the step's result."""
        output = self.states[step].output
        return output is not None and any(
            one is cache and all(layer.blob in blobs for layer in output.layers)
            for one, blobs in self._caches
        )

    # --- sessions, one for each call -------------------------------------------------------------

    async def obtain_all(self, steps: Iterable[Step]) -> None:
        """Obtain a result of every step. Raises StepError, UsageError, OSError."""
        async with task_group() as group:
            self._begin(group)
            for step in steps:
                self._once("obtain", step, self._obtain)

    async def files(self, step: Step, directory: Path, *, log: bool = False) -> None:
        """Extract a step's result into a new directory. Raises as :meth:`obtain_all`."""
        async with task_group() as group:
            self._begin(group)
            await self._once("obtain", step, self._obtain)
            layers = await self._fetched(step)
            await in_thread(self.scratch.extract, layers if log else layers[:1], directory)

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
            self._pick(state)

    def _pick(self, state: State) -> None:
        """Choose the newest result that can be extracted and whose blobs can be fetched."""
        state.output = None
        for found in self.graph.results(state.records):
            layers = tuple(self.graph.layers[index] for index in found.layers)
            whole = all(layer.annotations and layer.annotations.diff_id for layer in layers)
            if layers and whole and self._lost.isdisjoint(layer.blob for layer in layers):
                state.output = Output(layers, found.created_at)
                state.outcome = "hit"
                return

    def _keys(self, step: Step) -> list[set[Key]]:
        """All known keys of each input."""
        return [
            input_keys(self.graph, part, self.states, lambda above: self.states[above].records)
            for part in step.inputs.values()
        ]

    # --- obtaining --------------------------------------------------------------------------------

    async def _obtain(self, step: Step) -> None:
        state = self.states[step]
        if state.output is None:
            await self._once("match", step, self._match)
        if state.output is None:
            await self._obtain_inputs(step)
            self._look_up(step, state)
        if state.output is None:
            async with state.fetching:
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
                await in_thread(self.scratch.extract, layers[:1], tree)
                state.parts[part.path] = await in_thread(part_content, tree, part.path)

    async def _fetched(self, step: Step) -> list[tuple[Path, Layer]]:
        """The blobs of a step's result on disk. If one cannot be fetched, the step runs."""
        state = self.states[step]
        async with state.fetching:
            while state.output is not None:
                layers = state.output.layers
                paths = [await self._fetch(state, layer) for layer in layers]
                if None not in paths:
                    return [
                        (path, layer) for path, layer in zip(paths, layers, strict=True) if path
                    ]
                self._pick(state)
            await self._obtain_inputs(step)
            await self._run(step)
        return await self._fetched(step)

    async def _fetch(self, state: State, layer: Layer) -> Path | None:
        path = self.scratch.blob(layer.blob)
        if path.exists():
            return path
        size = layer.size or None
        why = "no cache has it"
        for cache, blobs in self._caches:
            if layer.blob in blobs:
                try:
                    await fetch_blob(cache.layout, Digest(layer.blob), path, size)
                except CacheError as error:
                    why = str(missed(layer.blob, error))
                else:
                    state.fetched += path.stat().st_size
                    return path
        self._lost.add(layer.blob)
        state.lost.append(f"its result in the cache cannot be read: {why}")
        return None

    # --- running ----------------------------------------------------------------------------------

    async def _run(self, step: Step) -> None:
        """Run the step and keep its result. Its inputs have been obtained."""
        state = self.states[step]
        fetched = {
            name: await self._fetched(part.node)
            for name, part in step.inputs.items()
            if isinstance(part.node, Step) and step.action.working_directory is None
        }
        async with self._jobs:
            started = time.perf_counter()
            parts = self._taken_apart(step)
            state.why = state.lost or await in_thread(self._history(step).explain, parts)
            made = await self._execute(step, fetched)
            state.seconds = time.perf_counter() - started
            await in_thread(self._history(step).keep, parts)
        record = self.graph.add(output_key(step.vertex, 0), self._keys(step))
        state.records = frozenset({record})
        state.output = made
        state.outcome = "ran"
        state.packed = sum(layer.size for layer in made.layers)

    async def _execute(self, step: Step, fetched: dict[str, list[tuple[Path, Layer]]]) -> Output:
        with self.scratch.directory() as outside:
            directory = step.action.working_directory
            if directory is None:
                directory = outside / "work"
                await in_thread(self.scratch.lay_inputs, step, fetched, directory)
            with self.scratch.log(outside) as log:
                running = step.action.begin(directory, step.definition.environment, log.write)
                try:
                    status = await in_thread(running.run, stop=running.stop)
                except OSError as error:
                    raise self._failed(step, f"cannot run: {error.strerror or error}") from error
                tail = log.tail()
            if status != 0:
                raise self._failed(step, _ended(status), status, tail)
            layers, created_at = await in_thread(self.scratch.collect, step, directory, outside)
            return Output(layers, created_at)

    def _failed(
        self, step: Step, reason: str, exit_code: int | None = None, tail: str = ""
    ) -> StepError:
        last_output = f"; its last output: {tail.splitlines()[-1]}" if tail else ""
        return StepError(
            f"step {step.name!r} {reason}{last_output}",
            step=step.name,
            argv=step.action.argv,
            exit_code=exit_code,
            tail=tail,
        )

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
                state = self.states[part.node]
                inputs[name] = state.parts.get(part.path, state.content) + part.selector
        return take_apart(step.definition, inputs, files)


def _ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"


async def in_thread(
    work: Callable[..., T], *arguments: Any, stop: Callable[[], None] | None = None
) -> T:
    """Run a blocking call in a thread. When cancelled, call ``stop`` and wait for the thread."""
    future = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        with suppress(Exception):
            await future
        raise
