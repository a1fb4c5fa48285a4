"""Running commands: reading their output as it arrives, stopping them with their children."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

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
        argv: the command; searched for on the PATH of ``environment``. A script without a ``#!``
            line is run by ``/bin/sh``, as shells do.
        directory: where it runs.
        environment: its whole environment.
        output: called with the stream and the bytes of every chunk of output, from one thread, in
            the order in which they were read.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        output: Callable[[int, bytes], None],
    ) -> None:
        self._argv = list(argv)
        self._directory = directory
        self._environment = dict(environment)
        self._output = output
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def run(self) -> int:
        """Run to the end and return the status: negative if a signal ended it.

        Raises FileNotFoundError if there is no such command, and another OSError if it cannot be
        started.
        """
        with ExitStack() as outside:
            reading: dict[int, int] = {}
            with ExitStack() as inside, self._lock:
                if self._stopped:
                    return -signal.SIGTERM
                writing: list[int] = []
                for stream in (STDOUT, STDERR):
                    read, write = self._channel(stream)
                    outside.callback(os.close, read)
                    inside.callback(os.close, write)
                    reading[read] = stream
                    writing.append(write)
                popen = self._popen = self._start(*writing)
            try:
                self._forward(popen, reading)
                return popen.wait()
            finally:
                self._finish(popen)

    def is_running(self) -> bool:
        """Whether the command has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def signal(self, number: int) -> bool:
        """Send a signal to the command and all its children; False if nothing runs."""
        if self._popen is None:
            return False
        with suppress(ProcessLookupError, PermissionError):
            self._send(self._popen, number)
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

    @property
    def _popen_options(self) -> Mapping[str, Any]:
        return {"stdin": subprocess.DEVNULL, "start_new_session": True}

    def _channel(self, stream: int) -> tuple[int, int]:  # noqa: ARG002 - for subclasses
        """Two descriptors: where the stream is read, and where the command writes to it."""
        return os.pipe()

    def _send(self, popen: subprocess.Popen[bytes], number: int) -> None:
        os.killpg(popen.pid, number)

    def _finish(self, popen: subprocess.Popen[bytes]) -> None:
        """Kill what the command left in the background, and the command if it still runs."""
        self.signal(signal.SIGKILL)
        popen.wait()

    def _start(self, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        def popen(argv: list[str]) -> subprocess.Popen[bytes]:
            return subprocess.Popen(  # noqa: S603 - running commands is what this is for
                argv,
                cwd=self._directory,
                env=self._environment,
                stdout=stdout,
                stderr=stderr,
                **self._popen_options,
            )

        try:
            return popen(self._argv)
        except OSError as error:
            program = self._program()
            if program is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such command") from error
            if error.errno == errno.ENOENT:
                raise OSError(errno.ENOEXEC, "the interpreter of the script is missing") from error
            if error.errno != errno.ENOEXEC or _is_binary(program):
                raise
            return popen(["/bin/sh", str(program), *self._argv[1:]])

    def _program(self) -> Path | None:
        """The file of the command, executable or not, as a shell searches for it."""
        name = self._argv[0]
        if "/" in name:
            program = self._directory / name
            return program if program.exists() else None
        path = self._environment.get("PATH", os.defpath)
        below = (self._directory / folder / name for folder in path.split(os.pathsep))
        return next((program for program in below if program.is_file()), None)

    def _forward(self, popen: subprocess.Popen[bytes], streams: Mapping[int, int]) -> None:
        """Forward output until both streams end, or the command has ended and writes no more.

        Processes that it left in the background may keep the streams open forever.
        """
        with selectors.DefaultSelector() as selector:
            for descriptor, stream in streams.items():
                selector.register(descriptor, selectors.EVENT_READ, stream)
            while selector.get_map():
                ready = selector.select(timeout=0.1)
                if not ready and popen.poll() is not None:
                    return
                for key, _ in ready:
                    data = _read(key.fd)
                    if data:
                        self._output(key.data, data)
                    else:
                        selector.unregister(key.fd)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _READ_SIZE)
    except OSError as error:
        if error.errno == errno.EIO:  # the end of a pseudo-terminal on Linux
            return b""
        raise


def _is_binary(program: Path) -> bool:
    """Whether a file is no script: as in shells, if there is a NUL byte in its first line."""
    with program.open("rb") as file:
        return b"\0" in file.read(256).partition(b"\n")[0]


def ended(status: int) -> str:
    """How a command failed, by its exit status, which is negative for a signal."""
    return f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
