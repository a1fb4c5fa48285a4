"""Named steps run once what they need has ended, several at a time, as ``cachefs run`` does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cachefs.building.report import StepReport
from cachefs.running.command import UserCommand, run_cached
from cachefs.running.exclusive import exclusive
from cachefs.running.needs import Placed, placed
from cachefs.running.policy import Policy
from cachefs.running.project import NamedStep, Project, Settings
from cachefs.running.side_by_side import Ended, SideBySide

if TYPE_CHECKING:
    from cachefs.building.actions import Sink


class Place:
    """A directory with steps that are shell scripts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = str(directory.parent / "cache")
        self.said: dict[str, bytes] = {}

    def begin(self, one: Placed) -> Sink:
        def hear(_stream: int, data: bytes) -> None:
            self.said[one.name] = self.said.get(one.name, b"") + data

        return hear

    def end(self, name: str) -> None:
        self.said.setdefault(name, b"")

    def perform(self, one: Placed, command: UserCommand, sink: Sink) -> StepReport:
        return run_cached(
            command,
            policy=Policy(cache=(self.cache,)),
            inputs=one.inputs_in(self.directory),
            outputs=[output for output in one.outputs if output not in one.optional],
            optional=one.optional,
            variables=one.step.variables,
            replay=sink,
            exclude=one.step.exclude,
            ignore=one.step.ignore,
            whole=one.whole,
        )

    def steps(
        self, *names: str, jobs: int = 4, keep_going: bool = False, **steps: Any
    ) -> SideBySide:
        named = {name: NamedStep(**step) for name, step in steps.items()}
        project = Project(self.directory / "cachefs.toml", Settings(), named)
        return SideBySide(
            placed(project, names or list(named)),
            self.directory,
            self.perform,
            self,
            jobs=jobs,
            keep_going=keep_going,
        )

    def run(self, *names: str, **options: Any) -> dict[str, Ended]:
        return {one.name: one for one in self.steps(*names, **options).run()}

    def outcomes(self, *names: str, **options: Any) -> dict[str, str]:
        return {name: one.outcome for name, one in self.run(*names, **options).items()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    directory = tmp_path / "project"
    directory.mkdir()
    return Place(directory)


# --- order and early cutoff -----------------------------------------------------------------------


def test_a_step_hits_if_what_it_needs_makes_the_same_again(place: Place) -> None:
    (place.directory / "spec").write_text("content # a comment\n")
    steps: dict[str, Any] = {
        "check": {"command": "cat prog", "needs": ["compile"]},
        "compile": {"command": "cat gen.c > prog", "inputs": ["gen.c"], "outputs": ["prog"]},
        "gen": {"command": "sed 's/#.*//' spec > gen.c", "inputs": ["spec"], "outputs": ["gen.c"]},
    }
    assert list(place.outcomes(**steps).items()) == [
        ("gen", "ran"),
        ("compile", "ran"),
        ("check", "ran"),
    ]
    assert set(place.outcomes(**steps).values()) == {"hit"}
    (place.directory / "spec").write_text("content # another comment\n")
    assert place.outcomes(**steps) == {"gen": "ran", "compile": "hit", "check": "hit"}
    (place.directory / "spec").write_text("other content\n")
    assert place.outcomes(**steps) == {"gen": "ran", "compile": "ran", "check": "ran"}
    assert place.said["check"].endswith(b"other content\n")


def test_what_a_step_makes_counts_although_an_ignore_file_names_it(place: Place) -> None:
    (place.directory / ".gitignore").write_text("build/\n*.o\n")
    (place.directory / "a.c").write_text("1")
    steps: dict[str, Any] = {
        "build": {
            "command": "mkdir build; cp a.c build/a.o",
            "inputs": ["a.c"],
            "outputs": ["build"],
        },
        "listed": {"command": "cat build/a.o", "needs": ["build"]},
        "named": {"command": "cat build/*.o", "inputs": ["build"]},
    }
    assert set(place.outcomes(**steps).values()) == {"ran"}
    assert set(place.outcomes(**steps).values()) == {"hit"}
    (place.directory / "a.c").write_text("2")
    assert set(place.outcomes(**steps).values()) == {"ran"}
    assert (place.said["listed"], place.said["named"]) == (b"112", b"112")


def test_a_hit_puts_its_outputs_in_place_before_the_next_step_reads_them(place: Place) -> None:
    steps: dict[str, Any] = {
        "make": {"command": "echo made > made", "outputs": ["made"]},
        "use": {"command": "cat made > used", "inputs": ["made"], "outputs": ["used"]},
    }
    place.run(**steps)
    for name in ("made", "used"):
        (place.directory / name).unlink()
    assert place.outcomes(**steps) == {"make": "hit", "use": "hit"}
    assert (place.directory / "used").read_text() == "made\n"


def test_an_output_may_be_a_pattern_and_need_not_be_made(place: Place) -> None:
    (place.directory / "in").write_text("a b")
    steps: dict[str, Any] = {
        "make": {
            "command": "mkdir -p o; for n in $(cat in); do echo $n > o/$n.txt; done",
            "inputs": ["in"],
            "outputs": ["o/*.txt"],
            "optional_outputs": ["log"],
        },
        "use": {"command": "cat o/*.txt", "needs": ["make"]},
    }
    assert place.outcomes(**steps) == {"make": "ran", "use": "ran"}
    assert place.outcomes(**steps) == {"make": "hit", "use": "hit"}
    (place.directory / "in").write_text("a c")
    assert place.outcomes(**steps) == {"make": "ran", "use": "ran"}
    assert place.said["use"] == b"a\nb\n" * 2 + b"a\nc\n"


# --- side by side ---------------------------------------------------------------------------------

MEET = "touch here.{me}; while ! [ -e here.{other} ]; do sleep 0.01; done; touch {me}"


def test_steps_with_outputs_of_their_own_run_side_by_side(place: Place) -> None:
    """Each waits for the other to begin."""
    steps: dict[str, Any] = {
        me: {"command": MEET.format(me=me, other=other), "outputs": [me]}
        for me, other in (("a", "b"), ("b", "a"))
    }
    assert place.outcomes(**steps, jobs=2) == {"a": "ran", "b": "ran"}


def test_more_steps_run_than_the_loop_has_threads(place: Place) -> None:
    number = (os.cpu_count() or 1) + 4 + 2
    wait = f"touch here.$ME; while [ $(ls here.* | wc -l) -lt {number} ]; do sleep 0.05; done"
    steps: dict[str, Any] = {
        f"s{at}": {"command": wait, "env": [f"ME={at}"]} for at in range(number)
    }
    assert set(place.outcomes(**steps, jobs=number).values()) == {"ran"}


def test_at_most_as_many_steps_run_as_jobs(place: Place) -> None:
    alone = "mkdir busy; sleep 0.02; rmdir busy; echo $ME"
    steps: dict[str, Any] = {f"s{at}": {"command": alone, "env": [f"ME={at}"]} for at in range(5)}
    assert set(place.outcomes(**steps, jobs=1).values()) == {"ran"}


def test_another_run_waits_for_the_outputs_of_all_steps(place: Place) -> None:
    """Locks belong to a process, so that a step that ends must not release those of others."""
    ask = (
        "from cachefs.running.exclusive import *; from pathlib import Path; import sys, time\n"
        "from cachefs.running import exclusive as module\n"
        "module._wait = lambda *given: sys.exit(0 if module._try_all(*given) else 9)\n"
        "with exclusive([Path('b')]): pass"
    )
    outer = [place.directory / name for name in ("a", "b")]

    def asked() -> int:
        done = subprocess.run([sys.executable, "-c", ask], cwd=place.directory, check=False)
        return done.returncode

    with exclusive(outer):
        with exclusive(outer[:1]):
            pass
        assert asked() == 9
    assert asked() == 0


# --- failures -------------------------------------------------------------------------------------

FAILING: dict[str, Any] = {
    "bad": {"command": "false; true"},
    "after": {"command": "true", "needs": ["bad"]},
    "last": {"command": "true", "needs": ["after"]},
    "other": {"command": "true"},
}


def test_a_failure_stops_what_needs_it_and_nothing_else_begins(place: Place) -> None:
    ended = place.run(**FAILING, jobs=1)
    assert {name: one.outcome for name, one in ended.items()} == {
        "bad": "failed",
        "after": "not run",
        "last": "not run",
        "other": "not run",
    }
    assert [ended[name].because for name in ("after", "last", "other")] == ["bad", "after", ""]


def test_keep_going_runs_what_does_not_need_it(place: Place) -> None:
    outcomes = place.outcomes(**FAILING, jobs=1, keep_going=True)
    assert (outcomes["other"], outcomes["last"]) == ("ran", "not run")


def test_steps_that_run_come_to_their_end_after_a_failure(place: Place) -> None:
    steps: dict[str, Any] = {
        "slow": {
            "command": "touch began; while ! [ -e failed ]; do sleep 0.01; done; echo x > out",
            "outputs": ["out"],
        },
        "bad": {"command": "while ! [ -e began ]; do sleep 0.01; done; touch failed; exit 3"},
        "never": {"command": "touch never", "needs": ["slow"]},
    }
    running = place.steps(**steps, jobs=2)
    ended = {one.name: one.outcome for one in running.run()}
    assert ended == {"slow": "ran", "bad": "failed", "never": "not run"}
    assert [one.name for one in running.failures] == ["bad"]
    assert (place.directory / "out").read_text() == "x\n"
    assert not (place.directory / "never").exists()


def test_mistakes_of_one_step_are_failures_of_that_step(place: Place) -> None:
    ended = place.run(
        missing={"command": "true", "inputs": ["no-such-file"]},
        none={"command": ["no-such-command-here"]},
        fine={"command": "true"},
        keep_going=True,
    )
    assert "does not exist" in str(ended["missing"].error)
    assert "no such command" in str(ended["none"].error)
    assert ended["fine"].outcome == "ran"


# --- signals --------------------------------------------------------------------------------------


@pytest.fixture
def sleeping(place: Place) -> Iterator[tuple[Place, SideBySide, threading.Thread, list[Ended]]]:
    """Two steps that run until a signal, and one that needs them."""
    wait = "trap 'echo caught; exit 7' TERM USR1; touch here.{0}; while :; do sleep 0.02; done"
    running = place.steps(
        a={"command": wait.format("a"), "outputs": ["x"]},
        b={"command": wait.format("b")},
        c={"command": "touch never", "needs": ["a", "b"]},
    )
    (place.directory / "x").write_text("before")
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.extend(running.run()))
    thread.start()
    while not all((place.directory / f"here.{name}").exists() for name in "ab"):
        thread.join(0.01)
    yield place, running, thread, ended
    running.signal(signal.SIGKILL)
    thread.join(60)


def test_a_signal_reaches_all_and_nothing_more_begins(
    sleeping: tuple[Place, SideBySide, threading.Thread, list[Ended]],
) -> None:
    place, running, thread, ended = sleeping
    assert running.is_running()
    running.note(signal.SIGTERM)
    assert running.signal(signal.SIGTERM)
    thread.join(60)
    assert {one.name: one.outcome for one in ended} == {
        "a": "failed",
        "b": "failed",
        "c": "not run",
    }
    assert (place.said["a"], place.said["b"]) == (b"caught\n", b"caught\n")
    assert running.stopped_by == signal.SIGTERM
    assert (place.directory / "x").read_text() == "before"
    assert not running.is_running()


def test_a_step_that_waits_for_its_cache_is_interrupted(place: Place) -> None:
    """Its command has not begun, and it must not begin after a signal."""
    reached, go_on = threading.Event(), threading.Event()

    def perform(one: Placed, command: UserCommand, sink: Sink) -> StepReport:
        reached.set()
        go_on.wait(60)
        return Place.perform(place, one, command, sink)

    place.perform = perform  # type: ignore[method-assign]
    running = place.steps(a={"command": "touch began"}, b={"command": "true", "needs": ["a"]})
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.extend(running.run()))
    thread.start()
    reached.wait(60)
    running.note(signal.SIGINT)
    go_on.set()
    thread.join(60)
    assert {one.name: one.outcome for one in ended} == {"a": "not run", "b": "not run"}
    assert not (place.directory / "began").exists()
