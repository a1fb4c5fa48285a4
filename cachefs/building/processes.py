"""Running commands: reading their output as it arrives, stopping them with their children."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

STDOUT: Final = 1
STDERR: Final = 2

STOP_TIMEOUT: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""

_READ_SIZE: Final = 64 * 1024


class Process:
    """A command in its own session, so that signals reach all processes that it starts.

    Args:
        argv: the command; searched for on the PATH of ``environment``.
        directory: where it runs.
        environment: its whole environment.
        output: called with the stream and the bytes of every chunk of output, from one thread, in
            the order in which they were read.
        stdin: its standard input: by default nothing; None for that of this process.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        output: Callable[[int, bytes], None],
        stdin: int | None = subprocess.DEVNULL,
    ) -> None:
        self._argv = list(argv)
        self._directory = directory
        self._environment = dict(environment)
        self._output = output
        self._stdin = stdin
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def run(self) -> int:
        """Run to the end and return the status: negative if a signal ended it.

        Raises OSError if it cannot be started.
        """
        with self._lock:
            if self._stopped:
                return -signal.SIGTERM
            self._popen = subprocess.Popen(  # noqa: S603 - running commands is what this is for
                self._argv,
                cwd=self._directory,
                env=self._environment,
                stdin=self._stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        with self._popen as popen:
            try:
                self._forward(popen)
                return popen.wait()
            finally:
                self.signal(signal.SIGKILL)

    def signal(self, number: int) -> bool:
        """Send a signal to the command and all its children; False if nothing runs."""
        if self._popen is None:
            return False
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)
            return True
        return False

    def stop(self) -> None:
        """Send SIGTERM, and after :data:`STOP_TIMEOUT` seconds SIGKILL."""
        with self._lock:
            self._stopped = True
        if self.signal(signal.SIGTERM):
            timer = threading.Timer(STOP_TIMEOUT, self.signal, [signal.SIGKILL])
            timer.daemon = True
            timer.start()

    def objection(self) -> str:
        """None: it ran in a directory of its own."""
        return ""

    def _forward(self, popen: subprocess.Popen[bytes]) -> None:
        """Forward output until both streams end, or the command has ended and writes no more.

        Processes that it left in the background may keep the streams open forever.
        """
        with selectors.DefaultSelector() as selector:
            for stream, number in ((popen.stdout, STDOUT), (popen.stderr, STDERR)):
                if stream is not None:
                    selector.register(stream.fileno(), selectors.EVENT_READ, number)
            while selector.get_map():
                ready = selector.select(timeout=0.1)
                if not ready and popen.poll() is not None:
                    return
                for key, _ in ready:
                    data = os.read(key.fd, _READ_SIZE)
                    if data:
                        self._output(key.data, data)
                    else:
                        selector.unregister(key.fd)
