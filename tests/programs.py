"""The program in separate processes, in pipes and on terminals."""

from __future__ import annotations

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
from typing import Any, NamedTuple

ESCAPES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|9[0-7])[;m]")


class Ended(NamedTuple):
    """The exit status and output of a program."""

    status: int
    out: str
    err: str


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``cachefs`` with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "cachefs", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments: str, **options: Any) -> Ended:
    """Run ``cachefs`` with these arguments to its end."""
    with start(*arguments, **options) as process:
        out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)


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
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "cachefs", *arguments],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=surroundings | {"TERM": "xterm-256color"} | environment,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - Ctrl-C goes to the owner of the terminal
    ) as process:
        os.close(inside)
        shown, pressed = b"", False
        for data in _until_closed(outside):
            shown += data
            if typed and when.encode() in shown and not (pressed and data):
                os.write(outside, typed)
                pressed = True
    os.close(outside)
    return Ended(process.returncode, shown.decode().replace("\r\n", "\n"), "")


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


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
