"""Spreading work over other processes or machines, in slices of the digest space.

Any ``concurrent.futures.Executor`` works: a process pool, or Dask's ``Client.get_executor()``. A
task is a function of this package, a :class:`CacheSpec` and plain data; it returns plain data.
Locations, secrets and filesystem objects travel inside the pickle, as they do with fsspec and Dask.
If a worker is lost, its task is repeated in this process.
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
"""Number of slices: enough to balance the load, and to lose little if a worker is lost."""

KEPT: Final = 4
"""Number of caches that a worker keeps open between tasks."""

logger = logging.getLogger("cachefs")


class CacheSpec(NamedTuple):
    """What is needed to open a cache on another machine; can be pickled.

    Its repr shows no secrets, but its pickle contains them: send it to trusted workers only.
    """

    location: Location
    fs: AbstractFileSystem | None = None
    side: str | None = None

    def open(self) -> Layout:
        """The cache's layout, opened once per process: a new S3 client takes half a second."""
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
    """Call ``work(*task)`` for every task in the executor, and return the results in order.

    Args:
        executor: where the tasks run. It stays open.
        work: a module-level function, so that it can be pickled by name.
        tasks: the arguments of each task.
        done: called with each result as it arrives.

    A CacheError that ``work`` raises is raised here, and the other tasks are cancelled. Any other
    failure counts as the loss of a worker: the task is repeated in a thread of this process, one
    such task at a time.
    """
    results: dict[int, T] = {}
    one_at_a_time = asyncio.Lock()

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
                "a worker was lost (%s); its part of the work is repeated in this process",
                type(error).__name__,
            )
            async with one_at_a_time:
                results[position] = await asyncio.to_thread(work, *task)
        if done is not None:
            done(results[position])

    async with task_group() as group:
        for position in range(len(tasks)):
            group.create_task(one(position))
    return [results[position] for position in range(len(tasks))]


def once(_mark: str, packed: bytes) -> bytes:
    """Run on a worker: unpickle a function with its arguments, call it, and pickle the result.

    Both are pickled because Dask takes simple data apart and returns plain text for digests. The
    mark makes equal calls differ: Dask would run only one of them, but stores change in between.
    """
    work, task = pickle.loads(packed)  # noqa: S301 - from the process that submitted the work
    return pickle.dumps(work(*task))


def _is_cancelled() -> bool:
    """Whether this task was cancelled, and not just the future that it awaited."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


async def list_spread(workers: Workers) -> dict[Digest, Stat]:
    """Every blob of the cache, listed by the executor, in the order of digests.

    A filesystem that cannot list a slice is listed once, in this process. Raises StoreError.
    """
    executor, spec = workers
    layout = spec.open()
    if not layout.store.filesystem.pages:
        return await list_blobs(layout)
    parts = await spread(executor, list_part, [(spec, part) for part in slices(PARTS)])
    return {digest: stat for part in parts for digest, stat in part.items()}


def list_part(spec: CacheSpec, part: Slice) -> dict[Digest, Stat]:
    """Every blob of a slice, listed by a worker for :func:`list_spread`."""
    return run(list_slice(spec.open(), part))
