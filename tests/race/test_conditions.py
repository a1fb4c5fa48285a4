"""Names that are joined, merged and removed, and blobs that are deleted, all on conditions.

In every order of their calls, what one writer has been told to be published stays, whatever the
others do; a store that takes no notice of conditions loses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachefs.digest import Digest
from cachefs.errors import CacheError
from cachefs.filesystems import base
from cachefs.layout import contention
from cachefs.layout.base import Manifest
from cachefs.operations import delete, mark, merge, prune, undo
from cachefs.operations.merge import MergeSource
from cachefs.operations.retention import PrunePolicy
from cachefs.transfer import exporter, lookup, manifests, publishing
from cachefs.transfer.publishing import Publisher
from cachefs.transfer.sources import MappingSource
from cachefs.wire import codec
from tests.race.scheduler import Actor, Body, explore
from tests.race.test_race import (
    OLD,
    OTHER,
    G,
    R,
    found,
    graph_of,
    put_blob,
    put_name,
)
from tests.race.world import ROOT, SteppedFilesystem, World

ONE, TWO = b"of the first", b"of the second"
MAIN = f"{ROOT}manifests/main"
BLOB = f"{ROOT}blobs/{Digest.of(OLD)}"


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits, because the scheduler decides who is next."""
    for module in (base, delete, lookup, manifests, undo):
        monkeypatch.setattr(module, "LOOKUP_PARALLELISM", 1)
    for module in (contention, publishing):
        monkeypatch.setattr(module, "pause", lambda _attempt: 0.0)
    monkeypatch.setattr(mark, "COARSE", 0.0)


class Promised(World):
    """A world in which a name has to hold what writers were told that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.promised: set[str] = set()
        self.busy = 0

    def state(self) -> Any:
        return super().state(), frozenset(self.promised), self.busy

    def violation(self) -> str | None:
        there = self.objects.get(MAIN)
        held = set() if there is None else {one.blob for one in codec.decode(there.data).layers}
        if lost := self.promised - held:
            return f"main has lost {min(lost)[:15]}"
        # What a marker hid by mistake is revealed before the prune ends.
        return None if self.busy else super().violation()


def during(world: Promised, body: Body) -> Body:
    """The body, while which blobs may be hidden for a moment."""

    async def busy(actor: Actor) -> None:
        world.busy += 1
        await body(actor)
        world.busy -= 1

    return busy


def joining(world: Promised, *blobs: bytes, **store: Any) -> Body:
    """An export that joins what the name holds, and then relies on it."""

    async def body(actor: Actor) -> None:
        layout = SteppedFilesystem(world, actor.turn, actor.note, **store).layout()
        graph = graph_of(*blobs)
        source = MappingSource({str(Digest.of(data)): data for data in blobs})
        await exporter.export(
            layout,
            Manifest("main", graph.to_config()),
            graph.blobs(),
            source,
            ["main"],
            touch_refresh=R,
            clock=lambda: world.now,
            publish=Publisher(layout, source, 1e9, "merge").publish,
        )
        world.promised |= {str(Digest.of(data)) for data in blobs}

    return body


def merging(world: Promised, **store: Any) -> Body:
    """A merge of the name ``other`` into ``main``."""

    async def body(actor: Actor) -> None:
        layout = SteppedFilesystem(world, actor.turn, actor.note, **store).layout()
        sources = [MergeSource(layout, ["other"])]
        plan = await merge.plan_merge(sources, layout, ["main"], touch_refresh=1e9)
        await merge.execute_merge(plan, sources, layout, 1e9)
        world.promised.add(str(Digest.of(OTHER)))

    return body


def pruning(world: Promised, policy: PrunePolicy | None = None, **store: Any) -> Body:
    async def body(actor: Actor) -> None:
        layout = SteppedFilesystem(world, actor.turn, actor.note, **store).layout()
        plan = await prune.plan_prune([layout], policy, grace=G, clock=lambda: world.now)
        await prune.execute_prune([layout], plan)

    return body


def two_joins(**store: Any) -> Callable[[], tuple[World, dict[str, Body]]]:
    def case() -> tuple[World, dict[str, Body]]:
        world = Promised()
        return world, {
            "one": joining(world, ONE, **store),
            "two": joining(world, TWO, **store),
        }

    return case


def test_two_writers_that_join_one_name_lose_nothing() -> None:
    search = explore(two_joins())
    assert not search.violations, found(search)
    assert len(search.states) > 30


def test_control_a_store_that_ignores_the_condition() -> None:
    assert explore(two_joins(puts="ignores"), stop_at_first=True).violations


def test_a_store_that_ignores_conditions_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can be promised there, and that is what the log says."""
    search = explore(two_joins(puts="lies"), stop_at_first=True)
    assert search.violations
    assert "does not compare before it writes" in caplog.text


def merge_and_join(**store: Any) -> Callable[[], tuple[World, dict[str, Body]]]:
    def case() -> tuple[World, dict[str, Body]]:
        world = Promised()
        put_blob(world, OTHER, 0)
        put_name(world, "other", 0, OTHER)
        return world, {"merge": merging(world, **store), "join": joining(world, ONE, **store)}

    return case


def test_a_merge_and_an_export_that_joins_lose_nothing() -> None:
    search = explore(merge_and_join())
    assert not search.violations, found(search)


def test_control_a_merge_where_the_condition_is_ignored() -> None:
    assert explore(merge_and_join(puts="ignores"), stop_at_first=True).violations


def join_and_prune(**store: Any) -> Callable[[], tuple[World, dict[str, Body]]]:
    """The old name goes, unless somebody joins it at this moment."""

    def case() -> tuple[World, dict[str, Body]]:
        world = Promised()
        put_blob(world, OTHER, 10 * G)
        put_name(world, "other", 0, OTHER)
        put_blob(world, OLD, 10 * G)
        put_name(world, "main", 10 * G, OLD)
        policy = PrunePolicy(older_than=9 * G)
        return world, {
            "join": joining(world, OLD, **store),
            "prune": during(world, pruning(world, policy, **store)),
        }

    return case


def test_a_name_that_is_joined_while_it_is_pruned_keeps_what_was_promised() -> None:
    """What is written without a change of its bytes is no write: so the writer brings a new one."""

    def case() -> tuple[World, dict[str, Body]]:
        world, bodies = join_and_prune()()
        assert isinstance(world, Promised)
        return world, bodies | {"join": joining(world, ONE)}

    search = explore(case)
    assert not search.violations, found(search)


def test_control_a_name_is_removed_without_comparing() -> None:
    def case() -> tuple[World, dict[str, Body]]:
        world, bodies = join_and_prune(conditional=False)()
        assert isinstance(world, Promised)
        return world, bodies | {"join": joining(world, ONE, conditional=False)}

    assert explore(case, stop_at_first=True).violations


# --- a bucket that keeps versions -----------------------------------------------------------------


def reuse_and_prune(**store: Any) -> Callable[[], tuple[World, dict[str, Body]]]:
    """An orphan is used again while it is pruned."""

    def case() -> tuple[World, dict[str, Body]]:
        world = Promised()
        put_blob(world, OTHER, 10 * G)
        put_name(world, "other", 0, OTHER)
        put_blob(world, OLD, 10 * G)
        return world, {
            "writer": joining(world, OLD, versioned=True, **store),
            "pruner": during(world, pruning(world, versioned=True, **store)),
        }

    return case


def test_a_marker_that_hides_a_touched_blob_is_taken_back() -> None:
    search = explore(reuse_and_prune())
    assert not search.violations, found(search)


def test_control_a_marker_without_a_look_at_what_it_hides() -> None:
    assert explore(reuse_and_prune(conditional=False), stop_at_first=True).violations


def undoing(world: Promised) -> Body:
    async def body(actor: Actor) -> None:
        layout = SteppedFilesystem(world, actor.turn, actor.note, versioned=True).layout()
        plan = await undo.plan_undo(layout, R, lambda: world.now)
        await plan.work(plan, None)  # type: ignore[arg-type]  # nothing is sent

    return body


def pruned_world() -> Promised:
    """Main was pruned, with its blob; another name is there."""
    world = Promised()
    put_blob(world, OTHER, 10 * G)
    put_name(world, "other", 0, OTHER)
    put_blob(world, OLD, 10 * G)
    put_name(world, "main", 10 * G, OLD)

    async def now(_call: str) -> None:
        return

    async def work() -> None:
        layout = SteppedFilesystem(world, now, versioned=True).layout()
        policy = PrunePolicy(older_than=9 * G)
        plan = await prune.plan_prune([layout], policy, grace=G, clock=lambda: world.now)
        await prune.execute_prune([layout], plan)

    asyncio.run(work())
    assert MAIN not in world.objects
    assert BLOB not in world.objects
    return world


def copy_of(world: Promised) -> Promised:
    copy = Promised()
    copy.now, copy.objects, copy.hidden = world.now, dict(world.objects), dict(world.hidden)
    return copy


SWITCHES = pytest.mark.parametrize(
    "switches", [2, pytest.param(None, marks=pytest.mark.slow)], ids=["two switches", "all orders"]
)


@SWITCHES
def test_an_undo_and_a_prune_leave_no_name_without_its_blobs(switches: int | None) -> None:
    """The prune sees blobs that are back and, at first, no name that needs them."""

    pruned = pruned_world()

    def case() -> tuple[World, dict[str, Body]]:
        world = copy_of(pruned)
        return world, {
            "undo": undoing(world),
            "prune": during(world, pruning(world, versioned=True)),
        }

    search = explore(case, switches=switches)
    assert not search.violations, found(search)


def test_control_an_undo_that_renews_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_self: object, _needed: object) -> set[Digest]:
        return set()

    monkeypatch.setattr(undo._Undo, "_bring", nothing)

    pruned = pruned_world()

    def case() -> tuple[World, dict[str, Body]]:
        world = copy_of(pruned)
        return world, {
            "undo": undoing(world),
            "prune": during(world, pruning(world, versioned=True)),
        }

    assert explore(case, stop_at_first=True, switches=2).violations


def test_an_undo_never_replaces_what_is_exported_meanwhile() -> None:
    pruned = pruned_world()

    def case() -> tuple[World, dict[str, Body]]:
        world = copy_of(pruned)
        return world, {"undo": undoing(world), "writer": joining(world, ONE, versioned=True)}

    search = explore(case)
    assert not search.violations, found(search)


@pytest.mark.slow
def test_two_undos_at_once_do_no_harm() -> None:
    pruned = pruned_world()

    def case() -> tuple[World, dict[str, Body]]:
        world = copy_of(pruned)

        async def tolerant(actor: Actor) -> None:
            try:
                await undoing(world)(actor)
            except CacheError:  # the other one has finished
                assert MAIN in world.objects

        return world, {"one": tolerant, "two": tolerant}

    search = explore(case)
    assert not search.violations, found(search)
