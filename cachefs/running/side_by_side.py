"""Runs named steps, each when those that it needs have ended, several at a time.

Each has a thread, in which it is run as ``cachefs run`` does: its inputs are read then, so that it
is a hit if an earlier step made what it made before.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final, Literal, Protocol

from msgspec import Struct

from cachefs.concurrency import SIGNAL_DELAY, Interruption
from cachefs.keying.patterns import fixed_part
from cachefs.running.command import UserCommand
from cachefs.running.exclusive import exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cachefs.building.actions import Sink
    from cachefs.building.report import StepReport
    from cachefs.running.needs import Placed

CURRENT: ContextVar[str] = ContextVar("step", default="")
"""The named step that this is done for, for messages."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals after which no other step begins."""


Outcome = Literal["hit", "ran", "failed", "not run", "would hit", "would run", "not known"]


class Ended(Struct, frozen=True, kw_only=True):
    """How a named step ended, or would end.

    Attributes:
        name: the step.
        outcome: ``hit``, ``ran``, ``failed``, or ``not run``, because one that it needs failed or
            a signal came first; of a dry run, ``would hit``, ``would run`` or ``not known``.
        seconds: how long it took, hit or run.
        report: what was done, if it was a hit or ran.
        error: why it failed.
        because: the step that failed, so that this one was not run, or that has to run before it is
            known what this one would do; empty if there is none.
    """

    name: str
    outcome: Outcome = "not run"
    seconds: float = 0.0
    report: StepReport | None = None
    error: Exception | None = None
    because: str = ""


class Display(Protocol):
    """Shows the output of several steps. Called from several threads."""

    def begin(self, placed: Placed) -> Sink:
        """Where the output of a step goes, which begins."""

    def end(self, name: str) -> None:
        """A step has ended."""


class SideBySide:
    """The steps of one call, and the signals to them.

    Args:
        steps: the steps, in an order in which they can run.
        directory: where they run.
        perform: runs one, with its command, and returns what was done.
        display: shows the output.
        jobs: how many run at a time.
        keep_going: run all that do not need a step that failed; by default no other begins then.

    Attributes:
        stopped_by: the signal after which no other step begins; 0 if there was none.
        failures: the steps that failed, in the order in which they ended.
    """

    def __init__(
        self,
        steps: Mapping[str, Placed],
        directory: Path,
        perform: Callable[[Placed, UserCommand, Sink], StepReport],
        display: Display,
        *,
        jobs: int,
        keep_going: bool,
    ) -> None:
        self._steps = steps
        self._directory = directory
        self._perform = perform
        self._display = display
        self._jobs = jobs
        self._keep_going = keep_going
        self._commands: dict[str, UserCommand] = {}
        self._interruptions = {name: Interruption() for name in steps}
        self._ended: dict[str, Ended] = {}
        self.stopped_by = 0
        self.failures: list[Ended] = []

    def run(self) -> list[Ended]:
        """Run the steps, and return how each ended. What a step raises is in its ``error``."""
        sorter = TopologicalSorter({name: one.needs for name, one in self._steps.items()})
        sorter.prepare()
        order = list(self._steps)
        made = (
            self._directory / fixed_part(output)
            for one in self._steps.values()
            for output in one.outputs
        )
        with exclusive(made), ThreadPoolExecutor(self._jobs, "step") as pool:
            waiting: set[Future[Ended]] = set()
            try:
                while True:
                    if self._begins_more():
                        for name in sorted(sorter.get_ready(), key=order.index):
                            waiting.add(pool.submit(copy_context().run, self._one, name))
                    if not waiting:
                        return [self._how(name) for name in self._steps]
                    done, waiting = wait(waiting, SIGNAL_DELAY, FIRST_COMPLETED)
                    for future in done:
                        self._note(future.result(), sorter)
            except BaseException:
                self._stop_all()
                raise

    def _begins_more(self) -> bool:
        return not self.stopped_by and (self._keep_going or not self.failures)

    def _note(self, ended: Ended, sorter: TopologicalSorter[str]) -> None:
        self._ended[ended.name] = ended
        if ended.outcome in ("hit", "ran"):
            sorter.done(ended.name)

    def _how(self, name: str) -> Ended:
        """How a step ended, or which failure kept it from running."""
        if name not in self._ended:
            failed = next((one for one in self._steps[name].needs if self._is_bad(one)), "")
            self._ended[name] = Ended(name=name, because=failed)
        return self._ended[name]

    def _is_bad(self, name: str) -> bool:
        ended = self._how(name)
        return ended.outcome == "failed" or bool(ended.because)

    def _one(self, name: str) -> Ended:
        """Run one step, in its thread."""
        if not self._begins_more():
            return Ended(name=name)
        CURRENT.set(name)
        self._interruptions[name].begin()
        placed = self._steps[name]
        sink = self._display.begin(placed)
        command = UserCommand(
            placed.step.argv, self._directory, sink, incremental=placed.step.incremental
        )
        self._commands[name] = command
        started = time.perf_counter()
        try:
            report = self._perform(placed, command, sink)
        except CancelledError:
            return Ended(name=name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others have to end first
            seconds = time.perf_counter() - started
            failed = Ended(name=name, outcome="failed", error=error, seconds=seconds)
            self.failures.append(failed)  # here, so that this thread begins no other step
            return failed
        finally:
            del self._commands[name]
            self._display.end(name)
        seconds = time.perf_counter() - started
        outcome: Outcome = "hit" if report.outcome == "hit" else "ran"
        return Ended(name=name, outcome=outcome, seconds=seconds, report=report)

    # --- signals, in the main thread --------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether a command runs now."""
        return any(command.is_running() for command in self._running())

    def signal(self, number: int) -> bool:
        """Send all commands that run a signal; False if there is none."""
        sent = [command.signal(number) for command in self._running()]
        return any(sent)

    def resize(self) -> None:
        """Tell all commands that the size of the terminal changed."""
        for command in self._running():
            command.resize()

    def note(self, number: int) -> None:
        """After a signal that ends programs, begin nothing more; commands that run may go on."""
        if number in _ENDING:
            self.stopped_by = self.stopped_by or number
            for name, command in list(self._commands.items()):
                if not command.is_running() and not command.succeeded:
                    self._interruptions[name].interrupt()

    def _running(self) -> list[UserCommand]:
        return list(self._commands.values())

    def _stop_all(self) -> None:
        self.stopped_by = self.stopped_by or signal.SIGINT
        for interruption in self._interruptions.values():
            interruption.interrupt()
        for command in self._running():
            command.stop()
