"""Work spread over other processes or machines, in slices of the digest space.

Any ``concurrent.futures.Executor`` does: a process pool, or Dask's ``Client.get_executor()``. What
goes out is a function of this package, a :class:`CacheSpec` and plain data; plain data comes
back. Locations, secrets and filesystem objects travel inside the pickle, as they do with fsspec and
Dask. A task whose worker is lost is done again, here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import secrets
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from cachefs.concurrency import run, task_group
from cachefs.errors import CacheError
from cachefs.layout.opening import open_layout
from cachefs.transfer.lookup import Slice, list_blobs, list_slice, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from fsspec import AbstractFileSystem

    from cachefs.digest import Digest
    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout
    from cachefs.location.options import Location

T = TypeVar("T")

PARTS: Final = 64
"""Slices that work is cut into: many enough to keep workers even, and to lose little with one."""

KEPT: Final = 4
"""Caches that a worker keeps open from one task to the next."""

logger = logging.getLogger("cachefs")


class CacheSpec(NamedTuple):
    """What is needed to open a cache on another machine; can be pickled.

    Its text would show no secrets, but its pickle has them: it goes to workers that are trusted.
    """

    location: Location
    fs: AbstractFileSystem | None = None
    side: str | None = None

    def open(self) -> Layout:
        """The cache's layout, opened once a process: a new S3 client alone takes half a second."""
        key = (os.getpid(), pickle.dumps(self))
        layout = _opened.get(key)
        if layout is None:
            layout = open_layout(self.location, fs=self.fs, side=self.side)
            while len(_opened) >= KEPT:
                _opened.pop(next(iter(_opened)), None)
            _opened[key] = layout
        return layout


_opened: Final[dict[tuple[int, bytes], Layout]] = {}


class Workers(NamedTuple):
    """An executor, and the cache that its workers open. The executor stays open."""

    executor: Executor
    cache: CacheSpec


async def spread(
    executor: Executor,
    work: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    done: Callable[[T], None] | None = None,
) -> list[T]:
    """``work(*task)`` for every task, in the executor; what they return, in order.

    Args:
        executor: where they run. It stays open.
        work: a function of a module, so that it can be pickled by its name.
        tasks: their arguments.
        done: told of each result, as it comes.

    What the work itself raises as a CacheError comes out, and the other tasks are cancelled. Any
    other failure is the loss of a worker: the task is done again in a thread of this process, one
    of these at a time.
    """
    results: dict[int, T] = {}
    here = asyncio.Lock()

    async def one(position: int) -> None:
        task = tasks[position]
        try:
            packed = pickle.dumps((work, task))
            future = await asyncio.to_thread(executor.submit, once, secrets.token_hex(8), packed)
            answer = await asyncio.wrap_future(future)
            results[position] = pickle.loads(answer)  # noqa: S301 - from our own worker
        except CacheError:
            raise
        except (Exception, CancelledError, asyncio.CancelledError) as error:
            if _is_cancelled():
                raise
            logger.warning(
                "a worker is lost (%s); its part of the work is done again here",
                type(error).__name__,
            )
            async with here:
                results[position] = await asyncio.to_thread(work, *task)
        if done is not None:
            done(results[position])

    async with task_group() as group:
        for position in range(len(tasks)):
            group.create_task(one(position))
    return [results[position] for position in range(len(tasks))]


def once(_mark: str, packed: bytes) -> bytes:
    """What runs on a worker: unpack a function with its arguments, call it, pack what it returns.

    Packed, because Dask takes simple data apart and gives plain text back for digests; marked,
    because Dask makes one of two equal calls, and stores change in between.
    """
    work, task = pickle.loads(packed)  # noqa: S301 - from whoever gave us the work
    return pickle.dumps(work(*task))


def _is_cancelled() -> bool:
    """Whether this task is to end, and not just the future that it waited for."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


async def list_spread(workers: Workers) -> dict[Digest, Stat]:
    """Every blob of the cache, listed by the executor, in the order of digests.

    A filesystem that cannot list a part is listed here, once. Raises StoreError.
    """
    executor, place = workers
    layout = place.open()
    if not layout.store.filesystem.pages:
        return await list_blobs(layout)
    parts = await spread(executor, list_part, [(place, part) for part in slices(PARTS)])
    return {digest: stat for part in parts for digest, stat in part.items()}


def list_part(place: CacheSpec, part: Slice) -> dict[Digest, Stat]:
    """Every blob of a slice: what a worker does for :func:`list_spread`."""
    return run(list_slice(place.open(), part))
