"""The event loop in which everything runs: fsspec's, because its filesystems belong to it.

Loading fsspec takes a quarter of the time of a command that finds its result in a directory, and a
directory needs nothing of it. So the program begins with a loop that it has made itself, and fsspec
takes that one over when it is loaded. A Python program that uses this package may have fsspec make
a loop at any time, so there it is fsspec's from the beginning.
"""

from __future__ import annotations

import asyncio
import os
import sys
from threading import Lock, Thread
from typing import Any, Final


class _Loops:
    """The loop of this process that fsspec has not made, if there is one.

    Attributes:
        alone: whether fsspec is not needed yet.
    """

    def __init__(self) -> None:
        self.alone = False
        self.forget()

    def forget(self) -> None:
        """A forked process has none of its parent's threads; fsspec forgets its loop there too."""
        self._lock = Lock()
        self._own: tuple[asyncio.AbstractEventLoop, Thread] | None = None

    def own(self) -> asyncio.AbstractEventLoop:
        """A loop in a thread, made once."""
        with self._lock:
            if self._own is None:
                loop = asyncio.new_event_loop()
                self._own = loop, Thread(target=loop.run_forever, name="cachefs-io", daemon=True)
                self._own[1].start()
            return self._own[0]

    def hand_over(self, asyn: Any) -> None:
        """Let fsspec use the loop, if there is one and fsspec has none."""
        with self._lock:
            if self._own is not None and asyn.loop[0] is None:
                asyn.loop[0], asyn.iothread[0] = self._own


_loops: Final = _Loops()
os.register_at_fork(after_in_child=_loops.forget)


def begin_without_fsspec() -> None:
    """Do without fsspec until :func:`loaded_fsspec` is called.

    Only for a program that makes no filesystems of fsspec itself.
    """
    _loops.alone = True


def io_loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs in a thread of its own."""
    if _loops.alone and "fsspec.asyn" not in sys.modules:
        return _loops.own()
    loop: asyncio.AbstractEventLoop = loaded_fsspec().asyn.get_loop()
    return loop


def loaded_fsspec() -> Any:
    """The module fsspec, with this loop. To be called before any of its filesystems is made."""
    import fsspec.asyn  # noqa: PLC0415 - slow to load

    _loops.hand_over(fsspec.asyn)
    return fsspec
