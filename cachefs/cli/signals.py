"""Signals while ``cachefs run`` runs a command: the command gets them."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_ENDING: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_KEYS: Final = (signal.SIGINT, signal.SIGQUIT)
"""What Ctrl-C and Ctrl-\\ send, to all processes in the foreground of the terminal."""


class Signalled(Protocol):
    """A command, or several."""

    def is_running(self) -> bool:
        """Whether a command runs now."""

    def signal(self, number: int) -> bool:
        """Send a signal to what runs; False if nothing does."""

    def resize(self) -> None:
        """Tell what runs that the size of the terminal changed."""


@contextmanager
def forwarded(
    action: Signalled, note: Callable[[int], None] = lambda _number: None
) -> Iterator[None]:
    """Forward signals to the command while it runs; otherwise they act on this program as usual.

    Args:
        action: the command, or several.
        note: called first with a signal that a running command gets and that may end it.
    """

    def end(number: int, _frame: object) -> None:
        if not action.is_running():
            # An exception, so that unfinished work is cleaned up.
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        note(number)
        if number not in _KEYS or not _is_in_foreground():
            action.signal(number)

    def stop(number: int, _frame: object) -> None:
        action.signal(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # returns when this program is continued
        signal.signal(number, stop)

    def go_on(number: int, _frame: object) -> None:
        action.signal(number)

    def resize(number: int, _frame: object) -> None:
        action.resize()
        action.signal(number)

    handlers = dict.fromkeys(_ENDING, end) | {
        signal.SIGTSTP: stop,
        signal.SIGCONT: go_on,
        signal.SIGWINCH: resize,
    }
    before: dict[int, Any] = {}
    for known, handler in handlers.items():
        if signal.getsignal(known) != signal.SIG_IGN:
            before[known] = signal.signal(known, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _is_in_foreground() -> bool:
    """Whether the terminal sends what is typed to this process group, and so to the command."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
