"""Exports, prunes, merges and repairs in any order, killed at any call, answers lost, time passing.

Always: every blob of every name is there and whole, and no name goes that should stay. At the end:
an undisturbed prune leaves exactly what the names need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cachefs import exporter, merging, pruning, repairing, testing
from cachefs.digest import Digest
from cachefs.errors import StoreError
from cachefs.layout import Manifest
from cachefs.layout.keyed import KeyedLayout
from cachefs.merging import MergeSource
from cachefs.policies import PrunePolicy
from cachefs.sources import MappingSource
from tests.race.world import ROOT, SteppedFilesystem, World

HOUR = 3600.0
REFRESH = 24 * HOUR
GRAPHS = [testing.random_graph(seed, records=6, blob_size=64) for seed in range(4)]

names = st.sampled_from(["main", "pr-1", "pr-2", "team/x"])
trouble = st.none() | st.integers(1, 40)
"""Nothing, or the number of the call at which it comes."""


class Killed(Exception):  # noqa: N818 - it is what the process meets, not an error of ours
    """The process is gone: no call after this one happens."""


class Caches(RuleBasedStateMachine):
    """One cache and all that is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.runner = asyncio.Runner()
        self.written: dict[str, float] = {}
        """When each name was last written, for certain; those of which it is not known are out."""

    def teardown(self) -> None:
        """Once nobody disturbs it, a prune leaves what is needed and nothing else."""
        try:
            self.world.now += 100 * HOUR
            if self.names():
                self.run(self.prune_work(self.layout(), PrunePolicy()))
                blobs = {
                    p.removeprefix(f"{ROOT}blobs/") for p in self.world.objects if "blobs" in p
                }
                assert blobs == self.needed()
        finally:
            self.runner.close()

    # --- what is done ----------------------------------------------------------------------------

    @rule(name=names, which=st.integers(0, 3), killed=trouble, lost=trouble)
    def export(self, name: str, which: int, killed: int | None, lost: int | None) -> None:
        generated = GRAPHS[which]
        self.written.pop(name, None)
        work = exporter.export(
            self.layout(killed, lost),
            Manifest(name, generated.graph.select("max").to_config()),
            generated.graph.blobs(),
            MappingSource(generated.blobs),
            [name],
            touch_refresh=REFRESH,
            clock=lambda: self.world.now,
        )
        if self.run(work):
            self.written[name] = self.world.now

    @precondition(lambda self: self.names())
    @rule(days=st.none() | st.integers(0, 8), killed=trouble, lost=trouble)
    def prune(self, days: int | None, killed: int | None, lost: int | None) -> None:
        policy = PrunePolicy() if days is None else PrunePolicy(older_than=days * 24 * HOUR)
        before = self.names()
        done = self.run(self.prune_work(self.layout(killed, lost), policy))
        may_go = {
            name
            for name in before
            if policy.older_than is not None
            and self.world.now - self.written.get(name, 0.0) > policy.older_than
        }
        assert before - may_go <= self.names()
        if done:
            sure = {name for name in may_go if name in self.written}
            assert not sure & self.names()
        self.written = {name: at for name, at in self.written.items() if name in self.names()}

    @precondition(lambda self: self.names())
    @rule(new=names, killed=trouble, data=st.data())
    def merge(self, new: str, killed: int | None, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.names())), min_size=1, max_size=3))
        layout = self.layout(killed)
        sources = [MergeSource(layout, tuple(dict.fromkeys(chosen)))]

        async def work() -> None:
            plan = await merging.plan_merge(sources, layout, [new])
            await merging.execute_merge(plan, sources, layout, touch_refresh=REFRESH)

        self.written.pop(new, None)
        self.run(work())

    @precondition(lambda self: self.needed())
    @rule(data=st.data())
    def lose_a_blob_and_repair(self, data: st.DataObject) -> None:
        lost = data.draw(st.sampled_from(sorted(self.needed())))
        del self.world.objects[f"{ROOT}blobs/{lost}"]
        layout = self.layout()

        async def work() -> None:
            plan = await repairing.plan_repair(layout)
            await repairing.repair(layout, plan, touch_refresh=REFRESH)

        before = self.names()
        assert self.run(work())
        assert self.names() == before
        self.written.clear()

    @rule(hours=st.sampled_from([1, 23, 25, 71, 73, 300]))
    def time_passes(self, hours: int) -> None:
        self.world.now += hours * HOUR

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def every_name_has_its_blobs(self) -> None:
        assert self.world.violation() is None
        assert set(self.written) <= self.names()

    # --- how it is done --------------------------------------------------------------------------

    def layout(self, killed: int | None = None, lost: int | None = None) -> KeyedLayout:
        """The cache, for a process that is killed before a call, or loses the answer to one."""
        calls = 0
        answers = 0

        async def turn(_call: str) -> None:
            nonlocal calls
            calls += 1
            if killed is not None and calls >= killed:
                raise Killed

        def note(_answer: Hashable) -> None:
            nonlocal answers
            answers += 1
            if answers == lost:
                raise ConnectionError("no answer")

        return SteppedFilesystem(self.world, turn, note).layout()

    def run(self, work: Coroutine[Any, Any, object]) -> bool:
        """Whether it came to its end; the store's failures are what is being tried."""
        try:
            self.runner.run(work)
        except StoreError:
            return False
        return True

    async def prune_work(self, layout: KeyedLayout, policy: PrunePolicy) -> None:
        plan = await pruning.plan_prune(layout, policy, clock=lambda: self.world.now)
        await pruning.execute_prune(layout, plan)

    def names(self) -> set[str]:
        prefix = f"{ROOT}manifests/"
        return {path.removeprefix(prefix) for path in self.world.objects if path.startswith(prefix)}

    def needed(self) -> set[str]:
        async def work() -> set[Digest]:
            layout = self.layout()
            return set().union(*[await layout.references(name) for name in self.names()])

        return {str(digest) for digest in self.runner.run(work())}


Caches.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestCaches = Caches.TestCase
