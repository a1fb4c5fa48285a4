"""No order of a real export's and a real prune's calls leaves a name without its blobs.

R is ``touch_refresh``, G the grace period, D the time from a writer's first look-up of a blob until
its manifest is listed. Kept blobs are safe if and only if G >= R + D; see
:mod:`cachefs.operations.prune`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import cachefs
from cachefs.digest import Digest
from cachefs.filesystems import base, level
from cachefs.layout.base import Manifest
from cachefs.operations import delete, mark, prune
from cachefs.operations.retention import PrunePolicy
from cachefs.transfer import exporter, lookup, manifests
from cachefs.transfer.sources import MappingSource
from cachefs.wire import codec
from cachefs.wire.cacheconfig import NO_PARENT
from tests.race.scheduler import Actor, Body, Case, Search, explore
from tests.race.world import ROOT, SteppedFilesystem, World

R, D = 100.0, 50.0
G = R + D
OLD, NEW, OTHER = b"was there", b"is new", b"another name's"


@pytest.fixture(autouse=True)
def _few_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor's own calls have one order here, so that workers without work only cost time."""
    for module in (base, delete, level, lookup, manifests):
        monkeypatch.setattr(module, "LOOKUP_PARALLELISM", 2)


def graph_of(*blobs: bytes) -> cachefs.RecordGraph:
    graph = cachefs.RecordGraph()
    parent = NO_PARENT
    for number, data in enumerate(blobs):
        digest = Digest.of(data)
        layer = graph.add_layer(
            digest,
            parent=parent,
            size=len(data),
            diff_id=digest,  # without one, an export works it out, in a thread of its own
            created_at="2026-01-01T00:00:00Z",
        )
        record = graph.add(Digest.of(str(number).encode() + data))
        graph.add_result(record, layer, "2026-01-01T00:00:00Z")
        parent = layer
    return graph


def put_blob(world: World, data: bytes, age: float) -> None:
    world.write(f"{ROOT}blobs/{Digest.of(data)}", data, age)


def put_name(world: World, name: str, age: float, *blobs: bytes) -> None:
    raw = codec.encode(graph_of(*blobs).to_config())
    world.write(f"{ROOT}manifests/{name}", raw, age)


def writer(world: World, *blobs: bytes, **store: Any) -> Body:
    async def body(actor: Actor) -> None:
        layout = SteppedFilesystem(world, actor.turn, actor.note, **store).layout()
        graph = graph_of(*blobs)
        await exporter.export(
            layout,
            Manifest("new", graph.to_config()),
            graph.blobs(),
            MappingSource({str(Digest.of(data)): data for data in blobs}),
            ["new"],
            touch_refresh=R,
            clock=lambda: world.now,
        )

    return body


def pruner(
    world: World,
    grace: float = G,
    policy: PrunePolicy | None = None,
    between: Callable[[], Awaitable[object]] | None = None,
    **store: Any,
) -> Body:
    async def body(actor: Actor) -> None:
        layout = SteppedFilesystem(world, actor.turn, actor.note, **store).layout()
        plan = await prune.plan_prune([layout], policy, grace=grace, clock=lambda: world.now)
        if between is not None:
            await between()
        await prune.execute_prune([layout], plan)

    return body


def clock(world: World, *ticks: float) -> Body:
    """Time passes at any moment, all at once or in parts."""

    async def body(actor: Actor) -> None:
        for seconds in ticks:
            await actor.turn(f"{seconds} s pass")
            world.now += seconds

    return body


def race(age: float, *, grace: float = G, **store: Any) -> Case:
    """A blob that no name needs any more is about to be needed again, and to be pruned."""

    def case() -> tuple[World, dict[str, Body]]:
        world = World()
        put_name(world, "other", 10 * G, OTHER)
        put_blob(world, OTHER, 10 * G)
        put_blob(world, OLD, age)
        return world, {
            "writer": writer(world, OLD, NEW, **store),
            "pruner": pruner(world, grace, **store),
            "clock": clock(world, D),
        }

    return case


def found(search: Search) -> str:
    fault, schedule = search.violations[0]
    return "\n".join([fault, *schedule])


AGES = [R - 1, G, *(pytest.param(age, marks=pytest.mark.slow) for age in (0.0, R, G - 1, 10 * G))]
"""On either side of both limits: just too young for a touch, and just old enough for a prune."""


@pytest.mark.parametrize("touches", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("age", AGES)
def test_a_blob_that_is_used_again_survives(age: float, touches: bool) -> None:
    search = explore(race(age, touches=touches))
    assert not search.violations, found(search)
    assert len(search.states) > 100


@pytest.mark.parametrize("age", [R - 1, pytest.param(10 * G, marks=pytest.mark.slow)])
def test_a_blob_of_a_name_that_goes_survives_for_a_new_name(age: float) -> None:
    def case() -> tuple[World, dict[str, Body]]:
        world = World()
        put_name(world, "other", 0, OTHER)
        put_blob(world, OTHER, 10 * G)
        put_name(world, "expired", 10 * G, OLD)
        put_blob(world, OLD, age)
        return world, {
            "writer": writer(world, OLD),
            "pruner": pruner(world, policy=PrunePolicy(older_than=9 * G)),
            "clock": clock(world, D),
        }

    search = explore(case)
    assert not search.violations, found(search)


def slow_writer() -> Case:
    """Somebody writes for longer than any grace, but has published when the plan is executed."""

    def case() -> tuple[World, dict[str, Body]]:
        world = World()
        put_name(world, "other", 10 * G, OTHER)
        put_blob(world, OTHER, 10 * G)
        put_blob(world, OLD, R - 1)
        published = asyncio.Event()
        write = writer(world, OLD)

        async def write_and_say(actor: Actor) -> None:
            await write(actor)
            published.set()

        return world, {
            "writer": write_and_say,
            "pruner": pruner(world, between=published.wait),
            "clock": clock(world, 2 * G),
        }

    return case


def test_a_manifest_that_was_published_since_the_plan_is_seen() -> None:
    search = explore(slow_writer())
    assert not search.violations, found(search)


# --- the harness can fail: without any one of the rules, a blob is lost --------------------------


def test_control_a_grace_that_is_one_second_too_small() -> None:
    assert explore(race(R - 1, grace=G - 1), stop_at_first=True).violations


def test_control_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    look = mark.Marks.look

    async def look_once(self: mark.Marks, settled: float | None = None) -> None:
        if settled is None:
            await look(self)

    monkeypatch.setattr(mark.Marks, "look", look_once)
    assert explore(slow_writer(), stop_at_first=True).violations


def test_control_a_plain_delete_without_a_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def delete_blindly(self: Any, blob: Any) -> None:
        store = self._layout.store
        await store.delete(self._layout.blob_key(Digest(blob.digest)))

    monkeypatch.setattr(delete.Deletion, "_delete", delete_blindly)
    assert explore(race(10 * G), stop_at_first=True).violations


def test_control_a_store_that_cannot_compare_and_delete_in_one_step() -> None:
    """The one window that is left there: a touch and all that follows within one request."""
    search = explore(race(10 * G, conditional=False))
    assert search.violations
    for _, schedule in search.violations:
        blob = f"{ROOT}blobs/{Digest.of(OLD)}"
        last_look = max(i for i, s in enumerate(schedule) if s == f"pruner: stat {blob}")
        assert schedule.index(f"writer: touch {blob}") > last_look
        assert schedule.index(f"writer: touch {blob}") < schedule.index(f"pruner: delete {blob}")
