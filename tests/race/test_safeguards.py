"""The purpose of each safeguard: orders of calls that only it makes safe."""

from __future__ import annotations

from typing import Any

import pytest

from cachefs.digest import Digest
from cachefs.filesystems.base import Stat
from cachefs.operations import delete, prune
from cachefs.operations.retention import PrunePolicy
from cachefs.transfer.exporter import Transfer
from tests.race.scheduler import Actor, Body, explore
from tests.race.test_race import OLD, OTHER, G, found, pruner, put_blob, put_name, race, writer
from tests.race.world import ROOT, SteppedFilesystem, World

BLOB = f"{ROOT}blobs/{Digest.of(OLD)}"
NAME = f"{ROOT}manifests/new"


def world_with_an_orphan(kind: type[World] = World) -> World:
    world = kind()
    put_name(world, "other", 0, OTHER)
    put_blob(world, OTHER, 10 * G)
    put_blob(world, OLD, 10 * G)
    return world


def test_the_last_look_sees_every_delete_before_it() -> None:
    """Where a store cannot compare and delete in one step, only a delete after it does harm."""
    search = explore(race(10 * G, conditional=False))
    assert search.violations
    for _, schedule in search.violations:
        looks = [i for i, call in enumerate(schedule) if call == f"writer: stat {BLOB}"]
        assert looks[-1] < schedule.index(f"pruner: delete {BLOB}")


def test_control_no_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_again(_transfer: Transfer) -> None:
        return

    monkeypatch.setattr(Transfer, "_look_again", look_again)
    search = explore(race(10 * G, conditional=False))
    deleted_before_publishing = [
        schedule
        for _, schedule in search.violations
        if schedule.index(f"pruner: delete {BLOB}") < schedule.index(f"writer: put {NAME}")
        and f"writer: touch {BLOB}" in schedule
    ]
    assert deleted_before_publishing


def test_a_truncated_blob_is_sent_again() -> None:
    def case() -> tuple[World, dict[str, Body]]:
        world = world_with_an_orphan()
        world.write(BLOB, OLD[:-1], 10 * G)
        return world, {"writer": writer(world, OLD), "pruner": pruner(world)}

    search = explore(case)
    assert not search.violations, found(search)


class Keeping(World):
    """A world in which a name that the writer has written must not go again."""

    written = False

    def write(self, path: str, data: bytes, age: float = 0.0) -> None:
        super().write(path, data, age)
        self.written |= path == NAME and age == 0.0

    def violation(self) -> str | None:
        if self.written and NAME not in self.objects:
            return "what was published is gone"
        return super().violation()


def rewriting(**store: Any) -> tuple[World, dict[str, Body]]:
    world = world_with_an_orphan(Keeping)
    put_name(world, "new", 10 * G, OLD)
    policy = PrunePolicy(older_than=9 * G)
    return world, {
        "writer": writer(world, OLD, **store),
        "pruner": pruner(world, policy=policy, **store),
    }


def test_a_name_that_is_written_anew_does_not_go() -> None:
    search = explore(rewriting)
    assert not search.violations, found(search)


def test_control_a_name_deleted_without_comparing() -> None:
    assert explore(lambda: rewriting(conditional=False), stop_at_first=True).violations


class Losing(SteppedFilesystem):
    """The first delete of a blob takes effect, and its answer is lost."""

    lost = False

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        done = await super().delete(path, unless_changed)
        if unless_changed is not None and not self.lost:
            self.lost = True
            raise ConnectionError("no answer")
        return done


class Repeating(SteppedFilesystem):
    """A client that sends a delete again, as if its first answer had been lost."""

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        await super().delete(path, unless_changed)
        return await super().delete(path)


def pruning_through(kind: type[SteppedFilesystem]) -> tuple[World, dict[str, Body]]:
    world = world_with_an_orphan()

    async def pruner(actor: Actor) -> None:
        layout = kind(world, actor.turn, actor.note).layout()
        plan = await prune.plan_prune([layout], grace=G, clock=lambda: world.now)
        await prune.execute_prune([layout], plan)

    return world, {"writer": writer(world, OLD), "pruner": pruner}


def test_a_delete_whose_answer_was_lost_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete, "PAUSES", (0.0,))
    search = explore(lambda: pruning_through(Losing))
    assert not search.violations, found(search)


def test_control_a_delete_that_is_repeated_blindly() -> None:
    search = explore(lambda: pruning_through(Repeating), stop_at_first=True)
    assert search.violations
    _, schedule = search.violations[0]
    first = schedule.index(f"pruner: delete {BLOB}")
    assert f"pruner: delete {BLOB}" in schedule[first + 1 :]
