"""The program in separate processes, in pipes and on terminals.

Most of these processes do not start Python: see :mod:`tests.warm`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tests import warm

ESCAPES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|9[0-7])[;m]")


PROGRAM = (sys.executable, "-m", "cachefs")


class Ended(NamedTuple):
    """The exit status and output of a program."""

    status: int
    out: str
    err: str


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``cachefs`` with these arguments."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(
    *arguments: str, cwd: str | os.PathLike[str] | None = None, env: dict[str, str] | None = None
) -> Ended:
    """Run ``cachefs`` with these arguments to its end."""
    done = run_for_bytes(*arguments, cwd=cwd, env=env)
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_for_bytes(
    *arguments: str, cwd: str | os.PathLike[str] | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``cachefs`` with these arguments to its end, and do not decode its output."""
    with contextlib.ExitStack() as files:
        nothing = files.enter_context(Path(os.devnull).open("rb"))
        readers, writers = zip(*(_pipe(files) for _ in range(2)), strict=True)
        streams = (nothing.fileno(), writers[0].fileno(), writers[1].fileno())
        running = warm.start(arguments, streams, cwd=cwd, env=env)
        if running is not None:
            files.enter_context(running.ends)
            for writer in writers:
                writer.close()
            out, err = _read(*readers)
            return subprocess.CompletedProcess([*arguments], running.wait(60), out, err)
    return subprocess.run(
        [*PROGRAM, *arguments], check=False, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60,
    )  # fmt: skip


def _pipe(files: contextlib.ExitStack) -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return (
        files.enter_context(os.fdopen(reading, "rb")),
        files.enter_context(os.fdopen(writing, "wb", 0)),
    )


def _read(*readers: BinaryIO) -> list[bytes]:
    """Read all of them at a time, because a program waits for whoever reads slowly."""
    with ThreadPoolExecutor(len(readers)) as pool:
        return list(pool.map(lambda reader: reader.read(), readers))


def on_terminal(
    *arguments: str, columns: int = 80, when: str = "", typed: bytes = b"", **environment: str
) -> Ended:
    """Run ``cachefs`` on a terminal of this width; all its output is in ``out``.

    ``typed`` are keys that are pressed once it shows ``when``, and again if there is no reaction:
    keys that arrive just before it starts to read are lost if it changes the terminal first.
    """
    # Test runners set their width, and forbid or force colours.
    told = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    surroundings = {name: value for name, value in os.environ.items() if name not in told}
    surroundings |= {"TERM": "xterm-256color"} | environment
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    streams = (inside, inside, inside)
    running = warm.start(arguments, streams, env=surroundings, terminal=True)
    assert running is not None, "nothing in the environment is new"
    with running.ends:
        os.close(inside)
        shown, pressed = b"", False
        for data in _until_closed(outside):
            shown += data
            if typed and when.encode() in shown and not (pressed and data):
                os.write(outside, typed)
                pressed = True
        os.close(outside)
        return Ended(running.wait(60), shown.decode().replace("\r\n", "\n"), "")


def _until_closed(terminal: int) -> Iterator[bytes]:
    """The output as it comes; empty bytes after every two seconds without output."""
    while True:
        if not select.select([terminal], [], [], 2.0)[0]:
            yield b""
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # on Linux EIO, when the last program has ended
            return
        if not data:
            return
        yield data
