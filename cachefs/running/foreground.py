"""Running a command in place of this program: same terminal, process group and streams."""

from __future__ import annotations

import os
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachefs.building.processes import Process

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

_OUTPUT_FLAGS = 1  # the index in what tcgetattr returns


class ForegroundProcess(Process):
    """A command as a shell starts it: it has the terminal, the standard input and the open files.

    It is in the process group of this program: a key such as Ctrl-C reaches both, killing the
    group kills both, and /dev/tty is the user's terminal. Where an output stream of this program
    is a terminal, that of the command is a pseudo-terminal, so that it shows colours and progress.
    The bytes that it writes are read unchanged, as from a pipe.
    """

    standard_input: int | None = None
    """A descriptor that the command gets as its standard input; None for that of this program."""

    _terminals: Mapping[int, int] = {}
    """The pseudo-terminal of each stream that is one; replaced as a whole, as signals read it."""

    def resize(self) -> None:
        """Tell the command that the size of the terminal changed."""
        for stream, terminal in self._terminals.items():
            # The command may end at any time, and its terminals with it.
            with suppress(OSError, termios.error):
                termios.tcsetwinsize(terminal, termios.tcgetwinsize(stream))

    @property
    def _popen_options(self) -> Mapping[str, Any]:
        # Descriptors of this program are not inheritable. Those that it was given are for the
        # command: the jobserver of make, or /dev/fd/63 in an argument.
        return {"close_fds": False, "stdin": self.standard_input}

    def _channel(self, stream: int) -> tuple[int, int]:
        if not os.isatty(stream):
            return os.pipe()
        outside, inside = os.openpty()
        attributes = termios.tcgetattr(stream)
        attributes[_OUTPUT_FLAGS] &= ~termios.OPOST  # the real terminal adds carriage returns
        termios.tcsetattr(inside, termios.TCSANOW, attributes)
        self._terminals = {**self._terminals, stream: outside}
        self.resize()
        return outside, inside

    def _send(self, popen: subprocess.Popen[bytes], number: int) -> None:
        popen.send_signal(number)

    def _finish(self, popen: subprocess.Popen[bytes]) -> None:
        """Leave what the command started in the background alone, as a shell does."""
        self._terminals = {}
        if popen.poll() is None:
            popen.kill()
            popen.wait()
