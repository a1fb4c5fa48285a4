"""Executors: pools of ``concurrent.futures``, and Dask's Client."""

from __future__ import annotations

import asyncio
import logging
import pickle
import secrets
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import suppress
from typing import Any, Final, Protocol

from cachefs.building.losses import ExecutorLostError, NotSentError, WorkerLostError
from cachefs.building.remote import RemoteResult, RemoteStep, work
from cachefs.errors import UsageError

logger = logging.getLogger("cachefs")


_KILLED: Final = "KilledWorker"
"""Dask's error for work that several workers were lost with."""


class StepExecutor(Protocol):
    """Runs steps elsewhere."""

    async def run(self, step: RemoteStep) -> RemoteResult:
        """Run a step, and return what it returns.

        Raises the errors of :func:`work`, NotSentError, WorkerLostError and ExecutorLostError.
        """

    def close(self) -> None:
        """Nothing more is sent. The executor itself stays open."""


def as_executor(executor: object) -> StepExecutor:
    """What runs steps on an executor of a caller. Raises UsageError."""
    if isinstance(executor, Executor):
        return _Pool(executor)
    if type(executor).__module__.partition(".")[0] == "distributed" and hasattr(executor, "submit"):
        return _Dask(executor)
    raise UsageError(
        f"{executor!r} is neither an executor of concurrent.futures nor a Client of Dask"
    )


class _Pool:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(self, step: RemoteStep) -> RemoteResult:
        if isinstance(self._executor, ProcessPoolExecutor):
            _check_pickle(step)
        try:
            future = await asyncio.to_thread(self._executor.submit, work, step)
        except (BrokenExecutor, RuntimeError) as error:  # RuntimeError: it was shut down
            raise ExecutorLostError(str(error)) from error
        try:
            return await asyncio.wrap_future(future)
        except Exception as error:
            if isinstance(error, BrokenExecutor) or type(error).__name__ == _KILLED:
                raise WorkerLostError(str(error)) from error
            raise

    def close(self) -> None:
        """Nothing is open."""


def _check_pickle(step: RemoteStep) -> None:
    try:
        pickle.dumps(step)
    except Exception as error:  # pickle calls methods of any object, which may raise anything
        raise NotSentError(f"{error}; define its function at the top of a module") from error


class _Dask:
    """Dask sends the work of a lost worker to another one by itself, until it has lost several.

    The scheduler counts that, so it is asked at the end.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def run(self, step: RemoteStep) -> RemoteResult:
        key = f"cachefs-{secrets.token_hex(8)}"
        future = await asyncio.to_thread(self._client.submit, work, step, key=key, pure=False)
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
        try:
            await done.wait()
        except asyncio.CancelledError:
            future.cancel()
            raise
        return await asyncio.to_thread(self._result, step, future)

    def _result(self, step: RemoteStep, future: Any) -> RemoteResult:
        if future.status == "cancelled":
            raise ExecutorLostError("the scheduler was lost, or the work was cancelled there")
        try:
            result: RemoteResult = future.result()
        except Exception as error:
            if type(error).__name__ == _KILLED:
                raise WorkerLostError(str(error).splitlines()[0]) from error
            raise
        with suppress(Exception):  # it only serves a message
            if self._client.run_on_scheduler(_lost_workers, key=future.key):
                logger.warning("step %r lost its worker; it was sent again", step.name)
        return result

    def close(self) -> None:
        """Nothing is open."""


def _lost_workers(key: str, dask_scheduler: Any) -> int:
    """How many workers the scheduler has lost while they worked on a task."""
    return int(dask_scheduler.tasks[key].suspicious)
