"""The output of steps that run side by side, so that it is clear whose it is.

One step at a time writes as it goes: of those that run, the one that began first. The output of
the others is kept, and shown when they end, or once it is their turn.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from cachefs.building.log import LogWriter, frames
from cachefs.cli.output import say, write
from cachefs.masking import mask_text

if TYPE_CHECKING:
    from cachefs.building.actions import Sink
    from cachefs.running.needs import Placed

_IN_MEMORY: Final = 1 << 20
"""Bytes of output that a step may have before they are kept in a temporary file."""


class _Kept:
    """Output that is shown later."""

    def __init__(self) -> None:
        self._file = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
        self._writer = LogWriter(self._file)

    def write(self, stream: int, data: bytes) -> None:
        self._writer.write(stream, data)

    def show(self, sink: Sink) -> None:
        """Pass everything on. What a full disk did not take is missing, which is told."""
        if self._writer.error is None:
            self._file.seek(0)
            for stream, data in frames(self._file):
                sink(stream, data)
        else:
            sink(2, f"cachefs: warning: output is lost: {self._writer.error}\n".encode())
        self._writer.close()


class Interleaving:
    """Shows the output of several steps.

    Args:
        titles: whether the name and command of a step are shown before its output.
    """

    def __init__(self, *, titles: bool) -> None:
        self._titles = titles
        self._lock = threading.Lock()
        self._running: dict[str, _Kept | None] = {}
        self._commands: dict[str, str] = {}
        self._last = ""
        self._unfinished: set[int] = set()

    def begin(self, placed: Placed) -> Sink:
        """Where the output of a step goes, which begins."""
        name = placed.name
        with self._lock:
            self._commands[name] = placed.step.shown
            self._running[name] = _Kept() if self._running else None

        def sink(stream: int, data: bytes) -> None:
            with self._lock:
                kept = self._running.get(name)
                if kept is None:
                    self._show(name, stream, data)
                else:
                    kept.write(stream, data)

        return sink

    def end(self, name: str) -> None:
        """Show what was kept of a step that has ended; if it was the first, another one is."""
        with self._lock:
            self._release(name)
            del self._running[name]
            if self._running:
                self._release(next(iter(self._running)))

    def _release(self, name: str) -> None:
        """Show what was kept of a step, and from now on its output as it comes."""
        kept, self._running[name] = self._running[name], None
        if kept is not None:
            kept.show(lambda stream, data: self._show(name, stream, data))

    def _show(self, name: str, stream: int, data: bytes) -> None:
        if self._titles and self._last != name:
            self.finish_line()
            command = " ".join(self._commands[name].split())
            say(f"cachefs: {name}: {mask_text(command)}", err=True)
            self._last = name
        write(stream, data)
        (self._unfinished.discard if data.endswith(b"\n") else self._unfinished.add)(stream)

    def finish_line(self) -> None:
        """Begin a new line on the terminal, if a step left one unfinished."""
        for stream in sorted(self._unfinished):
            if os.isatty(stream):
                write(stream, b"\n")
                break
        self._unfinished.clear()
        sys.stdout.flush()
