"""A cache under everything that happens to one, compared with a plain model of its content.

Calls are interrupted, refused, or done with their responses lost; plans are executed late; clocks
jump; blobs and manifests are damaged. After each step every name holds what the model says, and
every blob that it needs is intact, unless this test has damaged it and it was not repaired since.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import cachefs
from cachefs import testing
from cachefs.errors import CacheError, ManifestError, StoreError, UsageError
from cachefs.filesystems.base import TEMPORARY, Stat
from cachefs.filesystems.versions import Past
from cachefs.layout.base import Manifest
from cachefs.layout.keyed import KeyedLayout
from cachefs.operations import delete, merge, observe, prune, record, repair, undo, verify
from cachefs.operations.merge import MergeSource
from cachefs.operations.prune import PrunePlan
from cachefs.operations.retention import PrunePolicy
from cachefs.transfer import exporter, publishing
from cachefs.transfer.publishing import OnConflict
from cachefs.transfer.sources import MappingSource
from cachefs.wire import codec
from tests.race.scheduler import AtOnce
from tests.race.world import ROOT, Object, SteppedFilesystem, World

HOUR, DAY = 3600.0, 86_400.0
REFRESH = DAY
GRACE = prune.GRACE
BLOBS, MANIFESTS = f"{ROOT}blobs/", f"{ROOT}manifests/"
GARBAGE = b'{"layers": [{'

GENERATED = [testing.random_graph(seed, records=5, blob_size=40) for seed in range(4)]
CONFIGS = [generated.graph.select("max").to_config() for generated in GENERATED]
CONTENT = {digest: data for generated in GENERATED for digest, data in generated.blobs.items()}

Answer = TypeVar("Answer")

Facts = frozenset[tuple[str, tuple[str, ...], str]]
"""Of each result its record, its blobs from the bottom up, and its time."""


def facts(raw: bytes) -> Facts:
    graph = cachefs.RecordGraph(codec.decode(raw))
    return frozenset(
        (record.digest, tuple(graph.layers[i].blob for i in result.layers), result.created_at)
        for index, record in enumerate(graph.records)
        for result in graph.results([index])
    )


def needs(raw: bytes) -> frozenset[str]:
    return frozenset(layer.blob for layer in codec.decode(raw).layers)


class Crash(BaseException):
    """The process is gone: nothing catches this, and no call after it happens."""


class Trouble(NamedTuple):
    """``crash``: neither this call nor any later one happens; ``refused``: this one does not;
    ``lost``: it happens, and its answer is an error. ``at`` counts round the calls there are."""

    kind: str
    at: int


troubles = st.none() | st.builds(
    Trouble, st.sampled_from(["crash", "refused", "lost"]), st.integers(0, 200)
)


class TroubledFilesystem(SteppedFilesystem):
    """The world, seen by somebody who meets trouble at one call."""

    def __init__(self, world: World, trouble: Trouble | None = None) -> None:
        super().__init__(world, self._before)
        self.calls = 0
        self.trouble = trouble

    async def _before(self, _call: str) -> None:
        self.calls += 1
        if self.trouble is None:
            return
        if self.trouble.kind == "crash" and self.calls > self.trouble.at:
            raise Crash
        if self.trouble.kind == "refused" and self.calls - 1 == self.trouble.at:
            raise ConnectionError("refused")

    def _answer(self, call: int) -> None:
        if self.trouble is not None and self.trouble == ("lost", call - 1):
            raise ConnectionError("no answer")

    async def _stat(self, path: str) -> Stat | None:
        return await self._answered(super()._stat(path))

    async def list(self, prefix: str) -> list[Stat]:
        return await self._answered(super().list(prefix))

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        call = self.calls + 1
        async for chunk in super().read(path, size):
            self._answer(call)
            yield chunk

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        await self._answered(super()._put_whole(path, chunks))

    async def _touch(self, stat: Stat) -> None:
        await self._answered(super()._touch(stat))

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        return await self._answered(super().delete(path, unless_changed))

    async def past(self, path: str) -> Past:
        return await self._answered(super().past(path))

    async def reveal(self, path: str, marker: str) -> None:
        await self._answered(super().reveal(path, marker))

    async def _answered(self, work: Awaitable[Answer]) -> Answer:
        call = self.calls + 1
        answer = await work
        self._answer(call)
        return answer


Work = Callable[[KeyedLayout], Awaitable[Any]]


class Outcome(NamedTuple):
    """What work came to: its value, or the error or crash that it ended in."""

    value: Any = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.error is None


def a_replica() -> World:
    """Every blob, whole, and a manifest for one of the names."""
    world = World()
    for digest, data in CONTENT.items():
        world.write(BLOBS + digest, data)
    world.write(f"{MANIFESTS}main", codec.encode(CONFIGS[0]))
    return world


names = st.sampled_from(["main", "pr-1", "pr-2", "team/x"])
policies = st.sampled_from(
    [
        PrunePolicy(),
        PrunePolicy(older_than=2 * DAY),
        PrunePolicy(older_than=2 * DAY, keep=("team/*",)),
        PrunePolicy(keep_last={"pr-*": 1}),
        PrunePolicy(max_size=300),
        PrunePolicy(missing_blobs=True),
    ]
)


class CacheMachine(RuleBasedStateMachine):
    """One cache, and what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.skew = 0.0
        self.runner = asyncio.Runner()
        self.runner.get_loop().set_default_executor(AtOnce())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(delete, "PAUSES", (0.0, 0.0, 0.0))
        clocked = functools.partial(exporter.Transfer, clock=self.clock)
        self.patch.setattr(merge, "Transfer", clocked)
        self.patch.setattr(publishing, "Transfer", clocked)
        self.patch.setattr(repair, "Transfer", clocked)
        self.manifests: dict[str, bytes] = {}
        """What each name holds; of one that has rotted, what it held."""
        self.rotten: set[str] = set()
        self.damaged: set[str] = set()
        self.plan: PrunePlan | None = None
        self.planned_names: dict[str, Object] = {}

    def teardown(self) -> None:
        """In the end a repair and a prune, undisturbed, leave what the names need, and only it."""
        try:
            self.skew = 0.0
            self.repair(replicated=True, remove_unreadable=True, trouble=None)
            self.world.now += 2 * GRACE
            if self.manifests:
                self.make_plan(PrunePolicy(), None)
                self.carry_out(None)
                assert {path for path in self.world.objects if record.NAME not in path} == {
                    *(MANIFESTS + name for name in self.manifests),
                    *(BLOBS + digest for digest in self.needed()),
                }
            assert self.run(lambda layout: verify.verify(layout, read_data=1.0)).faults == []
        finally:
            self.patch.undo()
            self.runner.close()

    # --- what writers do -------------------------------------------------------------------------

    @initialize(
        which=st.permutations(range(len(GENERATED))),
        hours=st.integers(0, 200),
        versioned=st.booleans(),
    )
    def has_been_used(self, which: list[int], hours: int, *, versioned: bool) -> None:
        """Names of different ages, one of which has been written anew: so there are orphans."""
        self.world.versioned = versioned
        for name, number in zip(("main", "pr-1", "pr-2", "main"), which, strict=True):
            self.export(name, number, None)
            self.time_passes(hours)

    @rule(name=names, which=st.integers(0, len(GENERATED) - 1), trouble=troubles)
    def export(self, name: str, which: int, trouble: Trouble | None) -> None:
        config = CONFIGS[which]
        raw = codec.encode(config)

        async def work(layout: KeyedLayout) -> None:
            await exporter.export(
                layout,
                Manifest(name, config),
                cachefs.RecordGraph(config).blobs(),
                MappingSource(CONTENT),
                [name],
                touch_refresh=REFRESH,
                clock=self.clock,
            )

        outcome = self.attempt(work, trouble)
        self.wrote(name, raw, outcome, trouble)
        assert outcome.done or trouble is not None
        if not outcome.done:  # a second attempt succeeds, whatever was left behind
            self.every_name_holds_what_it_must()
            self.every_blob_that_is_needed_is_whole()
            outcome = self.attempt(work, None)
            self.wrote(name, raw, outcome, None)
            assert outcome.done
        for digest in needs(raw):
            blob = self.world.objects[BLOBS + digest]
            assert blob.modified == self.world.now or self.is_fresh(blob)
            assert len(blob.data) == len(CONTENT[digest])

    @precondition(lambda self: self.manifests)
    @rule(
        into=names,
        on_conflict=st.sampled_from(["merge", "replace"]),
        trouble=troubles,
        data=st.data(),
    )
    def merge(
        self, into: str, on_conflict: OnConflict, trouble: Trouble | None, data: st.DataObject
    ) -> None:
        known = st.sampled_from(sorted(self.manifests))
        chosen = data.draw(st.lists(known, min_size=1, max_size=3, unique=True))

        async def work(layout: KeyedLayout) -> None:
            sources = [MergeSource(layout, chosen)]
            plan = await merge.plan_merge(
                sources, layout, [into], touch_refresh=REFRESH, on_conflict=on_conflict
            )
            await merge.execute_merge(plan, sources, layout, REFRESH, on_conflict=on_conflict)

        union = frozenset[Any]().union(*(facts(self.manifests[name]) for name in chosen))
        needed = frozenset[str]().union(*(needs(self.manifests[name]) for name in chosen))
        read = set(chosen)
        lost: set[str] = set()
        if on_conflict == "merge" and into in self.manifests:
            read.add(into)
            held = needs(self.manifests[into])
            lost = {digest for digest in held - needed if self.is_missing(digest)}
            union |= {fact for fact in facts(self.manifests[into]) if lost.isdisjoint(fact[1])}
        is_sound = not self.rotten & read and not self.damaged & needed
        needed = frozenset(digest for fact in union for digest in fact[1])
        outcome = self.attempt(work, trouble)
        found = self.world.objects.get(MANIFESTS + into)
        raw = GARBAGE if found is None else found.data
        if outcome.done:
            assert not self.rotten & read
            assert (facts(raw), needs(raw)) == (union, needed)
        else:
            assert trouble is not None or not is_sound
            if trouble is None or trouble.kind != "lost" or raw == GARBAGE:
                raw = self.manifests.get(into, GARBAGE)
            elif into not in self.manifests or raw != self.manifests[into]:
                assert (facts(raw), needs(raw)) == (union, needed)
        self.wrote(into, raw, outcome, trouble)

    def is_missing(self, digest: str) -> bool:
        """Whether a look-up shows that the blob is not there, or not all of it."""
        blob = self.world.objects.get(BLOBS + digest)
        return blob is None or len(blob.data) != len(CONTENT[digest])

    @precondition(lambda self: self.blobs())
    @rule(trouble=troubles, data=st.data())
    def touch(self, trouble: Trouble | None, data: st.DataObject) -> None:
        key = "blobs/" + data.draw(st.sampled_from(sorted(self.blobs())))
        before = self.world.objects[ROOT + key]

        async def work(layout: KeyedLayout) -> bool:
            stat = await layout.store.stat(key)
            assert stat is not None
            return await layout.store.touch(stat)

        outcome = self.attempt(work, trouble)
        after = self.world.objects[ROOT + key]
        assert after.data == before.data
        assert after.modified in {before.modified, self.world.now}
        assert not outcome.done or after.modified == self.world.now

    # --- verify, repair and prune ----------------------------------------------------------------

    @rule(policy=policies, trouble=troubles)
    def make_plan(self, policy: PrunePolicy, trouble: Trouble | None) -> None:
        """Exactly the model's names and blobs are to go; or it is refused, and nothing changes."""
        before = self.lasting()
        outcome = self.attempt(
            lambda layout: prune.plan_prune([layout], policy, clock=self.clock), trouble
        )
        assert self.lasting() == before
        if outcome.done:
            assert self.manifests
            assert not self.rotten
            assert abs(self.skew) <= observe.MAX_SKEW
            self.plan = outcome.value
            self.planned_names = {
                to_go.manifest.name: self.world.objects[MANIFESTS + to_go.manifest.name]
                for to_go in outcome.value.remove
            }
            going = self.going(policy)
            assert set(self.planned_names) == going
            assert {blob.digest for blob in outcome.value.delete} == self.blobs_to_go(going)
        elif trouble is None:
            if not self.manifests:
                assert isinstance(outcome.error, UsageError)
            elif abs(self.skew) > observe.MAX_SKEW:
                assert isinstance(outcome.error, StoreError)
            else:
                assert self.rotten
                assert isinstance(outcome.error, ManifestError)

    @precondition(lambda self: self.manifests and not self.rotten)
    @rule(
        policy=policies,
        hours=st.sampled_from([0, 1, 80]),
        meanwhile=st.none() | names,
        trouble=troubles,
    )
    def prune(
        self, policy: PrunePolicy, hours: int, meanwhile: str | None, trouble: Trouble | None
    ) -> None:
        """Plan, and carry it out later, after somebody wrote; once more if it was disturbed."""
        self.make_plan(policy, None)
        self.time_passes(hours)
        if meanwhile is not None:
            self.export(meanwhile, 0, None)
        if self.plan is not None:
            self.carry_out(trouble)
            self.carry_out(None)

    @precondition(lambda self: self.plan)
    @rule(trouble=troubles)
    def carry_out(self, trouble: Trouble | None) -> None:
        """A plan, however late: what has been written or used since stays."""
        plan = self.plan
        assert plan is not None
        unchanged = {
            name
            for name, seen in self.planned_names.items()
            if self.world.objects.get(MANIFESTS + name) == seen
        }
        before = dict(self.world.objects)
        outcome = self.attempt(lambda layout: prune.execute_prune([layout], plan), trouble)
        gone = before.keys() - self.world.objects.keys()
        gone_names = {path.removeprefix(MANIFESTS) for path in gone if path.startswith(MANIFESTS)}
        gone_blobs = {path.removeprefix(BLOBS) for path in gone if path.startswith(BLOBS + "sha")}
        self.took_away(gone_names)
        may_go = {
            blob.digest
            for blob in plan.delete
            if (there := before.get(BLOBS + blob.digest)) is not None
            and there.modified <= plan.reference_time - plan.grace
            and blob.digest not in self.needed()
        }
        assert gone_names <= unchanged
        assert gone_blobs <= may_go
        assert all(
            before[path].modified <= plan.reference_time - plan.grace
            for path in gone
            if not path.startswith(MANIFESTS)
            and path.rpartition("/")[2].startswith(TEMPORARY)
            and record.NAME not in path
        )
        if outcome.done:
            assert not self.rotten
            assert (gone_names, gone_blobs) == (unchanged, may_go)
            assert not {leftover.key for leftover in plan.leftovers} & self.world.objects.keys()
            assert outcome.value.deleted.blobs == len(gone_blobs) or trouble is not None
        elif trouble is None:
            assert self.rotten
        if self.rotten:
            assert not gone_blobs

    @precondition(lambda self: self.records())
    @rule(trouble=troubles)
    def undo(self, trouble: Trouble | None) -> None:
        """What comes back is what was deleted; what is there is not replaced."""
        before, hidden = dict(self.world.objects), dict(self.world.hidden)

        async def work(layout: KeyedLayout) -> undo.UndoReport:
            plan = await undo.plan_undo(layout, REFRESH, self.clock)
            return await undo.execute_undo(layout, plan, REFRESH, self.clock)

        outcome = self.attempt(work, trouble)
        assert outcome.done or trouble is not None
        after = self.world.objects
        assert all(
            after[path].data == there.data
            for path, there in before.items()
            if TEMPORARY not in path
        )
        back = {path for path in after.keys() - before.keys() if TEMPORARY not in path}
        assert all(after[path].data == hidden[path].object.data for path in back)
        names_back = {p.removeprefix(MANIFESTS) for p in back if p.startswith(MANIFESTS)}
        for name in names_back:
            raw = after[MANIFESTS + name].data
            assert not [digest for digest in needs(raw) if self.is_missing(digest)]
            self.manifests[name] = raw
        blobs_back = {p.removeprefix(BLOBS) for p in back if p.startswith(BLOBS)}
        self.damaged |= {digest for digest in blobs_back if self.is_bad(digest)}
        if outcome.done:
            assert set(outcome.value.names) == names_back

    @precondition(lambda self: self.world.versioned and self.manifests and not self.rotten)
    @rule(policy=policies, trouble=troubles, killed=troubles)
    def prune_and_undo(
        self, policy: PrunePolicy, trouble: Trouble | None, killed: Trouble | None
    ) -> None:
        """As if nothing had been, also if both were disturbed, and the undo was repeated."""
        self.our_clock_jumps(0.0)
        self.make_plan(policy, None)
        if self.plan is None or self.plan.is_empty or self.damaged:
            return
        before = {path: there.data for path, there in self.lasting().items()}
        records = self.records()
        self.carry_out(trouble)
        if self.records() == records:
            return  # nothing has been removed
        self.undo(killed)
        if self.records() != records:
            self.undo(None)
        assert {path: there.data for path, there in self.lasting().items()} == before

    def records(self) -> set[str]:
        return {path for path in self.world.objects if record.NAME in path}

    @rule(replicated=st.booleans(), remove_unreadable=st.booleans(), trouble=troubles)
    def repair(self, *, replicated: bool, remove_unreadable: bool, trouble: Trouble | None) -> None:
        """Undisturbed it leaves no fault that it may remedy, and makes misses of nothing else."""
        replicas = [TroubledFilesystem(a_replica()).layout()] if replicated else []

        async def work(layout: KeyedLayout) -> None:
            plan = await repair.plan_repair(
                layout,
                replicas,
                touch_refresh=REFRESH,
                read_data=1.0,
                remove_unreadable=remove_unreadable,
            )
            await repair.execute_repair(layout, plan, replicas, REFRESH)

        lost = set() if replicated else set(self.damaged)
        whole = {digest for digest in self.blobs() if not self.is_bad(digest)}
        outcome = self.attempt(work, trouble)
        assert outcome.done or trouble is not None
        assert not [digest for digest in whole if self.is_bad(digest)]
        for name in list(self.manifests):
            self.check_repaired(
                name, lost, outcome, replicated=replicated, dropped=remove_unreadable
            )
        self.forget_healed()
        if outcome.done:
            unread = [needs(self.manifests[name]) for name in self.rotten]
            assert self.damaged <= set[str]().union(*unread)
            assert not self.rotten or not remove_unreadable

    def check_repaired(
        self, name: str, lost: set[str], outcome: Outcome, *, replicated: bool, dropped: bool
    ) -> None:
        found = self.world.objects.get(MANIFESTS + name)
        if name in self.rotten:
            restored = codec.encode(CONFIGS[0]) if replicated and name == "main" else None
            if found is None:
                assert dropped
                assert restored is None
                self.took_away([name])
            elif found.data != GARBAGE:
                assert found.data == restored
                self.manifests[name] = found.data
                self.rotten.discard(name)
            else:
                assert not outcome.done or (restored is None and not dropped)
            return
        assert found is not None
        held = facts(self.manifests[name])
        left = frozenset(fact for fact in held if not lost.intersection(fact[1]))
        if outcome.done or found.data != self.manifests[name]:
            assert facts(found.data) == left
        self.manifests[name] = found.data

    # --- what happens to it ----------------------------------------------------------------------

    @rule(hours=st.sampled_from([1, 23, 25, 49, 73, 200]))
    def time_passes(self, hours: int) -> None:
        self.world.now += hours * HOUR

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.0, 200.0, -200.0, HOUR, -HOUR, DAY, -DAY]))
    def our_clock_jumps(self, seconds: float) -> None:
        self.skew = seconds

    @precondition(lambda self: self.needed())
    @rule(how=st.sampled_from(["delete", "flip", "truncate"]), data=st.data())
    def damage(self, how: str, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.needed())))
        there = self.world.objects.get(BLOBS + digest)
        if there is None:
            return
        if how == "delete":
            del self.world.objects[BLOBS + digest]
        else:
            content = CONTENT[digest]
            bad = content[:-1] if how == "truncate" else bytes([content[0] ^ 1]) + content[1:]
            self.world.objects[BLOBS + digest] = there._replace(data=bad)
        self.damaged.add(digest)
        self.verify()

    @precondition(lambda self: self.manifests)
    @rule(data=st.data())
    def rot(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.manifests)))
        self.world.write(MANIFESTS + name, GARBAGE)
        self.rotten.add(name)
        self.verify()

    def verify(self) -> None:
        """Exactly what was damaged is reported, with all the names that it affects."""
        report = self.run(lambda layout: verify.verify(layout, read_data=1.0))
        readable = {n: needs(raw) for n, raw in self.manifests.items() if n not in self.rotten}
        expected: set[tuple[str, str | None, tuple[str, ...]]]
        expected = {("manifest", None, (name,)) for name in self.rotten}
        for digest in self.damaged:
            users = tuple(sorted(name for name, blobs in readable.items() if digest in blobs))
            if BLOBS + digest in self.world.objects:
                expected.add(("damaged", digest, users))
            elif users:
                expected.add(("missing", digest, users))
        assert {(f.kind, f.digest, tuple(f.names)) for f in report.faults} == expected
        assert len(report.faults) == len(expected)

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def every_name_holds_what_it_must(self) -> None:
        found = {
            path.removeprefix(MANIFESTS): there.data
            for path, there in self.world.objects.items()
            if path.startswith(MANIFESTS)
        }
        assert found == self.manifests | dict.fromkeys(self.rotten, GARBAGE)

    @invariant()
    def every_blob_that_is_needed_is_whole(self) -> None:
        self.forget_healed()
        assert {digest for digest in self.needed() if self.is_bad(digest)} <= self.damaged

    # --- the model -------------------------------------------------------------------------------

    def needed(self) -> set[str]:
        """What all names need, those that have rotted too."""
        return set[str]().union(*(needs(raw) for raw in self.manifests.values()))

    def blobs(self) -> dict[str, Object]:
        return {
            path.removeprefix(BLOBS): there
            for path, there in self.world.objects.items()
            if path.startswith(f"{BLOBS}sha256:")
        }

    def is_bad(self, digest: str) -> bool:
        there = self.world.objects.get(BLOBS + digest)
        return there is None or there.data != CONTENT[digest]

    def is_fresh(self, blob: Object) -> bool:
        return -1.0 <= self.clock() - blob.modified < REFRESH

    def forget_healed(self) -> None:
        """A writer may have sent it again; a prune may have taken it away with its last name."""
        there, needed = self.blobs(), self.needed()
        self.damaged = {
            digest
            for digest in self.damaged
            if self.is_bad(digest) and (digest in there or digest in needed)
        }

    def lasting(self) -> dict[str, Object]:
        return {p: there for p, there in self.world.objects.items() if TEMPORARY not in p}

    def wrote(self, name: str, raw: bytes, outcome: Outcome, trouble: Trouble | None) -> None:
        """It holds the new manifest if the writer says so, else the old one.

        Only where an answer was lost it can be either.
        """
        there = self.world.objects.get(MANIFESTS + name)
        is_new = there is not None and there.data == raw
        if outcome.done:
            assert is_new
        elif is_new and trouble is not None and trouble.kind == "lost":
            pass
        else:
            return
        self.manifests[name] = raw
        self.rotten.discard(name)

    def took_away(self, gone: Iterable[str]) -> None:
        for name in gone:
            del self.manifests[name]
            self.rotten.discard(name)

    def going(self, policy: PrunePolicy) -> set[str]:
        """The names that a policy takes away, as its documentation says."""
        written = {name: self.world.objects[MANIFESTS + name].modified for name in self.manifests}
        # Of names that were written at the same time, those that come first count as older.
        newest_first = sorted(written, key=lambda name: (written[name], name), reverse=True)
        if policy.older_than is not None:
            old = {n for n in written if self.world.now - written[n] > policy.older_than}
            return {n for n in old if not (policy.keep and n.startswith("team/"))}
        if policy.keep_last:
            return set([name for name in newest_first if name.startswith("pr-")][1:])
        if policy.missing_blobs:
            there = self.blobs()
            return {n for n, raw in self.manifests.items() if needs(raw) - there.keys()}
        staying = newest_first
        while policy.max_size is not None and staying and self.size(staying) > policy.max_size:
            staying = staying[:-1]
        return set(newest_first) - set(staying)

    def size(self, chosen: Iterable[str]) -> int:
        there = self.blobs()
        needed = set[str]().union(*(needs(self.manifests[name]) for name in chosen))
        return sum(len(there[digest].data) for digest in needed if digest in there)

    def blobs_to_go(self, going: set[str]) -> set[str]:
        staying = [raw for name, raw in self.manifests.items() if name not in going]
        needed = set[str]().union(*map(needs, staying))
        return {
            digest
            for digest, blob in self.blobs().items()
            if digest not in needed and self.world.now - blob.modified >= GRACE
        }

    # --- how it is done --------------------------------------------------------------------------

    def clock(self) -> float:
        """Our clock; the store's is the world's."""
        return self.world.now + self.skew

    def run(self, work: Work) -> Any:
        """Do it without trouble, and give what it gives."""
        return self.runner.run(_done(work, TroubledFilesystem(self.world).layout()))

    def attempt(self, work: Work, trouble: Trouble | None) -> Outcome:
        """Do it, meeting trouble at one of its calls, which are counted on a copy of the world."""
        self.world.now += 1.0  # no two steps happen at the same moment
        if trouble is not None:
            copy = World(self.world.now)
            copy.objects, copy.hidden = dict(self.world.objects), dict(self.world.hidden)
            copy.versioned = self.world.versioned
            counting = TroubledFilesystem(copy)
            self._try(work, counting)
            trouble = trouble._replace(at=trouble.at % max(counting.calls, 1))
        return self._try(work, TroubledFilesystem(self.world, trouble))

    def _try(self, work: Work, filesystem: TroubledFilesystem) -> Outcome:
        try:
            return Outcome(self.runner.run(_done(work, filesystem.layout())))
        except (CacheError, Crash) as error:
            return Outcome(error=error)


async def _done(work: Work, layout: KeyedLayout) -> Any:
    return await work(layout)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True
)


@pytest.mark.slow
class TestLongCampaign(CacheMachine.TestCase):
    """More of the same."""

    settings = settings(TestCacheMachine.settings, max_examples=200)
