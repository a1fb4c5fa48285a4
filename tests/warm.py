"""Programs without their start: a process that has imported the libraries forks for each.

To start Python and to import the libraries takes longer than most commands, up to a second with
those for S3. Here, one process for each worker of a test run, the *parent*, imports them once. For
each program it forks a process with the given streams, directory and environment, which imports
the command line, runs it, and ends as any Python program ends.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "FSSPEC_", "MALLOC_", "COVERAGE")
"""Variables that are read when Python starts or a library is imported."""

_ROOT = Path(__file__).parents[1]
_COMMANDS = {path.stem for path in (_ROOT / "cachefs" / "cli").glob("[a-z]*.py")} - {"main"}

# Without "cachefs.cli.main", which looks at the terminal when it is imported, and without obstore,
# because the program ends in another way if it was imported.
_IMPORTED = (
    "filelock",
    "humanize",
    "pathspec",
    "rich.console",
    "rich.progress",
    "s3fs",
    "xxhash",
    "zstandard",
    "cachefs.cache",
    "cachefs.filesystems.s3.session",
    *(f"cachefs.cli.{command}" for command in _COMMANDS),
)

_MESSAGE = 1 << 16


class Warm(NamedTuple):
    """A running program. Close ``ends`` when it has ended."""

    pid: int
    ends: socket.socket

    def wait(self, timeout: float) -> int:
        """Its exit status, as ``subprocess`` has it. Raises TimeoutExpired, and kills it."""
        self.ends.settimeout(timeout)
        try:
            return int(self.ends.recv(_MESSAGE))
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired("cachefs", timeout) from None


class _Parent:
    """The parent of this test process."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.environment = _at_start(os.environ)
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(its.fileno())],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        # It ends when this socket is closed, even if this process is killed.
        process.returncode = 0
        self.requests = ours
        atexit.register(ours.close)


_parents: dict[int, _Parent] = {}


def start(
    arguments: Iterable[str],
    streams: tuple[int, int, int],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: dict[str, str] | None = None,
    terminal: bool = False,
) -> Warm | None:
    """Start ``cachefs`` with these arguments; None if it needs a process of its own.

    Args:
        arguments: without the name of the program.
        streams: descriptors for its standard input, output and error.
        cwd: its working directory.
        env: its environment.
        terminal: whether its standard input becomes its controlling terminal.
    """
    environment = dict(os.environ if env is None else env)
    parent = _parents.get(os.getpid())
    if parent is None:
        parent = _parents[os.getpid()] = _Parent()
    if _at_start(environment) != parent.environment:
        return None
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    what = [[*arguments], os.fspath(cwd or Path.cwd()), environment, terminal]
    with its:
        socket.send_fds(parent.requests, [b"x"], [*streams, its.fileno()])
    ours.send(json.dumps(what).encode())
    return Warm(int(ours.recv(_MESSAGE)), ours)


def _at_start(environment: Iterable[str] | os._Environ[str]) -> dict[str, str]:
    found = dict(environment)  # type: ignore[call-overload]
    return {name: text for name, text in found.items() if name.startswith(_AT_START)}


def _serve(requests: socket.socket) -> None:
    """Fork for each request. Returns in the programs, which are to call ``main``."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
        if not message:
            sys.exit()
        *streams, answers = descriptors
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with socket.socket(fileno=answers) as answering:
                if _is_program(answering, streams):
                    return
        for descriptor in descriptors:
            os.close(descriptor)


def _is_program(answering: socket.socket, streams: list[int]) -> bool:
    """Fork once more: the one becomes the program, the other tells how it ended."""
    arguments, cwd, environment, terminal = json.loads(answering.recv(_MESSAGE))
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        answering.send(str(pid).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            answering.send(str(status).encode())
        os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if terminal:
        take_terminal()
    sys.argv = ["cachefs", *arguments]
    return True


def take_terminal() -> None:
    """Make standard input the controlling terminal: Ctrl-C goes to the owner of the terminal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    for _name in _IMPORTED:
        importlib.import_module(_name)
    gc.freeze()  # or each program would copy the memory that it only looks at
    _serve(socket.socket(fileno=int(sys.argv[1])))

    from cachefs.cli.main import main

    main()
