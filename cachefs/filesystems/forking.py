"""A filesystem per process: what was opened before a fork is opened anew after it.

A forked process inherits connections, but none of the threads that serve them: calls would hang,
or use the connections of the parent. ``gunicorn --preload``, Celery and ``multiprocessing`` fork.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsspec import AbstractFileSystem

    from cachefs.filesystems.base import Filesystem

_LEFT_BEHIND: Final[list[object]] = []
"""What belongs to the parent. If it was deleted, it would close connections that both share."""

_HERE: Final = {"fsspec.implementations.local", "fsspec.implementations.memory"}
"""Filesystems without connections, which the new process continues to use."""


class OfThisProcess:
    """A filesystem, opened anew once the process is another one.

    Args:
        filesystem: opened by this process.
        reopen: opens the same filesystem in another process.
    """

    def __init__(self, filesystem: Filesystem, reopen: Callable[[], Filesystem]) -> None:
        self._filesystem = filesystem
        self._reopen = reopen
        self._process = os.getpid()

    def get(self) -> Filesystem:
        """The filesystem. Raises UsageError if it cannot be opened anew, and StoreError."""
        if self._process != os.getpid():
            old = self._filesystem
            _LEFT_BEHIND.append(old)
            self._filesystem = self._reopen()
            self._filesystem.patience.once = old.patience.once
            self._process = os.getpid()
        return self._filesystem


def again(fs: AbstractFileSystem) -> AbstractFileSystem:
    """Make a caller's filesystem object once more, from the arguments that fsspec has recorded.

    Raises UsageError if it cannot be made in another process.
    """
    kind: Any = type(fs)
    if kind.__module__ in _HERE:
        return fs
    if getattr(fs, "asynchronous", False) or "loop" in fs.storage_options:
        raise _lost("it has an event loop of its own")
    options = {**fs.storage_options, "skip_instance_cache": True}
    try:
        made: AbstractFileSystem = kind(*fs.storage_args, **options)
    except Exception as error:
        raise _lost(f"{type(error).__name__}") from error
    return made


def _keep_connections() -> None:
    """In a new process, do not close connections of the parent when it ends.

    Filesystems register this with ``weakref.finalize``. adlfs even waits for the parent's IO loop.
    fsspec refuses to use these filesystems in this process.
    """
    if "fsspec.asyn" not in sys.modules:
        return
    from fsspec.asyn import AsyncFileSystem  # noqa: PLC0415 - slow to load, and loaded already

    for finalizer in [*getattr(weakref.finalize, "_registry", ())]:
        alive = finalizer.peek()
        if alive is not None and isinstance(alive[0], AsyncFileSystem):
            finalizer.detach()


os.register_at_fork(after_in_child=_keep_connections)


def _lost(reason: str) -> UsageError:
    return UsageError(
        "the filesystem object was made before this process was forked, and cannot be made again "
        f"({reason}): make it, and open the cache, in the new process"
    )
