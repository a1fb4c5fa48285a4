"""Two small ways to let reading, hashing and compressing run at the same time.

Hashing and compression release the interpreter lock, so a thread for each is enough to use the
cores. Every backlog is bounded, so memory is too.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

_Piece = TypeVar("_Piece")

BACKLOG: Final = 4
"""Calls, or chunks of data, that may wait for their turn."""


class Behind:
    """Runs calls one after the other in a thread, at most :data:`BACKLOG` behind the caller.

    An exception of a call is raised by a later :meth:`call` or by :meth:`finish`.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._waiting: deque[Future[object]] = deque()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Queue a call; waits while the backlog is full. Raises what an earlier call raised."""
        while len(self._waiting) >= BACKLOG:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def finish(self) -> None:
        """Wait for every call. Raises what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()


@contextmanager
def behind(name: str) -> Iterator[Behind]:
    """A :class:`Behind` whose thread ends with the context; calls that still wait are dropped."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    try:
        yield Behind(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def ahead(chunks: Iterator[_Piece], name: str) -> Iterator[Iterator[_Piece]]:
    """The same chunks, each made in a thread while the caller still works on those before.

    An exception of the iterator is raised where its chunk would have come.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    try:
        yield _in_order(pool, chunks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ThreadPoolExecutor, chunks: Iterator[_Piece]) -> Iterator[_Piece]:
    waiting = deque(pool.submit(next, chunks, None) for _ in range(BACKLOG))
    while (chunk := waiting.popleft().result()) is not None:
        waiting.append(pool.submit(next, chunks, None))
        yield chunk
