"""The program in processes of its own, in pipes and on terminals."""

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
    """What a program left."""

    status: int
    out: str
    err: str


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """``cachefs`` with these arguments, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cachefs", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments: str, **options: Any) -> Ended:
    """The same, to its end."""
    with start(*arguments, **options) as process:
        out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err)


def on_terminal(
    *arguments: str, columns: int = 80, when: str = "", typed: bytes = b"", **environment: str
) -> Ended:
    """The program on a terminal of this width; all it shows is in ``out``.

    ``typed`` are the keys that are pressed once it shows ``when``, and again when nothing follows:
    those that come just before it begins to read get lost where it first changes the terminal.
    """
    # Test runners say how wide they are, and forbid or force colours.
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
        preexec_fn=_take_terminal,  # noqa: PLW1509 - Ctrl-C is for whoever has the terminal
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
    """What comes, and nothing after each two seconds in which nothing does."""
    while True:
        if not select.select([terminal], [], [], 2.0)[0]:
            yield b""
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the last program has left
            return
        if not data:
            return
        yield data
