"""Concurrent calls of one key: one of them works, and the others wait for it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

_under_way: Final[ContextVar[frozenset[tuple[Hashable, ...]]]] = ContextVar(
    "under way", default=frozenset()
)
"""The keys that this thread or task works on, from outer to inner calls."""


class Flights:
    """Calls that are under way, by key. For threads and for tasks of any event loop."""

    def __init__(self) -> None:
        self._futures: dict[tuple[Hashable, ...], Future[Any]] = {}

    def join(self, key: Hashable) -> tuple[Future[Any], bool]:
        """The future of a key, and whether it is the caller who has to :meth:`fly`.

        Raises UsageError within a call of the same key: it would wait for itself.
        """
        # The process is part of the key, because nobody completes its parent's calls in a child.
        whole = (id(self), os.getpid(), key)
        mine: Future[Any] = Future()
        future = self._futures.setdefault(whole, mine)
        if future is not mine and whole in _under_way.get():
            raise UsageError("the function calls itself with the same arguments, without an end")
        return future, future is mine

    @contextmanager
    def fly(self, key: Hashable, future: Future[Any]) -> Iterator[None]:
        """Work on a key: the others get the result that the block sets, or its exception.

        If it is interrupted or cancelled, one of the others works instead.
        """
        whole = (id(self), os.getpid(), key)
        token = _under_way.set(_under_way.get() | {whole})
        try:
            yield
        except Exception as error:
            self._futures.pop(whole, None)
            future.set_exception(error)
            raise
        finally:
            _under_way.reset(token)
            self._futures.pop(whole, None)
            if not future.done():
                future.cancel()


async def landed(future: Future[Any]) -> None:
    """Wait until another call has ended. Being cancelled does not cancel that call."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def wake(_future: object) -> None:
        with suppress(RuntimeError):  # this loop was closed in the meantime
            loop.call_soon_threadsafe(event.set)

    future.add_done_callback(wake)
    await event.wait()


def outcome(future: Future[Any]) -> tuple[bool, Any]:
    """Wait for another call: whether it ended, and its result. Raises its exception."""
    try:
        return True, future.result()
    except CancelledError:
        if not future.cancelled():
            raise  # the function itself raised it
        return False, None
