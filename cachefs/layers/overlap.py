"""Two small ways to overlap reading, hashing and compressing.

Hashing and compression release the GIL, so with a thread for each, they use the cores. Every
backlog is bounded, so memory is too.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

Chunk = TypeVar("Chunk")

BACKLOG: Final = 4
"""Calls, or chunks of data, that may be queued."""


class CallQueue:
    """Runs calls in order in one thread, with at most :data:`BACKLOG` of them queued.

    An exception in a call is raised by a later :meth:`call` or by :meth:`finish`.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._waiting: deque[Future[object]] = deque()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """CallQueue a call; waits while the backlog is full. Raises what an earlier call raised."""
        while len(self._waiting) >= BACKLOG:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def finish(self) -> None:
        """Wait for every call. Raises what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()


@contextmanager
def background(name: str) -> Iterator[CallQueue]:
    """A :class:`CallQueue` whose thread ends with the context; calls still queued are cancelled."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    try:
        yield CallQueue(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def prefetched(chunks: Iterator[Chunk], name: str) -> Iterator[Iterator[Chunk]]:
    """The same chunks, prefetched in a thread while the caller works on earlier ones.

    An exception in the iterator is raised instead of its chunk.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    try:
        yield _in_order(pool, chunks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ThreadPoolExecutor, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    waiting = deque(pool.submit(next, chunks, None) for _ in range(BACKLOG))
    while (chunk := waiting.popleft().result()) is not None:
        waiting.append(pool.submit(next, chunks, None))
        yield chunk
