"""Every order in which actors' filesystem calls can happen, each run from the start.

The search is depth first over the choice of the actor that makes the next call. Two orders that
lead to the same store, the same time and the same results seen by each actor continue alike,
because what an actor does depends only on what it saw: the second is not followed further. Nothing
else is left out, so what is found absent is absent from all interleavings; or, if the number of
switches is bounded, from those with so few. Most races need one or two.

Concurrent calls of one actor happen in the order in which it made them. What would run in a thread
runs at once in the event loop, because the end of a thread is no choice of the search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from tests.race.world import World

P = ParamSpec("P")
T = TypeVar("T")


class AtOnce(ThreadPoolExecutor):
    """An executor without threads: asyncio's default one must be of this class."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future


class Actor:
    """Somebody with calls to make, and what they answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Hashable] = []
        self.waiting: list[tuple[str, asyncio.Future[None]]] = []
        self.over = False

    async def turn(self, call: str) -> None:
        if self.over:  # a run that has ended needs no cleaning up
            raise asyncio.CancelledError
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((call, future))
        await future

    def note(self, answer: Hashable) -> None:
        self.seen.append(answer)


Body = Callable[[Actor], Awaitable[object]]
Case = Callable[[], tuple[World, dict[str, Body]]]
"""Makes a fresh world and its actors; the same each time."""


@dataclass
class Search:
    """What a search found: runs made, different states met, and schedules that broke the rule.

    ``waiting`` are the beginnings of the runs that are still to be made.
    """

    runs: int = 0
    states: set[Hashable] = field(default_factory=set)
    violations: list[tuple[str, list[str]]] = field(default_factory=list)
    waiting: list[list[int]] = field(default_factory=lambda: [[]])


def explore(
    case: Case, *, most: int = 200_000, stop_at_first: bool = False, switches: int | None = None
) -> Search:
    """Run the case in every order. Fails when there are more runs than ``most``.

    ``switches`` bounds how often the turn may pass from an actor that could go on to another.
    """
    search = Search()
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(AtOnce())
        while search.waiting:
            search.runs += 1
            assert search.runs <= most, "too many interleavings: make the case smaller"
            runner.run(_run(case, search, _Turns(search, switches)))
            if stop_at_first and search.violations:
                break
    return search


class _Turns:
    """Whose turn it is, in one run: as in the prefix, then on, with the alternatives put aside."""

    def __init__(self, search: Search, switches: int | None) -> None:
        self._search = search
        self._switches = switches
        self._prefix = search.waiting.pop()
        self._choices: list[int] = []
        self._switched = 0

    def choose(self, ready: Sequence[int], state: Hashable) -> int | None:
        """The next of those that are ready, or None if the search has been here."""
        last = self._choices[-1] if self._choices else None
        goes_on = last if last in ready else None
        if len(self._choices) < len(self._prefix):
            chosen = self._prefix[len(self._choices)]
        else:
            # With a bound, what follows also depends on who went on, and on what is left of it.
            state = (state, None if self._switches is None else (last, self._switched))
            if state in self._search.states:
                return None
            self._search.states.add(state)
            chosen = ready[0] if goes_on is None else goes_on
            if self._switches is None or goes_on is None or self._switched < self._switches:
                others = ([*self._choices, other] for other in ready if other != chosen)
                self._search.waiting.extend(others)
        self._switched += goes_on not in {None, chosen}
        self._choices.append(chosen)
        return chosen


async def _run(case: Case, search: Search, turns: _Turns) -> None:
    world, bodies = case()
    actors = [Actor(name) for name in bodies]
    tasks = [
        asyncio.ensure_future(body(actor))
        for actor, body in zip(actors, bodies.values(), strict=True)
    ]
    schedule: list[str] = []
    try:
        while True:
            await _quiet()
            for task in tasks:
                if task.done():
                    task.result()
            if (fault := world.violation()) is not None:
                search.violations.append((fault, schedule))
                return
            ready = [index for index, actor in enumerate(actors) if actor.waiting]
            if not ready:
                assert all(task.done() for task in tasks), "somebody waits for what never comes"
                return
            state = (world.state(), tuple((tuple(a.seen), len(a.waiting)) for a in actors))
            if (chosen := turns.choose(ready, state)) is None:
                return
            assert actors[chosen].waiting, "the same choices did not lead to the same state"
            call, future = actors[chosen].waiting.pop(0)
            schedule.append(f"{actors[chosen].name}: {call}")
            future.set_result(None)
    finally:
        # A cancelled task may clean up with further calls, which are no longer scheduled.
        while not all(task.done() for task in tasks):
            for task in tasks:
                task.cancel()
            await _quiet()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _quiet() -> None:
    """Until every actor has ended or waits for its turn."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # as long as asyncio has one
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110 - there is no event for "all others wait"
        await asyncio.sleep(0)
