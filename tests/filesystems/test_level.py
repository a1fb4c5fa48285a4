"""How many calls run at a time: never above the bound, enough for the line, and fewer if refused.

A simulated server takes calls behind a round trip: it works on one after the other, and may refuse
those that are too many for it. Time is simulated, so nothing here depends on this machine.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.filesystems.level import LEAST, START, Call, Level, pause_after


@dataclass
class World:
    """A server and its clients' clock.

    Attributes:
        round_trip: seconds.
        rate: calls that the server does in a second.
        slowness: what the time of each call is multiplied by, drawn for each.
        refuses: whether a call is refused, given how many run and the time.
    """

    round_trip: float
    rate: float
    slowness: Callable[[], float] = lambda: 1.0
    refuses: Callable[[int, float], bool] = lambda _running, _now: False
    now: float = 0.0
    free_at: float = 0.0
    done: int = 0
    refused: int = 0
    most: int = 0
    running: list[tuple[float, int, Call]] = field(default_factory=list)
    paused: list[tuple[float, int, Call]] = field(default_factory=list)
    refusals: dict[Call, int] = field(default_factory=dict)
    begun: int = 0

    def clock(self) -> float:
        return self.now

    def run(self, level: Level, calls: int) -> float:
        """Make so many calls, as many at a time as allowed. Returns the seconds that it took."""
        started, goal, left = self.now, self.done + calls, calls
        while self.done < goal:
            while left and len(self.running) + len(self.paused) < level.limit:
                left -= 1
                self._send(level.call())
            ends = self.running[0][0] if self.running else float("inf")
            if self.paused and self.paused[0][0] <= ends:
                self.now, _, call = heapq.heappop(self.paused)
                self._send(call)
                continue
            self.now, _, call = heapq.heappop(self.running)
            if self.refuses(len(self.running) + 1, self.now):
                self.refused += 1
                self.refusals[call] = self.refusals.get(call, 0) + 1
                pause = pause_after(self.refusals[call])
                call.refused(pause)
                heapq.heappush(self.paused, (self.now + pause, self.begun, call))
                continue
            self.done += 1
            call.ended()
        return self.now - started

    def _send(self, call: Call) -> None:
        self.begun += 1
        self.free_at = max(self.free_at, self.now) + 1 / self.rate
        ends = self.free_at + self.round_trip * self.slowness()
        heapq.heappush(self.running, (ends, self.begun, call))
        self.most = max(self.most, len(self.running))


def level_of(world: World, most: int = 256) -> Level:
    return Level(most, clock=world.clock)


@pytest.mark.parametrize("round_trip", [0.001, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("rate", [100.0, 1000.0, 3000.0])
def test_the_server_is_the_limit_and_not_the_line(round_trip: float, rate: float) -> None:
    world = World(round_trip, rate)
    level = level_of(world)
    world.run(level, 3000)
    possible = min(rate, 256 / round_trip)
    assert world.run(level, 1000) < 1.1 * (1000 / possible) + 2 * round_trip
    enough = max(LEAST, possible * round_trip)
    assert level.limit <= 4 * enough + 2 * START


@pytest.mark.parametrize("seed", range(5))
def test_a_server_of_uneven_pace_is_used_all_the_same(seed: int) -> None:
    numbers = random.Random(seed)  # noqa: S311 - not for secrets
    world = World(0.03, 2000.0, slowness=lambda: numbers.lognormvariate(0.0, 0.7))
    level = level_of(world)
    world.run(level, 4000)
    assert 2000 / world.run(level, 2000) > 1000


def test_it_doubles_with_each_round_trip() -> None:
    world = World(0.02, 1e6)
    level = level_of(world)
    world.run(level, 6 * START)
    assert level.limit > 3 * START
    assert world.now < 0.02 * 5


@given(
    most=st.integers(1, 300),
    round_trip=st.floats(1e-5, 1.0),
    rate=st.floats(1.0, 1e5),
    share=st.floats(0.0, 0.9),
    seed=st.integers(0, 99),
)
def test_the_bound_holds_whatever_happens(
    most: int, round_trip: float, rate: float, share: float, seed: int
) -> None:
    numbers = random.Random(seed)  # noqa: S311 - not for secrets
    world = World(round_trip, rate, numbers.random, lambda _running, _now: numbers.random() < share)
    level = level_of(world, most)
    world.run(level, 500)
    assert 1 <= level.limit <= most
    assert world.most <= most


def test_a_call_may_end_in_no_time() -> None:
    level = Level(64, clock=lambda: 0.0)  # as coarse clocks say
    for _ in range(1000):
        level.call().ended()
    assert LEAST <= level.limit <= 64


def test_a_time_without_calls_says_nothing() -> None:
    world = World(0.02, 1e6)
    level = level_of(world)
    world.now += 3600.0
    world.run(level, START + 1)
    assert level.limit > 1.5 * START


def test_a_fixed_level_stays() -> None:
    world = World(0.02, 10.0)
    level = Level.fixed(3)
    world.run(level, 100)
    assert (level.limit, world.most) == (3, 3)


@pytest.mark.parametrize("takes", [5, 10, 40])
def test_a_server_that_refuses_too_many_gets_fewer(takes: int) -> None:
    world = World(0.02, 1e4, refuses=lambda running, _now: running > takes)
    level = level_of(world)
    world.run(level, 2000)
    world.refused = 0
    seconds = world.run(level, 2000)
    assert world.refused < 0.25 * 2000
    assert 2000 / seconds > 0.4 * takes / 0.02


@pytest.mark.parametrize("seed", range(5))
def test_refusals_that_have_another_reason_do_not_slow_down(seed: int) -> None:
    numbers = random.Random(seed)  # noqa: S311 - not for secrets
    quiet, refusing = World(0.02, 2000.0), World(0.02, 2000.0)
    refusing.refuses = lambda _running, _now: numbers.random() < 0.3
    assert refusing.run(level_of(refusing), 6000) < 3 * quiet.run(level_of(quiet), 6000)


def test_a_server_that_gets_slow_gets_fewer_and_later_more() -> None:
    world = World(0.02, 3000.0)
    level = level_of(world)
    world.run(level, 3000)
    before = level.limit
    world.rate = 200.0
    world.run(level, 2000)
    assert level.limit < before / 3
    world.rate = 3000.0
    world.run(level, 3000)
    assert level.limit > before / 2


def test_a_longer_line_gets_more() -> None:
    world = World(0.01, 2000.0)
    level = level_of(world)
    world.run(level, 2000)
    world.round_trip = 0.1
    world.run(level, 20_000)
    assert 2000 / world.run(level, 2000) > 0.7 * 2000


def test_few_calls_change_nothing() -> None:
    world = World(0.02, 1000.0)
    level = level_of(world)
    for _ in range(20):
        world.run(level, 2)
        world.now += 1.0
    assert level.limit == START
